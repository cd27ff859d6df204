//! The result of a dialect for a request.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use secrecy::SecretString;

use super::call::{Call, EnclosedCall};
use super::command::{CommandHandler, Outcome};
use super::own::Dialect;
#[cfg(feature = "kuzzle")]
use super::socket::Upgrade;
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::reply::{Reply, ReplyBody};

/// The result of a dialect for a request.
#[non_exhaustive]
pub enum Answer {
    /// A reply, with its outcome for the access log.
    Reply(Reply, Reason),
    /// A reply that depends on the response of the service behind the gate.
    Consult(Consult),
    /// A call for the service behind the gate. The route for the request's path must permit the call.
    Forward(Forward),
    /// The dialect takes over the connection.
    #[cfg(feature = "kuzzle")]
    Upgrade(Upgrade),
}

impl From<(Reply, Reason)> for Answer {
    fn from((reply, reason): (Reply, Reason)) -> Self {
        Self::Reply(reply, reason)
    }
}

rotogate_core::debug_with!(Answer, |it, f| f.write_str(match it {
    Answer::Reply(..) => "Reply(…)",
    Answer::Consult(_) => "Consult(…)",
    Answer::Forward(_) => "Forward(…)",
    #[cfg(feature = "kuzzle")]
    Answer::Upgrade(_) => "Upgrade(…)",
}));

/// A request that the gate sends to the service without its body, if the route permits the request. The dialect makes
/// the reply from the service's response. Only operations with [`Protocol::consults`](super::Protocol::consults) may
/// use this variant.
pub struct Consult {
    /// Makes the reply, and the outcome for the access log.
    pub then: Box<dyn FnOnce(ConsultResult) -> (Reply, Reason) + Send>,
}

/// The response of the service behind the gate.
#[derive(Debug)]
pub enum ConsultResult {
    /// There is no service behind the gate.
    NoService,
    /// The route for the path rejects the request.
    Refused(Denial),
    /// The response was incomplete after 10 seconds, or its body is longer than 1 MiB.
    Failed,
    /// The response's status and body.
    Said(StatusCode, Bytes),
}

/// A request that the gate forwards if the route for its path permits it.
#[non_exhaustive]
pub struct Forward {
    /// The credential from the body, which replaces a credential in `Authorization`.
    pub credential: Option<SecretString>,
    /// The body. Only the server that issued a credential may get it in the body.
    pub body: Bytes,
    /// The call that the body contains.
    pub called: EnclosedCall,
    /// Whether the call needs no caller, such as a login. The service then gets no credential in the head.
    pub is_anonymous: bool,
    /// Whether the body still contains the credential. The call is then rejected unless the gate has checked the
    /// credential.
    pub keeps_credential: bool,
    /// Writes the reply to a rejected request.
    pub refused: Box<dyn FnOnce(Denial) -> Reply + Send>,
}

pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = status;
    reply
}

/// A JSON reply that must not be cached, because it may contain tokens.
pub(super) fn json<T: serde::Serialize>(status: StatusCode, body: &T) -> Reply {
    let mut reply = Response::new(ReplyBody::from(serde_json::to_vec(body).unwrap_or_default()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// Reads the command, lets `gate` execute it, and writes the outcome.
pub(crate) async fn by_command<D: Dialect + ?Sized>(dialect: &D, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
    let outcome = match dialect.read(call) {
        Ok(command) => gate.execute(command).await,
        Err(denial) => Err(denial.into()),
    };
    let reason = reason(&outcome);
    Answer::Reply(dialect.write(call, outcome), reason)
}

pub(super) fn reason(outcome: &Result<Outcome, Error>) -> Reason {
    outcome.as_ref().map_or_else(Reason::from, |_| Reason::ANSWERED)
}

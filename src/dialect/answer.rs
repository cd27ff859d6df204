//! The result that a dialect returns for a request: a reply, a request to forward, or a connection that the dialect
//! takes over.

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

/// The result that a dialect returns for a request.
#[non_exhaustive]
pub enum Answer {
    /// A reply, with the outcome that the access log records.
    Reply(Reply, Reason),
    /// A reply that the dialect can write only after the service behind the gate has responded to the same request.
    Consult(Consult),
    /// The request contains a call for the service behind the gate. The gate forwards it if the route for its path
    /// permits it.
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

/// A request that the gate sends to the service without its body, if the route for its path permits it. The dialect
/// makes the gate's own reply from the service's response. Only operations for which
/// [`Protocol::consults`](super::Protocol::consults) returns true may use it.
pub struct Consult {
    /// Makes the reply from the service's response. Also makes the outcome for the access log.
    pub then: Box<dyn FnOnce(ConsultResult) -> (Reply, Reason) + Send>,
}

/// The response of the service behind the gate.
#[derive(Debug)]
pub enum ConsultResult {
    /// There is no service behind the gate.
    NoService,
    /// The route for the request's path rejects the request.
    Refused(Denial),
    /// The service sent no complete response within 10 seconds, or the body of its response is longer than 1 MiB.
    Failed,
    /// The status and the body of the service's response.
    Said(StatusCode, Bytes),
}

/// A request that the gate forwards if the route for its path permits it.
#[non_exhaustive]
pub struct Forward {
    /// The credential from the body. It replaces a credential in `Authorization`.
    pub credential: Option<SecretString>,
    /// The body, from which the credentials were removed.
    pub body: Bytes,
    /// The call in the body.
    pub called: EnclosedCall,
    /// Writes the reply if the request is rejected.
    pub refused: Box<dyn FnOnce(Denial) -> Reply + Send>,
}

/// A reply without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = status;
    reply
}

/// A JSON reply with headers that forbid caching, because it may contain tokens.
pub(super) fn json<T: serde::Serialize>(status: StatusCode, body: &T) -> Reply {
    let mut reply = Response::new(ReplyBody::from(serde_json::to_vec(body).unwrap_or_default()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// Handles a request in three steps: reads its command, lets `gate` execute the command, and writes the outcome.
pub(crate) async fn by_command<D: Dialect + ?Sized>(dialect: &D, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
    let outcome = match dialect.read(call) {
        Ok(command) => gate.execute(command).await,
        Err(denial) => Err(denial.into()),
    };
    let reason = reason(&outcome);
    Answer::Reply(dialect.write(call, outcome), reason)
}

/// Returns the outcome of a command for the access log.
pub(super) fn reason(outcome: &Result<Outcome, Error>) -> Reason {
    outcome.as_ref().map_or_else(Reason::from, |_| Reason::ANSWERED)
}

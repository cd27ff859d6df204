//! Dialects: thin translations between one wire protocol and the engine's commands, and the words of that protocol for
//! each refusal. A dialect holds no state and takes no decision.
//!
//! Most need no more than [`Dialect::read`], which turns a request into a [`Command`], and [`Dialect::write`], which turns
//! what came of it into a reply; [`oauth2`] is the example to follow. One whose messages do not map to one command each
//! has [`Dialect::answer`] instead.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Response, StatusCode};
use secrecy::SecretString;

use crate::client::Presented;
use crate::denial::{Denial, NotGood};
use crate::directory::User;
use crate::engine::Issued;
use crate::fault::Error;
use crate::reason::Reason;
use crate::session::Scope;
use crate::session::profile::ProfileOverride;
use crate::token::claims::TokenStyle;

pub mod envelope;
#[cfg(feature = "grpc")]
pub mod knox;
pub mod kuzzle;
pub mod oauth2;
#[cfg(feature = "kuzzle")]
mod socket;

pub use crate::reply::{Reply, ReplyBody, StreamedBody};
#[cfg(feature = "kuzzle")]
pub use socket::{Identity as SocketIdentity, Serve, SocketGate, Upgrade};

/// What a dialect makes of a request.
pub enum Answer {
    /// A reply, and for the access log why it is not what was asked for.
    Reply(Reply, Reason),
    /// To be answered once the service behind the gate was asked the same.
    Consult(Consult),
    /// Not the gate's to answer: what the request was wrapped around goes to the route of its path.
    Forward(Forward),
    /// The connection is to be the dialect's.
    #[cfg(feature = "kuzzle")]
    Upgrade(Upgrade),
}

impl From<(Reply, Reason)> for Answer {
    fn from((reply, reason): (Reply, Reason)) -> Self {
        Self::Reply(reply, reason)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reply(..) => "Reply(…)",
            Self::Consult(_) => "Consult(…)",
            Self::Forward(_) => "Forward(…)",
            #[cfg(feature = "kuzzle")]
            Self::Upgrade(_) => "Upgrade(…)",
        })
    }
}

/// A request that is authorised like any other on the route of its path, and passed on without its body, for what is
/// said there to be part of the gate's own reply.
pub struct Consult {
    /// Makes the reply, and says for the access log why it is not what was asked for.
    pub then: Box<dyn FnOnce(Consulted) -> (Reply, Reason) + Send>,
}

/// What the service behind the gate said.
#[derive(Debug)]
pub enum Consulted {
    /// There is none that can be asked.
    Nobody,
    /// The route of the path does not let the request pass.
    Refused(Denial),
    /// No whole reply came.
    Failed,
    /// A status and a body.
    Said(StatusCode, Bytes),
}

/// A request to be authorised like any other on the route of its path, and then forwarded.
pub struct Forward {
    /// The credential that stood in the body: it takes the place of the one in `Authorization`.
    pub credential: Option<SecretString>,
    /// The body, without credentials.
    pub body: Bytes,
    /// What the body asks for.
    pub called: Called,
    /// The words for a refusal.
    pub refused: Box<dyn FnOnce(Denial) -> Reply + Send>,
}

/// A call that stands in an envelope: it obeys the rules that routes have for it, besides those of the envelope's own
/// path (requirement T22).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// What rules name it by.
    pub name: String,
    /// The requests that are the same call without an envelope: method, and path in its canonical spelling. Empty where
    /// the protocol knows none.
    pub requests: Vec<(Method, String)>,
}

/// One operation that a dialect serves at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The dialect's own name for the operation.
    pub operation: &'static str,
    /// The path, a `matchit` template; a `{account}` in it names the account.
    pub template: String,
    /// The methods; others are 405.
    pub methods: &'static [Method],
    /// Raw spellings of this path besides the canonical one, because a real client sends them (requirement R12). A
    /// `{account}` in one is what the template's stands for.
    pub spellings: &'static [&'static str],
}

/// A request to an endpoint, read whole.
pub struct Call<'a> {
    /// Which operation.
    pub operation: &'static str,
    /// What the parameters of the template stand for, by name.
    pub params: &'a [(String, String)],
    /// The method, one of the operation's.
    pub method: &'a Method,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The path, canonical.
    pub path: &'a str,
    /// The query, without its `?`.
    pub query: Option<&'a str>,
    /// The body.
    pub body: &'a Bytes,
    /// Where it came from.
    pub address: Option<IpAddr>,
    /// Does the request prove that a page of ours, or of a listed origin, sent it (requirement T18)? A reply that sets a
    /// cookie needs this proof.
    pub from_own_origin: bool,
}

impl<'a> Call<'a> {
    /// What a parameter of the template stands for.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The account that the path names.
    pub fn account(&self) -> Option<&'a str> {
        self.param("account")
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers, query and body may hold credentials.
        f.debug_struct("Call").field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// What is presented to be exchanged.
#[derive(Debug)]
pub enum RefreshCredential {
    /// A refresh token.
    Refresh(SecretString),
    /// An access token that has not expired, where the protocol knows no other credential.
    Access(SecretString),
    /// Both, of one session.
    Pair {
        /// The access token.
        access: SecretString,
        /// The refresh token.
        refresh: SecretString,
        /// How long ago the access token may have expired.
        expired_for_at_most: Duration,
    },
}

/// What a client wants from the engine. A `client` of `None` is the endpoint's own, where the protocol names none.
#[derive(Debug)]
pub enum Command {
    /// A login with a password.
    Login {
        /// Which client asks.
        client: Option<Presented>,
        /// Who logs in.
        username: String,
        /// With what.
        password: SecretString,
        /// For which scope; `None` for all that is allowed.
        scope: Option<Scope>,
        /// For how long; `None` for the profile's time.
        access_ttl: Option<Duration>,
    },
    /// A token for the client's own account.
    ClientToken {
        /// Which client asks.
        client: Presented,
        /// For which scope.
        scope: Option<Scope>,
    },
    /// A rotation.
    Refresh {
        /// Which client asks.
        client: Option<Presented>,
        /// With what.
        credential: RefreshCredential,
        /// For which scope.
        scope: Option<Scope>,
        /// For how long.
        access_ttl: Option<Duration>,
    },
    /// The end of what a token belongs to, of whatever kind it is; nothing, if nobody knows it (RFC 7009).
    Revoke {
        /// Which client asks.
        client: Option<Presented>,
        /// Which token.
        token: SecretString,
    },
    /// The end of the session of a good access token.
    Logout {
        /// The token.
        access: SecretString,
        /// Ends all sessions of its user.
        everywhere: bool,
    },
    /// What a token is now (RFC 7662), for a confidential client.
    Introspect {
        /// Which client asks.
        client: Presented,
        /// Which token.
        token: SecretString,
    },
    /// What an access token is now, for whoever has it.
    Check {
        /// The token.
        access: SecretString,
        /// A token that was superseded counts as good as long as it may be exchanged for the same successor again.
        superseded_in_grace: bool,
    },
}

/// What came of a command.
#[derive(Debug)]
pub enum Outcome {
    /// Tokens.
    Issued(Box<Issued>),
    /// It is gone, or was never there: the caller need not know which.
    Revoked,
    /// What the token is now, or why it is not good: either way, a decision. What could not be decided is an error.
    Checked(Result<Box<Checked>, NotGood>),
}

/// A token that is good now.
#[derive(Clone, Debug)]
pub struct Checked {
    /// `sub`.
    pub subject: Box<str>,
    /// `client_id`.
    pub client: Box<str>,
    /// `scope`.
    pub scope: Scope,
    /// `exp`.
    pub expires: crate::clock::Timestamp,
    /// `iat`.
    pub issued_at: Option<crate::clock::Timestamp>,
    /// `iss`.
    pub issuer: Box<str>,
    /// `aud`.
    pub audience: std::sync::Arc<[Box<str>]>,
    /// `jti`.
    pub jti: Option<Box<str>>,
    /// `nbf`.
    pub not_before: Option<crate::clock::Timestamp>,
    /// `sid`.
    pub session: Option<crate::session::SessionId>,
    /// The account.
    pub account: Option<Box<str>>,
    /// What the directory says of the subject, where it was asked.
    pub user: Option<User>,
}

/// Carries commands out: the gate, at the endpoint where a request came in.
#[async_trait]
pub trait Acting: Send + Sync {
    /// Carries a command out.
    async fn act(&self, command: Command) -> Result<Outcome, Error>;
}

/// Where a dialect's clients put their access token on a data route, besides `Authorization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// A parameter of the query. `Authorization` wins over it, and it is never forwarded.
    pub query: Option<&'static str>,
    /// A cookie. Both a token and a cookie are refused, and it is never forwarded.
    pub cookie: Option<&'static str>,
}

/// The templates of an OAuth 2 server's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthPaths {
    /// RFC 6749 §3.2.
    pub token: String,
    /// RFC 7009.
    pub revocation: String,
    /// RFC 7662.
    pub introspection: String,
}

/// One wire protocol.
#[async_trait]
pub trait Dialect: fmt::Debug + Send + Sync + 'static {
    /// Its name in `gateway.toml`.
    fn name(&self) -> &'static str;

    /// What it serves at an endpoint whose path is `base`.
    fn serves(&self, base: &str) -> Vec<Served>;

    /// The path of an endpoint that names none.
    fn default_path(&self) -> &'static str;

    /// The rules that its protocol asks for; the configuration may say otherwise.
    fn profile(&self) -> ProfileOverride {
        ProfileOverride::default()
    }

    /// The client of its sessions, where the protocol names none.
    fn client(&self) -> Option<&'static str> {
        None
    }

    /// Does its protocol exchange an access token for the next one, and know no other refresh credential? Then such a
    /// token of its sessions, and of no others, is one (requirement R17).
    fn refreshes_by_access(&self) -> bool {
        false
    }

    /// What its clients need of an access token.
    fn token_style(&self) -> TokenStyle {
        TokenStyle::default()
    }

    /// The largest body of a request for this operation, in bytes; `None` for the gate's own bound. Beyond that bound it is
    /// read from those alone who show a good token.
    fn max_body(&self, operation: &str) -> Option<usize> {
        let _ = operation;
        None
    }

    /// The token that the beginning of a body names, where the protocol has it in bodies: looked for once a body turns out
    /// to be longer than the gate's own bound, in as much of it.
    fn token_in(&self, operation: &str, begun: &[u8]) -> Option<SecretString> {
        let _ = (operation, begun);
        None
    }

    /// Is an operation for requests alone that ask for an upgrade? Others go to the routes.
    fn upgrades(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Is an operation for calls of any kind, of which those that are not ours go to the route of its path?
    fn is_envelope(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Is the service behind the gate asked the same, by the route of the path, before an operation is answered?
    fn consults(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Where its clients put their access token on a data route.
    fn sources(&self) -> Sources {
        Sources::default()
    }

    /// Where an OAuth 2 client finds what the dialect serves at `base`, for the gate's metadata (RFC 8414); `None` for
    /// other protocols.
    fn oauth(&self, base: &str) -> Option<OAuthPaths> {
        let _ = base;
        None
    }

    /// Reads a request.
    ///
    /// # Errors
    /// What the protocol does not allow.
    fn read(&self, call: &Call<'_>) -> Result<Command, Denial>;

    /// Writes what came of a request, or why nothing did.
    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply;

    /// Answers a request: reads it, has it carried out, writes what came of it. Also says why it was refused, if it was.
    async fn answer(&self, call: &Call<'_>, gate: &dyn Acting) -> Answer {
        let outcome = match self.read(call) {
            Ok(command) => gate.act(command).await,
            Err(denial) => Err(denial.into()),
        };
        let reason = reason(&outcome);
        Answer::Reply(self.write(call, outcome), reason)
    }

    /// Is this operation answered while the request still comes, by [`Dialect::stream`]?
    fn is_streamed(&self, operation: &str) -> bool {
        let _ = operation;
        false
    }

    /// Answers a request to such an operation, whose body is not in `call`. What it serves is no secret and changes
    /// nothing: there is no gate to act.
    async fn stream(&self, call: &Call<'_>, body: StreamedBody) -> (Reply, Reason) {
        drop(body);
        let denial = Denial::NoRoute;
        (self.write(call, Err(denial.into())), denial.into())
    }

    /// Does a request come from a client of this protocol, as far as its headers tell? For refusals on paths that are no
    /// endpoint's and no route's.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let _ = headers;
        false
    }

    /// Refuses a request on a data route, or near an endpoint, in the protocol's own words; `None` for the plain ones.
    fn refuse(&self, headers: &HeaderMap, denial: Denial) -> Option<Reply> {
        let _ = (headers, denial);
        None
    }

    /// Says with this status that a request could not be seen through, and why, in the protocol's own words; `None` for
    /// the plain ones.
    fn failed(&self, status: StatusCode, why: &'static str) -> Option<Reply> {
        let _ = (status, why);
        None
    }
}

/// Is the body said to be JSON? `None` where nothing is said; a parameter of the media type changes nothing (RFC 8259 §11).
///
/// A browser sends this media type to another origin only after a preflight, unlike text and forms (Fetch §3.3.2).
fn said_json(headers: &HeaderMap) -> Option<bool> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let media = types.next()?;
    let essence = media.to_str().ok().and_then(|media| media.split(';').next()).unwrap_or_default();
    Some(essence.trim().eq_ignore_ascii_case("application/json") && types.next().is_none())
}

/// A JSON reply that nobody keeps: it may hold tokens.
fn json<T: serde::Serialize>(status: http::StatusCode, body: &T) -> Reply {
    let mut reply = Response::new(ReplyBody::from(serde_json::to_vec(body).unwrap_or_default()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    reply
}

/// For the access log: what came of a command.
pub fn reason(outcome: &Result<Outcome, Error>) -> Reason {
    outcome.as_ref().map_or_else(Reason::from, |_| Reason::ANSWERED)
}

/// What `gateway.toml` may say to the dialect of an endpoint, besides its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// To [`envelope`].
    pub envelope: envelope::Envelope,
    /// To [`kuzzle`].
    pub kuzzle: kuzzle::Kuzzle,
}

/// Every dialect built in, by its name in `gateway.toml`.
pub fn by_name(name: &str, options: &Options) -> Option<Box<dyn Dialect>> {
    match name {
        oauth2::NAME => Some(Box::new(oauth2::OAuth2)),
        envelope::NAME => Some(Box::new(options.envelope)),
        #[cfg(feature = "grpc")]
        knox::NAME => Some(Box::<knox::Knox>::default()),
        kuzzle::NAME => Some(Box::new(options.kuzzle)),
        _ => None,
    }
}

/// The names of the dialects built in.
pub const NAMES: &[&str] = &[
    oauth2::NAME,
    envelope::NAME,
    kuzzle::NAME,
    #[cfg(feature = "grpc")]
    knox::NAME,
];

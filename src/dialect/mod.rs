//! Dialects: thin translations between one wire protocol and the engine's commands, and the words of that protocol for
//! each refusal. A dialect holds no state and takes no decision: [`Dialect::read`] turns a request into a [`Command`],
//! [`Dialect::write`] turns what came of it into a reply. Nothing else is asked of one.
//!
//! [`oauth2`] is the example to follow.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use secrecy::SecretString;

use crate::client::{Grant, Presented};
use crate::denial::{Denial, Error};
use crate::session::Scope;
use crate::session::engine::Issued;

pub mod oauth2;

/// A reply of ours: small, and there at once.
pub type Reply = Response<Bytes>;

/// One operation that a dialect serves at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The dialect's own name for the operation.
    pub operation: &'static str,
    /// The path, a `matchit` template; a `{account}` in it names the account.
    pub template: String,
    /// The methods; others are 405.
    pub methods: &'static [Method],
    /// Raw spellings of this path besides the canonical one, because a real client sends them (requirement R12).
    pub spellings: &'static [&'static str],
}

/// A request to an endpoint, read whole.
pub struct Call<'a> {
    /// Which operation.
    pub operation: &'static str,
    /// The account that the path names.
    pub account: Option<&'a str>,
    /// The method, one of the operation's.
    pub method: &'a Method,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The query, without its `?`.
    pub query: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// Where it came from.
    pub address: Option<IpAddr>,
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers, query and body may hold credentials.
        f.debug_struct("Call").field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// What a client wants from the engine.
#[derive(Debug)]
pub enum Command {
    /// A login with a password.
    Login {
        /// Which client asks.
        client: Presented,
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
        client: Presented,
        /// With which refresh credential.
        token: SecretString,
        /// For which scope.
        scope: Option<Scope>,
        /// For how long.
        access_ttl: Option<Duration>,
    },
    /// The end of what a token belongs to.
    Revoke {
        /// Which client asks.
        client: Presented,
        /// Which token, of whatever kind.
        token: SecretString,
    },
    /// What a token is now (RFC 7662).
    Check {
        /// Which client asks.
        client: Presented,
        /// Which token, of whatever kind.
        token: SecretString,
    },
}

impl Command {
    /// The client that asks.
    pub const fn client(&self) -> &Presented {
        match self {
            Self::Login { client, .. }
            | Self::ClientToken { client, .. }
            | Self::Refresh { client, .. }
            | Self::Revoke { client, .. }
            | Self::Check { client, .. } => client,
        }
    }

    /// The grant that the client needs for it, if it needs one.
    pub const fn grant(&self) -> Option<Grant> {
        match self {
            Self::Login { .. } => Some(Grant::Password),
            Self::ClientToken { .. } => Some(Grant::ClientCredentials),
            Self::Refresh { .. } => Some(Grant::RefreshToken),
            Self::Revoke { .. } | Self::Check { .. } => None,
        }
    }
}

/// What came of a command.
#[derive(Debug)]
pub enum Outcome {
    /// Tokens.
    Issued(Box<Issued>),
    /// It is gone, or was never there: the caller need not know which.
    Revoked,
    /// What the token is now; `None` for one that is not good, or not the caller's to know.
    Checked(Option<Box<Checked>>),
}

/// A token that is good now.
#[derive(Debug)]
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
    /// `sid`.
    pub session: Option<crate::session::SessionId>,
    /// The account.
    pub account: Option<Box<str>>,
}

/// One wire protocol.
pub trait Dialect: fmt::Debug + Send + Sync + 'static {
    /// Its name in `gateway.toml`.
    fn name(&self) -> &'static str;

    /// What it serves at an endpoint whose path is `base`.
    fn serves(&self, base: &str) -> Vec<Served>;

    /// The path of an endpoint that names none.
    fn default_path(&self) -> &'static str;

    /// Reads a request.
    ///
    /// # Errors
    /// What the protocol does not allow.
    fn read(&self, call: &Call<'_>) -> Result<Command, Denial>;

    /// Writes what came of a request, or why nothing did.
    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply;
}

/// Every dialect built in, by its name in `gateway.toml`.
pub fn by_name(name: &str) -> Option<Box<dyn Dialect>> {
    match name {
        oauth2::NAME => Some(Box::new(oauth2::OAuth2)),
        _ => None,
    }
}

/// The names of the dialects built in.
pub const NAMES: &[&str] = &[oauth2::NAME];

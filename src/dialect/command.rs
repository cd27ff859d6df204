//! Commands to the engine, and their outcomes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use super::events::Notice;
use crate::relay::{Presented, ProviderReply, ProviderRequest};
use rotogate_core::client::PresentedClient;
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::Denial;
use rotogate_core::directory::User;
use rotogate_core::engine::api_keys::{OwnKeys, OwnKeysRequest};
use rotogate_core::engine::{IssuedTokens, OwnSessions, OwnSessionsRequest};
use rotogate_core::fault::Error;
use rotogate_core::session::{Scope, SessionId};
use rotogate_core::thumbprint::{CertificateThumbprint, KeyThumbprint};

/// A credential presented for an exchange.
///
/// ```
/// use rotogate::dialect::{Command, RefreshCredential};
///
/// // `POST /refresh` of a protocol with refresh tokens.
/// let command = Command::Refresh {
///     client: None,
///     credential: RefreshCredential::Refresh("rg1_…".into()),
///     scope: None,
///     access_ttl: None,
///     resource: None,
/// };
/// # let _ = command;
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum RefreshCredential {
    /// A refresh token.
    Refresh(SecretString),
    /// An access token, if the protocol has no other credential.
    Access {
        /// The token.
        access: SecretString,
        /// Whether an exchanged token is accepted after its expiry, while the successor is unused.
        may_have_expired: bool,
    },
    /// An access token and a refresh token of the same session.
    Pair {
        /// The access token.
        access: SecretString,
        /// The refresh token.
        refresh: SecretString,
        /// The maximum time since the access token expired.
        expired_for_at_most: Duration,
    },
}

/// Which superseded tokens [`Command::Check`] accepts.
///
/// ```
/// use rotogate::dialect::{Command, Superseded};
///
/// // `auth:checkToken` of Kuzzle, with a token from a body.
/// let command = Command::Check { access: "eyJ…".into(), superseded: Superseded::Any };
/// # let _ = command;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Superseded {
    /// No superseded token.
    None,
    /// Unexpired superseded tokens.
    Unexpired,
    /// All superseded tokens.
    Any,
}

/// A token that a client exchanges (RFC 8693 §2.1).
///
/// ```
/// use rotogate::client::PresentedClient;
/// use rotogate::dialect::{Command, ExchangeRequest};
///
/// // What `Dialect::read` makes of `audience=billing` and a `subject_token`.
/// let secret = Some("of this client".into());
/// let client = PresentedClient { id: "orders".to_owned(), secret, assertion: None };
/// let command = Command::Exchange(Box::new(ExchangeRequest {
///     client,
///     subject: "eyJ…".into(),
///     actor: None,
///     audience: Some("billing".into()),
///     scope: None,
/// }));
/// # let _ = command;
/// ```
#[derive(Debug)]
pub struct ExchangeRequest {
    /// The client.
    pub client: PresentedClient,
    /// `subject_token`.
    pub subject: SecretString,
    /// `actor_token`.
    pub actor: Option<SecretString>,
    /// `audience` or `resource`.
    pub audience: Option<Box<str>>,
    /// The requested scope.
    pub scope: Option<Scope>,
}

/// A client's request to the engine. Without a `client`, the gate uses the endpoint's own client.
///
/// ```
/// use rotogate::dialect::Command;
///
/// // What `Dialect::read` makes of a logout that names one token.
/// let command = Command::Revoke { client: None, token: "rg1_…".into() };
/// assert!(!format!("{command:?}").contains("rg1_"), "no secret prints");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Command {
    /// A login with a password.
    Login {
        /// The client.
        client: Option<PresentedClient>,
        /// The user's name.
        username: String,
        /// The user's password.
        password: SecretString,
        /// The requested scope. `None` for everything allowed.
        scope: Option<Scope>,
        /// The requested lifetime. `None` for the profile's.
        access_ttl: Option<Duration>,
        /// The tokens' resource (RFC 8707). `None` for the gate's audience.
        resource: Option<Box<str>>,
    },
    /// A token for the client's own account.
    ClientToken {
        /// The client.
        client: PresentedClient,
        /// The requested scope.
        scope: Option<Scope>,
        /// The token's resource (RFC 8707).
        resource: Option<Box<str>>,
    },
    /// A token to act for the subject of another token (RFC 8693).
    Exchange(Box<ExchangeRequest>),
    /// A token in exchange for another issuer's assertion (RFC 7523 §2.1).
    Assertion {
        /// `None` if only the assertion identifies the caller.
        client: Option<PresentedClient>,
        /// The assertion.
        assertion: SecretString,
        /// The requested scope.
        scope: Option<Scope>,
        /// The token's resource (RFC 8707).
        resource: Option<Box<str>>,
    },
    /// New tokens for a refresh credential.
    Refresh {
        /// The client.
        client: Option<PresentedClient>,
        /// The credential.
        credential: RefreshCredential,
        /// The requested scope.
        scope: Option<Scope>,
        /// The requested lifetime.
        access_ttl: Option<Duration>,
        /// The resource that the login named. A different resource is not granted (RFC 8707).
        resource: Option<Box<str>>,
    },
    /// Ends the session of any token. An unknown token changes nothing (RFC 7009).
    Revoke {
        /// The client.
        client: Option<PresentedClient>,
        /// The token.
        token: SecretString,
    },
    /// Ends the session of a valid access token.
    Logout {
        /// The token.
        access: SecretString,
        /// Whether to end all sessions of the user.
        everywhere: bool,
    },
    /// Ends all sessions and tokens of a user, as another issuer requests through
    /// [`GlobalRevocations`](super::global_revocation::GlobalRevocations).
    #[doc(hidden)]
    RevokeGlobally(super::global_revocation::GlobalRevocation),
    /// The state of a token (RFC 7662), for a confidential client.
    Introspect {
        /// The client.
        client: PresentedClient,
        /// The token.
        token: SecretString,
    },
    /// The state of an access token, for its holder.
    Check {
        /// The token.
        access: SecretString,
        /// The superseded tokens that are accepted.
        superseded: Superseded,
    },
}

impl Command {
    pub(super) const fn login(username: String, password: SecretString) -> Self {
        Self::Login { client: None, username, password, scope: None, access_ttl: None, resource: None }
    }

    pub(super) const fn refresh(credential: RefreshCredential) -> Self {
        Self::Refresh { client: None, credential, scope: None, access_ttl: None, resource: None }
    }
}

/// The outcome of a command.
///
/// ```
/// use rotogate::dialect::Outcome;
/// use serde_json::json;
///
/// /// The body of a reply, in a `Dialect::write`.
/// fn body(outcome: &Outcome) -> serde_json::Value {
///     match outcome {
///         Outcome::Issued(tokens) => json!({ "token": tokens.access_token.expose() }),
///         Outcome::Checked(result) => json!({ "active": result.is_ok() }),
///         _ => json!({}),
///     }
/// }
/// assert_eq!(body(&Outcome::Revoked), json!({}));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The issued tokens.
    Issued(Box<IssuedTokens>),
    /// The token's session has ended or never existed.
    Revoked,
    /// The token's state, or the reason why the token is invalid. If the gate cannot check the token, the command
    /// itself fails.
    Checked(Result<Box<CheckedToken>, Denial>),
}

/// The properties of a valid token.
///
/// ```
/// use rotogate::dialect::CheckedToken;
///
/// /// An introspection response (RFC 7662 §2.2).
/// fn introspected(token: &CheckedToken) -> serde_json::Value {
///     serde_json::json!({
///         "active": true,
///         "sub": token.subject,
///         "scope": token.scope.as_str(),
///         "exp": token.expires.as_secs(),
///     })
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckedToken {
    /// `sub`.
    pub subject: Box<str>,
    /// `client_id`.
    pub client: Box<str>,
    /// `scope`.
    pub scope: Scope,
    /// `exp`.
    pub expires: Timestamp,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `iss`.
    pub issuer: Box<str>,
    /// `aud`.
    pub audience: Arc<[Box<str>]>,
    /// `jti`.
    pub jti: Option<Box<str>>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `sid`.
    pub session: Option<SessionId>,
    /// The account.
    pub account: Option<Box<str>>,
    /// The key to which the token is bound.
    pub bound_to: Option<KeyThumbprint>,
    /// The client certificate to which the token is bound.
    pub certificate: Option<CertificateThumbprint>,
    /// `act`: who acts for the subject (RFC 8693 §4.1).
    pub act: Option<serde_json::Value>,
    /// The subject's directory entry, if the directory was queried.
    pub user: Option<User>,
}

/// Executes commands, for the endpoint at which a request arrived.
#[async_trait]
pub trait CommandHandler: Send + Sync {
    /// Executes a command.
    async fn execute(&self, command: Command) -> Result<Outcome, Error>;

    /// Lists or ends sessions of the access token's user.
    ///
    /// # Errors
    /// A denial of the token, [`Denial::NoRoute`] without support for sessions, or a store's fault.
    async fn own_sessions(&self, request: OwnSessionsRequest) -> Result<OwnSessions, Error> {
        drop(request);
        Err(Denial::NoRoute.into())
    }

    /// Ends the tokens and sessions in another issuer's notice.
    ///
    /// # Errors
    /// Flaws of the notice, [`Denial::NoRoute`] without support for notices, or a store's fault.
    async fn end_elsewhere(&self, notice: Notice) -> Result<(), Error> {
        drop(notice);
        Err(Denial::NoRoute.into())
    }

    /// Lists, makes, replaces or revokes API keys of the access token's user.
    ///
    /// # Errors
    /// A denial of the token, [`Denial::NoRoute`] without support for API keys, or a store's fault.
    #[doc(hidden)]
    async fn own_keys(&self, request: OwnKeysRequest) -> Result<OwnKeys, Error> {
        drop(request);
        Err(Denial::NoRoute.into())
    }

    /// Forwards a request to the provider behind this endpoint.
    ///
    /// # Errors
    /// [`Denial::NoRoute`] without a provider, or a denial of the relay.
    #[doc(hidden)]
    async fn relay(&self, request: RelayRequest) -> Result<ProviderReply, Error> {
        drop(request);
        Err(Denial::NoRoute.into())
    }

    /// Returns the response that [`relay`](Self::relay) would return for this token without a request for the token to
    /// the provider.
    ///
    /// # Errors
    /// [`Denial::NoRoute`] without a provider, a rate limit, or a store's fault.
    #[doc(hidden)]
    async fn relay_stored(&self, presented: Presented) -> Result<Option<ProviderReply>, Error> {
        drop(presented);
        Err(Denial::NoRoute.into())
    }
}

/// A request to the provider behind a relay.
#[derive(Debug)]
pub enum RelayRequest {
    /// A refresh token to exchange.
    Exchange(Presented),
    /// A token to revoke.
    Revoke(Presented),
    /// Any other grant, passed through unchanged.
    Pass(ProviderRequest),
}

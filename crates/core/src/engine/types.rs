//! The requests to the engine, and its results.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::SecretString;

use super::Arrival;
use crate::claim::OwnClaims;
use crate::client::Client;
use crate::clock::Timestamp;
use crate::directory::User;
use crate::dpop::OnceProof;
use crate::session::profile::Profile;
use crate::session::{Scope, Session, SessionId, VouchedBy};
use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};
use crate::token::TokenText;
use crate::token::claims::{AccountRule, MintedClaims, OwnChecked};

/// The origin of a request, for limits and the audit trail.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's address, if known.
    pub address: Option<IpAddr>,
    /// The client's `User-Agent`.
    pub user_agent: Option<Box<str>>,
    /// Facts about the sender, for the access log.
    pub note: RequestNote,
}

/// The known facts about a client that a rate limit refused.
#[derive(Clone, Debug, Default, Hash)]
pub struct HeldUp {
    /// The session of a refresh token.
    pub session: Option<SessionId>,
    /// The user of the session.
    pub subject: Option<Box<str>>,
    /// A hash of the name in a login request.
    pub name_hash: Option<Box<str>>,
    /// The account of a login.
    pub account: Option<Box<str>>,
    /// The client.
    pub client: Option<Box<str>>,
}

/// Facts about the sender of a request, for the access log. Each fact can be set only once.
#[derive(Clone, Debug, Default)]
pub struct RequestNote(Option<Arc<NotedRequest>>);

#[derive(Debug, Default)]
struct NotedRequest {
    client: OnceLock<Arc<Client>>,
    session: OnceLock<(SessionId, Box<str>)>,
    held_up: OnceLock<HeldUp>,
}

impl RequestNote {
    /// Creates an empty note.
    pub fn open() -> Self {
        Self(Some(Arc::default()))
    }

    /// The client. A confidential client has authenticated.
    pub fn client(&self) -> Option<&Client> {
        Some(self.0.as_ref()?.client.get()?)
    }

    /// Notes the client.
    pub fn set_client(&self, client: &Arc<Client>) {
        if let Some(note) = &self.0 {
            let _ = note.client.set(Arc::clone(client));
        }
    }

    pub(super) fn set_session(&self, session: &Session) {
        if let Some(note) = &self.0 {
            let _ = note.session.set((session.id, session.subject.clone()));
        }
    }

    pub(super) fn held_up(&self) -> Option<&HeldUp> {
        self.0.as_ref()?.held_up.get()
    }

    pub(super) fn set_held_up(&self, held_up: HeldUp) {
        if let Some(note) = &self.0 {
            let _ = note.held_up.set(held_up);
        }
    }

    /// The known facts about a client that a rate limit refused.
    pub fn refused(&self) -> Option<HeldUp> {
        if let Some(held_up) = self.held_up() {
            return Some(held_up.clone());
        }
        let client = self.client().map(|client| client.id.clone());
        let (session, subject) = self.0.as_ref()?.session.get().cloned().unzip();
        (client.is_some() || session.is_some()).then(|| HeldUp { session, subject, client, ..HeldUp::default() })
    }
}

/// A login with a password (RFC 6749 §4.3).
#[derive(Debug)]
pub struct Login<'a> {
    /// The client, which has authenticated.
    pub client: &'a Client,
    /// The account from the path, if the endpoint has one.
    pub account: Option<&'a str>,
    /// The user's name.
    pub username: &'a str,
    /// The user's password.
    pub password: &'a SecretString,
    /// The requested scope, or `None` for all allowed scopes.
    pub scope: Option<Scope>,
    /// The requested lifetime of the access token, or `None` for the profile's lifetime.
    pub access_ttl: Option<Duration>,
    /// The audience of the session's tokens, if it differs from the gate's audience.
    pub resource: Option<Box<str>>,
    /// The endpoint's rules.
    pub profile: &'a Profile,
    /// The endpoint's dialect.
    pub dialect: &'a str,
    /// The proof for the key to which the tokens will be bound.
    pub proof: Option<OnceProof<'a>>,
    /// The client certificate to which the tokens will be bound.
    pub certificate: Option<CertificateThumbprint>,
    /// When the request arrived.
    pub arrived: Arrival,
    /// The origin of the request.
    pub origin: &'a Origin,
}

/// A session that the application begins after its own login.
#[derive(Debug)]
pub struct ApplicationLogin<'a> {
    /// The `sub` of the session's tokens.
    pub subject: &'a str,
    /// The account, if there is one.
    pub account: Option<&'a str>,
    /// The client for which the tokens are issued.
    pub client: &'a str,
    /// The granted scope.
    pub scope: Scope,
    /// The claims for the session's access tokens.
    pub claims: OwnClaims,
    /// The user's identity at another issuer that authenticated the user.
    pub vouched_by: Option<VouchedBy>,
    /// The session rules.
    pub profile: &'a Profile,
    /// The origin of the request.
    pub origin: &'a Origin,
}

/// The credential presented for an exchange. The caller has verified an access token, but has not checked revocation.
#[derive(Clone, Copy, Debug)]
pub enum Exchange<'a> {
    /// A refresh token (RFC 6749 §6).
    Refresh(&'a SecretString),
    /// An access token that serves as the refresh credential.
    Access(OwnChecked<'a>),
    /// Both tokens. The access token has the refresh token's generation or the previous generation.
    Pair(&'a SecretString, OwnChecked<'a>),
}

/// A refresh request.
#[derive(Debug)]
pub struct Refresh<'a> {
    /// The credential.
    pub credential: Exchange<'a>,
    /// The client, which has authenticated.
    pub client: &'a Client,
    /// The accounts whose sessions this request may refresh.
    pub account: AccountRule<'a>,
    /// The requested scope.
    pub scope: Option<Scope>,
    /// The requested lifetime of the access token, or `None` for the profile's lifetime.
    pub access_ttl: Option<Duration>,
    /// The requested resource.
    pub resource: Option<Box<str>>,
    /// The endpoint's rules.
    pub profile: &'a Profile,
    /// The dialects whose sessions the endpoint accepts.
    pub accepts: &'a [Box<str>],
    /// The dialects whose access tokens also serve as refresh credentials.
    pub by_access: &'a [Box<str>],
    /// The request's proof of possession of a key.
    pub proof: Option<OnceProof<'a>>,
    /// The client certificate of the request's connection.
    pub certificate: Option<CertificateThumbprint>,
    /// When the request arrived.
    pub arrived: Arrival,
    /// The origin of the request.
    pub origin: &'a Origin,
}

/// How tokens were issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssueKind {
    /// A login.
    Login,
    /// A grant for a client's own credentials.
    ClientCredentials,
    /// A token exchange.
    Exchanged,
    /// A rotation.
    Rotated,
    /// The current tokens were returned again.
    Replayed,
    /// New tokens replaced unused ones.
    Reissued,
    /// New tokens. The store had lost the latest generation, so the session continued from the presented token.
    FastForwarded,
}

/// Tokens for a client.
///
/// ```
/// use rotogate::gate::IssuedTokens;
///
/// /// The body of the reply to a login (RFC 6749 §5.1).
/// fn body(tokens: &IssuedTokens) -> serde_json::Value {
///     serde_json::json!({
///         "access_token": tokens.access_token.expose(),
///         "refresh_token": tokens.refresh_token.as_ref().map(|token| token.expose()),
///         "token_type": if tokens.bound_to.is_some() { "DPoP" } else { "Bearer" },
///         "expires_in": tokens.expires_in,
///     })
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct IssuedTokens {
    /// The access token.
    pub access_token: TokenText,
    /// The refresh token, or `None` if the grant does not include one.
    pub refresh_token: Option<TokenText>,
    /// When the access token expires.
    pub expires: Timestamp,
    /// The access token's remaining lifetime, in seconds.
    pub expires_in: u64,
    /// The `sub` of the access token.
    pub subject: Box<str>,
    /// The granted scope.
    pub scope: Scope,
    /// The session, if there is one.
    pub session: Option<SessionId>,
    /// The remaining lifetime of the session, in seconds.
    pub session_expires_in: Option<u64>,
    /// The key to which the access token is bound. If there is a key, the token's type is `DPoP` (RFC 9449 §5).
    pub bound_to: Option<KeyThumbprint>,
    /// The client certificate to which the tokens are bound (RFC 8705).
    pub certificate: Option<CertificateThumbprint>,
    /// The user, if a directory knows the user.
    pub user: Option<User>,
    pub(crate) how: IssueKind,
}

impl IssuedTokens {
    pub(super) fn new(access_token: TokenText, claims: &MintedClaims<'_>, now: Timestamp, how: IssueKind) -> Self {
        Self {
            access_token,
            refresh_token: None,
            expires: claims.expires,
            expires_in: claims.expires.since(now).as_secs(),
            subject: claims.subject.into(),
            scope: claims.scope.clone(),
            session: claims.session.map(|(session, _)| session),
            session_expires_in: None,
            bound_to: claims.bound_to,
            certificate: claims.certificate,
            user: None,
            how,
        }
    }
}

/// How tokens were issued.
pub const fn kind_of_issue(issued: &IssuedTokens) -> IssueKind {
    issued.how
}

#[cfg(any(test, feature = "test-util"))]
mod test;
#[cfg(any(test, feature = "test-util"))]
pub use test::tokens_for_test;

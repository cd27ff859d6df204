//! The part of a denial that a reply may reveal. Denials of one class get the same reply.

use std::time::Duration;

use http::StatusCode;

use super::Denial;

/// The part of a [`Denial`] that a reply may reveal. Denials of one class get the same reply, in every protocol.
///
/// ```
/// use rotogate::denial::{Class, Denial};
///
/// // The status of a refusal, in a protocol of your own.
/// fn status(denial: &Denial) -> u16 {
///     match denial.class() {
///         Class::BadGrant { .. } | Class::BadToken { .. } => 401,
///         Class::Limited(_) => 429,
///         _ => 400,
///     }
/// }
/// assert_eq!(status(&Denial::UnknownRefreshToken), status(&Denial::OtherClient));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The head of the request is unusable.
    Head {
        /// The status of a reply in plain HTTP.
        status: StatusCode,
        /// The flaw, for a problem document.
        detail: Option<&'static str>,
        /// The flaw, for a protocol that reports an HTTP error inside its own messages.
        summary: &'static str,
        /// Whether the end of the request is unknown, so that the connection must be closed (RFC 9112 §6.3).
        closes: bool,
    },
    /// `CONNECT`, which the gate does not serve.
    Tunnel,
    /// The gate does not serve the host that the request names.
    UnknownHost,
    /// The gate serves nothing at this path. The detail is for plain replies.
    NotFound(Option<&'static str>),
    /// The method is not served at this path.
    WrongMethod,
    /// The body is too large.
    TooLarge,
    /// The body or a parameter violates the protocol. Contains a fixed text.
    Request(&'static str),
    /// More than one credential was sent.
    TwoCredentials,
    /// No credential was sent.
    NoCredential,
    /// A credential was sent that cannot be used here.
    UnusableCredential,
    /// The request came from another origin.
    CrossOrigin,
    /// The access token is not good.
    BadToken {
        /// The token has expired: only an expired token is worth a refresh.
        expired: bool,
        /// Whether the signature is good; `None` if the token does not parse. Without a good signature, the claims of
        /// a token prove nothing.
        is_proved: Option<bool>,
    },
    /// The proof that goes with the access token, or with a request for one, is missing or bad.
    BadProof {
        /// The client must use a nonce of the gate.
        needs_nonce: bool,
    },
    /// The access token is good, but lacks a scope.
    InsufficientScope,
    /// The access token is good, but does not permit this for another reason: a role, a claim, a check of the
    /// application.
    Forbidden,
    /// The refresh credential is not good.
    BadGrant {
        /// The session outlived a lifetime.
        expired: bool,
    },
    /// The requested lifetime is too long.
    Lifetime,
    /// The requested scope is malformed, or goes beyond what may be granted.
    Scope,
    /// The gate grants no tokens for the requested resource (RFC 8707).
    Target,
    /// The login failed: unknown user or wrong password.
    Login,
    /// The user has too many sessions.
    TooManySessions,
    /// The client is unknown, or failed to authenticate.
    Client,
    /// The client may not do this.
    ClientNotAllowed,
    /// The endpoint does not serve this grant type.
    GrantType,
    /// A rate limit applies; the next attempt is admitted after this time.
    Limited(Duration),
    /// A system that the decision needs is not available: 503. Nothing was decided, and another attempt may succeed
    /// after this time.
    Unavailable(Duration),
}

impl Denial {
    /// Whether the signature of the refused access token was verified; `None` if the denial is not about a token that
    /// parses. Without a good signature, the claims of a token prove nothing.
    pub const fn token_is_proved(&self) -> Option<bool> {
        match self.class() {
            Class::BadToken { is_proved, .. } => is_proved,
            Class::BadProof { .. } | Class::InsufficientScope | Class::Forbidden => Some(true),
            Class::Head { .. }
            | Class::Tunnel
            | Class::UnknownHost
            | Class::NotFound(_)
            | Class::WrongMethod
            | Class::TooLarge
            | Class::Request(_)
            | Class::TwoCredentials
            | Class::NoCredential
            | Class::UnusableCredential
            | Class::CrossOrigin
            | Class::BadGrant { .. }
            | Class::Lifetime
            | Class::Scope
            | Class::Target
            | Class::Login
            | Class::TooManySessions
            | Class::Client
            | Class::ClientNotAllowed
            | Class::GrantType
            | Class::Limited(_)
            | Class::Unavailable(_) => None,
        }
    }
}

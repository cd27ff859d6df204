//! The part of a denial that a reply may reveal. Denials of one class get the same reply.

use std::time::Duration;

use http::StatusCode;

use super::Denial;

/// The part of a [`Denial`] that a reply may reveal. Denials of one class get the same reply, in every protocol.
///
/// ```
/// use rotogate::denial::{Class, Denial};
///
/// // The HTTP status of a refusal in your own protocol.
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
        /// The HTTP status of the reply.
        status: StatusCode,
        /// The flaw, for a problem document.
        detail: Option<&'static str>,
        /// A shorter description of the flaw, for a protocol that reports HTTP errors inside its own messages.
        summary: &'static str,
        /// Whether the end of the request is unknown, so that the connection must be closed (RFC 9112 §6.3).
        closes: bool,
    },
    /// A `CONNECT` request, which the gate does not serve.
    Tunnel,
    /// The gate does not serve the host that the request names.
    UnknownHost,
    /// The gate does not serve this path. Contains a detail for plain replies.
    NotFound(Option<&'static str>),
    /// The method is not served at this path.
    WrongMethod,
    /// The body is too large.
    TooLarge,
    /// The body or a parameter violates the protocol. Contains a description.
    Request(&'static str),
    /// More than one credential was sent.
    TwoCredentials,
    /// No credential was sent.
    NoCredential,
    /// A credential was sent that cannot be used here.
    UnusableCredential,
    /// The request came from another origin.
    CrossOrigin,
    /// The access token is not valid.
    BadToken {
        /// Whether the token has expired. A refresh helps only for an expired token.
        expired: bool,
        /// Whether the signature is valid, or `None` if the token cannot be parsed. Without a valid signature, the
        /// claims of a token prove nothing.
        is_proved: Option<bool>,
    },
    /// The proof for the access token, or for a request for tokens, is missing or invalid.
    BadProof {
        /// Whether the client must use a nonce that the gate issued.
        needs_nonce: bool,
    },
    /// The access token is valid, but lacks a scope.
    InsufficientScope,
    /// The access token is valid, but does not permit the request because of a role, a claim or a check of the
    /// application.
    Forbidden,
    /// The refresh credential is not valid.
    BadGrant {
        /// Whether the session has exceeded a lifetime.
        expired: bool,
    },
    /// The requested lifetime is too long.
    Lifetime,
    /// The requested scope is malformed, or goes beyond what may be granted.
    Scope,
    /// The gate does not issue tokens for the requested resource (RFC 8707).
    Target,
    /// The login failed because the user is unknown or the password is wrong.
    Login,
    /// The user has too many sessions.
    TooManySessions,
    /// The client is unknown, or failed to authenticate.
    Client,
    /// The client is not allowed to do this.
    ClientNotAllowed,
    /// The endpoint does not serve this grant type.
    GrantType,
    /// A rate limit applies. The next attempt is admitted after this time.
    Limited(Duration),
    /// A system that the decision needs is not available, so the reply is 503. A retry may succeed after this time.
    Unavailable(Duration),
}

impl Denial {
    /// Whether the signature of the refused access token was verified, or `None` if the denial does not concern a token
    /// that can be parsed. Without a valid signature, the claims of a token prove nothing.
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

//! What a response may reveal about a denial.

use std::time::Duration;

use http::StatusCode;

use super::Denial;

/// What a response may reveal about a [`Denial`]. Denials of one class get the same response.
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
    /// The request head is invalid.
    Head {
        /// The HTTP status of the response.
        status: StatusCode,
        /// The flaw, for a problem document.
        detail: Option<&'static str>,
        /// A summary of the flaw.
        summary: &'static str,
        /// Whether the connection must be closed, because the end of the request is unknown (RFC 9112 §6.3).
        closes: bool,
    },
    /// A `CONNECT` request, which the gate does not serve.
    Tunnel,
    /// The gate does not serve the host that the request names.
    UnknownHost,
    /// The gate does not serve this path. Contains the response detail.
    NotFound(Option<&'static str>),
    /// The method is not served at this path.
    WrongMethod,
    /// The body is too large.
    TooLarge,
    /// The body or a parameter violates the protocol.
    Request(&'static str),
    /// More than one credential was sent.
    TwoCredentials,
    /// The request does not contain a credential.
    NoCredential,
    /// The credential cannot be used here.
    UnusableCredential,
    /// The request came from another origin.
    CrossOrigin,
    /// The access token is not valid.
    BadToken {
        /// Whether the token has expired, so that a refresh helps.
        expired: bool,
        /// Whether the signature is valid, or `None` if the token cannot be parsed.
        is_proved: Option<bool>,
    },
    /// The proof of possession is missing or invalid.
    BadProof {
        /// Whether the client must use a new nonce.
        needs_nonce: bool,
    },
    /// The access token is valid, but lacks a scope.
    InsufficientScope,
    /// The access token is valid, but does not permit the request.
    Forbidden,
    /// The refresh credential is not valid.
    BadGrant {
        /// Whether the session has exceeded a lifetime.
        expired: bool,
    },
    /// The requested lifetime is too long.
    Lifetime,
    /// The requested scope is malformed or too wide.
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
    /// A rate limit applies. Contains the delay before the next attempt.
    Limited(Duration),
    /// The gate cannot decide now, so the response is 503. Contains the delay before a retry.
    Unavailable(Duration),
}

impl Denial {
    /// Whether the refused token's signature is valid, or `None` if no token was parsed. Without a valid signature, the
    /// claims prove nothing.
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

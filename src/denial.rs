//! Refusals as data. A [`Denial`] is an error of the caller: one variant for each rule that refuses. A
//! [`Fault`](crate::fault::Fault) is a failure on our side.
//!
//! A reply reveals no more than the [`Class`] of a denial; the log names the variant. The writers of replies (the
//! dialects, and the gate for data routes) match classes, so [`Denial::class`] is the one place that decides what a
//! caller learns.
//!
//! ```
//! use rotogate::denial::{Class, Denial, Standing};
//!
//! let denial = Denial::TokenExpired;
//! assert_eq!(denial.reason(), "token_expired");
//! assert!(matches!(denial.class(), Class::BadToken(_)));
//! assert_eq!(denial.standing(), Standing::Dead, "the client must refresh; to repeat the request is no use");
//! ```

use std::time::Duration;

use http::StatusCode;

use crate::session::rotation::{Lifetime, Reuse, SessionEnd};

/// A refused credential, request or login: the rule that refused it.
///
/// ```
/// use rotogate::denial::Denial;
///
/// let denial = Denial::BadClaim("no exp");
/// assert_eq!((denial.reason(), denial.detail()), ("bad_claim", Some("no exp")));
/// assert_eq!(denial.to_string(), "bad_claim: no exp", "for a log, not for the caller");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    // The request itself.
    /// The path is not canonical, or contains what no path may contain.
    // Requirement T12.
    BadPath(PathError),
    /// `Host` is missing, repeated, malformed or contradicts the target.
    // Requirement T11.
    BadHost,
    /// The request target is not in origin form.
    // Requirement T11.
    BadTarget,
    /// The body is framed neither by one length nor by chunked coding alone.
    // Requirement T7.
    BadFraming,
    /// `CONNECT` asks for a tunnel, which the gate does not serve.
    // Requirement T10.
    Tunnel,
    /// The request target is longer than the bound.
    // Requirement A4.
    TargetTooLong,
    /// More than one `Authorization` header, or a token in two places.
    // Requirements T1, T2.
    TwoCredentials,
    /// `Host` names no host that the gate serves.
    // Requirement T23.
    UnknownHost,
    /// No route matches.
    NoRoute,
    /// A common reading of the path leads to a stricter route than the one that matches.
    // Requirement T20.
    AmbiguousPath,
    /// The route, or our endpoint, does not serve this method.
    MethodNotAllowed,
    /// A spelling close to one of our endpoints, which no honest client sends.
    // Requirement R12.
    NearMiss,
    /// The body of a request to one of our endpoints is too large.
    BodyTooLarge,
    /// The body of a request to one of our endpoints is not what the protocol says.
    MalformedRequest(&'static str),

    // The bearer token on a data route.
    /// No credential was sent.
    NoCredential,
    /// A credential of another scheme, or in a place that the route does not allow.
    UnusableCredential,
    /// A browser sent a cookie with a request that changes something, without proof that one of our own origins sent
    /// it.
    // Requirement T18.
    CrossOrigin,
    /// The token is not a JWS that the gate accepts: shape, size, encoding, header.
    MalformedToken(&'static str),
    /// The issuer is not one of ours.
    UnknownIssuer,
    /// No key of the issuer has that `kid`.
    UnknownKey,
    /// The header's algorithm is not the key's.
    WrongAlgorithm,
    /// `typ` is not that of an access token (RFC 9068 §4).
    WrongType,
    /// The signature is bad.
    BadSignature,
    /// A claim is missing or of the wrong type or form.
    BadClaim(&'static str),
    /// The token is bound to a key whose possession was not proved (RFC 9449, RFC 8705).
    UnprovedBinding,
    /// `exp` is past.
    TokenExpired,
    /// `nbf` or `iat` is in the future.
    TokenNotYetValid,
    /// Revoked: the token, its session, generation, subject or client, or everything.
    TokenRevoked,
    /// The keys of the token's issuer are not known at this moment, so the token was not examined. Another attempt may
    /// succeed after this time.
    // Requirement I4.
    KeysUnavailable(Duration),
    /// Its issuer says that the token is not active.
    // Requirement I20.
    TokenInactive,
    /// The token's issuer could not be asked about it, so nothing is known. Another attempt may succeed after this time.
    // Requirement I20.
    IntrospectionUnavailable(Duration),
    /// Other gates may have revoked the token, and this one has not heard from their store for too long. Another attempt
    /// may succeed after this time.
    // Requirement C10.
    RevocationsUnavailable(Duration),
    /// The token is not meant for this route.
    WrongAudience,
    /// The route does not accept this issuer.
    WrongIssuer,
    /// The token lacks a scope that the route requires.
    InsufficientScope,
    /// It lacks a role that the route asks for.
    // Requirement I17.
    MissingRole,
    /// It lacks a role that the route asks for, and its issuer left roles out because there are too many.
    // Requirement I18.
    RolesOverage,
    /// A claim does not have the value that the route asks for.
    MissingClaim,
    /// A check of the application refuses its caller.
    Predicate,
    /// Its claims do not have the shape that the handler reads.
    ClaimsShape,

    // A refresh credential.
    /// Not a refresh token of ours, or of a session that no longer exists.
    UnknownRefreshToken,
    /// Another client's refresh token.
    // Requirement R6.
    OtherClient,
    /// Another account's refresh token.
    OtherAccount,
    /// A session begun in another dialect, which this endpoint does not accept.
    OtherDialect,
    /// The session was ended.
    SessionRevoked(SessionEnd),
    /// The session outlived a lifetime.
    SessionExpired(Lifetime),
    /// The token is ahead of the store, and the session must not continue from it.
    // Requirement O5.
    Ahead,
    /// A superseded token (RFC 9700 §4.14.2).
    Reuse(Reuse),
    /// An access token and a refresh token of different pairs.
    MismatchedPair,
    /// The relay sends nothing for this refresh token: it has an answer for another presenter, or may not repeat it.
    // Requirement I38.
    RelayRefused(&'static str),
    /// A DPoP proof that is not good (RFC 9449 §4.3).
    // Requirement I38.
    InvalidProof(&'static str),
    /// The requested lifetime exceeds the maximum.
    TtlExceeded,
    /// The requested scope exceeds the grant, or is malformed.
    InvalidScope,

    // A login or a client.
    /// Unknown user or wrong password: the caller never learns which.
    // Requirement A2.
    WrongPassword,
    /// Unknown client, or it failed to authenticate.
    InvalidClient,
    /// The client may not use this grant.
    UnauthorizedClient,
    /// A grant type that the endpoint does not serve.
    UnsupportedGrantType,
    /// The user has as many live sessions as allowed, and the rules refuse another one.
    TooManySessions,
    /// A rate limit. The next attempt counts after this time.
    TooManyRequests(Duration),
}

/// What a denial says about the credential that was presented.
///
/// ```
/// use std::time::Duration;
/// use rotogate::denial::{Denial, Standing};
///
/// // A client discards a credential only if it is refused for all time.
/// let discards = |denial: Denial| denial.standing() == Standing::Dead;
/// assert!(discards(Denial::TokenRevoked));
/// assert!(!discards(Denial::TooManyRequests(Duration::from_secs(1))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// The credential is refused everywhere here, for all time.
    Dead,
    /// The credential is refused for this request. The gate did not decide more about it.
    Refused,
    /// The gate did not examine the credential. The same request may pass later.
    Undecided,
}

/// Why a credential is not good: a decision. An undecided denial is not a decision and never becomes a `NotGood`.
///
/// ```
/// use std::time::Duration;
/// use rotogate::denial::{Denial, NotGood};
///
/// let expired = NotGood::of(Denial::TokenExpired);
/// assert_eq!(expired.map(NotGood::denial), Ok(Denial::TokenExpired));
/// // A rate limit decides nothing about the credential.
/// let limited = Denial::TooManyRequests(Duration::from_secs(1));
/// assert_eq!(NotGood::of(limited), Err(limited));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Requirement R15.
pub struct NotGood(Denial);

impl NotGood {
    /// The decision in a denial.
    ///
    /// # Errors
    /// The denial itself, if it is undecided.
    pub const fn of(denial: Denial) -> Result<Self, Denial> {
        match denial.standing() {
            Standing::Dead | Standing::Refused => Ok(Self(denial)),
            Standing::Undecided => Err(denial),
        }
    }

    /// The rule that refuses the credential.
    pub const fn denial(self) -> Denial {
        self.0
    }
}

/// What a reply may reveal of a [`Denial`]. Denials of one class get the same reply, in every protocol.
///
/// ```
/// use rotogate::denial::{Class, Denial};
///
/// // The status of a refusal, in a protocol of your own.
/// fn status(denial: &Denial) -> u16 {
///     match denial.class() {
///         Class::BadGrant { .. } | Class::BadToken(_) => 401,
///         Class::Limited(_) => 429,
///         _ => 400,
///     }
/// }
/// assert_eq!(status(&Denial::UnknownRefreshToken), status(&Denial::OtherClient));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The head of the request is unusable.
    Head(BadHead),
    /// `CONNECT`, which the gate does not serve.
    Tunnel,
    /// The gate does not serve the host that the request names.
    UnknownHost,
    /// There is nothing at the path. The detail is for plain replies.
    NotFound(Option<&'static str>),
    /// The method is not served at this path.
    WrongMethod,
    /// The body is too large.
    TooLarge,
    /// The body or a parameter is not what the protocol says: a fixed text.
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
    BadToken(TokenFlaw),
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
    /// A rate limit applies; the next attempt counts after this time.
    Limited(Duration),
    /// What is needed to decide is not available: 503. Nothing was decided, and another attempt may succeed after this
    /// time.
    Unavailable(Duration),
}

/// An unusable request head, and what replies say about it.
///
/// ```
/// use rotogate::denial::{BadHead, Class, Denial};
///
/// fn reply(head: &BadHead) -> http::Response<&'static str> {
///     let mut reply = http::Response::new(head.detail.unwrap_or(head.summary));
///     *reply.status_mut() = head.status;
///     reply
/// }
/// let Class::Head(head) = Denial::BadHost.class() else { unreachable!() };
/// assert_eq!(reply(&head).status(), 400);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadHead {
    /// The status of a reply in HTTP's own terms.
    pub status: StatusCode,
    /// What is wrong, for a problem document.
    pub detail: Option<&'static str>,
    /// What is wrong, for a protocol that reports an HTTP error inside its own.
    pub summary: &'static str,
    /// The end of the request is not known, so the connection must be closed (RFC 9112 §6.3).
    pub closes: bool,
}

/// What is wrong with an access token, as far as a reply or the access log differs by it.
///
/// ```
/// use rotogate::denial::{Class, Denial, TokenFlaw};
///
/// // Only an expired token is worth a refresh.
/// let is_expired = |denial: Denial| denial.class() == Class::BadToken(TokenFlaw::Expired);
/// assert!(is_expired(Denial::TokenExpired));
/// assert!(!is_expired(Denial::BadSignature));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFlaw {
    /// It does not parse.
    Malformed,
    /// It was refused before its signature was verified, or its signature is bad: its claims prove nothing.
    Unproved,
    /// Its signature is good, its claims or their use are not.
    Proved,
    /// Its signature is good, and it expired.
    Expired,
}

impl BadHead {
    const fn class(status: StatusCode, detail: Option<&'static str>, summary: &'static str) -> Class {
        Class::Head(Self { status, detail, summary, closes: false })
    }
}

impl Denial {
    /// What a reply may reveal.
    pub const fn class(&self) -> Class {
        match self {
            Self::BadPath(error) => {
                BadHead::class(StatusCode::BAD_REQUEST, Some(error.what()), "the path is malformed")
            }
            Self::BadHost => BadHead::class(
                StatusCode::BAD_REQUEST,
                Some("Host is missing, repeated, malformed or contradictory"),
                "Host is missing or malformed",
            ),
            Self::BadTarget => BadHead::class(
                StatusCode::BAD_REQUEST,
                Some("the request target must be in origin form"),
                "the request target is malformed",
            ),
            Self::BadFraming => Class::Head(BadHead {
                status: StatusCode::BAD_REQUEST,
                detail: Some("a body has a length, or comes in chunks, once"),
                summary: "the body is framed twice",
                closes: true,
            }),
            Self::TargetTooLong => BadHead::class(StatusCode::URI_TOO_LONG, None, "the request target is too long"),
            Self::Tunnel => Class::Tunnel,
            Self::UnknownHost => Class::UnknownHost,
            Self::NoRoute | Self::NearMiss => Class::NotFound(None),
            Self::AmbiguousPath => Class::NotFound(Some("ambiguous_path: the path can be read in two ways")),
            Self::MethodNotAllowed => Class::WrongMethod,
            Self::BodyTooLarge => Class::TooLarge,
            Self::MalformedRequest(what) => Class::Request(what),
            Self::TwoCredentials => Class::TwoCredentials,
            Self::NoCredential => Class::NoCredential,
            Self::UnusableCredential => Class::UnusableCredential,
            Self::CrossOrigin => Class::CrossOrigin,
            Self::MalformedToken(_) => Class::BadToken(TokenFlaw::Malformed),
            Self::UnknownIssuer
            // Most issuers are refused before the signature is verified.
            | Self::WrongIssuer
            | Self::UnknownKey
            | Self::WrongAlgorithm
            | Self::WrongType
            | Self::BadSignature
            | Self::TokenInactive
            | Self::BadClaim(_) => Class::BadToken(TokenFlaw::Unproved),
            Self::UnprovedBinding | Self::TokenNotYetValid | Self::TokenRevoked | Self::WrongAudience => {
                Class::BadToken(TokenFlaw::Proved)
            }
            Self::TokenExpired => Class::BadToken(TokenFlaw::Expired),
            Self::InsufficientScope => Class::InsufficientScope,
            Self::MissingRole | Self::RolesOverage | Self::MissingClaim | Self::Predicate | Self::ClaimsShape => {
                Class::Forbidden
            }
            Self::SessionExpired(_) => Class::BadGrant { expired: true },
            Self::UnknownRefreshToken
            | Self::OtherClient
            | Self::OtherAccount
            | Self::OtherDialect
            | Self::SessionRevoked(_)
            | Self::Ahead
            | Self::Reuse(_)
            | Self::MismatchedPair
            | Self::RelayRefused(_) => Class::BadGrant { expired: false },
            Self::InvalidProof(_) => Class::Request("the DPoP proof is not good"),
            Self::TtlExceeded => Class::Lifetime,
            Self::InvalidScope => Class::Scope,
            Self::WrongPassword => Class::Login,
            Self::TooManySessions => Class::TooManySessions,
            Self::InvalidClient => Class::Client,
            Self::UnauthorizedClient => Class::ClientNotAllowed,
            Self::UnsupportedGrantType => Class::GrantType,
            Self::TooManyRequests(wait) => Class::Limited(*wait),
            Self::KeysUnavailable(wait) | Self::IntrospectionUnavailable(wait) | Self::RevocationsUnavailable(wait) => {
                Class::Unavailable(*wait)
            }
        }
    }

    /// What this denial says about the credential that was presented.
    pub const fn standing(&self) -> Standing {
        match self {
            Self::MalformedToken(_)
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::WrongAlgorithm
            | Self::WrongType
            | Self::BadSignature
            | Self::BadClaim(_)
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::TokenInactive
            | Self::UnknownRefreshToken
            | Self::SessionRevoked(_)
            | Self::SessionExpired(_)
            | Self::Reuse(_) => Standing::Dead,
            Self::BadPath(_)
            | Self::BadHost
            | Self::BadTarget
            | Self::BadFraming
            | Self::Tunnel
            | Self::TargetTooLong
            | Self::TwoCredentials
            | Self::NoRoute
            | Self::MethodNotAllowed
            | Self::NearMiss
            | Self::BodyTooLarge
            | Self::MalformedRequest(_)
            | Self::NoCredential
            | Self::UnusableCredential
            | Self::CrossOrigin
            | Self::UnprovedBinding
            | Self::TokenNotYetValid
            | Self::WrongAudience
            | Self::WrongIssuer
            | Self::InsufficientScope
            | Self::MissingRole
            | Self::RolesOverage
            | Self::MissingClaim
            | Self::Predicate
            | Self::ClaimsShape
            | Self::OtherClient
            | Self::OtherAccount
            | Self::OtherDialect
            | Self::UnknownHost
            | Self::AmbiguousPath
            | Self::TooManySessions
            | Self::Ahead
            | Self::MismatchedPair
            | Self::RelayRefused(_)
            | Self::InvalidProof(_)
            | Self::TtlExceeded
            | Self::InvalidScope
            | Self::WrongPassword
            | Self::InvalidClient
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType => Standing::Refused,
            Self::TooManyRequests(_)
            | Self::KeysUnavailable(_)
            | Self::IntrospectionUnavailable(_)
            | Self::RevocationsUnavailable(_) => Standing::Undecided,
        }
    }

    /// Whether the signature of the refused access token was verified; `None` if the denial is not about a token that
    /// parses. Without a good signature, the claims of a token prove nothing.
    pub const fn token_is_proved(&self) -> Option<bool> {
        match self.class() {
            Class::BadToken(TokenFlaw::Proved | TokenFlaw::Expired) | Class::InsufficientScope | Class::Forbidden => {
                Some(true)
            }
            Class::BadToken(TokenFlaw::Unproved) => Some(false),
            Class::BadToken(TokenFlaw::Malformed)
            | Class::Head(_)
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
            | Class::Login
            | Class::TooManySessions
            | Class::Client
            | Class::ClientNotAllowed
            | Class::GrantType
            | Class::Limited(_)
            | Class::Unavailable(_) => None,
        }
    }

    /// Is the credential unexamined? Then the same request may pass later.
    pub const fn is_undecided(&self) -> bool {
        matches!(self.standing(), Standing::Undecided)
    }

    /// The word for log lines and metrics, from a fixed set.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadPath(_) => "bad_path",
            Self::BadHost => "bad_host",
            Self::BadTarget => "bad_target",
            Self::BadFraming => "bad_framing",
            Self::Tunnel => "tunnel",
            Self::TargetTooLong => "target_too_long",
            Self::TwoCredentials => "two_credentials",
            Self::UnknownHost => "unknown_host",
            Self::NoRoute => "no_route",
            Self::AmbiguousPath => "ambiguous_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NearMiss => "near_miss",
            Self::BodyTooLarge => "body_too_large",
            Self::MalformedRequest(_) => "malformed_request",
            Self::NoCredential => "no_credential",
            Self::UnusableCredential => "unusable_credential",
            Self::CrossOrigin => "cross_origin",
            Self::MalformedToken(_) => "malformed_token",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::WrongType => "wrong_type",
            Self::BadSignature => "bad_signature",
            Self::BadClaim(_) => "bad_claim",
            Self::UnprovedBinding => "unproved_binding",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenRevoked => "token_revoked",
            Self::KeysUnavailable(_) => "keys_unavailable",
            Self::TokenInactive => "token_inactive",
            Self::IntrospectionUnavailable(_) => "introspection_unavailable",
            Self::RevocationsUnavailable(_) => "revocations_unavailable",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::InsufficientScope => "insufficient_scope",
            Self::MissingRole => "missing_role",
            Self::RolesOverage => "roles_overage",
            Self::MissingClaim => "missing_claim",
            Self::Predicate => "predicate",
            Self::ClaimsShape => "claims_shape",
            Self::UnknownRefreshToken => "unknown_refresh_token",
            Self::OtherClient => "other_client",
            Self::OtherAccount => "other_account",
            Self::OtherDialect => "other_dialect",
            Self::SessionRevoked(SessionEnd::Record) => "session_revoked",
            Self::SessionRevoked(SessionEnd::List) => "session_revoked_by_list",
            Self::SessionRevoked(SessionEnd::UserInactive) => "user_inactive",
            Self::SessionRevoked(SessionEnd::BeforeValidFrom) => "session_before_valid_from",
            Self::SessionExpired(Lifetime::Session) => "session_expired",
            Self::SessionExpired(Lifetime::Idle) => "session_idle",
            Self::Ahead => "ahead_of_store",
            Self::Reuse(_) => "reuse",
            Self::MismatchedPair => "mismatched_pair",
            Self::RelayRefused(_) => "relay_refused",
            Self::InvalidProof(_) => "invalid_proof",
            Self::TtlExceeded => "ttl_exceeded",
            Self::InvalidScope => "invalid_scope",
            Self::WrongPassword => "wrong_password",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::TooManySessions => "too_many_sessions",
            Self::TooManyRequests(_) => "too_many_requests",
        }
    }

    /// What is wrong with the form of a request or token, for the variants that say so: a fixed text.
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self::MalformedRequest(what)
            | Self::MalformedToken(what)
            | Self::BadClaim(what)
            | Self::RelayRefused(what)
            | Self::InvalidProof(what) => Some(what),
            Self::BadPath(error) => Some(error.what()),
            _ => None,
        }
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())?;
        self.detail().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl std::error::Error for Denial {}

/// Why a path is refused.
///
/// ```
/// use rotogate::denial::{Denial, PathError};
///
/// let denial = Denial::from(PathError::DotSegment);
/// assert_eq!(denial, Denial::BadPath(PathError::DotSegment));
/// assert_eq!(PathError::DotSegment.what(), "the path has a dot segment");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.what())]
#[non_exhaustive]
pub enum PathError {
    /// It does not begin with a slash.
    NotAbsolute,
    /// A byte that no path may have: control, space, backslash, `?`, `#` or not ASCII.
    Character,
    /// `%` without two hex digits.
    Escape,
    /// An escaped control byte or backslash.
    Hidden,
    /// The escapes do not decode to UTF-8: broken or overlong.
    Utf8,
    /// A `.` or `..` segment in any spelling.
    DotSegment,
    /// Nested escapes of a byte that may not be written directly.
    DoubleEncoding,
    /// `%2F`, on a route that does not keep it.
    EncodedSlash,
    /// Not the canonical spelling, and the gate does not rewrite it.
    NotCanonical,
}

impl PathError {
    /// What is wrong. The text contains nothing of the path.
    pub const fn what(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::Character => "the path has a control character, a space, a backslash or a character beyond ASCII",
            Self::Escape => "the path has an incomplete percent escape",
            Self::Hidden => "the path escapes a control character or a backslash",
            Self::Utf8 => "the path does not decode to UTF-8",
            Self::DotSegment => "the path has a dot segment",
            Self::DoubleEncoding => "the path is escaped more than once around something forbidden",
            Self::EncodedSlash => "the path has an encoded slash",
            Self::NotCanonical => {
                "the path has a non-canonical spelling: it escapes a character that needs no escape, lacks one that is \
                 needed, or has an empty segment"
            }
        }
    }
}

impl From<PathError> for Denial {
    fn from(error: PathError) -> Self {
        Self::BadPath(error)
    }
}

//! Refusals and faults are data. A [`Denial`] is the caller's doing: one variant a rule. A [`Fault`] is ours or an
//! upstream's. One place turns them into a reply, in the words of the route's dialect; a caller never learns more than
//! the protocol's own error code says, the log learns the variant.

use std::time::Duration;

use crate::directory::DirectoryError;
use crate::route::path::PathError;
use crate::session::rotation::{Ended, Lapsed, Reuse};

/// A credential, a request or a login that is refused: which rule refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    // The request itself.
    /// The path is not canonical, or has what no path may have (T12).
    BadPath(PathError),
    /// `Host` is missing, repeated, malformed or contradicts the target (T11).
    BadHost,
    /// The request target is not in origin form (T11).
    BadTarget,
    /// The body is framed otherwise than by one length, or in chunks and nothing else (T7).
    BadFraming,
    /// `CONNECT` asks for a tunnel, which is not given (T10).
    Tunnel,
    /// The request target is longer than the bound (A4).
    TargetTooLong,
    /// More than one `Authorization` header, or a token in two places (T1, T2).
    TwoCredentials,
    /// `Host` names none of the hosts that the gate serves (T23).
    UnknownHost,
    /// No route matches.
    NoRoute,
    /// A common reading of the path leads to a route that asks for more than the one that matches (T20).
    AmbiguousPath,
    /// The route, or our endpoint, does not serve this method.
    MethodNotAllowed,
    /// A spelling close to one of our endpoints, which no client sends in good faith (R12).
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
    /// A browser sent a cookie along to change something, and did not say that one of our own origins asked for it (T18).
    CrossOrigin,
    /// The token is not a JWS that we accept: shape, size, encoding, header.
    MalformedToken(&'static str),
    /// The issuer is not one of ours.
    UnknownIssuer,
    /// No key of the issuer has that `kid`.
    UnknownKey,
    /// The header's algorithm is not the key's.
    WrongAlgorithm,
    /// `typ` is not that of an access token (RFC 9068 §4).
    WrongType,
    /// The signature does not hold.
    BadSignature,
    /// A claim is missing or of the wrong type or form.
    BadClaim(&'static str),
    /// The token is bound to a key that was not proved (RFC 9449, RFC 8705).
    UnprovedBinding,
    /// `exp` is past.
    TokenExpired,
    /// `nbf` or `iat` is still to come.
    TokenNotYetValid,
    /// It was revoked: token, session, generation, subject, client, or all.
    TokenRevoked,
    /// It is not meant for this route.
    WrongAudience,
    /// Its issuer is another than those whose tokens count here.
    WrongIssuer,
    /// It lacks a scope that the route asks for.
    InsufficientScope,

    // A refresh credential.
    /// Not a refresh token of ours, or of a session that is gone.
    UnknownRefreshToken,
    /// Another client's refresh token (R6).
    OtherClient,
    /// Another account's refresh token.
    OtherAccount,
    /// A session begun in another dialect, which this endpoint does not accept.
    OtherDialect,
    /// The session was ended.
    SessionRevoked(Ended),
    /// The session outlived a lifetime.
    SessionExpired(Lapsed),
    /// The token is ahead of the store, and may not be taken on from here (O5).
    Ahead,
    /// A superseded token (RFC 9700 §4.14.2).
    Reuse(Reuse),
    /// An access token and a refresh token that do not belong together.
    MismatchedPair,
    /// The lifetime asked for goes beyond what may be asked for.
    TtlExceeded,
    /// The scope asked for goes beyond what was granted, or is malformed.
    InvalidScope,

    // A login or a client.
    /// Unknown user or wrong password: the caller never learns which (A2).
    WrongPassword,
    /// Unknown client, or it failed to authenticate.
    InvalidClient,
    /// The client may not use this grant.
    UnauthorizedClient,
    /// A grant type that the endpoint does not serve.
    UnsupportedGrantType,
    /// The user has as many live sessions as there may be, and the rules say that no other one begins.
    TooManySessions,
    /// Too many tries; the next one counts after this long.
    TooManyRequests(Duration),
}

/// What a refusal says of the credential that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It opens nothing here, and waiting changes nothing.
    Dead,
    /// It is refused for what was asked here. What it is otherwise was not asked.
    Refused,
    /// Nothing: it was not looked at. The same request may pass later.
    Undecided,
}

/// Why a credential is not good: a decision. A refusal to decide is none, and becomes no `NotGood` (requirement R15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotGood(Denial);

impl NotGood {
    /// The decision in a denial.
    ///
    /// # Errors
    /// The denial itself, if nothing was decided.
    pub const fn of(denial: Denial) -> Result<Self, Denial> {
        match denial.standing() {
            Standing::Dead | Standing::Refused => Ok(Self(denial)),
            Standing::Undecided => Err(denial),
        }
    }

    /// The rule that refuses it.
    pub const fn denial(self) -> Denial {
        self.0
    }
}

impl Denial {
    /// What it says of the credential that was presented.
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
            | Self::OtherClient
            | Self::OtherAccount
            | Self::OtherDialect
            | Self::UnknownHost
            | Self::AmbiguousPath
            | Self::TooManySessions
            | Self::Ahead
            | Self::MismatchedPair
            | Self::TtlExceeded
            | Self::InvalidScope
            | Self::WrongPassword
            | Self::InvalidClient
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType => Standing::Refused,
            Self::TooManyRequests(_) => Standing::Undecided,
        }
    }

    /// Was nothing decided, so that the same request may pass later?
    pub const fn is_undecided(&self) -> bool {
        matches!(self.standing(), Standing::Undecided)
    }

    /// One word for log lines and metrics, from a fixed set.
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
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::InsufficientScope => "insufficient_scope",
            Self::UnknownRefreshToken => "unknown_refresh_token",
            Self::OtherClient => "other_client",
            Self::OtherAccount => "other_account",
            Self::OtherDialect => "other_dialect",
            Self::SessionRevoked(Ended::Record) => "session_revoked",
            Self::SessionRevoked(Ended::List) => "session_revoked_by_list",
            Self::SessionRevoked(Ended::UserInactive) => "user_inactive",
            Self::SessionRevoked(Ended::BeforeValidFrom) => "session_before_valid_from",
            Self::SessionExpired(Lapsed::Session) => "session_expired",
            Self::SessionExpired(Lapsed::Idle) => "session_idle",
            Self::Ahead => "ahead_of_store",
            Self::Reuse(_) => "reuse",
            Self::MismatchedPair => "mismatched_pair",
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

    /// What was wrong with the form of a request or token, where a variant says so. From fixed texts.
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self::MalformedRequest(what) | Self::MalformedToken(what) | Self::BadClaim(what) => Some(what),
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

/// Something on our side failed. Nothing was decided and nothing consumed: the caller may try again.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store failed or is closed.
    #[error("the store failed")]
    Store(#[from] crate::store::StoreError),
    /// The directory failed.
    #[error("the directory failed")]
    Directory(#[source] crate::directory::DirectoryError),
    /// A clock is wrong: nothing is minted until it is right.
    #[error("the clock is not to be trusted: nothing is minted until it is")]
    Clock,
    /// More password checks are waiting than the bound allows.
    #[error("too many password checks are waiting")]
    Busy,
    /// A key could not sign.
    #[error("a key could not sign: {0}")]
    Signing(&'static str),
    /// Others changed the session every time that this request tried to.
    #[error("the session changed under every try")]
    Contention,
}

impl From<crate::directory::DirectoryError> for Fault {
    fn from(error: crate::directory::DirectoryError) -> Self {
        use crate::directory::DirectoryError;
        match error {
            DirectoryError::Busy => Self::Busy,
            DirectoryError::Unavailable(_) => Self::Directory(error),
        }
    }
}

impl Fault {
    /// One word for log lines and metrics, from a fixed set.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Store(_) => "store_failed",
            Self::Directory(_) => "directory_failed",
            Self::Clock => "clock",
            Self::Busy => "busy",
            Self::Signing(_) => "signing_failed",
            Self::Contention => "contention",
        }
    }

    /// When a client should try again.
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::Busy | Self::Contention | Self::Directory(DirectoryError::Busy) => Duration::from_secs(1),
            Self::Store(_) | Self::Directory(DirectoryError::Unavailable(_)) | Self::Signing(_) | Self::Clock => {
                Duration::from_secs(5)
            }
        }
    }
}

/// Refused, or failed: never both.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's doing.
    #[error("refused: {0}")]
    Denied(#[source] Denial),
    /// Ours.
    #[error(transparent)]
    Failed(Fault),
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl<F: Into<Fault>> From<F> for Error {
    fn from(fault: F) -> Self {
        Self::Failed(fault.into())
    }
}

/// An error with its causes, for logs.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

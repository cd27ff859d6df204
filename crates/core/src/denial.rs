//! The reasons for which the gate refuses a request.

use std::time::Duration;

use crate::session::rotation::{Lifetime, Reuse, SessionEnd};

mod call;
mod class;
mod event;
mod path;
mod proof;
mod provider;
mod standing;
mod table;
mod words;

pub use call::CallFlaw;
pub use class::Class;
pub use event::EventFlaw;
pub use path::PathError;
pub use proof::ProofFlaw;
pub use provider::{ProviderFlaw, provider_words};
pub use standing::NotGood;
pub(crate) use standing::Standing;

/// The rule that refused a request.
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
    /// The path is not canonical, or contains a character that is not allowed in paths.
    // Requirement T12.
    BadPath(PathError),
    /// `Host` is missing, repeated, malformed, or contradicts the target.
    // Requirement T11.
    BadHost,
    /// The request target is not in origin form.
    // Requirement T11.
    BadTarget,
    /// The query contains a byte that must be percent-encoded, such as a non-ASCII byte (RFC 3986 §2.1).
    // Requirement T11.
    BadQuery,
    /// The framing of the body is invalid. A body needs either a single `Content-Length` or the chunked coding.
    // Requirement T7.
    BadFraming,
    /// A `CONNECT` request for a tunnel, which the gate does not serve.
    // Requirement T10.
    Tunnel,
    /// The request target is longer than the bound.
    // Requirement A4.
    TargetTooLong,
    /// There is more than one `Authorization` header, or a token in two places.
    // Requirements T1, T2.
    TwoCredentials,
    /// `Host` does not name a host that the gate serves.
    // Requirement T23.
    UnknownHost,
    /// The request does not match a route.
    NoRoute,
    /// The caller does not have a live session with this id.
    // Requirement P55.
    UnknownSession,
    /// The caller does not have a live API key with this id.
    // Requirement K5.
    UnknownApiKey,
    /// Another common parsing of the path matches a stricter route.
    // Requirement T20.
    AmbiguousPath,
    /// The route or endpoint does not serve this method.
    MethodNotAllowed,
    /// The path is a suspicious variant of a gate endpoint's path.
    // Requirement R12.
    NearMiss,
    /// A proxy sent an authorization request about a gate endpoint. Only the public listeners serve these endpoints.
    // Requirement N15.
    EndpointElsewhere,
    /// The peer is not allowed to send authorization requests.
    // Requirement N3.
    UntrustedNeighbour,
    /// A required value in a proxy's authorization request is missing, repeated or malformed.
    // Requirement N2.
    BadFact(&'static str),
    /// A request header imitates a gate header, and the proxy could not remove it.
    // Requirement N9.
    DisguisedHeader,
    /// The request body for a gate endpoint is too large.
    BodyTooLarge,
    /// The request body for a gate endpoint violates the protocol.
    MalformedRequest(&'static str),
    /// A logout token or a security event was refused.
    // Requirement N49.
    #[doc(hidden)]
    RefusedEvent(EventFlaw),
    /// A browser returned from a provider, but could not be logged in.
    // Requirements B29, B32, B33.
    #[doc(hidden)]
    ProviderLogin(ProviderFlaw),
    /// A Model Context Protocol call with malformed or contradictory headers or body.
    // Requirements M1 to M4.
    BadCall(CallFlaw),

    // The bearer token on a data route.
    /// The request does not contain a credential.
    NoCredential,
    /// The credential has an unsupported scheme, or the route does not accept it from this source.
    UnusableCredential,
    /// A state-changing browser request without an allowed origin.
    // Requirement T18.
    CrossOrigin,
    /// The browser's request lacks the header that `csrf_header` names.
    NoCsrfHeader,
    /// The token's shape, size, encoding or header is not acceptable.
    MalformedToken(&'static str),
    /// The gate does not trust the issuer.
    UnknownIssuer,
    /// The issuer does not have a key with this `kid`.
    UnknownKey,
    /// The token has no `kid`, and more than 4 keys fit its algorithm.
    // Requirement J30.
    TooManyKeys,
    /// The algorithm in the token's header differs from the key's algorithm.
    WrongAlgorithm,
    /// `typ` is not the type of an access token (RFC 9068 §4).
    WrongType,
    /// The signature is invalid.
    BadSignature,
    /// A claim is missing, or has the wrong type or form.
    BadClaim(&'static str),
    /// The token is bound to a key, but the caller did not prove possession (RFC 9449, RFC 8705).
    UnprovedBinding,
    /// The token is not bound to a key or a client certificate, although the route or request requires it.
    // Requirement N31.
    UnboundToken,
    /// The proof's key is not the key to which the access token is bound.
    // Requirement N30.
    OtherKey,
    /// The token is bound to a client certificate, but the connection does not have a client certificate (RFC 8705 §3).
    NoCertificate,
    /// The connection's client certificate is not the one to which the access token is bound (RFC 8705 §3).
    OtherCertificate,
    /// The gate's endpoints do not accept delegated tokens (RFC 8693).
    // Requirement D10.
    DelegatedToken,
    /// This client may not exchange the token (RFC 8693 §2.2.2).
    // Requirement D1.
    NotExchangeable(&'static str),
    /// The provider refused to exchange the token.
    // Requirement D12.
    ExchangeRefused,
    /// The provider requires a stronger login before it exchanges the token.
    ExchangeClaims,
    /// The token for the upstream is not available now.
    ExchangeUnavailable(Duration),
    /// `exp` is in the past.
    TokenExpired,
    /// The token is valid, but was issued too long ago for this request.
    // Requirement P55.
    TokenTooOld,
    /// `nbf` or `iat` is in the future.
    TokenNotYetValid,
    /// The token was revoked.
    TokenRevoked,
    /// The keys of the token's issuer are not known yet. Contains the delay before a retry.
    // Requirement I4.
    KeysUnavailable(Duration),
    /// The token's issuer reports the token as inactive.
    // Requirement I20.
    TokenInactive,
    /// The issuer could not be queried about the token. Contains the delay before a retry.
    // Requirement I20.
    IntrospectionUnavailable(Duration),
    /// The shared store has not responded for too long, so the token may have been revoked. Contains the delay before a
    /// retry.
    // Requirement C10.
    RevocationsUnavailable(Duration),
    /// The gate could not sign its assertion about the caller for the upstream.
    // Requirement N57.
    AssertionUnavailable(Duration),
    /// The token is not meant for this route.
    WrongAudience,
    /// The route does not accept this issuer.
    WrongIssuer,
    /// The token lacks a scope that the route requires.
    InsufficientScope,
    /// The token lacks a role that the route requires.
    // Requirement I17.
    MissingRole,
    /// The token lacks a required role, and its issuer omitted roles because there are too many.
    // Requirement I18.
    RolesOverage,
    /// The claims of the token do not meet the conditions of the route.
    // Requirement K22.
    Condition,
    /// The user's login is too weak or too old for the route (RFC 9470).
    // Requirement N46.
    InsufficientAuthentication,
    /// A claim does not have the value that the route requires.
    MissingClaim,
    /// A check of the application refused the caller.
    Predicate,
    /// The claims do not have the shape that the handler expects.
    ClaimsShape,

    // The cookie of a browser session.
    /// This gate did not create the session cookie, or the secret in the cookie does not match the session.
    // Requirement B3.
    UnknownSessionCookie,
    /// The session has ended. Contains the reason.
    // Requirement B18.
    SessionOver(&'static str),
    /// The session must be renewed, but a browser's prefetch cannot renew it.
    SessionNotRenewed,
    /// The session could not be read or renewed. Contains the delay before a retry.
    // Requirement B18.
    SessionUnavailable(Duration),
    /// The route forwards the provider's token, which has expired and cannot be refreshed.
    // Requirement B40.
    ProviderTokenOver,
    /// The device cookie is missing, or the session is not bound to a device as required.
    // Requirement B48.
    DeviceProofMissing,
    /// The gate does not bind the session to the device, or the device's proof is invalid.
    // Requirements B47, B49.
    DeviceRefused(&'static str),

    // An API key.
    /// The API key is invalid, or its owner is inactive.
    // Requirement K4.
    ApiKeyRefused(&'static str),
    /// The record of the API key could not be read. Contains the delay before a retry.
    ApiKeyUnavailable(Duration),

    // A refresh credential.
    /// The gate did not issue the refresh token, or its session no longer exists.
    UnknownRefreshToken,
    /// The refresh token belongs to another client.
    // Requirement R6.
    OtherClient,
    /// The refresh token belongs to another account.
    OtherAccount,
    /// The endpoint does not accept sessions of this dialect.
    OtherDialect,
    /// The session was ended.
    SessionRevoked(SessionEnd),
    /// The session outlived `session_ttl`.
    SessionExpired,
    /// The session outlived `idle_ttl`.
    SessionIdle,
    /// The refresh token is newer than the session's record in the store.
    // Requirement O5.
    Ahead,
    /// The refresh token was already replaced by a newer one (RFC 9700 §4.14.2).
    Reuse {
        /// The number of generations since this token.
        generations_old: u64,
        /// The time since the token was replaced.
        superseded_for: Option<Duration>,
    },
    /// The access token and the refresh token belong to different pairs.
    MismatchedPair,
    /// The relay does not forward this refresh token.
    // Requirement I38.
    RelayRefused(&'static str),
    /// The DPoP proof is missing or invalid (RFC 9449 §4.3).
    // Requirements I38, N30.
    BadProof(ProofFlaw),
    /// The memory of used proofs is full. Contains the delay before a retry.
    // Requirement N33.
    ProofsFull(Duration),
    /// The shared store cannot tell whether the proof was used before. Contains the delay before a retry.
    // Requirement J30.
    ProofsUnavailable(Duration),
    /// The proof's key is not the key to which the refresh token is bound.
    // Requirement N35.
    OtherSessionKey,
    /// The connection lacks the client certificate to which the refresh token is bound (RFC 8705 §4).
    OtherSessionCertificate,
    /// The requested lifetime exceeds the maximum.
    TtlExceeded,
    /// The requested scope exceeds the grant, or is malformed.
    InvalidScope,
    /// The requested resource is unknown, or is not the session's resource (RFC 8707).
    InvalidTarget,

    // A login or a client.
    /// The user is unknown or the password is wrong. The response does not reveal which of the two.
    // Requirement A2.
    WrongPassword,
    /// The password is right, but the endpoint requires an account, which the user does not have.
    // Requirement I55.
    NoAccount,
    /// The client is unknown, or failed to authenticate.
    InvalidClient,
    /// The client's assertion is invalid, or was used before.
    // Requirements D22, D24.
    ClientAssertion(&'static str),
    /// The assertion of the grant is invalid or was used before, or its session has ended.
    // Requirements D18, D21 to D24.
    GrantAssertion(&'static str),
    /// The client may not use this grant.
    UnauthorizedClient,
    /// The endpoint does not serve this grant type.
    UnsupportedGrantType,
    /// The user already has the maximum number of live sessions.
    TooManySessions,
    /// An attempt exceeds a limit. Contains the limit's name and the delay before the next attempt.
    // Requirements O35, O46.
    RateLimited(&'static str, Duration),
    /// The caller exceeds a limit of the route. Contains the limit's name and the delay before the next request.
    // Requirements K15 to K20.
    QuotaExceeded(&'static str, Duration),
}

impl Lifetime {
    pub(crate) const fn denial(self) -> Denial {
        match self {
            Self::Session => Denial::SessionExpired,
            Self::Idle => Denial::SessionIdle,
        }
    }
}

impl Reuse {
    pub(crate) const fn denial(self) -> Denial {
        let Self { generations_old, superseded_for } = self;
        Denial::Reuse { generations_old, superseded_for }
    }
}

//! Denials as data. A [`Denial`] is an error of the caller, with one variant for each rule that refuses. A
//! [`Fault`](crate::fault::Fault) is a failure on our side.

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

/// The rule by which a credential, a request or a login was refused.
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
    /// The length of the body is not given by exactly one content length or by the chunked coding.
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
    /// No route matches.
    NoRoute,
    /// The caller does not have a live session with this id.
    // Requirement P55.
    UnknownSession,
    /// The caller does not have a live API key with this id.
    // Requirement K5.
    UnknownApiKey,
    /// A common interpretation of the path leads to a stricter route than the one that matches.
    // Requirement T20.
    AmbiguousPath,
    /// The route or endpoint does not serve this method.
    MethodNotAllowed,
    /// The path is almost the path of one of our endpoints, in a spelling that honest clients do not send.
    // Requirement R12.
    NearMiss,
    /// A proxy requests a verdict about a request to one of our endpoints, which are served only on the public
    /// listeners.
    // Requirement N15.
    EndpointElsewhere,
    /// The peer is not allowed to request verdicts.
    // Requirement N3.
    UntrustedNeighbour,
    /// A proxy that requests a verdict omits a required fact about the request, or sends it twice or malformed.
    // Requirement N2.
    BadFact(&'static str),
    /// A header imitates a header that only the gate may set, and the proxy that requests the verdict could not remove
    /// it.
    // Requirement N9.
    DisguisedHeader,
    /// The body of a request to one of our endpoints is too large.
    BodyTooLarge,
    /// The body of a request to one of our endpoints violates the protocol.
    MalformedRequest(&'static str),
    /// A logout token or a security event of another issuer was refused.
    // Requirement N49.
    #[doc(hidden)]
    RefusedEvent(EventFlaw),
    /// A browser returned from a provider, but could not be logged in.
    // Requirements B29, B32, B33.
    #[doc(hidden)]
    ProviderLogin(ProviderFlaw),
    /// A call of the Model Context Protocol whose headers or body are malformed, or contradict each other.
    // Requirements M1 to M4.
    BadCall(CallFlaw),

    // The bearer token on a data route.
    /// The request does not contain a credential.
    NoCredential,
    /// The credential has a different scheme, or is in a place that the route does not allow.
    UnusableCredential,
    /// A browser sent a cookie with a request that changes data, without proof that the request comes from a page of an
    /// allowed origin.
    // Requirement T18.
    CrossOrigin,
    /// A request of a browser session without the header that `csrf_header` names.
    NoCsrfHeader,
    /// The token is not a JWS that the gate accepts, because of its shape, size, encoding or header.
    MalformedToken(&'static str),
    /// The gate does not trust the issuer.
    UnknownIssuer,
    /// The issuer does not have a key with this `kid`.
    UnknownKey,
    /// The token does not have a `kid`, and the issuer has more than 4 keys for the token's algorithm. At most 4 keys
    /// are tried.
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
    /// The token is bound to a key whose possession was not proved (RFC 9449, RFC 8705).
    UnprovedBinding,
    /// The token is not bound to a key (RFC 9449 §7.1) or to a client certificate (RFC 8705), as the request or the
    /// route requires.
    // Requirement N31.
    UnboundToken,
    /// The proof is valid, but its key is not the one to which the access token is bound.
    // Requirement N30.
    OtherKey,
    /// The token is bound to a client certificate, but the connection does not have a client certificate (RFC 8705 §3).
    NoCertificate,
    /// The connection's client certificate is not the one to which the access token is bound (RFC 8705 §3).
    OtherCertificate,
    /// A client uses the token to act for the token's subject, which our endpoints do not accept (RFC 8693).
    // Requirement D10.
    DelegatedToken,
    /// This client may not exchange the token (RFC 8693 §2.2.2). Contains the reason.
    // Requirement D1.
    NotExchangeable(&'static str),
    /// The provider refused to exchange the caller's token for a token of the upstream.
    // Requirement D12.
    ExchangeRefused,
    /// The provider requires a stronger login of the user before it exchanges the token.
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
    /// The token was revoked: by itself, or with its session, generation, subject or client, or with all tokens.
    TokenRevoked,
    /// The keys of the token's issuer are not known at the moment, so the token was not examined. A retry may succeed
    /// after this time.
    // Requirement I4.
    KeysUnavailable(Duration),
    /// The token's issuer reports the token as inactive.
    // Requirement I20.
    TokenInactive,
    /// The issuer could not be queried about the token, so the token's state is unknown. A retry may succeed after this
    /// time.
    // Requirement I20.
    IntrospectionUnavailable(Duration),
    /// Other gates may have revoked the token, and their store has not responded to this gate for too long. A retry may
    /// succeed after this time.
    // Requirement C10.
    RevocationsUnavailable(Duration),
    /// The assertion about the caller could not be signed, and the upstream must not get a request without it.
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
    /// The token lacks a role that the route requires, and its issuer omitted roles because there are too many.
    // Requirement I18.
    RolesOverage,
    /// The claims of the token do not meet the conditions of the route.
    // Requirement K22.
    Condition,
    /// The caller did not log in as the route requires, or logged in too long ago (RFC 9470).
    // Requirement N46.
    InsufficientAuthentication,
    /// A claim does not have the value that the route requires.
    MissingClaim,
    /// A check of the application refused the caller.
    Predicate,
    /// The claims do not have the shape that the handler expects.
    ClaimsShape,

    // The cookie of a browser session.
    /// The session cookie was not made with a key of this gate, or its secret does not belong to the session that the
    /// cookie names.
    // Requirement B3.
    UnknownSessionCookie,
    /// The session of the cookie has ended, for the contained reason. The user must log in again.
    // Requirement B18.
    SessionOver(&'static str),
    /// The session must be renewed, but this request cannot renew it. The browser prefetched the page, so the request
    /// does not count as activity of the user.
    SessionNotRenewed,
    /// The session is not cached, and could not be read or renewed. A retry may succeed after this time.
    // Requirement B18.
    SessionUnavailable(Duration),
    /// The route forwards the provider's access token, but the token in this session has expired and cannot be
    /// refreshed.
    // Requirement B40.
    ProviderTokenOver,
    /// The session is bound to a device, and the request does not have the cookie of this device. Or the session must
    /// be bound to a device, but is not.
    // Requirement B48.
    DeviceProofMissing,
    /// The gate does not bind the session to the device, or the device's proof is invalid. Contains the reason.
    // Requirements B47, B49.
    DeviceRefused(&'static str),

    // An API key.
    /// The API key is unknown or has ended, or its owner is not active. Contains the reason, which is only for the log.
    // Requirement K4.
    ApiKeyRefused(&'static str),
    /// The record of the API key could not be read. A retry may succeed after this time.
    ApiKeyUnavailable(Duration),

    // A refresh credential.
    /// The string is not a refresh token of this gate, or its session no longer exists.
    UnknownRefreshToken,
    /// The refresh token belongs to another client.
    // Requirement R6.
    OtherClient,
    /// The refresh token belongs to another account.
    OtherAccount,
    /// The session began in another dialect, which this endpoint does not accept.
    OtherDialect,
    /// The session was ended.
    SessionRevoked(SessionEnd),
    /// The session outlived `session_ttl`.
    SessionExpired,
    /// The session outlived `idle_ttl`.
    SessionIdle,
    /// The refresh token is newer than the session's record in the store, and the gate must not continue the session
    /// from it.
    // Requirement O5.
    Ahead,
    /// The token was superseded (RFC 9700 §4.14.2).
    Reuse {
        /// The number of generations by which the token is older than the current generation.
        generations_old: u64,
        /// The time since its successor was issued, if the record still contains this time.
        superseded_for: Option<Duration>,
    },
    /// The access token and the refresh token belong to different pairs.
    MismatchedPair,
    /// The relay does not forward this refresh token, because the stored response is for a different presenter, or
    /// because the request must not be repeated.
    // Requirement I38.
    RelayRefused(&'static str),
    /// The DPoP proof is missing or invalid (RFC 9449 §4.3).
    // Requirements I38, N30.
    BadProof(ProofFlaw),
    /// The memory of used proofs is full, so this proof cannot be recorded. A retry may succeed after this time.
    // Requirement N33.
    ProofsFull(Duration),
    /// The store that several gates share cannot tell whether the proof was used at another gate. A retry with a new
    /// proof may succeed after this time.
    // Requirement J30.
    ProofsUnavailable(Duration),
    /// The proof is valid, but its key is not the one to which the refresh token is bound.
    // Requirement N35.
    OtherSessionKey,
    /// The refresh token is bound to a client certificate, and the connection has no certificate or a different one
    /// (RFC 8705 §4).
    OtherSessionCertificate,
    /// The requested lifetime exceeds the maximum.
    TtlExceeded,
    /// The requested scope exceeds the grant, or is malformed.
    InvalidScope,
    /// This gate does not issue tokens for the requested resource, or the session is for a different resource (RFC
    /// 8707).
    InvalidTarget,

    // A login or a client.
    /// The user is unknown or the password is wrong. The caller does not learn which.
    // Requirement A2.
    WrongPassword,
    /// The password is right, but the user has no account, and the endpoint requires one. The reply is the same as for
    /// a wrong password.
    // Requirement I55.
    NoAccount,
    /// The client is unknown, or failed to authenticate.
    InvalidClient,
    /// The assertion with which a client authenticates is invalid, or was used before.
    // Requirements D22, D24.
    ClientAssertion(&'static str),
    /// An assertion that is presented as a grant is invalid or was used before, or its session has ended.
    // Requirements D18, D21 to D24.
    GrantAssertion(&'static str),
    /// The client may not use this grant.
    UnauthorizedClient,
    /// The endpoint does not serve this grant type.
    UnsupportedGrantType,
    /// The user already has the maximum number of live sessions, and the rules do not allow another one.
    TooManySessions,
    /// An attempt exceeds a limit. Contains the name of the limit, which is a key of `[limits]` or a name in
    /// docs/outcomes.md, and the time after which the next attempt is admitted.
    // Requirements O35, O46.
    RateLimited(&'static str, Duration),
    /// The caller's requests exceed a limit of the route. Contains the name of the limit, and the time after which the
    /// next request is admitted.
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

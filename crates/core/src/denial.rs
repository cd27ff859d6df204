//! Refusals as data. A [`Denial`] is an error of the caller: one variant for each rule that refuses. A
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
    /// The path is not canonical, or contains a character that no path may have.
    // Requirement T12.
    BadPath(PathError),
    /// `Host` is missing, repeated, malformed or contradicts the target.
    // Requirement T11.
    BadHost,
    /// The request target is not in origin form.
    // Requirement T11.
    BadTarget,
    /// The query has a byte that must be percent-encoded, such as one of UTF-8 (RFC 3986 §2.1).
    // Requirement T11.
    BadQuery,
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
    /// The caller has no live session with this id.
    // Requirement P55.
    UnknownSession,
    /// The caller has no live API key with this id.
    // Requirement K5.
    UnknownApiKey,
    /// A common reading of the path leads to a stricter route than the one that matches.
    // Requirement T20.
    AmbiguousPath,
    /// The route, or our endpoint, does not serve this method.
    MethodNotAllowed,
    /// A spelling close to one of our endpoints, which no honest client sends.
    // Requirement R12.
    NearMiss,
    /// The path is one of our endpoints, which answers on the public listeners only, and another proxy asks about it.
    // Requirement N15.
    EndpointElsewhere,
    /// The peer may not ask for verdicts.
    // Requirement N3.
    UntrustedNeighbour,
    /// A proxy that asks for a verdict does not state a fact about the request, or states it twice or malformed.
    // Requirement N2.
    BadFact(&'static str),
    /// A header imitates one that only the gate sets, and the proxy that asks could not remove it.
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
    /// A browser comes back from a provider, and is not logged in.
    // Requirements B29, B32, B33.
    #[doc(hidden)]
    ProviderLogin(ProviderFlaw),
    /// A call of the Model Context Protocol whose headers or body are malformed, or contradict each other.
    // Requirements M1 to M4.
    BadCall(CallFlaw),

    // The bearer token on a data route.
    /// No credential was sent.
    NoCredential,
    /// A credential of another scheme, or in a place that the route does not allow.
    UnusableCredential,
    /// A browser sent a cookie with a request that changes something, without proof that a page of an allowed origin
    /// sent it.
    // Requirement T18.
    CrossOrigin,
    /// A request by a browser's session without the header that `csrf_header` names.
    NoCsrfHeader,
    /// The token is not a JWS that the gate accepts: shape, size, encoding, header.
    MalformedToken(&'static str),
    /// The gate does not trust the issuer.
    UnknownIssuer,
    /// No key of the issuer has that `kid`.
    UnknownKey,
    /// The token has no `kid`, and the issuer has more keys of its algorithm than are tried: 4.
    // Requirement J30.
    TooManyKeys,
    /// The header's algorithm is not the key's.
    WrongAlgorithm,
    /// `typ` is not the type of an access token (RFC 9068 §4).
    WrongType,
    /// The signature is bad.
    BadSignature,
    /// A claim is missing or of the wrong type or form.
    BadClaim(&'static str),
    /// The token is bound to a key whose possession was not proved (RFC 9449, RFC 8705).
    UnprovedBinding,
    /// The token is not bound as the request or the route demands: to a key (RFC 9449 §7.1), or to a client certificate
    /// (RFC 8705).
    // Requirement N31.
    UnboundToken,
    /// The proof is good, but its key is not the one that the access token is bound to.
    // Requirement N30.
    OtherKey,
    /// The token is bound to a client certificate, and the connection has none (RFC 8705 §3).
    NoCertificate,
    /// The connection's client certificate is not the one that the access token is bound to (RFC 8705 §3).
    OtherCertificate,
    /// A client acts with the token for its subject, which our endpoints do not accept (RFC 8693).
    // Requirement D10.
    DelegatedToken,
    /// This client may not exchange the token (RFC 8693 §2.2.2). Contains the reason as a fixed text.
    // Requirement D1.
    NotExchangeable(&'static str),
    /// The provider refuses to exchange the caller's token for a token of the upstream.
    // Requirement D12.
    ExchangeRefused,
    /// The provider requires a stronger login of the user before it exchanges the token.
    ExchangeClaims,
    /// The token for the upstream is not available now.
    ExchangeUnavailable(Duration),
    /// `exp` is past.
    TokenExpired,
    /// The token is good, but was issued too long ago for this request.
    // Requirement P55.
    TokenTooOld,
    /// `nbf` or `iat` is in the future.
    TokenNotYetValid,
    /// The token is revoked: itself, its session, generation, subject or client, or every token.
    TokenRevoked,
    /// The keys of the token's issuer are not known at this moment, so the token was not examined. Another attempt may
    /// succeed after this time.
    // Requirement I4.
    KeysUnavailable(Duration),
    /// The token's issuer reports it as not active.
    // Requirement I20.
    TokenInactive,
    /// The issuer could not be asked about the token, so its state is unknown. Another attempt may succeed after this
    /// time.
    // Requirement I20.
    IntrospectionUnavailable(Duration),
    /// Other gates may have revoked the token, and this gate has had no news from their store for too long. Another
    /// attempt may succeed after this time.
    // Requirement C10.
    RevocationsUnavailable(Duration),
    /// The assertion about the caller could not be signed, and the upstream gets no request without an assertion.
    // Requirement N57.
    AssertionUnavailable(Duration),
    /// The token is not meant for this route.
    WrongAudience,
    /// The route does not accept this issuer.
    WrongIssuer,
    /// The token lacks a scope that the route requires.
    InsufficientScope,
    /// The token lacks a role that the route asks for.
    // Requirement I17.
    MissingRole,
    /// The token lacks a role that the route asks for, and its issuer left roles out because there are too many.
    // Requirement I18.
    RolesOverage,
    /// The claims of the token do not meet the conditions of the route.
    // Requirement K22.
    Condition,
    /// The caller did not log in as the route asks, or too long ago (RFC 9470).
    // Requirement N46.
    InsufficientAuthentication,
    /// A claim does not have the value that the route requires.
    MissingClaim,
    /// A check of the application refuses the caller.
    Predicate,
    /// The claims do not have the shape that the handler reads.
    ClaimsShape,

    // The cookie of a browser session.
    /// No key of this gate made the session cookie, or its secret does not belong to the session that it names.
    // Requirement B3.
    UnknownSessionCookie,
    /// The session of the cookie has ended, for the contained reason. The user must log in again.
    // Requirement B18.
    SessionOver(&'static str),
    /// The session must be renewed first, but the request does not count as activity of the user, because the browser
    /// prefetched it.
    SessionNotRenewed,
    /// The session is not cached, and could not be read or renewed. Another attempt may succeed after this time.
    // Requirement B18.
    SessionUnavailable(Duration),
    /// The route forwards the provider's access token, but the session's token has expired and cannot be refreshed.
    // Requirement B40.
    ProviderTokenOver,
    /// The session is bound to a device, and the request has no cookie of that device; or the session must be bound to
    /// a device, and is not bound.
    // Requirement B48.
    DeviceProofMissing,
    /// The gate does not bind the session to the device, or the device's proof is bad. Contains the reason.
    // Requirements B47, B49.
    DeviceRefused(&'static str),

    // An API key.
    /// The API key is unknown or has ended, or its owner is not active. Contains the reason, for the log alone.
    // Requirement K4.
    ApiKeyRefused(&'static str),
    /// The record of the API key could not be read. Another attempt may succeed after this time.
    ApiKeyUnavailable(Duration),

    // A refresh credential.
    /// The text is not a refresh token of this gate, or its session no longer exists.
    UnknownRefreshToken,
    /// Another client's refresh token.
    // Requirement R6.
    OtherClient,
    /// Another account's refresh token.
    OtherAccount,
    /// The session began in another dialect, which this endpoint does not accept.
    OtherDialect,
    /// The session was ended.
    SessionRevoked(SessionEnd),
    /// The session outlived `session_ttl`.
    SessionExpired,
    /// The session outlived `idle_ttl`.
    SessionIdle,
    /// The token is ahead of the store, and the session must not continue from it.
    // Requirement O5.
    Ahead,
    /// A superseded token (RFC 9700 §4.14.2).
    Reuse {
        /// How many generations older than the current one the token is.
        generations_old: u64,
        /// The time since its successor was issued, if the record still has it.
        superseded_for: Option<Duration>,
    },
    /// An access token and a refresh token of different pairs.
    MismatchedPair,
    /// The relay does not send this refresh token: it has an answer for another presenter, or may not repeat the
    /// request.
    // Requirement I38.
    RelayRefused(&'static str),
    /// A DPoP proof that is missing or bad (RFC 9449 §4.3).
    // Requirements I38, N30.
    BadProof(ProofFlaw),
    /// The memory of used proofs is full, so this proof cannot be recorded. Another attempt may succeed after this
    /// time.
    // Requirement N33.
    ProofsFull(Duration),
    /// The store that gates share cannot tell whether the proof was used at another gate. Another attempt, with another
    /// proof, may succeed after this time.
    // Requirement J30.
    ProofsUnavailable(Duration),
    /// The proof is good, but its key is not the one that the refresh token is bound to.
    // Requirement N35.
    OtherSessionKey,
    /// The refresh token is bound to a client certificate, and the connection has no certificate or another one (RFC
    /// 8705 §4).
    OtherSessionCertificate,
    /// The requested lifetime exceeds the maximum.
    TtlExceeded,
    /// The requested scope exceeds the grant, or is malformed.
    InvalidScope,
    /// This gate grants no tokens for the requested resource, or the resource is not the session's (RFC 8707).
    InvalidTarget,

    // A login or a client.
    /// Unknown user or wrong password: the caller never learns which.
    // Requirement A2.
    WrongPassword,
    /// The password is right, but the user has no account, and the endpoint requires one. The reply is the same as for
    /// a wrong password.
    // Requirement I55.
    NoAccount,
    /// The client is unknown, or failed to authenticate.
    InvalidClient,
    /// The assertion by which a client authenticates is bad, or was used before.
    // Requirements D22, D24.
    ClientAssertion(&'static str),
    /// An assertion that is presented as a grant is bad or was used before, or its session has ended.
    // Requirements D18, D21 to D24.
    GrantAssertion(&'static str),
    /// The client may not use this grant.
    UnauthorizedClient,
    /// A grant type that the endpoint does not serve.
    UnsupportedGrantType,
    /// The user has as many live sessions as allowed, and the rules refuse another one.
    TooManySessions,
    /// A limit of attempts, by its name: a key of `[limits]`, or a name in docs/outcomes.md. The next attempt is
    /// admitted after this time.
    // Requirements O35, O46.
    RateLimited(&'static str, Duration),
    /// The caller's requests exceed a limit of the route, by its name. The next request is admitted after this time.
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

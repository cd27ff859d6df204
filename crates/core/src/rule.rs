//! The rules by which the gate judges a request.

use crate::denial::Denial;

/// A rule of the gate, in the order of an explanation.
///
/// ```
/// use rotogate::denial::Denial;
/// use rotogate::gate::Rule;
///
/// assert_eq!(Rule::from_denial(Denial::TokenExpired), Rule::Claims);
/// assert_eq!(Rule::from_denial(Denial::InsufficientScope).word(), "scope");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Framing and host.
    Request,
    /// The canonical path.
    Path,
    /// The route, its methods, and the gate's own endpoints.
    Route,
    /// The request's only credential, and its form.
    Credential,
    /// The origin of a request with a cookie.
    Origin,
    /// The limits on bad tokens.
    Limit,
    /// The issuer's key.
    Key,
    /// The signature, or the issuer's answer about an opaque token.
    Signature,
    /// Type, times and form of the claims.
    Claims,
    /// Revocations.
    Revocation,
    /// The key that the token is bound to, and the proof that the caller has it.
    Proof,
    /// The issuers that the route accepts.
    Issuer,
    /// The audiences.
    Audience,
    /// The scopes.
    Scope,
    /// The roles, and further requirements of the application.
    Role,
    /// The conditions on claims.
    Condition,
    /// How and when the caller logged in (RFC 9470).
    StepUp,
    /// How many requests the route's callers may make.
    Quota,
    /// The answer of a decision point.
    Decision,
    /// The session of a refresh token.
    Session,
    /// The result of the rotation table for a refresh token.
    Rotation,
}

impl Rule {
    /// The rules of a request, in order.
    pub const OF_REQUESTS: [Self; 19] = [
        Self::Request,
        Self::Path,
        Self::Route,
        Self::Credential,
        Self::Origin,
        Self::Limit,
        Self::Key,
        Self::Signature,
        Self::Claims,
        Self::Revocation,
        Self::Proof,
        Self::Issuer,
        Self::Audience,
        Self::Scope,
        Self::Role,
        Self::Condition,
        Self::StepUp,
        Self::Quota,
        Self::Decision,
    ];

    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Path => "path",
            Self::Route => "route",
            Self::Credential => "credential",
            Self::Origin => "origin",
            Self::Limit => "limit",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Revocation => "revocation",
            Self::Proof => "proof",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Scope => "scope",
            Self::Role => "role",
            Self::Condition => "condition",
            Self::StepUp => "step_up",
            Self::Quota => "quota",
            Self::Decision => "decision",
            Self::Session => "session",
            Self::Rotation => "rotation",
        }
    }

    /// The rule that refuses with this denial.
    pub const fn from_denial(denial: Denial) -> Self {
        match denial {
            Denial::BadHost | Denial::BadTarget | Denial::BadFraming | Denial::Tunnel => Self::Request,
            Denial::TargetTooLong | Denial::UnknownHost | Denial::UntrustedNeighbour => Self::Request,
            Denial::BadFact(_) | Denial::DisguisedHeader => Self::Request,
            Denial::BadPath(_) => Self::Path,
            Denial::NoRoute
            | Denial::UnknownSession
            | Denial::UnknownApiKey
            | Denial::AmbiguousPath
            | Denial::MethodNotAllowed
            | Denial::NearMiss
            | Denial::EndpointElsewhere
            | Denial::BodyTooLarge
            | Denial::RefusedEvent(_)
            | Denial::BadCall(_)
            | Denial::MalformedRequest(_) => Self::Route,
            Denial::TwoCredentials
            | Denial::NoCredential
            | Denial::UnusableCredential
            | Denial::MalformedToken(_)
            | Denial::UnknownSessionCookie
            | Denial::UnknownRefreshToken
            | Denial::MismatchedPair
            | Denial::WrongPassword
            | Denial::NoAccount
            | Denial::ProviderLogin(_)
            | Denial::InvalidClient
            | Denial::ClientAssertion(_)
            | Denial::GrantAssertion(_) => Self::Credential,
            Denial::ApiKeyRefused(_) => Self::Credential,
            Denial::ApiKeyUnavailable(_) => Self::Revocation,
            Denial::SessionOver(_) | Denial::SessionNotRenewed | Denial::SessionUnavailable(_) => Self::Revocation,
            Denial::CrossOrigin => Self::Origin,
            Denial::RateLimited(..) => Self::Limit,
            Denial::UnknownIssuer
            | Denial::UnknownKey
            | Denial::WrongAlgorithm
            | Denial::KeysUnavailable(_)
            | Denial::AssertionUnavailable(_) => Self::Key,
            Denial::BadSignature | Denial::TokenInactive | Denial::IntrospectionUnavailable(_) => Self::Signature,
            Denial::WrongType
            | Denial::BadClaim(_)
            | Denial::TokenExpired
            | Denial::TokenTooOld
            | Denial::TokenNotYetValid => Self::Claims,
            Denial::TokenRevoked | Denial::ProviderTokenOver | Denial::RevocationsUnavailable(_) => Self::Revocation,
            Denial::UnprovedBinding
            | Denial::UnboundToken
            | Denial::OtherKey
            | Denial::DeviceProofMissing
            | Denial::DeviceRefused(_)
            | Denial::BadProof(_)
            | Denial::ProofsFull(_)
            | Denial::ProofsUnavailable(_)
            | Denial::NoCertificate
            | Denial::OtherCertificate
            | Denial::OtherSessionKey
            | Denial::OtherSessionCertificate => Self::Proof,
            Denial::DelegatedToken | Denial::NotExchangeable(_) => Self::Claims,
            Denial::WrongIssuer => Self::Issuer,
            Denial::ExchangeRefused | Denial::ExchangeClaims | Denial::ExchangeUnavailable(_) => Self::Issuer,
            Denial::WrongAudience => Self::Audience,
            Denial::InsufficientScope | Denial::InvalidScope | Denial::InvalidTarget => Self::Scope,
            Denial::MissingRole | Denial::RolesOverage => Self::Role,
            Denial::MissingClaim | Denial::Predicate | Denial::ClaimsShape => Self::Role,
            Denial::Condition => Self::Condition,
            Denial::InsufficientAuthentication => Self::StepUp,
            Denial::QuotaExceeded(..) => Self::Quota,
            Denial::DecisionDenied | Denial::DecisionUnavailable(_) => Self::Decision,
            Denial::DecisionStepUp | Denial::StepUpContradiction => Self::Decision,
            Denial::OtherClient | Denial::OtherAccount | Denial::OtherDialect | Denial::TtlExceeded => Self::Session,
            Denial::UnauthorizedClient | Denial::UnsupportedGrantType | Denial::TooManySessions => Self::Session,
            Denial::SessionRevoked(_) | Denial::SessionExpired | Denial::SessionIdle | Denial::Ahead => Self::Rotation,
            Denial::Reuse { .. } | Denial::RelayRefused(_) => Self::Rotation,
        }
    }
}

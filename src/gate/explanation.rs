//! Why a request is refused: the rules that it passes, one by one. See [`GateLayer::explain`](super::GateLayer::explain).

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::denial::Denial;
use crate::route::{Route, RouteId};
use crate::session::Scope;

/// What the gate would make of a request, rule by rule. A token is never in it.
///
/// ```
/// use rotogate::gate::{Explanation, RuleResult};
///
/// /// The rules that refuse a request, for an operator.
/// fn complaints(explanation: &Explanation) -> Vec<String> {
///     let failed = explanation.rules.iter().filter(|rule| rule.result == RuleResult::Fail);
///     failed.map(|rule| format!("{}: {}", rule.rule.word(), rule.detail)).collect()
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// What becomes of the request.
    pub decision: Conclusion,
    /// The status of the gate's own reply. `None`: the service behind the gate answers, or the reply depends on more
    /// than the head of the request.
    pub status: Option<u16>,
    /// The outcome, as the log and the metrics name it.
    pub outcome: &'static str,
    /// What is wrong, in the words of the log.
    pub detail: Option<&'static str>,
    /// The refusal.
    pub denial: Option<Denial>,
    /// The reply's `WWW-Authenticate`.
    pub challenge: Option<String>,
    /// The route that matched.
    pub route: Option<Arc<Route>>,
    /// Less specific routes that match, too.
    pub also_matched: Vec<RouteId>,
    /// Every rule, in the order in which they are listed.
    pub rules: Vec<RuleVerdict>,
    /// The identity headers that the service behind the gate gets.
    pub identity: Vec<(HeaderName, HeaderValue)>,
    /// What the token says.
    pub token: Option<ExplainedToken>,
}

/// What becomes of a request.
///
/// ```
/// use rotogate::gate::Conclusion;
///
/// assert_eq!(Conclusion::Unavailable.word(), "unavailable", "nothing was decided: 503");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conclusion {
    /// The service behind the gate gets it, or one of the gate's endpoints answers.
    Passed,
    /// A rule refuses it.
    Refused,
    /// What decides is not known at this moment.
    Unavailable,
}

impl Conclusion {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What one rule says of a request.
///
/// ```
/// use rotogate::gate::RuleVerdict;
///
/// fn line(verdict: &RuleVerdict) -> String {
///     format!("{:<5} {:<11} {}", verdict.result.word(), verdict.rule.word(), verdict.detail)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleVerdict {
    /// The rule.
    pub rule: Rule,
    /// What it says.
    pub result: RuleResult,
    /// Why.
    pub detail: String,
}

/// What a rule says.
///
/// ```
/// use rotogate::gate::RuleResult;
///
/// assert_eq!(RuleResult::Fail.word(), "fail");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleResult {
    /// It lets the request pass.
    Ok,
    /// It refuses the request, or would, if no rule before it did.
    Fail,
    /// It does not apply, or could not be judged.
    Skip,
}

impl RuleResult {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// A rule of the gate, in the order of an explanation.
///
/// ```
/// use rotogate::denial::Denial;
/// use rotogate::gate::Rule;
///
/// assert_eq!(Rule::of(Denial::TokenExpired), Rule::Claims);
/// assert_eq!(Rule::of(Denial::InsufficientScope).word(), "scope");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// Framing and host.
    Request,
    /// The canonical path.
    Path,
    /// The route, its methods, and the gate's own endpoints.
    Route,
    /// The one credential, and its form.
    Credential,
    /// The origin of a request with a cookie.
    Origin,
    /// The limits on tokens that are not good.
    Limit,
    /// The issuer's key.
    Key,
    /// The signature, or what the issuer says of an opaque token.
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
    /// The roles, and what else the application asks for.
    Role,
    /// How and when the caller logged in (RFC 9470).
    StepUp,
    /// The session of a refresh token.
    Session,
    /// What the rotation table says of a refresh token.
    Rotation,
}

impl Rule {
    /// The rules of a request, in order.
    pub(super) const OF_REQUESTS: [Self; 16] = [
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
        Self::StepUp,
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
            Self::StepUp => "step_up",
            Self::Session => "session",
            Self::Rotation => "rotation",
        }
    }

    /// The rule that refuses with this denial.
    pub const fn of(denial: Denial) -> Self {
        match denial {
            Denial::BadHost
            | Denial::BadTarget
            | Denial::BadFraming
            | Denial::Tunnel
            | Denial::TargetTooLong
            | Denial::UnknownHost
            | Denial::UntrustedNeighbour
            | Denial::BadFact(_)
            | Denial::DisguisedHeader => Self::Request,
            Denial::BadPath(_) => Self::Path,
            Denial::NoRoute
            | Denial::UnknownSession
            | Denial::AmbiguousPath
            | Denial::MethodNotAllowed
            | Denial::NearMiss
            | Denial::EndpointElsewhere
            | Denial::BodyTooLarge
            | Denial::RefusedEvent(_)
            | Denial::MalformedRequest(_) => Self::Route,
            Denial::TwoCredentials
            | Denial::NoCredential
            | Denial::UnusableCredential
            | Denial::MalformedToken(_)
            | Denial::UnknownRefreshToken
            | Denial::MismatchedPair
            | Denial::WrongPassword
            | Denial::NoAccount
            | Denial::InvalidClient => Self::Credential,
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
            Denial::TokenRevoked | Denial::RevocationsUnavailable(_) => Self::Revocation,
            Denial::UnprovedBinding
            | Denial::UnboundToken
            | Denial::OtherKey
            | Denial::BadProof(_)
            | Denial::ProofsFull(_)
            | Denial::ProofsUnavailable(_)
            | Denial::NoCertificate
            | Denial::OtherCertificate
            | Denial::OtherSessionKey
            | Denial::OtherSessionCertificate => Self::Proof,
            Denial::WrongIssuer => Self::Issuer,
            Denial::WrongAudience => Self::Audience,
            Denial::InsufficientScope | Denial::InvalidScope | Denial::InvalidTarget => Self::Scope,
            Denial::MissingRole
            | Denial::RolesOverage
            | Denial::MissingClaim
            | Denial::Predicate
            | Denial::ClaimsShape => Self::Role,
            Denial::InsufficientAuthentication => Self::StepUp,
            Denial::OtherClient
            | Denial::OtherAccount
            | Denial::OtherDialect
            | Denial::UnauthorizedClient
            | Denial::UnsupportedGrantType
            | Denial::TooManySessions
            | Denial::TtlExceeded => Self::Session,
            Denial::SessionRevoked(_)
            | Denial::SessionExpired(_)
            | Denial::Ahead
            | Denial::Reuse(_)
            | Denial::RelayRefused(_) => Self::Rotation,
        }
    }
}

/// What a token says. Nothing in it is the token itself.
///
/// ```
/// use rotogate::gate::Explanation;
///
/// /// The user, if the token proves who that is.
/// fn subject(explanation: &Explanation) -> Option<&str> {
///     let token = explanation.token.as_ref()?;
///     if token.is_proved { token.subject.as_deref() } else { None }
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExplainedToken {
    /// Its signature was verified, or its issuer vouches for it. Otherwise everything here is unverified.
    pub is_proved: bool,
    /// The name of the issuer whose rules judge it; ours is `self`.
    pub issuer_name: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// The client.
    pub client: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// Its generation.
    pub generation: Option<u64>,
    /// `jti`.
    pub token_id: Option<String>,
    /// `kid` of the header.
    pub kid: Option<String>,
    /// The scope, as the issuer's rules read it.
    pub scope: Option<Scope>,
    /// The audiences.
    pub audience: Vec<String>,
}

impl RuleVerdict {
    pub(super) fn new(rule: Rule, result: RuleResult, detail: impl Into<String>) -> Self {
        Self { rule, result, detail: detail.into() }
    }

    pub(super) fn ok(rule: Rule, detail: impl Into<String>) -> Self {
        Self::new(rule, RuleResult::Ok, detail)
    }

    pub(super) fn fail(rule: Rule, detail: impl Into<String>) -> Self {
        Self::new(rule, RuleResult::Fail, detail)
    }

    pub(super) fn skip(rule: Rule, detail: impl Into<String>) -> Self {
        Self::new(rule, RuleResult::Skip, detail)
    }
}

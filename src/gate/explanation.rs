use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use rotogate_core::denial::Denial;
use rotogate_core::route::Route;
pub use rotogate_core::rule::Rule;
use rotogate_core::session::Scope;

/// The rules that decide on a request, and their results. The explanation does not contain the token.
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
    /// Whether the request passes.
    pub decision: Conclusion,
    /// The status of the gate's own reply. `None` if the service behind the gate sends the reply, or if the reply
    /// depends on the request body.
    pub status: Option<u16>,
    /// The name of the outcome in logs and metrics.
    pub outcome: &'static str,
    /// The logged cause of a refusal.
    pub detail: Option<&'static str>,
    /// The denial, if the request is refused.
    pub denial: Option<Denial>,
    /// The reply's `WWW-Authenticate`.
    pub challenge: Option<String>,
    /// The route that matched.
    pub route: Option<Arc<Route>>,
    /// The rules for the request's MCP call, in addition to the route.
    pub call_rules: Vec<Arc<Route>>,
    /// Less specific routes that also match.
    pub also_matched: Vec<Arc<str>>,
    /// Every rule, in order.
    pub rules: Vec<RuleVerdict>,
    /// The identity headers that the service behind the gate gets.
    pub identity: Vec<(HeaderName, HeaderValue)>,
    /// The claims of the request's token.
    pub token: Option<ExplainedToken>,
    /// Advice for the operator: what to do about the refusal, or what the gate did not check.
    pub advice: Option<&'static str>,
}

pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The conclusion about a request.
///
/// ```
/// use rotogate::gate::Conclusion;
///
/// assert_eq!(Conclusion::Unavailable.word(), "unavailable", "nothing was decided: 503");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conclusion {
    /// The request reaches the service behind the gate, or an endpoint of the gate.
    Passed,
    /// A rule refuses the request.
    Refused,
    /// The decision of the gate's endpoint depends on the request body or the store.
    Undecided,
    /// The decision depends on information that is unavailable at the moment.
    Unavailable,
}

impl Conclusion {
    /// The conclusion in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Undecided => "undecided",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The result of one rule for a request.
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
    /// The rule that was checked.
    pub rule: Rule,
    /// Whether the request passes the rule.
    pub result: RuleResult,
    /// Why the rule has this result.
    pub detail: String,
    /// The id of the route or call rule that refuses the request, and the configuration key of the requirement.
    pub demand: Option<(Arc<str>, &'static str)>,
}

/// The result of a rule.
///
/// ```
/// use rotogate::gate::RuleResult;
///
/// assert_eq!(RuleResult::Fail.word(), "fail");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleResult {
    /// The rule lets the request pass.
    Ok,
    /// The rule refuses the request, even if an earlier rule has already refused it.
    Fail,
    /// The rule does not apply, or could not be evaluated.
    Skip,
}

impl RuleResult {
    /// The result in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// The claims of a token, without the token itself.
///
/// ```
/// use rotogate::gate::Explanation;
///
/// /// The user, if the token is verified.
/// fn subject(explanation: &Explanation) -> Option<&str> {
///     let token = explanation.token.as_ref()?;
///     if token.is_proved { token.subject.as_deref() } else { None }
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExplainedToken {
    /// Whether the signature was verified, or the issuer confirmed the token. Otherwise the claims are unverified.
    pub is_proved: bool,
    /// The name of the issuer whose rules apply. The gate itself is `self`.
    pub issuer_name: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// The client that the token was issued to.
    pub client: Option<String>,
    /// The id of the session.
    pub session: Option<String>,
    /// The generation of the token in its session.
    pub generation: Option<u64>,
    /// `jti`.
    pub token_id: Option<String>,
    /// The `kid` in the token's header.
    pub kid: Option<String>,
    /// The scope according to the issuer's rules.
    pub scope: Option<Scope>,
    /// The audiences.
    pub audience: Vec<String>,
}

impl RuleVerdict {
    pub(super) fn new(rule: Rule, result: RuleResult, detail: impl Into<String>) -> Self {
        Self { rule, result, detail: detail.into(), demand: None }
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

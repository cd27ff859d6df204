//! Explains why a request is refused: lists every rule, and whether the request passes it. See
//! [`GateLayer::explain`](super::GateLayer::explain).

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use rotogate_core::denial::Denial;
use rotogate_core::route::Route;
pub use rotogate_core::rule::Rule;
use rotogate_core::session::Scope;

/// The rules that decide on a request, with the result of each rule. An explanation never contains the token.
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
    /// The conclusion: the request passes, is refused, or cannot be decided now.
    pub decision: Conclusion,
    /// The status of the gate's own reply. `None` if the service behind the gate sends the reply, or if the reply
    /// depends on more than the head of the request.
    pub status: Option<u16>,
    /// The outcome, as the log and the metrics name it.
    pub outcome: &'static str,
    /// The cause of a refusal, as the log describes it.
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
    /// Every rule, in the order in which they are listed.
    pub rules: Vec<RuleVerdict>,
    /// The identity headers that the service behind the gate gets.
    pub identity: Vec<(HeaderName, HeaderValue)>,
    /// The claims of the presented token.
    pub token: Option<ExplainedToken>,
    /// Advice for the operator. If the request is refused for a reason that does not explain itself, it says what to
    /// do. If the request passes, it says what was not checked.
    pub advice: Option<&'static str>,
}

/// The error message, followed by the messages of its causes, for operators.
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
    /// The request reaches the service behind the gate, or an endpoint of the gate that serves it.
    Passed,
    /// A rule refuses the request.
    Refused,
    /// The request reaches an endpoint of the gate, whose decision depends on the body of the request or on the content
    /// of the store.
    Undecided,
    /// The decision depends on information that is not available at the moment.
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
    /// The requirement that refuses the request: the id of the route or of the call rule, and the configuration key of
    /// the requirement.
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
    /// The rule refuses the request, or would refuse it if no earlier rule did.
    Fail,
    /// The rule does not apply, or could not be judged.
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
    /// Whether the signature was verified, or the issuer confirmed the token. Otherwise every claim here is unverified.
    pub is_proved: bool,
    /// The name of the issuer whose rules apply to the token. The gate's own issuer is called `self`.
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
    /// The `kid` of the header.
    pub kid: Option<String>,
    /// The scope, after the issuer's rules are applied.
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

//! Why a request is refused: each rule, and whether the request passes it. See
//! [`GateLayer::explain`](super::GateLayer::explain).

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use rotogate_core::denial::Denial;
use rotogate_core::route::Route;
pub use rotogate_core::rule::Rule;
use rotogate_core::session::Scope;

/// The rules that decide on a request, one by one. An explanation never contains the token.
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
    /// The status of the gate's own reply; `None` if the service behind the gate answers, or if the reply depends on
    /// more than the head of the request.
    pub status: Option<u16>,
    /// The outcome, in the word of the log and the metrics.
    pub outcome: &'static str,
    /// The cause of a refusal, in the words of the log.
    pub detail: Option<&'static str>,
    /// The refusal.
    pub denial: Option<Denial>,
    /// The reply's `WWW-Authenticate`.
    pub challenge: Option<String>,
    /// The route that matched.
    pub route: Option<Arc<Route>>,
    /// The rules that govern the call (MCP) of the request, besides the route.
    pub call_rules: Vec<Arc<Route>>,
    /// Less specific routes that match, too.
    pub also_matched: Vec<Arc<str>>,
    /// Every rule, in the order in which they are listed.
    pub rules: Vec<RuleVerdict>,
    /// The identity headers that the service behind the gate gets.
    pub identity: Vec<(HeaderName, HeaderValue)>,
    /// The claims of the token.
    pub token: Option<ExplainedToken>,
    /// What to do, if the refusal alone does not tell; of a passed request, what was not judged.
    pub advice: Option<&'static str>,
}

/// An error with its cause, for operators.
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
    /// A rule refuses it.
    Refused,
    /// The request reaches an endpoint of the gate, which decides by its body, or by what the store has.
    Undecided,
    /// The decision depends on facts that are not known at this moment.
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
    /// The rule.
    pub rule: Rule,
    /// The result.
    pub result: RuleResult,
    /// Why.
    pub detail: String,
    /// The demand by which the rule refuses: the id of the route, or of the rule of the call, and the key of its entry.
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
/// /// The user, if the token proves who that is.
/// fn subject(explanation: &Explanation) -> Option<&str> {
///     let token = explanation.token.as_ref()?;
///     if token.is_proved { token.subject.as_deref() } else { None }
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExplainedToken {
    /// Whether the signature was verified, or the issuer vouches for the token. Otherwise every claim here is
    /// unverified.
    pub is_proved: bool,
    /// The name of the issuer whose rules judge the token; our own issuer is `self`.
    pub issuer_name: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// The client.
    pub client: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The generation of the token in its session.
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

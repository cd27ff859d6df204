//! Decisions as an enforcement point (AuthZEN 1.0): a decision point is asked whether a caller may send a request that
//! all rules of its route permit. This module has the interface for asking, the question, and the meaning of the
//! answer; the gate caches the answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::route::{DecisionSubject, Route, RouteDecision};
use crate::token::claims::AccessToken;
use crate::token::verify::strict_json;

/// The longest answer, in bytes.
pub const MAX_ANSWER: usize = 64 << 10;
/// The longest `acr_values` of an answer, in bytes.
const MAX_ACR: usize = 512;

/// A way to ask a decision point.
///
/// ```
/// use rotogate::decision::{PolicyDecision, DecisionFault, DecisionPoint};
///
/// /// Permits reading alone.
/// #[derive(Debug)]
/// struct ReadOnly;
///
/// #[async_trait::async_trait]
/// impl DecisionPoint for ReadOnly {
///     async fn decide(&self, question: &[u8], _: &str) -> Result<PolicyDecision, DecisionFault> {
///         let question: serde_json::Value = serde_json::from_slice(question).map_err(DecisionFault::new)?;
///         Ok(if question["action"]["name"] == "GET" { PolicyDecision::Permit } else { PolicyDecision::Deny })
///     }
///
///     fn identity(&self) -> Box<[u8]> {
///         Box::default()
///     }
/// }
/// ```
#[async_trait]
pub trait DecisionPoint: fmt::Debug + Send + Sync + 'static {
    /// Asks about a request, with one attempt. `question` is the body of an access evaluation; `id` names the attempt.
    ///
    /// # Errors
    /// Nothing was decided. The error says nothing about the caller.
    async fn decide(&self, question: &[u8], id: &str) -> Result<PolicyDecision, DecisionFault>;

    /// Identifies the decision point and the gate's account there: decision points with equal bytes share their
    /// answers.
    fn identity(&self) -> Box<[u8]>;
}

/// The answer of a decision point.
///
/// ```
/// use rotogate::decision::PolicyDecision;
///
/// assert_eq!(PolicyDecision::read(br#"{"decision":true}"#), Ok(PolicyDecision::Permit));
/// assert!(PolicyDecision::read(br#"{"decision":"true"}"#).is_err(), "a text decides nothing");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyDecision {
    /// The caller may.
    Permit,
    /// The caller may not.
    Deny,
    /// The caller must log in with one of these `acr_values`, which a challenge names (RFC 9470).
    StepUp(Box<str>),
}

impl PolicyDecision {
    /// One word, for metrics and logs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::StepUp(_) => "step_up",
        }
    }

    /// Reads the body of an answer with the status 200. Only a boolean is a decision.
    ///
    /// # Errors
    /// The problem of the answer.
    // Requirement K27.
    pub fn read(body: &[u8]) -> Result<Self, &'static str> {
        if body.len() > MAX_ANSWER {
            return Err("the answer is longer than 64 KiB");
        }
        let answer = strict_json::object(body).map_err(|_| "the answer is no JSON object")?;
        let context = match answer.get("context") {
            None | Some(Value::Null) => None,
            Some(Value::Object(context)) => Some(context),
            Some(_) => return Err("the context of the answer is not an object"),
        };
        match answer.get("decision") {
            Some(Value::Bool(true)) => Ok(Self::Permit),
            Some(Value::Bool(false)) => Ok(context.and_then(acr_values).map_or(Self::Deny, Self::StepUp)),
            Some(_) => Err("the decision of the answer is not a boolean"),
            None => Err("the answer has no decision"),
        }
    }
}

/// The required login, if a challenge can contain it.
fn acr_values(context: &Map<String, Value>) -> Option<Box<str>> {
    let values = match context.get("acr_values")? {
        Value::String(values) => values.clone(),
        Value::Array(values) => values.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join(" "),
        _ => return None,
    };
    let is_plain = |byte: u8| byte == b' ' || (byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
    (!values.trim().is_empty() && values.len() <= MAX_ACR && values.bytes().all(is_plain)).then(|| values.into())
}

/// Why there is no decision. The text has no part of the question.
///
/// ```
/// use rotogate::decision::DecisionFault;
///
/// assert_eq!(DecisionFault::new("it answered 500").to_string(), "it answered 500");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecisionFault {
    /// A description of the fault.
    pub message: String,
    /// The delay that the decision point asks for.
    pub retry_after: Option<Duration>,
    /// Whether the delay may be for this caller alone: it came with another status than 503.
    #[doc(hidden)]
    pub of_asker: bool,
}

impl DecisionFault {
    /// A fault.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), retry_after: None, of_asker: false }
    }
}

/// A decision point, and how long its answers count.
///
/// ```
/// use std::time::Duration;
/// use rotogate::decision::{PolicyDecision, DecisionFault, DecisionPoint, DecisionPointRules};
///
/// /// Asks nobody.
/// #[derive(Debug)]
/// struct Closed;
///
/// #[async_trait::async_trait]
/// impl DecisionPoint for Closed {
///     async fn decide(&self, _: &[u8], _: &str) -> Result<PolicyDecision, DecisionFault> {
///         Ok(PolicyDecision::Deny)
///     }
///
///     fn identity(&self) -> Box<[u8]> {
///         Box::default()
///     }
/// }
///
/// let point = DecisionPointRules { allow: Duration::ZERO, ..DecisionPointRules::new("pdp", Closed) };
/// let builder = rotogate::Gate::builder().decision_point(point);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
pub struct DecisionPointRules {
    /// The name of the decision point for routes.
    pub name: Arc<str>,
    /// Asks it.
    pub point: Arc<dyn DecisionPoint>,
    /// How long a permit counts, at most [`MAX_KEPT`](Self::MAX_KEPT). If zero, each request asks.
    pub allow: Duration,
    /// How long a refusal counts, at most [`MAX_KEPT`](Self::MAX_KEPT).
    pub deny: Duration,
}

impl DecisionPointRules {
    /// The default of `allow`.
    pub const ALLOW: Duration = Duration::from_secs(5);
    /// The default of `deny`.
    pub const DENY: Duration = Duration::from_secs(1);
    /// The longest that an answer counts.
    pub const MAX_KEPT: Duration = Duration::from_secs(60);

    /// A decision point with the default times.
    pub fn new(name: &str, point: impl DecisionPoint) -> Self {
        Self { name: name.into(), point: Arc::new(point), allow: Self::ALLOW, deny: Self::DENY }
    }

    /// How long an answer counts.
    pub fn kept_for(&self, decision: &PolicyDecision) -> Duration {
        match decision {
            PolicyDecision::Permit => self.allow,
            PolicyDecision::Deny | PolicyDecision::StepUp(_) => self.deny,
        }
        .min(Self::MAX_KEPT)
    }
}

/// The body of a question (AuthZEN 1.0 §6.1). The same request has the same bytes. `None` if the path of the request lacks
/// a parameter.
// Requirement K26.
pub fn question(
    rule: &RouteDecision,
    route: &Route,
    token: &AccessToken,
    about: DecisionSubject<'_>,
) -> Option<Vec<u8>> {
    let mut properties = Map::new();
    if !rule.claims.is_empty() {
        let claims = token.claims();
        let found = rule.claims.iter().filter_map(|path| Some((path.to_string(), path.find(&claims)?.clone())));
        properties.extend(found);
    }
    // The gate's own properties are added last, so that no claim replaces them.
    properties.insert("iss".to_owned(), json!(token.vouching_issuer().url()));
    if let Some(client) = &token.client {
        properties.insert("client_id".to_owned(), json!(client));
    }
    properties.insert("scope".to_owned(), token.scope.iter().collect());
    let kind = if token.is_clients_own() { "client" } else { "user" };
    let (method, own_action) = about.method_and_action();
    let action = rule.action.as_deref().unwrap_or(own_action);
    let question = json!({
        "subject": { "type": kind, "id": token.subject, "properties": properties },
        "action": { "name": action, "properties": { "method": method } },
        "resource": { "type": rule.resource_type, "id": rule.id_of(|name| about.param(route, name))? },
        "context": { "route": &*route.id },
    });
    serde_json::to_vec(&question).ok()
}

#[cfg(test)]
mod tests;

//! `POST /v1/explain` explains why a request is refused. The library makes the decision, as for a real
//! request. This module adds advice, and the configuration lines of the route and the rules.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{Code, Refusal};
use super::{AdminState, shown, state};
use crate::log;
use crate::server::serve::cors;
use crate::server::serve::request::gate_layer;
use rotogate::gate::{Conclusion, Explanation, Reason, Rule, RuleVerdict};
use rotogate_config::{Config, ListenerConfig};
use rotogate_core::denial::Denial;
use rotogate_core::headers::Peer;
use rotogate_core::route::Route;
use rotogate_core::token::verify::OWN;
use rotogate_core::token::{CertificateThumbprint, refresh};

mod advice;

/// A request to explain.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// The request target: the path and the query.
    pub(super) path: Option<String>,
    pub(super) method: Option<String>,
    /// The header `Host`. By default, the host of `public_url`.
    pub(super) host: Option<String>,
    /// The address of the client. The default is 127.0.0.1.
    #[schema(value_type = Option<String>)]
    pub(super) from: Option<IpAddr>,
    /// The name of the listener on which the request arrives. The default is a listener without a name.
    pub(super) listener: Option<String>,
    /// The SHA-256 thumbprint (`x5t#S256`) of the connection's client certificate. By default, there is no certificate.
    pub(super) client_certificate: Option<String>,
    /// Headers, in order.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<String>>)]
    pub(super) headers: Vec<(String, String)>,
    /// The token: an access token, which is sent in `Authorization`, a refresh token, or an assertion that is presented
    /// as a grant.
    #[schema(value_type = Option<String>, format = Password)]
    pub(super) token: Option<SecretString>,
    /// The kind of the token. By default, a refresh token is recognized by its prefix, and any other token is treated
    /// as an access token. An assertion is recognized only by this field.
    pub(super) kind: Option<TokenKind>,
    /// The client that presents a refresh token or an assertion. By default, the client of the session, or the client
    /// that the assertion names.
    pub(super) client: Option<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Kind)]
pub(crate) enum TokenKind {
    #[default]
    Access,
    Refresh,
    Assertion,
}

/// How the gate would decide on a request.
#[derive(Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct ExplainReport {
    pub(crate) kind: TokenKind,
    /// `passed`, `refused`, `unavailable`, or `undecided` if an endpoint of the gate decides by the body or by the
    /// content of the store.
    pub(crate) decision: String,
    /// The status of the gate's response. `null` if the upstream responds, or if the decision also depends on the body.
    pub(crate) status: Option<u16>,
    /// The outcome, as in the access log.
    pub(crate) outcome: String,
    pub(crate) detail: Option<String>,
    pub(crate) challenge: Option<String>,
    pub(crate) route: Option<ExplainedRoute>,
    pub(crate) rules: Vec<ExplainedRule>,
    pub(crate) identity: ExplainedIdentity,
    pub(crate) token: Option<TokenClaims>,
    /// If the request passes, the problem that prevents its upstream from responding.
    pub(crate) problem: Option<String>,
    /// What to do about a refusal. If the request passes, what was not checked.
    pub(crate) advice: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ExplainedRoute {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) place: Place,
    /// Less specific routes that also match the path.
    pub(crate) also_matched: Vec<String>,
}

/// A position in the configuration: a line of the file, or an environment variable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: Option<usize>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ExplainedRule {
    pub(crate) rule: String,
    /// `ok`, `fail` or `skip`.
    pub(crate) result: String,
    pub(crate) detail: String,
    pub(crate) config: Option<Place>,
}

/// The identity that the upstream would get.
#[derive(Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct ExplainedIdentity {
    pub(crate) headers: BTreeMap<String, String>,
}

/// The claims of the token, never the token itself.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct TokenClaims {
    /// Whether the claims may be false, because the signature was not verified.
    pub(crate) unverified: bool,
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    /// The name of the user, if the users file contains the user.
    pub(crate) user: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) generation: Option<u64>,
    pub(crate) jti: Option<String>,
    pub(crate) kid: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) audience: Vec<String>,
}

/// Explains rule by rule how the gate would decide on a request, and why. The request is not forwarded or counted, and
/// does not count as a use of the session's new tokens.
#[utoipa::path(
    post, path = "/v1/explain", operation_id = "explain", tag = "explain",
    request_body = Question, responses((status = 200, description = "done", body = ExplainReport))
)]
pub(super) async fn answer(state: &AdminState, question: &Bytes) -> Result<ExplainReport, Refusal> {
    let wrong = |what| Refusal::new(Code::InvalidBody, what);
    let question = serde_json::from_slice(question).map_err(|error| wrong(flaw(&error)))?;
    explain_question(state, question).await.map_err(wrong)
}

/// Describes what is wrong with the request's body. The parser's own message could repeat a token, and is not used.
fn flaw(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let name = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    let unknown = name.map_or_else(String::new, |(name, _)| format!(" unknown member {}:", shown(name)));
    let said = text.strip_suffix(&format!(" at {place}", place = place.replace(", ", " "))).unwrap_or(&text);
    match (error.is_data(), said.rsplit_once("expected ")) {
        (true, Some((_, expected))) => format!("{place}:{unknown} expected {expected}"),
        (true, None) => format!("{place}: not a valid request body"),
        (false, _) => format!("{place}: {said}"),
    }
}

pub(super) async fn explain_question(state: &AdminState, question: Question) -> Result<ExplainReport, String> {
    let (config, serving) = (state.config.load_full(), state.serving.load_full());
    let gate = serving.gate();
    let token = question.token.as_ref().map(|token| token.expose_secret().trim()).filter(|token| !token.is_empty());
    let named = |token: &str| if token.starts_with(refresh::PREFIX) { TokenKind::Refresh } else { TokenKind::Access };
    let kind = question.kind.unwrap_or_else(|| token.map_or(TokenKind::Access, named));
    let method = question.method.as_deref().unwrap_or("GET").to_owned();
    let target = question.path.clone().unwrap_or_default();
    let explained = match (kind, token) {
        (TokenKind::Refresh, Some(token)) if question.path.is_some() => {
            let at = head(&question, Some(token), &config)?;
            let explained = gate_layer(gate).explain(at.clone()).await;
            let (client, from) = (question.client.as_deref(), question.from);
            match explained.decision {
                Conclusion::Undecided => gate.explain_refresh_at(token, client, from, &at).await.unwrap_or(explained),
                _ => explained,
            }
        }
        (TokenKind::Refresh, Some(token)) => {
            gate.explain_refresh_from(token, question.client.as_deref(), question.from).await
        }
        (TokenKind::Assertion, Some(token)) => gate.explain_assertion(token, question.client.as_deref()).await,
        (TokenKind::Refresh | TokenKind::Assertion, None) => {
            return Err("token: missing; expected a refresh token or an assertion".to_owned());
        }
        (TokenKind::Access, _) => {
            let parts = head(&question, token, &config)?;
            if cors::answers(&config.cors, gate, &parts) {
                return Ok(preflight());
            }
            gate_layer(gate).explain(parts).await
        }
    };
    let path = log::without_secrets(target.split('?').next().unwrap_or_default());
    tracing::info!(
        target: "rotogate::audit",
        event = "explain",
        method,
        path,
        outcome = explained.outcome,
        "request explained"
    );
    let is_refresh_token = kind == TokenKind::Refresh;
    Ok(Explained { state, config: &config, explanation: &explained, is_refresh_token }.report(kind))
}

fn head(question: &Question, token: Option<&str>, config: &Config) -> Result<Parts, String> {
    let target = question.path.as_deref().ok_or("path: missing; expected a path such as \"/orders?page=2\"")?;
    if !target.starts_with('/') {
        return Err("path: must begin with a slash; expected a path and a query such as \"/orders?page=2\"".to_owned());
    }
    let uri: Uri = target.parse().map_err(|_| "path: not a valid request target".to_owned())?;
    let method = question.method.as_deref().unwrap_or("GET");
    let method: Method = method.parse().map_err(|_| "method: not a valid HTTP method".to_owned())?;
    let host = question.host.as_deref().or_else(|| config.server.public_url.host()).unwrap_or("localhost");
    let mut request = Request::builder().method(method).uri(uri);
    if question.headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case(HOST.as_str())) {
        request = request.header(HOST, host);
    }
    for (name, value) in &question.headers {
        request = request.header(name, value);
    }
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request =
        request.body(()).map_err(|_| "headers or token: contains a character that HTTP does not allow".to_owned())?;
    let (mut parts, ()) = request.into_parts();
    let from = question.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    // A client on this machine may use any loopback name.
    let named =
        |known: &ListenerConfig| question.listener.is_none() || known.name.as_deref() == question.listener.as_deref();
    let mut loopback = config.server.listeners.iter().filter(|known| known.address.ip().to_canonical().is_loopback());
    let peer = Peer::new(from, false).at_loopback(from.is_loopback() && loopback.any(named));
    let peer = match &question.listener {
        Some(name) if !known_listeners(config).any(|known| known == name) => {
            let known: Vec<_> = known_listeners(config).collect();
            let known =
                if known.is_empty() { "none, because no listener has a `name`".to_owned() } else { known.join(", ") };
            return Err(format!("listener: there is no listener {}; known listeners: {known}", shown(name)));
        }
        Some(name) => peer.on_listener(name.as_str().into()),
        None => peer,
    };
    parts.extensions.insert(match &question.client_certificate {
        Some(thumbprint) => peer.with_certificate_thumbprint(CertificateThumbprint::parse(thumbprint).ok_or(
            "client_certificate: expected the SHA-256 thumbprint of a certificate, 43 characters of base64url",
        )?),
        None => peer,
    });
    Ok(parts)
}

fn known_listeners(config: &Config) -> impl Iterator<Item = &str> {
    config.server.listeners.iter().filter_map(|listener| listener.name.as_deref())
}

/// No rule checks a CORS preflight.
fn preflight() -> ExplainReport {
    ExplainReport {
        decision: Conclusion::Passed.word().to_owned(),
        status: Some(StatusCode::OK.as_u16()),
        outcome: Reason::PREFLIGHT.word().to_owned(),
        ..ExplainReport::default()
    }
}

struct Explained<'a> {
    state: &'a AdminState,
    config: &'a Config,
    explanation: &'a Explanation,
    is_refresh_token: bool,
}

impl Explained<'_> {
    fn report(&self, kind: TokenKind) -> ExplainReport {
        let it = self.explanation;
        let route = it.route.as_ref().map(|route| ExplainedRoute {
            id: route.id.to_string(),
            place: self.place(&self.route_key(&route.id, "")),
            also_matched: it.also_matched.iter().map(ToString::to_string).collect(),
        });
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let identity = it.identity.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        ExplainReport {
            kind,
            decision: it.decision.word().to_owned(),
            status: it.status,
            outcome: it.outcome.to_owned(),
            detail: it.detail.map(str::to_owned),
            challenge: it.challenge.clone(),
            route,
            rules: it.rules.iter().map(|verdict| self.rule(verdict)).collect(),
            identity: ExplainedIdentity { headers: identity },
            token: it.token.as_ref().map(|token| TokenClaims {
                unverified: !token.is_proved,
                issuer: token.issuer.clone(),
                subject: token.subject.clone(),
                user: self.user().map(|(_, name)| name),
                client: token.client.clone(),
                session: token.session.clone(),
                generation: token.generation,
                jti: token.token_id.clone(),
                kid: token.kid.clone(),
                scope: token.scope.as_ref().map(ToString::to_string),
                audience: token.audience.clone(),
            }),
            problem: self.problem(),
            advice: it.advice.map(str::to_owned).or_else(|| self.advice(it.denial?)),
        }
    }

    /// Returns why the upstream of an accepted request cannot respond.
    fn problem(&self) -> Option<String> {
        let upstream = self.explanation.route.as_ref()?.upstream?;
        let name = self.state.serving.load().proxy.with_name(upstream, |name| name.map(str::to_owned))?;
        state::problem_of(self.state, &name).filter(|_| self.explanation.decision == Conclusion::Passed)
    }

    fn rule(&self, verdict: &RuleVerdict) -> ExplainedRule {
        ExplainedRule {
            rule: verdict.rule.word().to_owned(),
            result: verdict.result.word().to_owned(),
            // The detail may contain a path with an API key (requirement K2).
            detail: String::from_utf8_lossy(&log::without_key(verdict.detail.as_bytes())).into_owned(),
            config: self.key_of(verdict).map(|key| self.place(&key)),
        }
    }

    /// Returns the line of a key, or of the key's table if the file lacks the key.
    fn place(&self, key: &str) -> Place {
        let (file, line) = self.config.source.place(key);
        Place { file, line }
    }

    fn route_key(&self, id: &str, key: &str) -> String {
        let index = self.config.routes.iter().position(|known| *known.id == *id);
        index.map_or_else(String::new, |index| format!("routes[{index}]{key}"))
    }

    fn issuer_key(&self) -> String {
        let name = self.explanation.token.as_ref().and_then(|token| token.issuer_name.as_deref()).unwrap_or(OWN);
        let index = self.config.issuers.iter().position(|issuer| issuer.name == name);
        index.map_or_else(|| "issuer".to_owned(), |index| format!("issuers[{index}]"))
    }

    fn client_key(&self) -> Option<String> {
        let id = self.explanation.token.as_ref()?.client.as_deref()?;
        let index = self.config.clients.iter().position(|client| *client.id == *id)?;
        Some(format!("clients[{index}]"))
    }

    fn policies(&self) -> impl Iterator<Item = &Route> {
        self.explanation.route.iter().chain(&self.explanation.call_rules).map(|route| &**route)
    }

    /// If the rule refuses the request, this is the configuration key of the unmet requirement.
    fn key_of(&self, verdict: &RuleVerdict) -> Option<String> {
        if let Some((route, key)) = &verdict.demand {
            return Some(self.route_key(route, &format!(".{key}")));
        }
        let rule = verdict.rule;
        let route = self.explanation.route.as_deref();
        let of_route = |key: &str| Some(self.route_key(&route?.id, key));
        // The denial comes from the first rule that refuses.
        let denial = self.explanation.denial.filter(|denial| denial.rule() == rule);
        match rule {
            Rule::Request => Some("server.hosts".to_owned()),
            Rule::Route => of_route(""),
            Rule::Credential if denial == Some(Denial::UnusableCredential) => of_route(".credentials"),
            Rule::Credential => of_route(".auth"),
            Rule::Origin => of_route(".cookie"),
            Rule::Limit => Some(match denial {
                Some(Denial::RateLimited(limit, _)) => format!("limits.{limit}"),
                _ => "limits".to_owned(),
            }),
            // An unknown issuer has no entry.
            Rule::Key if denial == Some(Denial::UnknownIssuer) => Some("issuers".to_owned()),
            Rule::Key | Rule::Signature | Rule::Claims if route.is_some() => Some(self.key_of_issuer(denial)),
            Rule::Issuer => of_route(".issuers"),
            Rule::Audience if route?.policy.audiences.is_empty() => Some(format!("{}.audience", self.issuer_key())),
            Rule::Audience => of_route(".audiences"),
            Rule::Scope if route?.policy.any_scope.is_empty() => of_route(".scopes"),
            Rule::Scope => of_route(".any_scope"),
            Rule::Role if route?.policy.roles.is_empty() => of_route(".all_roles"),
            Rule::Role => of_route(".roles"),
            Rule::Condition if route?.policy.conditions.as_ref()?.when().is_empty() => of_route(".when_any"),
            Rule::Condition => of_route(".when"),
            Rule::StepUp => of_route(".step_up"),
            Rule::Session => self.client_key(),
            Rule::Rotation => Some("sessions".to_owned()),
            _ => None,
        }
    }

    fn key_of_issuer(&self, denial: Option<Denial>) -> String {
        let key = match denial {
            Some(Denial::WrongType) => ".typ",
            Some(Denial::BadClaim("`exp` is too long after `iat`")) => ".max_lifetime",
            _ => "",
        };
        format!("{}{key}", self.issuer_key())
    }

    fn user(&self) -> Option<(Option<String>, String)> {
        let subject = self.explanation.token.as_ref()?.subject.as_deref()?;
        self.state.users.as_ref()?.directory().user_of(subject)
    }
}

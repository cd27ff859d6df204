//! `POST /v1/explain`: why a request is refused. The gate's own layer gives the reasons. This module adds the places in
//! the configuration, and advice.

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
use super::{AdminResult, AdminState, logged_path, ok};
use crate::config::Config;
use crate::server::serve::cors;
use crate::server::serve::request::gate_layer;
use rotogate::gate::{Conclusion, Explanation, Reason, Rule, RuleVerdict};
use rotogate_core::denial::Denial;
use rotogate_core::headers::Peer;
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::session::Scope;
use rotogate_core::token::verify::OWN;
use rotogate_core::token::{CertificateThumbprint, refresh};

/// A question.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// The target of the request, with its query.
    pub(super) path: Option<String>,
    pub(super) method: Option<String>,
    /// The `Host`. By default the host of `public_url`.
    pub(super) host: Option<String>,
    /// The address of the client. By default 127.0.0.1.
    #[schema(value_type = Option<String>)]
    pub(super) from: Option<IpAddr>,
    /// The name of the listener that the request arrives on. By default a listener without a name.
    pub(super) listener: Option<String>,
    /// The SHA-256 thumbprint (`x5t#S256`) of the connection's client certificate. By default there is no certificate.
    pub(super) client_certificate: Option<String>,
    /// Headers, in order.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<String>>)]
    pub(super) headers: Vec<(String, String)>,
    /// An access token, which goes into `Authorization`, a refresh token, or an assertion that is presented as a grant.
    #[schema(value_type = Option<String>, format = Password)]
    pub(super) token: Option<SecretString>,
    /// The kind of the token. By default the prefix of the token tells a refresh token from an access token. An assertion
    /// is recognised by this field only.
    pub(super) kind: Option<TokenKind>,
    /// The client that presents a refresh token or an assertion. By default the client of the session, or the client that the
    /// assertion names.
    pub(super) client: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Kind)]
pub(crate) enum TokenKind {
    Access,
    Refresh,
    Assertion,
}

/// How the gate would decide on a request.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ExplainReport {
    pub(crate) kind: TokenKind,
    /// `passed`, `refused` or `unavailable`.
    pub(crate) decision: String,
    /// The status of the gate's reply. `null` if the upstream answers, or if the decision depends on the body, too.
    pub(crate) status: Option<u16>,
    /// The outcome, as in the access log.
    pub(crate) outcome: String,
    pub(crate) detail: Option<String>,
    pub(crate) challenge: Option<String>,
    pub(crate) route: Option<ExplainedRoute>,
    pub(crate) rules: Vec<ExplainedRule>,
    pub(crate) identity: ExplainedIdentity,
    pub(crate) token: Option<TokenClaims>,
    /// What to do.
    pub(crate) advice: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct ExplainedRoute {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) place: Place,
    /// Less specific routes of the same path.
    pub(crate) also_matched: Vec<String>,
}

/// A place in the configuration: a line of the file, or a variable of the environment.
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
    /// The signature was not verified, so the claims may be false.
    pub(crate) unverified: bool,
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    /// The name of the user, if the users file has it.
    pub(crate) user: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) generation: Option<u64>,
    pub(crate) jti: Option<String>,
    pub(crate) kid: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) audience: Vec<String>,
}

/// How the gate would decide on a request, and why, rule by rule. Nothing is forwarded, counted or confirmed.
#[utoipa::path(
    post, path = "/v1/explain", operation_id = "explain", tag = "explain",
    request_body = Question, responses((status = 200, description = "done", body = ExplainReport))
)]
pub(super) async fn answer(state: &AdminState, question: &Bytes) -> AdminResult {
    match explain(state, question).await {
        Ok(report) => Ok(ok(&report)),
        Err(what) => Err(Refusal::new(Code::InvalidBody, what)),
    }
}

async fn explain(state: &AdminState, body: &Bytes) -> Result<ExplainReport, String> {
    // The error of the parser may repeat a part of the body, which contains a token.
    let question: Question = serde_json::from_slice(body)
        .map_err(|error| format!("line {}, column {}: not a question", error.line(), error.column()))?;
    explain_question(state, question).await
}

/// How the gate would decide on the request in a question.
pub(super) async fn explain_question(state: &AdminState, question: Question) -> Result<ExplainReport, String> {
    let (config, serving) = (state.config.load_full(), state.serving.load_full());
    let gate = serving.gate();
    let token = question.token.as_ref().map(|token| token.expose_secret().trim()).filter(|token| !token.is_empty());
    let named = |token: &str| if token.starts_with(refresh::PREFIX) { TokenKind::Refresh } else { TokenKind::Access };
    let kind = question.kind.unwrap_or_else(|| token.map_or(TokenKind::Access, named));
    let method = question.method.as_deref().unwrap_or("GET").to_owned();
    let target = question.path.clone().unwrap_or_default();
    let explained = match (kind, token) {
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
    let path = logged_path(target.split('?').next().unwrap_or_default());
    tracing::info!(
        target: "rotogate::audit",
        event = "explain",
        method,
        path,
        outcome = explained.outcome,
        "request explained"
    );
    Ok(Explained { state, config: &config, explanation: &explained }.report(kind))
}

/// The head of the request that the question is about.
fn head(question: &Question, token: Option<&str>, config: &Config) -> Result<Parts, String> {
    let target = question.path.as_deref().ok_or("path: missing; expected a path such as \"/orders?page=2\"")?;
    if !target.starts_with('/') {
        return Err("path: expected the path and the query, from the slash on, such as \"/orders?page=2\"".to_owned());
    }
    let uri: Uri = target.parse().map_err(|_| "path: not the target of a request".to_owned())?;
    let method = question.method.as_deref().unwrap_or("GET");
    let method: Method = method.parse().map_err(|_| "method: not a method".to_owned())?;
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
    let request = request.body(()).map_err(|_| "headers or token: not what a request may contain".to_owned())?;
    let (mut parts, ()) = request.into_parts();
    let from = question.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let peer = Peer::new(from, false);
    let peer = match &question.listener {
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

/// The report of a CORS preflight, which the gate answers without any rule.
fn preflight() -> ExplainReport {
    ExplainReport {
        kind: TokenKind::Access,
        decision: Conclusion::Passed.word().to_owned(),
        status: Some(StatusCode::OK.as_u16()),
        outcome: Reason::PREFLIGHT.word().to_owned(),
        detail: None,
        challenge: None,
        route: None,
        rules: Vec::new(),
        identity: ExplainedIdentity::default(),
        token: None,
        advice: None,
    }
}

/// An explanation, together with the configuration.
struct Explained<'a> {
    state: &'a AdminState,
    config: &'a Config,
    explanation: &'a Explanation,
}

impl Explained<'_> {
    fn report(&self, kind: TokenKind) -> ExplainReport {
        let it = self.explanation;
        let route = it.route.as_ref().map(|route| ExplainedRoute {
            id: route.id.to_string(),
            place: self.place(&self.route_key(route, "")),
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
            advice: it.denial.and_then(|denial| self.advice(denial)),
        }
    }

    fn rule(&self, verdict: &RuleVerdict) -> ExplainedRule {
        ExplainedRule {
            rule: verdict.rule.word().to_owned(),
            result: verdict.result.word().to_owned(),
            detail: verdict.detail.clone(),
            config: self.key_of(verdict.rule).map(|key| self.place(&key)),
        }
    }

    /// The line of a key. If the file lacks the key, the line of the table that would hold the key.
    fn place(&self, key: &str) -> Place {
        let (file, line) = self.config.source.place(key);
        Place { file, line }
    }

    fn route_key(&self, route: &Route, key: &str) -> String {
        let index = self.config.routes.iter().position(|known| known.id == route.id);
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

    /// The route, and the rules of the call (MCP).
    fn policies(&self) -> impl Iterator<Item = &Route> {
        self.explanation.route.iter().chain(&self.explanation.call_rules).map(|route| &**route)
    }

    /// The key of the configuration by which a rule judges.
    fn key_of(&self, rule: Rule) -> Option<String> {
        // The scopes that the token lacks may be those of the call.
        let granted = self.explanation.token.as_ref().and_then(|token| token.scope.as_ref());
        let lacks = |route: &&Route| granted.is_some_and(|granted| !route.policy.grants(granted));
        let of_scope = if rule == Rule::Scope { self.policies().find(lacks) } else { None };
        let route = of_scope.or(self.explanation.route.as_deref());
        let of_route = |key: &str| Some(self.route_key(route?, key));
        match rule {
            Rule::Request => Some("server.hosts".to_owned()),
            Rule::Route => of_route(""),
            Rule::Credential => of_route(".auth"),
            Rule::Origin => of_route(".cookie"),
            Rule::Limit => Some("limits".to_owned()),
            Rule::Key | Rule::Signature | Rule::Claims if route.is_some() => Some(self.issuer_key()),
            Rule::Issuer => of_route(".issuers"),
            Rule::Audience if route?.policy.audiences.is_empty() => Some(format!("{}.audience", self.issuer_key())),
            Rule::Audience => of_route(".audiences"),
            Rule::Scope if route?.policy.any_scope.is_empty() => of_route(".scopes"),
            Rule::Scope => of_route(".any_scope"),
            Rule::Role => of_route(".roles"),
            Rule::Condition if route?.policy.conditions.as_ref()?.when().is_empty() => of_route(".when_any"),
            Rule::Condition => of_route(".when"),
            Rule::StepUp => of_route(".step_up"),
            Rule::Decision => of_route(".decision"),
            Rule::Session => self.client_key(),
            Rule::Rotation => Some("sessions".to_owned()),
            _ => None,
        }
    }

    /// The account and the name of the user, if the users are in a file.
    fn user(&self) -> Option<(Option<String>, String)> {
        let subject = self.explanation.token.as_ref()?.subject.as_deref()?;
        self.state.users.as_ref()?.directory().user_of(subject)
    }

    /// Advice about a refusal.
    fn advice(&self, denial: Denial) -> Option<String> {
        let advice = match denial {
            Denial::InsufficientScope => return self.scope_advice(),
            Denial::TokenExpired => "Refresh: exchange the refresh token for a new pair, or log in again.",
            Denial::TokenNotYetValid => "Compare the clocks of the issuer and of this machine.",
            Denial::NoCredential => "Send the access token: `Authorization: Bearer …`.",
            Denial::TwoCredentials => "Send one credential, in one place.",
            Denial::UnusableCredential => {
                "Send the access token as `Authorization: Bearer …`. A token in the query, or of another scheme, is refused."
            }
            Denial::MalformedToken(_) => "Send the access token, whole: three parts with two dots between them.",
            Denial::TokenRevoked | Denial::SessionRevoked(_) => return Some(self.advice_of_ended()),
            Denial::UnknownHost => "Name the host in server.hosts, or in hosts of a route.",
            Denial::NoRoute => "Add a [[routes]] with this path, or correct the path of the request.",
            Denial::MethodNotAllowed => "Add the method to the route, or use another method.",
            Denial::NearMiss => "Spell the path of the endpoint as the configuration does.",
            Denial::AmbiguousPath => {
                "Send the path in the spelling of the stricter route; or, if the upstream compares paths as the gate does, set \
                 loose_match = false on this route."
            }
            Denial::BadPath(_) => "Send the path in canonical form: without dot segments and hidden separators.",
            Denial::CrossOrigin => "If the page is one of yours, list its origin in cors.origins.",
            Denial::UnknownIssuer => "If tokens of this issuer are to pass, add it to [[issuers]].",
            Denial::UnknownKey => return Some(self.key_advice()),
            Denial::KeysUnavailable(_) => "rotogate issuer list has the last failure; the gate asks again by itself.",
            Denial::IntrospectionUnavailable(_) => {
                "Send the request: the gate asks the issuer then. If it stays so, the issuer does not answer: see the log."
            }
            Denial::StatusListUnavailable(_) => {
                "Send the request: the gate fetches the list then. If it stays so, see the log: \"status list not taken\"."
            }
            Denial::RevocationsUnavailable(_) => {
                "See whether the store answers: nothing passes without its revocations."
            }
            Denial::RateLimited("refresh_per_session", _) => {
                "Find out why the client refreshes so often; refresh_per_session of [limits] is the rate of each session."
            }
            Denial::RateLimited("forged_per_address" | "refused_per_address" | "forged_overall", _) => {
                "Wait, and find out who sends bad tokens from this address."
            }
            Denial::RateLimited(..) => "Wait. rotogate events --action rate.limited has those that limits hold up.",
            Denial::WrongType => "Use an access token, not an ID token; or list its typ in the entry of [[issuers]].",
            Denial::WrongAudience => {
                "Ask the issuer for a token of this audience; or add it to audiences of the route."
            }
            Denial::WrongIssuer => "Name the issuer in issuers of the route, or use a token of one that it accepts.",
            Denial::MissingRole | Denial::RolesOverage => "Give the user the role at its issuer; new tokens have it.",
            Denial::BadSignature => "The token was changed, or another key signed it: log in again.",
            Denial::GrantAssertion(_) => {
                "Ask its issuer for a new assertion; compare id_jag or jwt_bearer of its entry in [[issuers]]."
            }
            Denial::OtherClient => "The client to which the token was issued must present it.",
            Denial::SessionExpired | Denial::SessionIdle | Denial::Reuse { .. } | Denial::UnknownRefreshToken => {
                "Log in again."
            }
            _ => return None,
        };
        Some(advice.to_owned())
    }

    /// Advice with the command that shows who ended the session.
    // Requirement O47.
    fn advice_of_ended(&self) -> String {
        let token =
            self.explanation.token.as_ref().filter(|token| token.issuer_name.as_deref().is_none_or(|of| of == OWN));
        match token.and_then(|token| token.session.as_deref()) {
            Some(id) => format!("Log in again. rotogate session show {id} says who ended the session, and why."),
            None => "Log in again. rotogate events --action revocation says who revoked, and what.".to_owned(),
        }
    }

    /// Advice about the source of the issuer's keys, and how to add further keys there.
    fn key_advice(&self) -> String {
        let name = self.explanation.token.as_ref().and_then(|token| token.issuer_name.as_deref()).unwrap_or(OWN);
        let Some(issuer) = self.config.issuers.iter().find(|issuer| issuer.name == name) else {
            return "Is it a token of this gate? Its keys: rotogate keys list.".to_owned();
        };
        match issuer.keys.file() {
            Some((key, file)) => {
                format!(
                    "Has {name} exchanged its keys? Then replace {} ({key}): the gate reads it within a second.",
                    file.display()
                )
            }
            None => format!("Has {name} exchanged its keys? rotogate issuer refresh {name} fetches them now."),
        }
    }

    fn scope_advice(&self) -> Option<String> {
        let token = self.explanation.token.as_ref()?;
        let has = token.scope.as_ref()?;
        let mut lacks: Vec<&str> = Vec::new();
        for RoutePolicy { scopes, any_scope, .. } in self.policies().map(|route| &route.policy) {
            lacks.extend(scopes.iter().filter(|scope| !has.contains(scope)));
            if any_scope.iter().all(|scope| !has.contains(scope)) {
                lacks.extend(any_scope.iter().next());
            }
        }
        let lacks = lacks.join(" ");
        if token.issuer_name.as_deref() != Some(OWN) {
            let issuer = token.issuer_name.as_deref().unwrap_or("its issuer");
            return Some(format!("Ask {issuer} for {lacks}; scopes of its entry in [[issuers]] must allow it, too."));
        }
        let mut advice = String::new();
        let client = token.client.as_deref().unwrap_or("-");
        let of_client = self.config.clients.iter().find(|known| *known.id == *client);
        let may = |allowed: &Scope| lacks.split(' ').all(|scope| allowed.contains(scope));
        if let Some(allowed) = of_client.and_then(|client| client.scopes.as_ref()).filter(|allowed| !may(allowed)) {
            let Place { file, line } = self.place(&format!("{}.scopes", self.client_key().unwrap_or_default()));
            let line = line.map_or_else(String::new, |line| format!(":{line}"));
            advice = format!("Allow {lacks} for the client {client}, which may have {allowed} ({file}{line}). ");
        }
        let user = self.user();
        let how = user.as_ref().map_or_else(String::new, |(account, name)| {
            let account = account.as_ref().map_or_else(String::new, |of| format!(" --account {}", in_shell(of)));
            format!(" (rotogate user add-scope {} {lacks}{account})", in_shell(name))
        });
        let name = user.map(|(_, name)| name).or_else(|| token.subject.clone()).unwrap_or_default();
        Some(format!(
            "{advice}Give {name} the scope {lacks}{how} and let them log in again; a refresh keeps the scope of the login."
        ))
    }
}

/// A name as one word of a shell.
fn in_shell(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "@._+-".contains(c);
    if name.chars().all(is_plain) && !name.starts_with('-') {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

use std::borrow::Cow;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderName, Method};

use super::recorder::Recorder;
use super::words::{bindings_of, or_none, shown, taken, time_of, two};
use crate::gate::browser_request::session_cookie;
use crate::gate::explanation::{ExplainedToken, RuleVerdict};
use crate::gate::layer::GateLayer;
use crate::gate::preflight;
use rotogate_core::claim::Role;
use rotogate_core::clock::Timestamp;
use rotogate_core::credential::{self, Found, Scheme};
use rotogate_core::denial::Denial;
use rotogate_core::policy::may_take;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Auth, Credentials, Match, Route, RoutePolicy, authority};
use rotogate_core::rule::Rule;
use rotogate_core::token::claims::AccessToken;
use rotogate_core::token::verify::{IssuerRules, Peeked, is_jwt_shaped, peek};

mod demand;

pub(super) struct Described<'a, M> {
    layer: &'a GateLayer<M>,
    parts: &'a Parts,
    heard: &'a Recorder,
    route: Option<&'a Arc<Route>>,
    policy: Option<&'a RoutePolicy>,
    endpoint: Option<&'a str>,
    asked: Option<Method>,
    found: Result<Option<Found<Cow<'a, str>>>, Denial>,
    says: Peeked,
    /// The issuer that would introspect the token.
    asked_about: Option<Arc<str>>,
    call_rules: Vec<Arc<Route>>,
}

impl<'a, M> Described<'a, M> {
    pub(super) fn new(
        layer: &'a GateLayer<M>,
        parts: &'a Parts,
        heard: &'a Recorder,
        (route, policy): (Option<&'a Arc<Route>>, Option<&'a RoutePolicy>),
        endpoint: Option<&'a str>,
    ) -> Self {
        let gate = &*layer.gate.0;
        let asking = policy.filter(|policy| policy.auth != Auth::None);
        let found = asking.map_or(Ok(None), |policy| {
            credential::extract_from(&parts.headers, parts.uri.query(), gate.places(policy))
        });
        let token = found.as_ref().ok().and_then(Option::as_ref).map(|found| &*found.token);
        let asked_about = asking
            .zip(token)
            .and_then(|(policy, token)| gate.checker.asked_about(token, |rules: &IssuerRules| may_take(policy, rules)));
        let says = token.and_then(peek).unwrap_or_default();
        let asked = preflight::requested_method(&parts.method, &parts.headers);
        let call_rules = route.map(|route| gate.rules_of_call(&route.policy, parts)).unwrap_or_default();
        Self { layer, parts, heard, route, policy, endpoint, asked, found, says, asked_about, call_rules }
    }

    pub(super) fn call_rules(&self) -> &[Arc<Route>] {
        &self.call_rules
    }

    pub(super) fn rules(&self) -> Vec<RuleVerdict> {
        // The session rule is listed only if it was evaluated, for example at an endpoint for a single account.
        let of_account = self.heard.said(Rule::Session).map(|_| Rule::Session);
        Rule::OF_REQUESTS.into_iter().chain(of_account).map(|rule| self.rule(rule)).collect()
    }

    fn rule(&self, rule: Rule) -> RuleVerdict {
        match self.heard.said(rule) {
            Some(Err(denial)) if self.heard.refusal.is_some() => {
                RuleVerdict { demand: self.demand(rule, denial), ..RuleVerdict::fail(rule, self.refused(rule, denial)) }
            }
            Some(Err(denial)) => {
                RuleVerdict::skip(rule, format!("ignored by the route: {}", self.refused(rule, denial)))
            }
            Some(Ok(())) if !self.is_void(rule) => RuleVerdict::ok(rule, self.passed(rule)),
            None if rule == Rule::Route && self.endpoint.is_some() => RuleVerdict::ok(rule, self.passed(rule)),
            Some(Ok(())) | None => RuleVerdict::skip(rule, self.unjudged(rule)),
        }
    }

    fn is_void(&self, rule: Rule) -> bool {
        match rule {
            Rule::Role => self.policy().is_none_or(|policy| policy.roles.is_empty() && policy.all_roles.is_empty()),
            Rule::Key => self.asked_about.is_some() || self.is_from_store(),
            _ => false,
        }
    }

    fn policy(&self) -> Option<&RoutePolicy> {
        self.policy
    }

    fn token_text(&self) -> Option<&Found<Cow<'a, str>>> {
        self.found.as_ref().ok()?.as_ref()
    }

    fn unjudged(&self, rule: Rule) -> String {
        let Some(policy) = self.policy() else {
            let is_answered = self.endpoint.is_some();
            return if is_answered { "the gate itself responds" } else { "not checked: no route applies" }.to_owned();
        };
        let is_asked = matches!(rule, Rule::Key | Rule::Signature);
        if let Some(issuer) = self.asked_about.as_ref().filter(|_| is_asked) {
            return format!("the gate must introspect the token at issuer {issuer}");
        }
        if is_asked && self.is_from_store() {
            let is_key = self.heard.token.as_ref().is_some_and(AccessToken::is_api_key);
            let caller = if is_key { "an API key" } else { "a session" };
            return format!("{caller} has no signature: the gate looks it up in the store");
        }
        let why = match (&self.found, rule) {
            _ if self.asked.is_some() && policy.preflight_to_upstream => {
                "the request is a CORS preflight, which the upstream answers"
            }
            _ if rule == Rule::Quota => "the route has no limits",
            _ if policy.auth == Auth::None => "the route does not require a token",
            (Err(_), _) => "the request does not have exactly one credential that the route accepts",
            (Ok(None), _) if self.has_session_cookie() && self.heard.token.is_some() => "the route does not require it",
            (Ok(None), _) if self.has_session_cookie() => "not checked: the session has ended, or is not in memory",
            (Ok(None), _) => self.lacking(),
            (Ok(Some(_)), Rule::Origin) => "the token did not come in a cookie",
            (Ok(Some(_)), Rule::Limit) => "the token was already verified",
            (Ok(Some(_)), Rule::Role | Rule::Condition | Rule::StepUp) if self.heard.token.is_some() => {
                "the route does not require it"
            }
            (Ok(Some(_)), _) => "not checked: the token could not be read",
        };
        why.to_owned()
    }

    fn passed(&self, rule: Rule) -> String {
        let token = self.heard.token.as_ref();
        match rule {
            Rule::Request => format!("host {}", self.layer.gate.0.host(self.parts).unwrap_or_default()),
            Rule::Path => {
                let raw = self.raw();
                match CanonicalPath::parse(&raw) {
                    Ok(path) if path.is_rewritten() => format!("{raw} is read as {}", path.as_str()),
                    Ok(_) | Err(_) => format!("{raw} is canonical"),
                }
            }
            Rule::Route => match (self.endpoint, self.route) {
                (Some(endpoint), _) => format!("the gate itself responds: {endpoint}"),
                (None, Some(route)) => format!("{}: {}, {}", route.id, route.path, self.method()),
                (None, None) => String::new(),
            },
            Rule::Credential => self.place().to_owned(),
            Rule::Origin => "the request may use the cookie".to_owned(),
            Rule::Limit => "the client address has not exceeded its limit of unverified tokens".to_owned(),
            Rule::Key => self.key(),
            Rule::Signature => match &self.asked_about {
                Some(issuer) => format!("{issuer} says that the token is active"),
                None => "valid".to_owned(),
            },
            Rule::Claims => match token {
                Some(token) => self.claims_of(token),
                None => format!("type and times are valid{}", self.note()),
            },
            Rule::Revocation => {
                "no revocation covers the token, its session, its subject, its client, or all tokens".to_owned()
            }
            Rule::Proof => token.map(bindings_of).unwrap_or_default(),
            Rule::Issuer => token.map(|token| token.issuer_name().to_string()).unwrap_or_default(),
            Rule::Audience => token.map(|token| token.audience.join(" ")).unwrap_or_default(),
            Rule::Scope => match self.asked_scopes() {
                asked if asked.is_empty() => "the route does not require it".to_owned(),
                asked => format!("the route requires {asked}; the token has {}", self.scope()),
            },
            Rule::Role => self.roles(),
            Rule::Condition => self.conditions().to_string(),
            Rule::StepUp => "the login meets the route's requirements".to_owned(),
            Rule::Quota => format!("within {}", self.limits()),
            Rule::Session | Rule::Rotation => String::new(),
        }
    }

    fn refused(&self, rule: Rule, denial: Denial) -> String {
        let token = self.heard.token.as_ref();
        match (rule, denial, token) {
            (_, Denial::BadPath(error), _) => format!("{}: {}", self.raw(), error.what()),
            (Rule::Route, _, _) => match self.endpoint {
                Some(endpoint) => format!("the gate itself responds: {endpoint}; {denial}"),
                None => self.no_route(denial),
            },
            (_, Denial::UnknownHost, _) => {
                let host = authority::check(self.parts).map_or("", |authority| authority.host());
                format!("neither a route nor `public_url` has the host {host}")
            }
            (_, Denial::NoCredential | Denial::UnusableCredential, _) if self.unwanted_key().is_some() => {
                let (name, credentials) = (self.unwanted_key(), self.policy().map(|policy| policy.credentials));
                let name = name.as_ref().map_or("", HeaderName::as_str);
                let takes = taken(credentials.unwrap_or_default());
                let here = if self.route.is_some() { "route" } else { "endpoint" };
                format!("the API key is in {name}, but the {here} accepts {takes}")
            }
            (_, Denial::NoCredential, _) => self.lacking().to_owned(),
            (_, Denial::UnusableCredential, _)
                if self.takes_no_token() && self.parts.headers.contains_key(AUTHORIZATION) =>
            {
                let takes = taken(self.policy().map(|policy| policy.credentials).unwrap_or_default());
                format!("the request has an Authorization header, but the route accepts {takes}")
            }
            (_, Denial::MalformedToken(_), _)
                if !self.token_text().is_some_and(|found| is_jwt_shaped(&found.token)) =>
            {
                format!("{denial}; the route has no issuer that introspects opaque tokens")
            }
            (Rule::Credential, _, _) => two(denial, &self.parts.headers),
            (Rule::Origin, _, _) => {
                let came = if self.route.is_some() { "the token came in a cookie, and " } else { "" };
                format!(
                    "{came}neither Origin nor Sec-Fetch-Site proves that a page of an allowed origin sent the request"
                )
            }
            (Rule::Key, _, _) => format!("{}: {denial}{}", self.key(), self.further(denial).unwrap_or_default()),
            (Rule::Claims, _, _) => {
                let further = if token.is_none() { self.further(denial) } else { None };
                let why = further.unwrap_or_else(|| time_of(token, denial, self.wall()));
                format!("{denial}{why}{}", self.note())
            }
            (_, Denial::RevocationsUnavailable(_), _) => {
                "the gate has not received other gates' revocations for too long".to_owned()
            }
            (Rule::Revocation, _, Some(token)) => self.layer.gate.0.checker.revoked_by(token).to_owned(),
            (_, Denial::UnprovedBinding, None) => {
                "the token is bound to something that the gate cannot check".to_owned()
            }
            (Rule::Issuer, _, _) => {
                let asked = self.policy().map(|policy| policy.issuers.join(" ")).unwrap_or_default();
                let issuer = self.issuer_name().unwrap_or_default();
                match asked.is_empty() {
                    true => format!("the route names no issuers, and only routes that name {issuer} accept its tokens"),
                    false => format!("the route accepts {asked}; the token is from {issuer}"),
                }
            }
            (Rule::Audience, _, Some(token)) => {
                let named = self.policy().map(|policy| &policy.audiences).filter(|named| !named.is_empty());
                let asked = named.map_or_else(|| token.issued_by.audience.join(" "), |named| named.join(" "));
                format!("the route requires {asked}; the token is for {}", token.audience.join(" "))
            }
            (Rule::Scope, _, Some(_)) => {
                format!("the route requires {}; the token has {}", self.asked_scopes(), self.scope())
            }
            (_, Denial::QuotaExceeded(limit, wait), _) => {
                format!("{limit}: the next request is admitted in {}", shown(wait))
            }
            (_, Denial::RolesOverage, _) => format!("{}, and its issuer left roles out of the token", self.roles()),
            (Rule::Role, _, _) => self.roles(),
            (Rule::Condition, _, Some(token)) => self.unmet_words(token),
            _ => denial.to_string(),
        }
    }

    fn no_route(&self, denial: Denial) -> String {
        let gate = &*self.layer.gate.0;
        let raw = self.raw();
        let (Ok(host), Ok(path)) = (gate.host(self.parts), CanonicalPath::parse(&raw)) else {
            return denial.to_string();
        };
        let method = self.method();
        match (gate.routes.find(Some(host), method, &path), self.route) {
            (Match::Ambiguous(_), Some(route)) if denial == Denial::AmbiguousPath => {
                let stricter = gate.routes.stricter_reading(Some(host), method, path.as_str());
                let to = stricter.map_or_else(String::new, |other| format!("route {}, which is stricter", other.id));
                format!("the path matches {}, but can also be read as a path of {to}", route.id)
            }
            (Match::MethodNotAllowed(allowed), None) => {
                let allowed: Vec<_> = allowed.iter().map(|method| method.as_str()).collect();
                format!("the routes of this path serve {}, not {method}", allowed.join(" "))
            }
            (Match::None, None) if denial == Denial::NoRoute => {
                format!("no route serves {} on the host {host}", path.as_str())
            }
            _ => denial.to_string(),
        }
    }

    fn further(&self, denial: Denial) -> Option<String> {
        let why = self.layer.gate.0.checker.refused_in_words(&self.token_text()?.token, denial)?;
        Some(format!(": {why}"))
    }

    pub(super) fn token(&self) -> Option<ExplainedToken> {
        let (is_proved, says) = (self.is_proved(), &self.says);
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        match &self.heard.token {
            Some(token) => Some(ExplainedToken {
                is_proved,
                issuer_name: Some(token.issuer_name().to_string()),
                issuer: Some(token.issuer().to_string()),
                subject: Some(token.subject.to_string()),
                client: token.client.as_deref().map(str::to_owned),
                session: token.session.map(|(id, _)| id.to_string()),
                generation: token.session.map(|(_, generation)| generation.get()),
                token_id: token.jti.as_deref().map(str::to_owned),
                kid: text(&says.kid).or_else(|| token.kid().map(str::to_owned)),
                scope: Some(token.scope.clone()),
                audience: token.audience.iter().map(ToString::to_string).collect(),
            }),
            // The string has the form of a token, but its claims cannot be read.
            None => says.algorithm.is_some().then(|| ExplainedToken {
                is_proved,
                issuer_name: self.issuer_name(),
                issuer: text(&says.issuer),
                subject: text(&says.subject),
                client: text(&says.client),
                session: text(&says.session),
                token_id: text(&says.token_id),
                kid: text(&says.kid),
                ..ExplainedToken::default()
            }),
        }
    }

    fn unwanted_key(&self) -> Option<HeaderName> {
        let found = self.layer.gate.0.key_headers(self.parts, true).next();
        found.filter(|_| self.policy().is_some_and(|policy| !policy.credentials.key))
    }

    fn takes_no_token(&self) -> bool {
        self.policy().is_some_and(|policy| !policy.credentials.token)
    }

    fn lacking(&self) -> &'static str {
        match self.policy().map(|policy| policy.credentials) {
            Some(Credentials { token: false, session: true, key: false }) => "no session cookie was sent",
            Some(Credentials { token: false, session: false, key: true }) => "no API key was sent",
            Some(Credentials { token: false, session: true, key: true }) => "no session cookie or API key was sent",
            Some(_) | None => "no token was sent",
        }
    }

    pub(super) fn advice(&self) -> Option<&'static str> {
        let Some(refusal) = self.heard.refusal else {
            let exchange = self.route.filter(|_| self.endpoint.is_none()).and_then(|route| route.exchange.as_ref());
            return exchange.map(
                |_| "The provider was not asked to exchange the token for the upstream, and may refuse the exchange.",
            );
        };
        match refusal {
            Denial::NoCredential | Denial::UnusableCredential if self.unwanted_key().is_some() => {
                Some(match self.route {
                    Some(_) => "Add \"key\" to the route's `credentials`, or send an access token.",
                    None => "Send an access token, because this endpoint does not accept API keys.",
                })
            }
            _ => None,
        }
    }

    fn raw(&self) -> String {
        let whole = self.layer.whole::<Recorder>(self.parts);
        whole.as_ref().unwrap_or(&self.parts.uri).path().to_owned()
    }

    fn method(&self) -> &Method {
        self.asked.as_ref().unwrap_or(&self.parts.method)
    }

    fn wall(&self) -> Timestamp {
        self.layer.gate.0.engine.clock().wall()
    }

    fn place(&self) -> &'static str {
        let Some(found) = self.token_text() else {
            if self.has_session_cookie() {
                return "the session cookie of a browser";
            }
            let is_public = self.policy().is_some_and(|policy| policy.auth == Auth::None);
            return if is_public { "the route does not require a token" } else { self.lacking() };
        };
        if self.heard.token.as_ref().is_some_and(|token| token.is_api_key()) {
            return "an API key";
        }
        match (found.by_cookie, self.parts.headers.contains_key(AUTHORIZATION)) {
            (true, _) => "a cookie",
            (false, true) if found.scheme == Scheme::Dpop => "Authorization: DPoP",
            (false, true) => "Authorization: Bearer",
            (false, false) => "a query parameter",
        }
    }

    fn has_session_cookie(&self) -> bool {
        let takes = self.policy().is_some_and(|policy| policy.auth != Auth::None && policy.credentials.session);
        takes && matches!(session_cookie(&self.parts.headers), Ok(Some(_)))
    }

    fn key(&self) -> String {
        let or_dash = |text: &Option<Box<str>>| text.as_deref().unwrap_or("-").to_owned();
        let Peeked { kid, issuer, algorithm, .. } = &self.says;
        format!("kid {} of {}, {}", or_dash(kid), or_dash(issuer), or_dash(algorithm))
    }

    fn issuer_name(&self) -> Option<String> {
        let named = || self.layer.gate.0.checker.name_of(self.says.issuer.as_deref()?);
        self.heard.token.as_ref().map(|token| token.issuer_name().to_string()).or_else(|| Some(named()?.to_string()))
    }

    /// Returns whether the store confirmed a session or an API key.
    fn is_from_store(&self) -> bool {
        self.heard.token.as_ref().is_some_and(|token| token.is_api_key() || self.token_text().is_none())
    }

    /// Returns whether the signature, the issuer or the store has confirmed the claims.
    fn is_proved(&self) -> bool {
        self.heard.is_proved() || self.is_from_store()
    }

    fn note(&self) -> &'static str {
        if self.is_proved() { "" } else { " (unverified)" }
    }

    fn claims_of(&self, token: &AccessToken) -> String {
        let (audience, subject) = (token.audience.join(" "), &token.subject);
        let expires = shown(token.expires.since(self.wall()));
        format!("aud {audience}, expires in {expires}, sub {subject}{}", self.note())
    }

    fn asked_scopes(&self) -> String {
        let asked = |policy: &RoutePolicy| match (policy.scopes.is_empty(), policy.any_scope.is_empty()) {
            (_, true) => policy.scopes.to_string(),
            (true, false) => format!("one of {}", policy.any_scope),
            (false, false) => format!("{}, and one of {}", policy.scopes, policy.any_scope),
        };
        let of_call = self.call_rules().iter().map(|rule| &rule.policy);
        let all = self.policy().into_iter().chain(of_call).map(asked).filter(|asked| !asked.is_empty());
        all.collect::<Vec<_>>().join(", and for the call ")
    }

    fn limits(&self) -> String {
        self.policy().map(|policy| self.layer.gate.0.limit_names(policy)).unwrap_or_default()
    }

    fn scope(&self) -> &str {
        or_none(self.heard.token.as_ref().map_or("", |token| token.scope.as_str()))
    }

    fn conditions(&self) -> String {
        self.policy().and_then(|policy| policy.conditions.as_ref()).map(ToString::to_string).unwrap_or_default()
    }

    fn roles(&self) -> String {
        let names = |roles: &[Role]| roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let asked =
            self.policy().map_or_else(String::new, |policy| match (names(&policy.roles), names(&policy.all_roles)) {
                (any, all) if all.is_empty() => format!("one of {any}"),
                (any, all) if any.is_empty() => all,
                (any, all) => format!("{all}, and one of {any}"),
            });
        let has = self.heard.token.as_ref().map(|token| token.roles().names()).unwrap_or_default();
        let has: Vec<_> = has.iter().map(ToString::to_string).collect();
        format!("the route requires {asked}; the token has {}", or_none(&has.join(" ")))
    }
}

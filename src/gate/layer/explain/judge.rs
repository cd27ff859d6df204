//! What each rule says of a request, whichever of them refuses it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::clock::Timestamp;
use crate::credential::{self, Found, Scheme};
use crate::denial::Denial;
use crate::effects::WithoutEffects;
use crate::gate::explanation::{ExplainedToken, Rule, RuleVerdict};
use crate::gate::layer::GateLayer;
use crate::gate::preflight;
use crate::policy;
use crate::route::path::CanonicalPath;
use crate::route::{Auth, Match, Route, RoutePolicy};
use crate::session::SessionId;
use crate::token::claims::AccessToken;
use crate::token::verify::{IssuerRules, is_jwt_shaped};

/// Asks each rule by itself.
pub(super) struct Judge<'a, M> {
    pub(super) layer: &'a GateLayer<M>,
    pub(super) parts: &'a Parts,
    pub(super) rules: Vec<RuleVerdict>,
    pub(super) token: Option<ExplainedToken>,
    pub(super) session: Option<(SessionId, u64)>,
}

impl<M> Judge<'_, M> {
    fn wall(&self) -> Timestamp {
        self.layer.gate.0.engine.clock().wall()
    }

    fn ok(&mut self, rule: Rule, detail: impl Into<String>) {
        self.rules.push(RuleVerdict::ok(rule, detail));
    }

    fn judged(
        &mut self,
        rule: Rule,
        judged: Result<(), Denial>,
        good: impl FnOnce() -> String,
        bad: impl FnOnce(Denial) -> String,
    ) {
        self.rules.push(match judged {
            Ok(()) => RuleVerdict::ok(rule, good()),
            Err(denial) => RuleVerdict::fail(rule, bad(denial)),
        });
    }

    /// The rules that have no verdict yet are not judged.
    fn skip_rest(&mut self, why: &str) {
        for rule in Rule::OF_REQUESTS {
            if self.rules.iter().all(|verdict| verdict.rule != rule) {
                self.rules.push(RuleVerdict::skip(rule, why));
            }
        }
    }

    pub(super) fn all(&mut self, route: Option<&Arc<Route>>, endpoint: Option<&str>) {
        let (parts, gate) = (self.parts, &*self.layer.gate.0);
        let host = gate.host(parts);
        let named = host.unwrap_or_default().to_owned();
        self.judged(Rule::Request, host.map(drop), || format!("host {named}"), |denial| denial.to_string());
        let whole = self.layer.whole::<WithoutEffects>(parts);
        let raw = whole.as_ref().unwrap_or(&parts.uri).path();
        let path = CanonicalPath::parse(raw);
        match &path {
            Ok(path) if path.is_rewritten() => self.ok(Rule::Path, format!("{raw} is {}", path.as_str())),
            Ok(_) => self.ok(Rule::Path, format!("{raw} is canonical")),
            Err(error) => self.rules.push(RuleVerdict::fail(Rule::Path, format!("{raw}: {}", error.what()))),
        }
        if let Some(endpoint) = endpoint {
            self.ok(Rule::Route, format!("the gate itself answers: {endpoint}"));
            return self.skip_rest("the gate itself answers");
        }
        let asked = preflight::requested_method(&parts.method, &parts.headers);
        let method = asked.as_ref().unwrap_or(&parts.method);
        let Some(route) = route else {
            let missing =
                host.ok().zip(path.ok()).map(|(host, path)| match gate.routes.find(Some(host), method, &path) {
                    Match::MethodNotAllowed(allowed) => {
                        let allowed: Vec<_> = allowed.iter().map(|method| method.as_str()).collect();
                        format!("the routes of this path serve {}, not {method}", allowed.join(" "))
                    }
                    Match::None => format!("no route serves {} on the host {host}", path.as_str()),
                    // The decision says what is wrong.
                    Match::Found(_) | Match::Ambiguous(_) => Denial::NearMiss.to_string(),
                });
            if let Some(missing) = missing {
                self.rules.push(RuleVerdict::fail(Rule::Route, missing));
            }
            return self.skip_rest("not judged without a route");
        };
        if let (Ok(host), Ok(path)) = (host, &path) {
            match gate.routes.find(Some(host), method, path) {
                Match::Ambiguous(_) => {
                    let stricter = gate.routes.stricter_reading(Some(host), method, path.as_str());
                    let to =
                        stricter.map_or_else(String::new, |other| format!("route {}, which is stricter", other.id));
                    let detail = format!("matches {}, and can be read as a path of {to}", route.id);
                    self.rules.push(RuleVerdict::fail(Rule::Route, detail));
                }
                Match::Found(_) | Match::MethodNotAllowed(_) | Match::None => {
                    self.ok(Rule::Route, format!("{}: {}, {method}", route.id, route.path));
                }
            }
        }
        if asked.is_some() && route.policy.preflight_to_upstream {
            return self.skip_rest("a CORS preflight, which the upstream answers");
        }
        self.credential(&route.policy);
    }

    fn credential(&mut self, policy: &RoutePolicy) {
        let (parts, gate) = (self.parts, &*self.layer.gate.0);
        if policy.auth == Auth::None {
            let detail = "the route asks for no token".to_owned();
            self.judged(
                Rule::Credential,
                credential::at_most_one(&parts.headers),
                || detail,
                |denial| two(denial, &parts.headers),
            );
            return self.skip_rest("the route asks for no token");
        }
        let found = match credential::extract_from(&parts.headers, parts.uri.query(), gate.places(policy)) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let detail = "no token was sent";
                self.rules.push(match policy.auth {
                    Auth::Required => RuleVerdict::fail(Rule::Credential, detail),
                    Auth::Optional | Auth::None => RuleVerdict::ok(Rule::Credential, detail),
                });
                return self.skip_rest(detail);
            }
            Err(denial) => {
                self.rules.push(RuleVerdict::fail(Rule::Credential, two(denial, &parts.headers)));
                return self.skip_rest("there is not exactly one credential that the route accepts");
            }
        };
        let place = match (found.by_cookie, parts.headers.contains_key(AUTHORIZATION)) {
            (true, _) => "a cookie",
            (false, true) if found.scheme == Scheme::Dpop => "Authorization: DPoP",
            (false, true) => "Authorization: Bearer",
            (false, false) => "a parameter of the query",
        };
        if found.by_cookie {
            let judged = if gate.origins.admit(parts, policy) { Ok(()) } else { Err(Denial::CrossOrigin) };
            self.judged(Rule::Origin, judged, || "the request may bring a cookie".to_owned(), |_| {
                "the token came in a cookie, and neither Origin nor Sec-Fetch-Site says that one of our own pages sent the \
                 request"
                    .to_owned()
            });
        } else {
            self.rules.push(RuleVerdict::skip(Rule::Origin, "the token came in no cookie"));
        }
        let address = gate.client_address_as::<WithoutEffects>(parts);
        match gate.engine.limits().admit_unverified_as::<WithoutEffects>(address) {
            Ok(()) => self.ok(Rule::Limit, "tokens of this address are examined"),
            // If it refuses, the decision says so.
            Err(_) => self.rules.push(RuleVerdict::skip(Rule::Limit, "the token was examined before")),
        }
        self.token(&found, policy, place);
        self.skip_rest("not judged: nothing is known of the token");
    }

    fn token(&mut self, found: &Found<Cow<'_, str>>, policy: &RoutePolicy, place: &str) {
        let checker = &self.layer.gate.0.checker;
        let taken = |rules: &IssuerRules| policy.takes(&rules.name, rules.everywhere);
        if let Some(opaque) = checker.examine_opaque(&found.token, taken) {
            self.ok(Rule::Credential, place);
            let detail = format!("issuer {} is asked about the token", opaque.issuer);
            self.rules.push(RuleVerdict::skip(Rule::Key, detail.clone()));
            match opaque.token {
                Some(token) => {
                    self.ok(Rule::Signature, format!("{} says that the token is active", opaque.issuer));
                    self.ok(Rule::Claims, claims_of(&token, true, self.wall()));
                    self.token = Some(explained(&token, true));
                    self.authorised(&token, policy, found.scheme);
                }
                None => self
                    .rules
                    .push(RuleVerdict::skip(Rule::Signature, format!("{detail}, an explanation does not ask"))),
            }
            return;
        }
        let examined = match checker.examine(&found.token) {
            Ok(examined) => examined,
            Err(denial) => {
                let detail = match is_jwt_shaped(&found.token) {
                    true => denial.to_string(),
                    false => format!("{denial}; no issuer of the route is asked about such a token"),
                };
                return self.rules.push(RuleVerdict::fail(Rule::Credential, detail));
            }
        };
        self.ok(Rule::Credential, place);
        let is_proved = examined.signature == Some(Ok(()));
        let says = &examined.says;
        let key = format!(
            "kid {} of {}, {}",
            says.kid.as_deref().unwrap_or("-"),
            says.issuer.as_deref().unwrap_or("-"),
            examined.algorithm
        );
        self.judged(Rule::Key, examined.key, || key.clone(), |denial| format!("{key}: {denial}"));
        if let Some(judged) = examined.signature {
            self.judged(Rule::Signature, judged, || "valid".to_owned(), |denial| denial.to_string());
        }
        let note = if is_proved { "" } else { " (unverified)" };
        if examined.claims == Some(Err(Denial::UnprovedBinding)) {
            self.rules
                .push(RuleVerdict::fail(Rule::Proof, "the token is bound to something that the gate cannot check"));
        }
        if let Some(judged) = examined.claims {
            let wall = self.wall();
            let good = || examined.token.as_ref().map(|token| claims_of(token, is_proved, wall)).unwrap_or_default();
            self.judged(Rule::Claims, judged, good, |denial| match &examined.refused_claim {
                Some(claim) => format!("{denial}: {claim}{note}"),
                None => format!("{denial}{}{note}", time_of(examined.token.as_ref(), denial, wall)),
            });
        }
        self.token = Some(match &examined.token {
            Some(token) => {
                ExplainedToken { kid: says.kid.as_deref().map(str::to_owned), ..explained(token, is_proved) }
            }
            None => ExplainedToken {
                is_proved,
                issuer_name: examined.issuer.as_ref().map(|(name, _)| name.to_string()),
                issuer: says.issuer.as_deref().map(str::to_owned),
                subject: says.subject.as_deref().map(str::to_owned),
                client: says.client.as_deref().map(str::to_owned),
                session: says.session.as_deref().map(str::to_owned),
                token_id: says.token_id.as_deref().map(str::to_owned),
                kid: says.kid.as_deref().map(str::to_owned),
                ..ExplainedToken::default()
            },
        });
        if let Some(token) = &examined.token {
            self.authorised(token, policy, found.scheme);
        }
    }

    /// Revocation, and what the route asks of the claims.
    fn authorised(&mut self, token: &AccessToken, policy: &RoutePolicy, scheme: Scheme) {
        self.session = token.session.map(|(id, generation)| (id, generation.get()));
        match self.layer.gate.0.checker.examine_revocation(token) {
            Ok(()) => self.ok(Rule::Revocation, "no entry of the token, its session, subject or client, or of all"),
            Err((_, by)) => self.rules.push(RuleVerdict::fail(Rule::Revocation, by)),
        }
        let gate = &*self.layer.gate.0;
        let proved = gate.possession(self.parts, scheme, token).and_then(|proof| {
            gate.use_proof::<WithoutEffects>(proof.as_ref())?;
            policy::judge_binding(policy, token)
        });
        let key = token.bound_to().map(|key| format!("the request proves the key {key}"));
        let certificate =
            token.certificate().map(|certificate| format!("the connection has the certificate {certificate}"));
        let bindings: Vec<String> = key.into_iter().chain(certificate).collect();
        self.judged(
            Rule::Proof,
            proved,
            || match bindings.is_empty() {
                true => "the token is bound to no key and no certificate".to_owned(),
                false => bindings.join(", "),
            },
            |denial| denial.to_string(),
        );
        let issuer = token.issuer_name();
        let asked = policy.issuers.join(" ");
        self.judged(
            Rule::Issuer,
            policy::judge_issuer(policy, token),
            || issuer.to_string(),
            |_| match asked.is_empty() {
                true => format!("the route names no issuers, and {issuer} is not accepted everywhere"),
                false => format!("the route accepts {asked}; the token is of {issuer}"),
            },
        );
        let audience = token.audience.join(" ");
        let wanted = match policy.audiences.is_empty() {
            true => token.issued_by.audience.join(" "),
            false => policy.audiences.join(" "),
        };
        self.judged(
            Rule::Audience,
            policy::judge_audience(policy, token),
            || audience.clone(),
            |_| format!("the route asks for {wanted}; the token is for {audience}"),
        );
        let scope = or_none(token.scope.as_str());
        let asks = match policy.any_scope.is_empty() {
            true => policy.scopes.to_string(),
            false if policy.scopes.is_empty() => format!("one of {}", policy.any_scope),
            false => format!("{}, and one of {}", policy.scopes, policy.any_scope),
        };
        self.judged(
            Rule::Scope,
            policy::judge_scopes(policy, token),
            || {
                if asks.is_empty() {
                    "the route asks for none".to_owned()
                } else {
                    format!("route asks {asks}; token has {scope}")
                }
            },
            |_| format!("route asks {asks}; token has {scope}"),
        );
        if policy.roles.is_empty() {
            self.rules.push(RuleVerdict::skip(Rule::Role, "the route asks for none"));
        } else {
            let roles: Vec<_> = policy.roles.iter().map(ToString::to_string).collect();
            let has: Vec<_> = token.roles().names().iter().map(ToString::to_string).collect();
            let detail = format!("route asks for one of {}; token has {}", roles.join(" "), or_none(&has.join(" ")));
            self.judged(
                Rule::Role,
                policy::judge_roles(policy, token),
                || detail.clone(),
                |denial| match denial {
                    Denial::RolesOverage => format!("{detail}, and its issuer left roles out"),
                    _ => detail.clone(),
                },
            );
        }
        match &policy.step_up {
            None => self.rules.push(RuleVerdict::skip(Rule::StepUp, "the route asks for none")),
            Some(_) => self.judged(
                Rule::StepUp,
                policy::judge_step_up(policy, token, self.wall()),
                || "the login is as the route asks".to_owned(),
                |denial| denial.to_string(),
            ),
        }
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn two(denial: Denial, headers: &HeaderMap) -> String {
    let number = headers.get_all(AUTHORIZATION).iter().count();
    match (denial, number) {
        (Denial::TwoCredentials, 2..) => format!("{number} Authorization headers"),
        (Denial::TwoCredentials, _) => "two credentials, in two places".to_owned(),
        (Denial::UnusableCredential, 1) => "the Authorization header is not one bearer token".to_owned(),
        (Denial::UnusableCredential, _) => "a token in the query, or in a cookie that is no text".to_owned(),
        (denial, _) => denial.to_string(),
    }
}

fn explained(token: &AccessToken, is_proved: bool) -> ExplainedToken {
    ExplainedToken {
        is_proved,
        issuer_name: Some(token.issuer_name().to_string()),
        issuer: Some(token.issuer().to_string()),
        subject: Some(token.subject.to_string()),
        client: token.client.as_deref().map(str::to_owned),
        session: token.session.map(|(id, _)| id.to_string()),
        generation: token.session.map(|(_, generation)| generation.get()),
        token_id: token.jti.as_deref().map(str::to_owned),
        kid: token.kid().map(str::to_owned),
        scope: Some(token.scope.clone()),
        audience: token.audience.iter().map(ToString::to_string).collect(),
    }
}

fn claims_of(token: &AccessToken, is_proved: bool, wall: Timestamp) -> String {
    let note = if is_proved { "" } else { " (unverified)" };
    let (audience, subject) = (token.audience.join(" "), &token.subject);
    format!("aud {audience}, expires in {}, sub {subject}{note}", shown(token.expires.since(wall)))
}

/// How far its time is off, if that is what refuses it.
fn time_of(token: Option<&AccessToken>, denial: Denial, wall: Timestamp) -> String {
    match (denial, token) {
        (Denial::TokenExpired, Some(token)) => format!(" {} ago", shown(wall.since(token.expires))),
        (Denial::TokenNotYetValid, Some(token)) => match token.not_before().max(token.issued_at) {
            Some(from) => format!(": in {}", shown(from.since(wall))),
            None => String::new(),
        },
        _ => String::new(),
    }
}

fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

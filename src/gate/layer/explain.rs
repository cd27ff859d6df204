//! The explanation of a request. [`GateLayer::admit_as`] decides, without effects, as it does for a request; around its
//! decision each rule is asked by itself, so that the rules after the one that refuses are judged, too.

use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{Extensions, StatusCode};

use super::GateLayer;
use super::admit::{Admission, EndpointMatch};
use super::refuse::rendered;
use crate::denial::Denial;
use crate::dialect::{Dialect, Reply};
use crate::effects::WithoutEffects;
use crate::gate::Inner;
use crate::gate::endpoint::Hit;
use crate::gate::explanation::{Conclusion, Explanation, Rule, RuleResult, RuleVerdict};
use crate::gate::preflight;
use crate::headers::Peer;
use crate::reason::Reason;
use crate::route::path::CanonicalPath;
use crate::route::{Route, RouteId};
use crate::session::{SessionId, Status};

mod judge;

use judge::Judge;

/// What a request that is not forwarded gets.
struct Refusal {
    denial: Denial,
    reply: Reply,
    route: Option<Arc<Route>>,
}

impl<M> GateLayer<M> {
    /// Explains what the layer would make of a request with this head, and why. It takes the path of a request, and has
    /// no effect: it counts nothing, confirms no token, keeps no token in a cache, fetches nothing and forwards nothing.
    /// Where a request would wait for the keys of an issuer, or for what the issuer says of a token, the conclusion is
    /// [`Conclusion::Unavailable`]. Bounds on concurrency are not looked at.
    ///
    /// A [`Peer`] in the extensions says where the request comes from.
    ///
    /// ```
    /// use rotogate::gate::{Conclusion, Rule};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
    /// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let gate = gate.client(Client::public("web")).build().await?;
    /// let request = http::Request::get("/orders").header("host", "api.example.com").body(())?;
    /// let explanation = gate.layer().explain(request.into_parts().0).await;
    /// assert_eq!((explanation.decision, explanation.status), (Conclusion::Refused, Some(401)));
    /// assert_eq!(explanation.denial.map(Rule::of), Some(Rule::Credential));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn explain(&self, request: Parts) -> Explanation {
        let (mut explanation, session) = self.explained(request);
        if let Some((id, generation)) = session
            && let Ok(Some(record)) = self.gate.0.engine.store().load(id).await
            && let Some(rule) = explanation.rules.iter_mut().find(|verdict| verdict.rule == Rule::Revocation)
        {
            let state = match record.status {
                Status::Live => "live",
                Status::Revoked(because) => because.word(),
            };
            let of = record.current.get();
            rule.detail = format!("session {id} {state}, generation {generation} of {of}; {}", rule.detail);
        }
        explanation
    }

    fn explained(&self, request: Parts) -> (Explanation, Option<(SessionId, u64)>) {
        let gate = &*self.gate.0;
        let mut parts = request;
        let mut extensions = Extensions::new();
        if let Some(peer) = parts.extensions.remove::<Peer>() {
            extensions.insert(peer);
        }
        parts.extensions = extensions;
        let presented = parts.clone();
        let mut permitted = None;
        let mut refusal = None;
        let mut endpoint = None;
        let mut fault = None;
        match self.admit_as::<WithoutEffects>(&mut parts, EndpointMatch::Serve) {
            Admission::In(permit) | Admission::Undecided(_, permit) => permitted = Some(permit),
            Admission::Refused(denial, route) => refusal = Some(gate.refusal(&parts, denial, None, route)),
            Admission::WrongMethod(reply) => {
                refusal = Some(Refusal { denial: Denial::MethodNotAllowed, reply, route: None });
            }
            Admission::Endpoint(Hit::NearMiss(of)) => {
                let dialect = of.and_then(|endpoint| gate.endpoints.dialect(endpoint));
                refusal = Some(gate.refusal(&parts, Denial::NearMiss, dialect, None));
            }
            Admission::Endpoint(Hit::Operation(operation)) => {
                let dialect = gate.endpoints.dialect(operation.endpoint()).map_or("", Dialect::name);
                if issues(dialect, operation.name()) {
                    fault = gate.engine.may_mint().err();
                }
                let nothing = fault.as_ref().map_or_else(String::new, |fault| format!("; it issues nothing: {fault}"));
                endpoint = Some(format!("{dialect}.{}{nothing}", operation.name()));
            }
            Admission::Endpoint(Hit::Jwks) => endpoint = Some("the JWK set".to_owned()),
            Admission::Endpoint(Hit::Resource(_)) => endpoint = Some("the document of a resource".to_owned()),
            Admission::Endpoint(Hit::Metadata(_)) => endpoint = Some("the metadata".to_owned()),
        }
        let denial = refusal.as_ref().map(|refusal| refusal.denial);
        let reason = match (denial, &fault, &endpoint) {
            (Some(denial), _, _) => Reason::denied(&denial),
            (None, Some(fault), _) => Reason::failed(fault),
            (None, None, Some(_)) => Reason::ANSWERED,
            (None, None, None) => Reason::PASSED,
        };
        let route = permitted.as_ref().map(|permitted| Arc::clone(permitted.route()));
        let route = route.or_else(|| refusal.as_ref()?.route.clone());
        let mut judge = Judge { layer: self, parts: &presented, rules: Vec::new(), token: None, session: None };
        judge.all(route.as_ref(), endpoint.as_deref());
        let (mut rules, token, session) = (judge.rules, judge.token, judge.session);
        settle(&mut rules, denial);
        let also_matched = route.as_ref().map(|route| self.also_matched(&presented, route)).unwrap_or_default();
        let caller = permitted.as_ref().and_then(|permitted| permitted.caller());
        let identity =
            caller.map(|caller| caller.headers().map(|(name, value)| (name.clone(), value.clone())).collect());
        let reply = refusal.as_ref().map(|refusal| &refusal.reply);
        let explanation = Explanation {
            decision: match (denial, &fault, reason.is_refusal()) {
                (None, None, _) => Conclusion::Passed,
                (Some(_), _, true) => Conclusion::Refused,
                (Some(_), _, false) | (None, Some(_), _) => Conclusion::Unavailable,
            },
            status: match (reply, &fault) {
                (Some(reply), _) => Some(reply.status().as_u16()),
                (None, Some(_)) => Some(StatusCode::SERVICE_UNAVAILABLE.as_u16()),
                (None, None) => None,
            },
            outcome: reason.word(),
            detail: reason.detail(),
            denial,
            challenge: reply.and_then(|reply| Some(reply.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?.to_owned())),
            route,
            also_matched,
            rules,
            identity: identity.unwrap_or_default(),
            token,
        };
        (explanation, session)
    }

    /// The other routes that match the path.
    fn also_matched(&self, parts: &Parts, route: &Arc<Route>) -> Vec<RouteId> {
        let gate = &self.gate.0;
        let (Ok(host), Some(uri)) = (gate.host(parts), Some(self.whole::<WithoutEffects>(parts))) else {
            return Vec::new();
        };
        let Ok(path) = CanonicalPath::parse(uri.as_ref().unwrap_or(&parts.uri).path()) else { return Vec::new() };
        let asked = preflight::requested_method(&parts.method, &parts.headers);
        let mut all = gate.routes.matching(Some(host), asked.as_ref().unwrap_or(&parts.method), &path);
        all.retain(|other| other.id != route.id);
        let mut ids: Vec<_> = all.into_iter().map(|other| other.id.clone()).collect();
        ids.sort();
        ids
    }
}

/// Does an operation of our endpoints issue tokens of the gate?
fn issues(dialect: &str, operation: &str) -> bool {
    let may = ["token", "login", "refreshToken", "AuthnWithPassword", "RefreshAccessToken"].contains(&operation);
    // The relay issues those of its provider.
    may && dialect != "relay"
}

impl Inner {
    fn refusal(
        &self,
        parts: &Parts,
        denial: Denial,
        dialect: Option<&dyn Dialect>,
        route: Option<Arc<Route>>,
    ) -> Refusal {
        let dialect = dialect.or_else(|| route.as_ref().and_then(|route| self.dialect(&route.policy)));
        let reply = rendered(self, parts, denial, dialect, route.as_ref());
        Refusal { denial, reply, route }
    }
}

/// The decision counts: the rule that refused has failed. If the request passes, a rule that says otherwise was ignored,
/// as on a route that takes a bad token for none.
fn settle(rules: &mut [RuleVerdict], denial: Option<Denial>) {
    let refusing = denial.map(Rule::of);
    for verdict in rules.iter_mut() {
        let is_it = refusing == Some(verdict.rule);
        if is_it && verdict.result != RuleResult::Fail {
            let denial = denial.map(|denial| denial.to_string()).unwrap_or_default();
            *verdict = RuleVerdict::fail(verdict.rule, denial);
        } else if denial.is_none() && verdict.result == RuleResult::Fail {
            *verdict = RuleVerdict::skip(verdict.rule, format!("ignored by the route: {}", verdict.detail));
        }
    }
    let all = Rule::OF_REQUESTS;
    rules.sort_by_key(|verdict| all.iter().position(|rule| *rule == verdict.rule));
}

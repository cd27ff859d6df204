//! The explanation of a request. An observer records the result of each rule. The observer continues after a refusal,
//! so that later rules are also evaluated.

use std::sync::Arc;

use http::header::{ALLOW, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Extensions, Method, StatusCode};

use super::GateLayer;
use super::admit::{Admission, EndpointMatch};
use super::debt::Receipt;
use super::refuse::rendered;
use crate::dialect::{Dialect, Reply};
use crate::gate::endpoint::{self, Hit};
use crate::gate::explanation::{Conclusion, Explanation};
use crate::gate::{Inner, preflight, resources};
use rotogate_core::denial::Denial;
use rotogate_core::fault::Fault;
use rotogate_core::headers::Peer;
use rotogate_core::policy::Due;
use rotogate_core::reason::Reason;
use rotogate_core::route::path::CanonicalPath;
use rotogate_core::route::{Route, RoutePolicy};
use rotogate_core::rule::Rule;
use rotogate_core::session::{SessionId, Status};
use rotogate_core::token::observer::Observer;
use rotogate_core::verify_cache::{SessionAnswer, Verified};

mod describe;
mod recorder;
mod words;

use describe::Described;
use recorder::Recorder;

#[derive(Default)]
struct Decision {
    route: Option<Arc<Route>>,
    caller: Option<Arc<Verified>>,
    refusal: Option<Reply>,
    endpoint: Option<String>,
    is_open: bool,
    own_policy: Option<RoutePolicy>,
    fault: Option<Fault>,
}

impl Decision {
    fn at_endpoint(&mut self, mut what: String, refusal: Option<Reply>, method: &Method) {
        if let Some(allowed) = refusal.as_ref().and_then(|reply| reply.headers().get(ALLOW)?.to_str().ok()) {
            what.push_str(&format!(" serves {allowed}, not {method}"));
        }
        self.endpoint = Some(what);
        self.refusal = refusal.or(self.refusal.take());
    }

    fn published(
        &mut self,
        what: &str,
        document: Result<(Reply, Reason), Denial>,
        parts: &Parts,
        recorder: &mut Recorder,
    ) {
        let refusal = match document {
            Ok((reply, reason)) if reason.is_refusal() => {
                recorder.refused(Denial::MethodNotAllowed);
                Some(reply)
            }
            Ok(_) => None,
            Err(denial) => {
                recorder.refused(denial);
                None
            }
        };
        self.at_endpoint(what.to_owned(), refusal, &parts.method);
    }

    fn refused(
        &mut self,
        gate: &Inner,
        denial: Denial,
        route: Option<Arc<Route>>,
        parts: &Parts,
        recorder: &mut Recorder,
    ) {
        let denial = recorder.refused(denial);
        self.refusal = Some(gate.refusal(parts, denial, None, route.as_ref()));
        self.route = route;
    }
}

impl<M> GateLayer<M> {
    /// Explains what the layer would do with a request, and why. The explanation has no side effects: nothing is
    /// counted, confirmed, cached, fetched or forwarded. If the request would have to wait for keys, an introspection
    /// or a session, the conclusion is [`Conclusion::Unavailable`]. Bounds on concurrency are not checked.
    ///
    /// The client's address is in the [`Peer`] in the extensions.
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
    /// assert_eq!(explanation.denial.map(|denial| denial.rule()), Some(Rule::Credential));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[doc(hidden)]
    pub async fn explain(&self, request: Parts) -> Explanation {
        let of_key = self.gate.0.foreseen_key(&request).await;
        let answer = match of_key {
            Some(answer) => Some(answer),
            None => self.gate.0.foreseen_session(&request).await,
        };
        let (mut explanation, session) = self.explained(request, answer);
        if let Some((id, generation)) = session
            && let Ok(Some(record)) = self.gate.0.engine.store().load(id).await
            && let Some(rule) = explanation.rules.iter_mut().find(|verdict| verdict.rule == Rule::Revocation)
        {
            let state = match record.status {
                Status::Live => self.gate.0.engine.is_over(&record).unwrap_or("live"),
                Status::Revoked(because) => because.word(),
            };
            let of = record.current.get();
            rule.detail = format!("session {id} {state}, generation {generation} of {of}; {}", rule.detail);
        }
        explanation
    }

    fn explained(&self, request: Parts, answer: Option<SessionAnswer>) -> (Explanation, Option<(SessionId, u64)>) {
        let mut presented = request;
        let mut extensions = Extensions::new();
        if let Some(peer) = presented.extensions.remove::<Peer>() {
            extensions.insert(peer);
        }
        if let Some(answer) = &answer {
            extensions.insert(answer.clone());
        }
        let receipt = answer.map(Receipt::of_session);
        presented.extensions = extensions;
        let mut parts = presented.clone();
        let mut recorder = Recorder::default();
        let admission = self.admit_observed(&mut parts, EndpointMatch::Serve, receipt.as_ref(), &mut recorder);
        if let Admission::In(permit) | Admission::Undecided(_, permit) = &admission
            && permit.owes(Due::Count)
            && let Some(foreseen) = self.gate.0.foreseen_limit(&parts, permit)
        {
            let _ = recorder.judged(Rule::Quota, foreseen);
        }
        let Decision { route, caller, refusal, endpoint, is_open, own_policy, fault } =
            self.decision(admission, &parts, &mut recorder);
        let denial = recorder.refusal;
        let reason = match (denial, &fault, &endpoint) {
            (Some(denial), _, _) => Reason::denied(&denial),
            (None, Some(fault), _) => Reason::failed(fault),
            (None, None, Some(_)) => Reason::ANSWERED,
            (None, None, None) => Reason::PASSED,
        };
        let policy = route.as_ref().map(|route| &route.policy).or(own_policy.as_ref());
        let described = Described::new(self, &presented, &recorder, (route.as_ref(), policy), endpoint.as_deref());
        let (rules, token, advice) = (described.rules(), described.token(), described.advice());
        let call_rules = described.call_rules().to_vec();
        let also_matched = route.as_ref().map(|route| self.also_matched(&presented, route)).unwrap_or_default();
        let identity =
            caller.map(|caller| caller.headers().map(|(name, value)| (name.clone(), value.clone())).collect());
        let explanation = Explanation {
            decision: match (denial, &fault, reason.is_refusal()) {
                (None, None, _) if is_open => Conclusion::Undecided,
                (None, None, _) => Conclusion::Passed,
                (Some(_), _, true) => Conclusion::Refused,
                (Some(_), _, false) | (None, Some(_), _) => Conclusion::Unavailable,
            },
            status: match (&refusal, &fault) {
                (Some(reply), _) => Some(reply.status().as_u16()),
                (None, Some(_)) => Some(StatusCode::SERVICE_UNAVAILABLE.as_u16()),
                (None, None) => None,
            },
            outcome: reason.word(),
            detail: reason.detail(),
            denial,
            challenge: refusal.and_then(|reply| Some(reply.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?.to_owned())),
            route,
            call_rules,
            also_matched,
            rules,
            identity: identity.filter(|_| denial.is_none()).unwrap_or_default(),
            token,
            advice,
        };
        let session = recorder.token.and_then(|token| token.session);
        (explanation, session.map(|(id, generation)| (id, generation.get())))
    }

    fn decision(&self, admission: Admission, parts: &Parts, recorder: &mut Recorder) -> Decision {
        let gate = &*self.gate.0;
        let mut decision = Decision::default();
        match admission {
            Admission::In(permit) | Admission::Undecided(_, permit) => {
                let (route, caller) = permit.into_parts();
                if let Some(denial) = recorder.refusal {
                    decision.refusal = Some(gate.refusal(parts, denial, None, Some(&route)));
                }
                (decision.route, decision.caller) = (Some(route), caller);
            }
            Admission::Refused(denial, route) => decision.refused(gate, denial, route, parts, recorder),
            // An observer without effects owes nothing.
            Admission::Owes(check) => {
                decision.refused(gate, check.debt.denial(), Some(check.route), parts, recorder);
            }
            Admission::WrongMethod(reply) => {
                recorder.refused(Denial::MethodNotAllowed);
                decision.refusal = Some(*reply);
            }
            Admission::Endpoint(Hit::NearMiss(of)) => {
                recorder.refused(Denial::NearMiss);
                let dialect = of.and_then(|endpoint| gate.endpoints.dialect(endpoint));
                decision.refusal = Some(gate.refusal(parts, Denial::NearMiss, dialect, None));
            }
            Admission::Endpoint(Hit::Operation(operation)) => {
                let dialect = gate.endpoints.dialect(operation.endpoint()).map_or("", Dialect::name);
                if issues(dialect, operation.name()) {
                    decision.fault = gate.engine.may_mint().err();
                }
                let first = |recorder: &mut Recorder, denial: Option<Denial>| {
                    denial.map(|denial| recorder.refused(denial)).or(recorder.refusal)
                };
                let foreseen = endpoint::foresee(&self.gate.0, &operation, parts, recorder, first);
                let of = format!("{dialect}.{}", operation.name());
                decision.at_endpoint(of, foreseen.refusal, &parts.method);
                (decision.is_open, decision.own_policy) = (foreseen.is_open, foreseen.policy);
                if let (Some(fault), Some(of)) = (&decision.fault, &mut decision.endpoint) {
                    of.push_str(&format!("; the gate cannot issue tokens now: {fault}"));
                }
            }
            Admission::Endpoint(Hit::Jwks) => {
                decision.published("the JWK set", Ok(endpoint::jwks(gate, &parts.method)), parts, recorder);
            }
            Admission::Endpoint(Hit::Metadata(index)) => {
                let document = endpoint::metadata(gate, index, &parts.method);
                decision.published("the metadata", Ok(document), parts, recorder);
            }
            Admission::Endpoint(Hit::Resource(index)) => {
                let document = gate.resources.get(index).ok_or(Denial::NoRoute);
                let document = document.map(|resource| resources::document(resource, &parts.method));
                decision.published("the document of a resource", document, parts, recorder);
            }
        }
        decision
    }

    fn also_matched(&self, parts: &Parts, route: &Arc<Route>) -> Vec<Arc<str>> {
        let gate = &self.gate.0;
        let (Ok(host), Some(uri)) = (gate.host(parts), Some(self.whole::<Recorder>(parts))) else {
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

fn issues(dialect: &str, operation: &str) -> bool {
    let may = ["token", "login", "refreshToken", "AuthnWithPassword", "RefreshAccessToken"].contains(&operation);
    // A relay issues tokens of its provider, not of the gate.
    may && dialect != "relay"
}

impl Inner {
    fn refusal(
        &self,
        parts: &Parts,
        denial: Denial,
        dialect: Option<&dyn Dialect>,
        route: Option<&Arc<Route>>,
    ) -> Reply {
        let dialect = dialect.or_else(|| route.and_then(|route| self.dialect(&route.policy)));
        rendered(self, parts, denial, dialect, route)
    }
}

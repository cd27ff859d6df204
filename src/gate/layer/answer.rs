//! Steps 8 and 9, endpoint replies, and refusals.

use std::sync::Arc;

use bytes::Bytes;
use http::header::UPGRADE;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tower::Service;

use super::admit::Settlement;
use super::endpoint_run::EndpointRun;
use super::future::{FutureKind, PassedRequest, ResponseFuture};
use super::permit::prepare;
use super::refuse::{denied, refused, shed};
use super::{GateLayer, GateService};
use crate::dialect::browser::reader::ReaderHeaders;
use crate::dialect::{Dialect, Reply};
use crate::gate::browser::keep_cookie;
use crate::gate::endpoint::{self, Hit};
use crate::gate::forward_buffered::ForwardBuffered;
use crate::gate::in_flight::InFlightSlot;
use crate::gate::verdict::{Operation, Verdict};
use crate::gate::{resources, upgrade};
use rotogate_core::denial::Denial;
use rotogate_core::overload::Refusal;
use rotogate_core::policy::{Permit, Permitted, Settled, Undecided};
use rotogate_core::reason::Reason;
use rotogate_core::route::Route;
use rotogate_core::verify_cache::Verified;

pub(super) enum NotEntered {
    Shed(Refusal, Arc<Route>, Option<Arc<Verified>>),
    Denied(Denial, Arc<Route>),
}

impl NotEntered {
    fn shed(refusal: Refusal, permit: Permit<Settled>) -> Self {
        let (route, caller) = permit.into_parts();
        Self::Shed(refusal, route, caller)
    }
}

impl<S, M> GateService<S, M> {
    pub(super) fn answer<B, R>(&mut self, decision: Settlement, parts: Parts, body: B) -> ResponseFuture<S::Future>
    where
        S: Service<Request<B>, Response = Response<R>> + 'static,
        M: ForwardBuffered<S, B>,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
        R: Body<Data: From<Bytes>>,
    {
        let layer = &self.layer;
        let gate = &layer.gate.0;
        match decision {
            Settlement::In(permit) => self.enter(permit, parts, body),
            Settlement::Body(permit) => {
                let answer = Box::pin(layer.clone().body_outcome(permit, parts, body, M::keep(&self.inner)));
                ResponseFuture::new(FutureKind::Endpoint { answer })
            }
            Settlement::Undecided(undecided, anonymous) => self.enter_undecided(undecided, anonymous, parts, body),
            Settlement::Endpoint(Hit::Operation(operation)) => {
                let run = EndpointRun::new(layer.clone(), &operation);
                // The future is boxed, so that the future of forwarded requests stays small.
                let answer = Box::pin(run.outcome(operation, parts, body, M::keep(&self.inner)));
                ResponseFuture::new(FutureKind::Endpoint { answer })
            }
            Settlement::Endpoint(Hit::Jwks) => layer.published(endpoint::jwks(gate, &parts.method)),
            Settlement::Endpoint(Hit::Metadata(index)) => {
                layer.published(endpoint::metadata(gate, index, &parts.method))
            }
            Settlement::Endpoint(Hit::Resource(index)) => match gate.resources.get(index) {
                Some(resource) => layer.published(resources::document(resource, &parts.method)),
                None => layer.refuse(&parts, Denial::NoRoute, None, None),
            },
            Settlement::Endpoint(Hit::NearMiss(endpoint)) => {
                let dialect = endpoint.and_then(|endpoint| gate.endpoints.dialect(endpoint));
                layer.refuse(&parts, Denial::NearMiss, dialect, None)
            }
            Settlement::Refused(denial, route) => {
                let dialect = route.as_ref().and_then(|route| gate.dialect(&route.policy));
                layer.refuse(&parts, denial, dialect, route)
            }
            Settlement::WrongMethod(reply) => {
                let reason = Reason::from(Denial::MethodNotAllowed);
                reason.tell();
                ResponseFuture::own(*reply, layer.options.annotate.then(|| Verdict::new(reason)))
            }
        }
    }

    /// Steps 8 and 9.
    fn enter<B>(&mut self, permit: Permit<Settled>, mut parts: Parts, body: B) -> ResponseFuture<S::Future>
    where
        S: Service<Request<B>>,
    {
        match self.layer.prepared(&mut parts, permit) {
            Ok(passed) => self.serve(passed, parts, body),
            Err(why) => self.layer.not_entered(why, &parts),
        }
    }

    /// Steps 8 and 9, if a `require()` in the service checks the audience.
    fn enter_undecided<B>(
        &mut self,
        undecided: Box<Undecided>,
        anonymous: Permit<Settled>,
        mut parts: Parts,
        body: B,
    ) -> ResponseFuture<S::Future>
    where
        S: Service<Request<B>>,
    {
        match self.layer.prepared_undecided(&mut parts, undecided, anonymous) {
            Ok(passed) => self.serve(Some(passed), parts, body),
            Err(why) => self.layer.not_entered(why, &parts),
        }
    }

    /// Step 9.
    fn serve<B>(&mut self, passed: Option<PassedRequest>, parts: Parts, body: B) -> ResponseFuture<S::Future>
    where
        S: Service<Request<B>>,
    {
        let future = self.inner.call(Request::from_parts(parts, body));
        ResponseFuture::new(FutureKind::Inner { future, passed, annotate: self.layer.options.annotate })
    }
}

impl<M> GateLayer<M> {
    /// Step 8. The bounds on concurrency are checked first, so that a refused request stays unchanged.
    pub(super) fn prepared(
        &self,
        parts: &mut Parts,
        permit: Permit<Settled>,
    ) -> Result<Option<PassedRequest>, NotEntered> {
        let gate = &self.gate.0;
        let policy = &permit.route().policy;
        let caller = permit.caller();
        let counted = caller.map(|caller| InFlightSlot::enter(gate, caller, || gate.holder(parts))).transpose();
        let counted = match counted {
            Ok(counted) => counted,
            Err(refusal) => return Err(NotEntered::shed(refusal, permit)),
        };
        let mut place = None;
        if policy.upgrade && parts.headers.contains_key(UPGRADE) {
            if self.ignores_upgrade(parts, policy) {
                upgrade::refuse(parts);
            } else {
                place = match gate.running.overload.tunnels.enter(caller.map(|caller| caller.holder())) {
                    Ok(place) => Some(place),
                    Err(_) => return Err(NotEntered::shed(Refusal::Tunnels, permit)),
                };
            }
        }
        if !self.options.edge {
            upgrade::settle(gate, parts, permit.route(), caller, place);
        } else if caller.is_some()
            && let Some(place) = place
        {
            parts.extensions.insert(gate.tunnel_lease(caller, policy.on_expiry()).in_place(place));
        }
        let is_kept = self.options.annotate
            || caller.is_some()
            || permit.clears_session()
            || permit.quota().is_some()
            || gate.browser.is_some();
        // If the caller sent a session cookie, the permit already has it.
        if !self.options.edge
            && (self.options.headers_only || caller.is_none_or(|caller| caller.session_cookie().is_none()))
        {
            keep_cookie(gate, parts);
        }
        // `prepare` removes the token, which distinguishes a client of an API from a person.
        let is_for_people = self.options.edge && policy.credentials.session;
        let reader = is_for_people.then(|| ReaderHeaders::of_request(&parts.method, &parts.headers)).flatten();
        let permitted = match prepare(gate, parts, permit) {
            Ok(permitted) => permitted,
            Err((denial, route)) => return Err(NotEntered::Denied(denial, route)),
        };
        let keep = |permitted| PassedRequest {
            gate: Arc::clone(gate),
            permitted,
            counted,
            is_guarded: true,
            undecided: None,
            reader,
        };
        if self.options.headers_only {
            // An outer layer may have inserted a caller, which must not reach the service.
            parts.extensions.remove::<Permitted>();
            return Ok(is_kept.then(|| keep(permitted)));
        }
        let passed = is_kept.then(|| keep(permitted.clone()));
        parts.extensions.insert(permitted);
        Ok(passed)
    }

    fn prepared_undecided(
        &self,
        parts: &mut Parts,
        undecided: Box<Undecided>,
        anonymous: Permit<Settled>,
    ) -> Result<PassedRequest, NotEntered> {
        let gate = &self.gate.0;
        let counted = match InFlightSlot::enter(gate, undecided.caller(), || gate.holder(parts)) {
            Ok(counted) => counted,
            Err(refusal) => return Err(NotEntered::shed(refusal, anonymous)),
        };
        upgrade::refuse(parts);
        keep_cookie(gate, parts);
        let permitted = match prepare(gate, parts, anonymous) {
            Ok(permitted) => permitted,
            Err((denial, route)) => return Err(NotEntered::Denied(denial, route)),
        };
        parts.extensions.insert(Undecided::clone(&undecided));
        Ok(PassedRequest {
            gate: Arc::clone(gate),
            permitted,
            counted: Some(counted),
            is_guarded: true,
            undecided: Some(undecided),
            reader: None,
        })
    }

    pub(super) fn not_entered<F>(&self, why: NotEntered, parts: &Parts) -> ResponseFuture<F> {
        let gate = &self.gate.0;
        match why {
            NotEntered::Shed(refusal, route, caller) => {
                shed(gate, parts, refusal, (route, caller), self.options.annotate)
            }
            NotEntered::Denied(denial, route) => denied(gate, parts, denial, &route, self.options.annotate),
        }
    }

    fn published<F>(&self, (reply, reason): (Reply, Reason)) -> ResponseFuture<F> {
        reason.tell();
        ResponseFuture::own(reply, self.options.annotate.then(|| Verdict::at(Operation::PUBLIC, reason)))
    }

    pub(super) fn refuse<F>(
        &self,
        parts: &Parts,
        denial: Denial,
        dialect: Option<&dyn Dialect>,
        route: Option<Arc<Route>>,
    ) -> ResponseFuture<F> {
        let (reply, verdict) = refused(&self.gate.0, parts, denial, dialect, route, self.options.annotate);
        ResponseFuture::own(reply, self.options.annotate.then_some(verdict))
    }
}

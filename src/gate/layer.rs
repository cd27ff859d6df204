//! The path of a request, as tower sees it. A request takes nine steps, numbered as in docs/request-path.md:
//!
//! 1. Framing and host
//! 2. Canonical path
//! 3. Endpoint
//! 4. Route
//! 5. Credential
//! 6. Verify
//! 7. Authorise
//! 8. Prepare
//! 9. Service
//!
//! [`GateLayer::admit`] takes steps 1 to 7, [`GateService::answer`] steps 8 and 9. [`GateLayer::explain`] takes steps 1 to 7
//! without effects. The comment at each step says why the
//! step stands there.

use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::UPGRADE;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tower::{Layer, Service};

#[cfg(feature = "kuzzle")]
use super::Inner;
use super::body::GateBody;
use super::endpoint::{self, EndpointResponse, Hit};
use super::forward_buffered::{BufferedForward, ForwardBuffered, NoForward};
use super::in_flight::InFlightSlot;
use super::notice::Notice;
#[cfg(feature = "kuzzle")]
use super::overloaded::overloaded;
use super::verdict::{Operation, Verdict};
use super::{Gate, resources, upgrade};
use crate::denial::Denial;
use crate::dialect::{ConsultResult, Dialect};
use crate::lease::Lease;
use crate::overload::Refusal;
#[cfg(feature = "kuzzle")]
use crate::overload::SocketPermit;
use crate::policy::Permitted;
use crate::reason::Reason;
use crate::trace::{self, StepKind, Value};

mod admit;
mod awaited;
mod explain;
mod forward;
mod future;
mod permit;
mod refuse;

pub(super) use admit::{Admission, EndpointMatch};
pub(super) use awaited::{awaited, awaited_token};
pub use future::ResponseFuture;
use future::{EndpointOutcome, Kind, PassedRequest};
pub(super) use permit::{has_token_in_query, permit, prepare, withhold};
#[cfg(feature = "kuzzle")]
pub(super) use permit::{permit_call, set_target};
use refuse::{denied, refused, shed};

/// Puts the gate in front of a service. See [`Gate::layer`].
///
/// ```
/// use axum::{Router, routing::get};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let app = Router::new().route("/", get(async || "hello"));
/// // `annotated`: each reply has a `Verdict`, for an access log around the gate.
/// let app: Router = app.layer(gate.layer().annotated());
/// # let _ = app;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct GateLayer<M = NoForward> {
    gate: Gate,
    rewrite: bool,
    annotate: bool,
    edge: bool,
    defer_audience: bool,
    headers_only: bool,
    forward: PhantomData<M>,
}

impl GateLayer {
    pub(super) fn new(gate: Gate) -> Self {
        Self {
            gate,
            rewrite: false,
            annotate: false,
            edge: false,
            defer_audience: false,
            headers_only: false,
            forward: PhantomData,
        }
    }

    /// Forwards calls that a protocol wraps: a request to an endpoint whose body turns out to be for the service behind
    /// the gate (Kuzzle's `POST /_query`), and the connections that a protocol takes over (Kuzzle's WebSocket). The
    /// service must be `Clone`, and its request body must be made from [`Bytes`]. Without this such a request is
    /// answered with 501.
    #[must_use]
    #[doc(hidden)]
    pub fn forward_buffered(self) -> GateLayer<BufferedForward> {
        GateLayer {
            gate: self.gate,
            rewrite: self.rewrite,
            annotate: self.annotate,
            edge: self.edge,
            defer_audience: self.defer_audience,
            headers_only: self.headers_only,
            forward: PhantomData,
        }
    }
}

impl<M> GateLayer<M> {
    /// Replaces a path that is not in canonical form by its canonical form; without this such a request is refused.
    /// Only for a gate *outside* of the router: inside an axum `Router` the routing has happened already, so the path
    /// that was matched would not be the path that is served.
    #[must_use]
    pub const fn rewriting(mut self) -> Self {
        self.rewrite = true;
        self
    }

    /// Lets [`require().audience(…)`](super::RequireLayer::audience) replace the gate's own audience behind this layer.
    /// Without it this layer refuses a token for another audience, because it cannot know which `require()` follows.
    ///
    /// With it the layer lets such a request pass without a caller, on routes that require no audience themselves. A
    /// `require()` for the token's audience then makes the token's subject the caller;
    /// [`Identity`](super::Identity) and every other `require()` refuse the request. **Each handler that takes no
    /// `Identity` must then be behind a `require()`.** The reply of a handler that is not is dropped: the client gets
    /// 401, and the log an ERROR, but the handler has run.
    #[must_use]
    pub const fn deferring_audience(mut self) -> Self {
        self.defer_audience = true;
        self
    }

    /// Tells the service the caller in the identity headers alone, not in the extensions of the request. A cached token then
    /// costs no allocation. [`Identity`](super::Identity) refuses every request behind such a layer, and
    /// a `require()` knows no caller, unless the route forwards the token.
    #[must_use]
    pub const fn headers_only(mut self) -> Self {
        self.headers_only = true;
        self
    }

    /// For the proxy: no other layer is in front, and the service inside obeys the policy's `upgrade` and ends an
    /// upgraded connection with its [`Lease`].
    #[must_use]
    pub fn at_edge(mut self) -> Self {
        self.edge = true;
        // The listeners set each request's peer themselves, and report an untrusted proxy.
        self.gate.0.running.notices.first(Notice::UntrustedProxy);
        self
    }

    /// The same layer with the rules that replaced those of its gate.
    #[cfg(feature = "kuzzle")]
    pub(super) fn ruled_by(&self, gate: Arc<Inner>) -> Self {
        Self { gate: Gate(gate), ..*self }
    }

    /// Adds a [`Verdict`] to the extensions of each reply.
    #[must_use]
    pub const fn annotated(mut self) -> Self {
        self.annotate = true;
        self
    }
}

impl<S, M: Clone> Layer<S> for GateLayer<M> {
    type Service = GateService<S, M>;

    fn layer(&self, inner: S) -> GateService<S, M> {
        GateService { inner, layer: self.clone() }
    }
}

/// The gate in front of a service.
///
/// ```
/// use rotogate::gate::GateService;
/// use tower::{Layer, ServiceExt};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// # use {bytes::Bytes, http::{Request, Response}, http_body_util::Full, std::convert::Infallible};
/// # async fn handler(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
/// #     Ok(Response::default())
/// # }
/// # let request = Request::get("/").header("host", "api.example.com").body(Full::<Bytes>::default())?;
/// let service: GateService<_> = gate.layer().layer(tower::service_fn(handler));
/// let reply = service.oneshot(request).await?;
/// assert_eq!(reply.status(), 401, "the handler was not called: the request has no token");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct GateService<S, M = NoForward> {
    inner: S,
    layer: GateLayer<M>,
}

impl<S, B, R, M> Service<Request<B>> for GateService<S, M>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    M: ForwardBuffered<S, B>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R: Body,
    R::Data: From<Bytes>,
{
    type Response = Response<GateBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S::Future> {
        let (mut parts, body) = request.into_parts();
        let annotate = self.layer.annotate;
        let gate = &self.layer.gate.0;
        if let Some(permitted) = self.layer.permitted_before(&parts) {
            let passed = annotate.then(|| PassedRequest {
                gate: Arc::clone(gate),
                permitted: permitted.clone(),
                counted: None,
                is_guarded: false,
                undecided: None,
            });
            let future = self.inner.call(Request::from_parts(parts, body));
            return ResponseFuture { kind: Kind::Inner { future, passed, annotate } };
        }
        #[cfg(feature = "failpoints")]
        let foreseen = (self.layer.edge && crate::failpoint::explains_requests())
            .then(|| (self.layer.foresee(&parts), parts.clone()));
        let admission = self.layer.admit(&mut parts, EndpointMatch::Serve);
        #[cfg(feature = "failpoints")]
        if let Some((foreseen, presented)) = foreseen {
            self.layer.must_be(&foreseen, &admission, &presented);
        }
        let wait = self.layer.awaited(&parts, &admission);
        if wait.is_none() && !admission.owes_proof() {
            return self.answer(admission, parts, body);
        }
        // Decided again when it is known whether the token is good, or was the first with its proof. The service that is
        // ready goes into the future; a clone of it may not be ready.
        let clone = self.inner.clone();
        let mut service = Self { inner: std::mem::replace(&mut self.inner, clone), layer: self.layer.clone() };
        let layer = self.layer.clone();
        let admitted =
            async move { (layer.admit_after(admission, wait, &mut parts, EndpointMatch::Serve).await, parts) };
        ResponseFuture::later(admitted, move |(admission, parts)| service.answer(admission, parts, body))
    }
}

impl<S, M> GateService<S, M> {
    /// Steps 8 and 9 of an admitted request, the reply of an endpoint, or a refusal.
    fn answer<B, R>(&mut self, admission: Admission, mut parts: Parts, body: B) -> ResponseFuture<S::Future>
    where
        S: Service<Request<B>, Response = Response<R>>,
        M: ForwardBuffered<S, B>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        R: Body,
        R::Data: From<Bytes>,
    {
        let annotate = self.layer.annotate;
        let gate = &self.layer.gate.0;
        match admission {
            Admission::In(permitted) => {
                // 8. Prepare. Concurrency bounds first: a request that they reject is not changed.
                let policy = &permitted.route().policy;
                let caller = permitted.caller();
                let counted =
                    caller.map(|caller| InFlightSlot::enter(gate, caller, || gate.holder(&parts))).transpose();
                let counted = match counted {
                    Ok(counted) => counted,
                    Err(refusal) => return shed(gate, &parts, refusal, permitted, annotate),
                };
                let mut place = None;
                if policy.upgrade && parts.headers.contains_key(UPGRADE) {
                    place = match gate.running.overload.tunnels.enter(caller.map(|caller| caller.holder())) {
                        Ok(place) => Some(place),
                        Err(_) => return shed(gate, &parts, Refusal::Tunnels, permitted, annotate),
                    };
                }
                if !self.layer.edge {
                    upgrade::settle(gate, &mut parts, &permitted, place);
                } else if caller.is_some()
                    && let Some(place) = place
                {
                    parts.extensions.insert(Lease::of(&gate.leases, caller, policy.on_expiry).in_place(place));
                }
                // Kept for requests with a caller or a verdict; the others cost nothing here.
                let is_kept = annotate || caller.is_some();
                if let Err(denial) = prepare(gate, &mut parts, &permitted) {
                    return denied(gate, &parts, denial, permitted, annotate);
                }
                let keep = |permitted| PassedRequest {
                    gate: Arc::clone(gate),
                    permitted,
                    counted,
                    is_guarded: true,
                    undecided: None,
                };
                let passed = if self.layer.headers_only {
                    // Nor does a caller pass that a layer in front put there.
                    parts.extensions.remove::<Permitted>();
                    is_kept.then(|| keep(permitted))
                } else {
                    let passed = is_kept.then(|| keep(permitted.clone()));
                    parts.extensions.insert(permitted);
                    passed
                };
                // 9. Service.
                let future = self.inner.call(Request::from_parts(parts, body));
                ResponseFuture { kind: Kind::Inner { future, passed, annotate } }
            }
            Admission::Undecided(undecided, anonymous) => {
                let counted = match InFlightSlot::enter(gate, undecided.caller(), || gate.holder(&parts)) {
                    Ok(counted) => counted,
                    Err(refusal) => return shed(gate, &parts, refusal, anonymous, annotate),
                };
                upgrade::refuse(&mut parts);
                if let Err(denial) = prepare(gate, &mut parts, &anonymous) {
                    return denied(gate, &parts, denial, anonymous, annotate);
                }
                parts.extensions.insert(undecided.clone());
                let passed = Some(PassedRequest {
                    gate: Arc::clone(gate),
                    permitted: anonymous,
                    counted: Some(counted),
                    is_guarded: true,
                    undecided: Some(Box::new(undecided)),
                });
                let future = self.inner.call(Request::from_parts(parts, body));
                ResponseFuture { kind: Kind::Inner { future, passed, annotate } }
            }
            Admission::Endpoint(Hit::Operation(operation)) => {
                let (layer, kept) = (self.layer.clone(), M::keep(&self.inner));
                // Boxed: a rotation costs a disk write anyway, and forwarded requests then have a small future.
                let answer = Box::pin(async move {
                    let gate = &layer.gate.0;
                    let address = gate.client_address(&parts);
                    let index = operation.endpoint();
                    let named =
                        Operation::new(gate.endpoints.dialect(index).map_or("", Dialect::name), operation.name());
                    // The one place that reports the outcome of an endpoint, whichever part of it refused.
                    let verdict = |reason: Reason| {
                        reason.tell();
                        annotate.then(|| Verdict::at(named, reason))
                    };
                    let span = trace::begin(StepKind::Internal, "rotogate.endpoint");
                    if let Some(span) = &span {
                        span.set("rotogate.dialect", Value::Fixed(named.dialect));
                        span.set("rotogate.operation", Value::Fixed(named.name));
                    }
                    let answering = endpoint::answer(Arc::clone(gate), operation, parts, body, address);
                    let answered = trace::inside(span.as_ref(), answering).await;
                    if let Some(span) = span {
                        if let EndpointResponse::Reply(_, reason, _) = &answered
                            && !reason.is_served()
                        {
                            span.set_error(reason.word(), !reason.is_refusal());
                        }
                        span.end();
                    }
                    match answered {
                        EndpointResponse::Reply(reply, reason, who) => {
                            EndpointOutcome::reply(reply, verdict(reason).map(|verdict| Verdict { who, ..verdict }))
                        }
                        EndpointResponse::Consult(mut parts, consult) => {
                            let admitted = layer.admit_on_route_waiting(&mut parts).await;
                            let prepared = admitted.and_then(|permitted| layer.prepare_bare(&mut parts, permitted));
                            let said = match prepared {
                                Ok(()) => M::consult(kept, *parts).await,
                                Err(denial) => ConsultResult::Refused(denial),
                            };
                            let (reply, reason) = (consult.then)(said);
                            EndpointOutcome::reply(reply, verdict(reason))
                        }
                        EndpointResponse::Forward(parts, forward, room) => {
                            match layer.forwarded(index, *parts, forward, room).await {
                                Ok((parts, body, permitted, counted)) => match M::forward(kept, parts, body).await {
                                    Ok(future) => {
                                        let passed = PassedRequest {
                                            gate: Arc::clone(gate),
                                            permitted,
                                            counted,
                                            is_guarded: false,
                                            undecided: None,
                                        };
                                        EndpointOutcome::In { future, passed, annotate }
                                    }
                                    Err(not_forwarded) => {
                                        let reply = not_forwarded.reply(gate.endpoints.dialect(index));
                                        EndpointOutcome::reply(reply, verdict(Reason::NOT_FORWARDED))
                                    }
                                },
                                Err(refused) => {
                                    let (reply, reason, route) = *refused;
                                    EndpointOutcome::reply(
                                        reply,
                                        verdict(reason).map(|verdict| Verdict { route, ..verdict }),
                                    )
                                }
                            }
                        }
                        #[cfg(feature = "kuzzle")]
                        EndpointResponse::Upgrade(taken) => {
                            let place = match SocketPermit::new(&gate.running.overload, gate.holder(&taken.head)) {
                                Ok(place) => place,
                                Err(refusal) => {
                                    let dialect = gate.endpoints.dialect(index);
                                    let reply = overloaded(refusal, dialect, &taken.head.headers);
                                    return EndpointOutcome::reply(reply, verdict(Reason::shed(refusal)));
                                }
                            };
                            match super::socket::take_over(layer.clone(), *taken, place, M::dialer(kept)) {
                                Ok(reply) => EndpointOutcome::reply(reply, verdict(Reason::ANSWERED)),
                                Err(not_forwarded) => {
                                    let reply = not_forwarded.reply(gate.endpoints.dialect(index));
                                    EndpointOutcome::reply(reply, verdict(Reason::NOT_FORWARDED))
                                }
                            }
                        }
                    }
                });
                ResponseFuture { kind: Kind::Endpoint { answer } }
            }
            Admission::Endpoint(Hit::Jwks) => {
                let (reply, reason) = endpoint::jwks(gate, &parts.method);
                ResponseFuture::own(reply, annotate.then(|| Verdict::at(Operation::PUBLIC, reason)))
            }
            Admission::Endpoint(Hit::Metadata(index)) => {
                let (reply, reason) = endpoint::metadata(gate, index, &parts.method);
                ResponseFuture::own(reply, annotate.then(|| Verdict::at(Operation::PUBLIC, reason)))
            }
            Admission::Endpoint(Hit::Resource(index)) => match gate.resources.get(index) {
                Some(resource) => {
                    let (reply, reason) = resources::document(resource, &parts.method);
                    ResponseFuture::own(reply, annotate.then(|| Verdict::at(Operation::PUBLIC, reason)))
                }
                None => {
                    let (reply, verdict) = refused(gate, &parts, Denial::NoRoute, None, None, annotate);
                    ResponseFuture::own(reply, annotate.then_some(verdict))
                }
            },
            Admission::Endpoint(Hit::NearMiss(endpoint)) => {
                let dialect = endpoint.and_then(|endpoint| gate.endpoints.dialect(endpoint));
                let (reply, verdict) = refused(gate, &parts, Denial::NearMiss, dialect, None, annotate);
                ResponseFuture::own(reply, annotate.then_some(verdict))
            }
            Admission::Refused(denial, route) => {
                let dialect = route.as_ref().and_then(|route| gate.dialect(&route.policy));
                let (reply, verdict) = refused(gate, &parts, denial, dialect, route, annotate);
                ResponseFuture::own(reply, annotate.then_some(verdict))
            }
            Admission::WrongMethod(reply) => {
                let reason = Reason::from(Denial::MethodNotAllowed);
                reason.tell();
                ResponseFuture::own(reply, annotate.then(|| Verdict::new(reason)))
            }
        }
    }
}

impl<M> GateLayer<M> {
    #[cfg(feature = "kuzzle")]
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.gate.0
    }
}

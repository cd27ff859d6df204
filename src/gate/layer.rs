//! The path of a request, as tower sees it. A request takes nine steps, numbered as in README.md:
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
//! [`GateLayer::admit`] takes steps 1 to 7, [`GateService::call`] steps 8 and 9. The comment at each step says why the
//! step stands there.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body::Body;
use secrecy::ExposeSecret;
use tower::{Layer, Service};

use super::body::GateBody;
use super::endpoint::{self, EndpointResponse, Hit};
use super::forward_buffered::{BufferedForward, ForwardBuffered, NoForward};
use super::in_flight::InFlightSlot;
#[cfg(feature = "axum")]
use super::nested;
use super::notice::Notice;
use super::overloaded::overloaded;
use super::verdict::{Operation, RefusedToken, Verdict, Who};
use super::{Gate, Inner, preflight, respond, upgrade};
use crate::credential::{self, Places};
use crate::denial::Denial;
use crate::dialect::{ConsultResult, Dialect, Forward, Reply};
use crate::headers::{self, Peer};
use crate::lease::Lease;
#[cfg(feature = "kuzzle")]
use crate::overload::SocketPermit;
use crate::overload::{PoolPermit, Refusal};
use crate::policy::{self, By, Permitted, Undecided};
use crate::reason::Reason;
use crate::reply;
use crate::route::hosts::is_loopback;
use crate::route::path::{CanonicalPath, PathError};
use crate::route::{Match, Route, RoutePolicy, authority};
use crate::verify_cache::Introspected;

mod awaited;
mod future;
mod permit;

use awaited::Awaited;
pub(super) use awaited::{awaited, awaited_token};
pub use future::ResponseFuture;
use future::{EndpointOutcome, Kind, PassedRequest};
#[cfg(feature = "kuzzle")]
pub(super) use permit::set_target;
pub(super) use permit::{permit, permit_call, prepare};
use permit::{set_path, undecided, withhold};

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
    forward: PhantomData<M>,
}

impl GateLayer {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, rewrite: false, annotate: false, edge: false, defer_audience: false, forward: PhantomData }
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

    /// For the proxy: no other layer is in front, and the service inside obeys the policy's `upgrade` and ends an
    /// upgraded connection with its [`Lease`].
    #[must_use]
    pub fn at_edge(mut self) -> Self {
        self.edge = true;
        // The listeners set each request's peer themselves, and report an untrusted proxy.
        self.gate.0.notices.first(Notice::UntrustedProxy);
        self
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

/// The reply to a request that may not be forwarded, the reason, and its route.
type RefusedForward = (Reply, Reason, Option<Arc<Route>>);

/// Where a request goes.
pub(super) enum Admission {
    /// Into the service, with the permit of its route's policy.
    In(Permitted),
    /// To one of our endpoints.
    Endpoint(Hit),
    /// Into the service, without a caller: a `require()` there decides.
    Undecided(Undecided, Permitted),
    /// Nowhere.
    Refused(Denial, Option<Arc<Route>>),
    /// Nowhere: no route of this path serves the method.
    WrongMethod(Reply),
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
        let admission = self.layer.admit(&mut parts, EndpointMatch::Serve);
        let Some(wait) = self.layer.awaited(&parts, &admission) else { return self.answer(admission, parts, body) };
        // Decided again when it is known whether the token is good. The service that is ready goes into the future; a
        // clone of it may not be ready.
        let clone = self.inner.clone();
        let mut service = Self { inner: std::mem::replace(&mut self.inner, clone), layer: self.layer.clone() };
        let layer = self.layer.clone();
        let admitted = async move { (layer.admit_after(wait, &mut parts, EndpointMatch::Serve).await, parts) };
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
                let counted = match caller.map(|caller| InFlightSlot::enter(gate, caller)).transpose() {
                    Ok(counted) => counted,
                    Err(refusal) => return shed(gate, &parts, refusal, permitted, annotate),
                };
                let mut place = None;
                if policy.upgrade && parts.headers.contains_key(UPGRADE) {
                    place = match gate.overload.tunnels.enter(caller.map(|caller| caller.holder())) {
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
                let passed = (annotate || caller.is_some()).then(|| PassedRequest {
                    gate: Arc::clone(gate),
                    permitted: permitted.clone(),
                    counted,
                    is_guarded: true,
                    undecided: None,
                });
                prepare(gate, &mut parts, &permitted);
                parts.extensions.insert(permitted);
                // 9. Service.
                let future = self.inner.call(Request::from_parts(parts, body));
                ResponseFuture { kind: Kind::Inner { future, passed, annotate } }
            }
            Admission::Undecided(undecided, anonymous) => {
                let counted = match InFlightSlot::enter(gate, undecided.caller()) {
                    Ok(counted) => counted,
                    Err(refusal) => return shed(gate, &parts, refusal, anonymous, annotate),
                };
                upgrade::refuse(&mut parts);
                prepare(gate, &mut parts, &anonymous);
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
                    match endpoint::answer(Arc::clone(gate), operation, parts, body, address).await {
                        EndpointResponse::Reply(reply, reason, recipient) => {
                            let who = recipient.map(|recipient| Who::Issued(Box::new(recipient)));
                            EndpointOutcome::reply(reply, verdict(reason).map(|verdict| Verdict { who, ..verdict }))
                        }
                        EndpointResponse::Consult(mut parts, consult) => {
                            let said = match layer.admit_on_route_waiting(&mut parts).await {
                                Ok(permitted) => {
                                    layer.prepare_bare(&mut parts, permitted);
                                    M::consult(kept, *parts).await
                                }
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
                            let place = match SocketPermit::new(&gate.overload, gate.holder(&taken.head)) {
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
            Admission::Endpoint(Hit::Metadata) => {
                let (reply, reason) = endpoint::metadata(gate, &parts.method);
                ResponseFuture::own(reply, annotate.then(|| Verdict::at(Operation::PUBLIC, reason)))
            }
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

/// Sheds a request that its route permits: a concurrency bound is reached.
fn shed<F>(gate: &Inner, parts: &Parts, refusal: Refusal, permitted: Permitted, annotate: bool) -> ResponseFuture<F> {
    let reply = overloaded(refusal, gate.dialect(&permitted.route().policy), &parts.headers);
    let reason = Reason::shed(refusal);
    reason.tell();
    ResponseFuture::own(reply, annotate.then(|| Verdict { reason, ..Verdict::passed(permitted) }))
}

/// Whether a path may match one of our endpoints (step 3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointMatch {
    /// A match is served by the endpoint.
    Serve,
    /// Endpoints are skipped: the endpoint itself asks for the decision of the route.
    Skip,
}

impl<M> GateLayer<M> {
    #[cfg(feature = "kuzzle")]
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.gate.0
    }

    /// The permit of an outer layer of the same gate. That layer saw the whole path, and has the same endpoints and
    /// routes, so this one repeats nothing.
    fn permitted_before<'a>(&self, parts: &'a Parts) -> Option<&'a Permitted> {
        let permitted = if self.edge { None } else { parts.extensions.get::<Permitted>() }?;
        let by = permitted.by();
        (by.gate == self.gate.0.id && by.layer).then_some(permitted)
    }

    /// The whole path of a request, if this layer is inside a nest and sees only a part of it. Routes match whole
    /// paths.
    #[cfg(feature = "axum")]
    fn whole(&self, parts: &Parts) -> Option<Uri> {
        let whole = if self.edge { None } else { nested::whole(parts) }?;
        if self.gate.0.notices.first(Notice::Nested) {
            tracing::error!(
                "`gate.layer()` inside a nest, which removes the prefix of a path: routes and endpoints match the whole \
                 path all the same. Put `gate.layer()` around the outermost router, and `gate.require()` into nests. \
                 Logged once"
            );
        }
        Some(whole)
    }

    #[cfg(not(feature = "axum"))]
    fn whole(&self, _: &Parts) -> Option<Uri> {
        None
    }

    fn by(&self) -> By {
        By { gate: self.gate.0.id, layer: true, defers: self.defer_audience }
    }

    /// Decides on a request that an endpoint forwards: the route of its path decides.
    async fn forwarded(
        &self,
        endpoint: usize,
        mut parts: Parts,
        forward: Forward,
        room: Option<PoolPermit>,
    ) -> Result<(Parts, Bytes, Permitted, Option<InFlightSlot>), Box<RefusedForward>> {
        let Forward { credential, body, called, refused } = forward;
        let refuse = |denial: Denial, route| Err(Box::new((refused(denial), Reason::denied(&denial), route)));
        if let Some(credential) = credential {
            let value = format!("Bearer {}", credential.expose_secret());
            let Ok(mut value) = HeaderValue::try_from(value) else { return refuse(Denial::UnusableCredential, None) };
            value.set_sensitive(true);
            parts.headers.insert(AUTHORIZATION, value);
        }
        let permitted = match self.admit_waiting(&mut parts, EndpointMatch::Skip).await {
            Admission::In(permitted) => permitted,
            Admission::Refused(denial, route) => return refuse(denial, route),
            Admission::Undecided(..) => return refuse(Denial::WrongAudience, None),
            Admission::WrongMethod(_) => return refuse(Denial::MethodNotAllowed, None),
            Admission::Endpoint(_) => return refuse(Denial::NoRoute, None),
        };
        let permitted = match permit_call(&self.gate.0, &parts, permitted, &called) {
            Ok(permitted) => permitted,
            Err((denial, route)) => return refuse(denial, route),
        };
        upgrade::refuse(&mut parts);
        let gate = &self.gate.0;
        let counted = match permitted.caller().map(|caller| InFlightSlot::enter(gate, caller)).transpose() {
            Ok(counted) => counted.map(|counted| counted.keeping(room)),
            Err(refusal) => {
                let reply = overloaded(refusal, gate.endpoints.dialect(endpoint), &parts.headers);
                return Err(Box::new((reply, Reason::shed(refusal), Some(Arc::clone(permitted.route())))));
            }
        };
        prepare(gate, &mut parts, &permitted);
        // Remove the token from each place where the protocol may have it, used or not, whatever the route's policy
        // (R13).
        if let Some(dialect) = gate.endpoints.dialect(endpoint) {
            let sources = dialect.sources();
            withhold(&mut parts, Places { query: sources.query, cookies: [sources.cookie, None] });
        }
        parts.extensions.insert(permitted.clone());
        // The dialect replaced the body, and its length is known.
        parts.headers.remove(TRANSFER_ENCODING);
        parts.headers.remove(CONTENT_ENCODING);
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        Ok((parts, body, permitted, counted))
    }

    /// Decides on a request to an endpoint by the route of its path.
    #[cfg(feature = "kuzzle")]
    pub(super) fn admit_on_route(&self, parts: &mut Parts) -> Result<Permitted, Denial> {
        Self::only_permitted(self.admit(parts, EndpointMatch::Skip))
    }

    /// The same. Waits until it is known whether the token is good.
    async fn admit_on_route_waiting(&self, parts: &mut Parts) -> Result<Permitted, Denial> {
        Self::only_permitted(self.admit_waiting(parts, EndpointMatch::Skip).await)
    }

    fn only_permitted(admission: Admission) -> Result<Permitted, Denial> {
        match admission {
            Admission::In(permitted) => Ok(permitted),
            Admission::Refused(denial, _) => Err(denial),
            Admission::Undecided(..) => Err(Denial::WrongAudience),
            Admission::WrongMethod(_) => Err(Denial::MethodNotAllowed),
            Admission::Endpoint(_) => Err(Denial::NoRoute),
        }
    }

    /// Prepares a permitted request whose reply the gate reads itself. It removes the headers that could make the reply
    /// partial, conditional or compressed.
    fn prepare_bare(&self, parts: &mut Parts, permitted: Permitted) {
        upgrade::refuse(parts);
        prepare(&self.gate.0, parts, &permitted);
        parts.extensions.insert(permitted);
        for name in [
            ACCEPT_ENCODING,
            CONTENT_ENCODING,
            CONTENT_LENGTH,
            EXPECT,
            IF_MATCH,
            IF_MODIFIED_SINCE,
            IF_NONE_MATCH,
            IF_RANGE,
            IF_UNMODIFIED_SINCE,
            RANGE,
            TRANSFER_ENCODING,
        ] {
            parts.headers.remove(name);
        }
    }

    /// What a request must wait for before it can be decided; `None` if nothing is under way that could decide it, or
    /// too many requests wait.
    fn awaited(&self, parts: &Parts, admission: &Admission) -> Option<Awaited> {
        match admission {
            Admission::Refused(denial, Some(route)) => awaited(&self.gate.0, parts, *denial, &route.policy),
            _ => None,
        }
    }

    /// Waits, then decides again.
    async fn admit_after(&self, wait: Awaited, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        let settled = wait.settled().await;
        settled.give(parts);
        let admission = self.admit(parts, endpoints);
        parts.extensions.remove::<Introspected>();
        match admission {
            Admission::Refused(denial, route) => Admission::Refused(settled.of(denial), route),
            admission => admission,
        }
    }

    /// The decision, after a wait if it takes one.
    async fn admit_waiting(&self, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        let admission = self.admit(parts, endpoints);
        match self.awaited(parts, &admission) {
            Some(wait) => self.admit_after(wait, parts, endpoints).await,
            None => admission,
        }
    }

    /// The decision: steps 1 to 7. No await: all that it needs is in memory.
    pub(super) fn admit(&self, parts: &mut Parts, endpoints: EndpointMatch) -> Admission {
        let gate = &self.gate.0;
        // 1. Framing and host. Reject what no later check can make safe: CONNECT, whose bytes the gate never sees, and
        //    a body with ambiguous framing. Then host and target, before anything that depends on them.
        if parts.method == Method::CONNECT {
            return Admission::Refused(Denial::Tunnel, None);
        }
        if !headers::is_framed_once(&parts.headers) {
            return Admission::Refused(Denial::BadFraming, None);
        }
        let host = match authority::check(parts) {
            Ok(authority) => authority.host(),
            Err(denial) => return Admission::Refused(denial, None),
        };
        if let Some(hosts) = &gate.hosts
            && !hosts.admit(host)
            && !(is_loopback(host) && parts.extensions.get::<Peer>().is_some_and(Peer::is_at_loopback))
        {
            return Admission::Refused(Denial::UnknownHost, None);
        }
        // 2. Canonical path. All later steps match the path that is forwarded.
        let whole = self.whole(parts);
        let raw = whole.as_ref().unwrap_or(&parts.uri).path();
        let path = match CanonicalPath::parse(raw) {
            Ok(path) => path,
            Err(error) => return Admission::Refused(error.into(), None),
        };
        // 3. Endpoint. Before any route, so that no route, however wide, can shadow or forward one.
        if endpoints == EndpointMatch::Serve
            && let Some(hit) = gate.endpoints.find(&path, raw)
        {
            let passes = matches!(&hit, Hit::Operation(operation) if gate.endpoints.upgrades(operation))
                && !parts.headers.contains_key(UPGRADE);
            if !passes {
                return Admission::Endpoint(hit);
            }
        }
        // 4. Route. Its policy says what steps 5 to 7 require.
        let preflight = preflight::requested_method(&parts.method, &parts.headers);
        let route = match gate.routes.find(Some(host), preflight.as_ref().unwrap_or(&parts.method), &path) {
            Match::Found(route) => route,
            Match::Ambiguous(route) => return Admission::Refused(Denial::AmbiguousPath, Some(Arc::clone(route))),
            Match::MethodNotAllowed(allowed) => {
                return Admission::WrongMethod(if reply::is_grpc(&parts.headers) {
                    respond::denied_grpc(Denial::MethodNotAllowed)
                } else {
                    // Any route of the path will do for the dialect: they differ in methods.
                    let route = allowed.iter().find_map(|method| match gate.routes.find(Some(host), method, &path) {
                        Match::Found(route) | Match::Ambiguous(route) => Some(route),
                        Match::MethodNotAllowed(_) | Match::None => None,
                    });
                    let dialect = route.and_then(|route| gate.dialect(&route.policy));
                    let (denial, plain) = (Denial::MethodNotAllowed, reply::method_not_allowed(allowed));
                    respond::worded(dialect, &parts.headers, denial, &plain)
                        .unwrap_or_else(|| respond::hooked(gate.refusals.as_ref(), parts, denial, plain))
                });
            }
            Match::None => return Admission::Refused(Denial::NoRoute, None),
        };
        if let Err(denial) = route.policy.admits(&path) {
            return Admission::Refused(denial, Some(Arc::clone(route)));
        }
        if path.is_rewritten() {
            if self.rewrite && whole.is_none() {
                let canonical = path.as_str().to_owned();
                if !set_path(parts, &canonical) {
                    return Admission::Refused(PathError::NotCanonical.into(), Some(Arc::clone(route)));
                }
            } else if !path.equals_but_for_hex_case(raw) || gate.routes.has_escapes() {
                // A router outside of this layer has matched the path as the client spelt it. Letter case in an escape
                // can change its match only where a pattern has an escape.
                return Admission::Refused(PathError::NotCanonical.into(), Some(Arc::clone(route)));
            }
        }
        if preflight.is_some() && route.policy.preflight_to_upstream {
            // Browsers send preflights without credentials. A credential here was not verified, and a route that
            // forwards tokens would forward it as if it had been.
            parts.headers.remove(AUTHORIZATION);
            return Admission::In(policy::permit_anonymous(route, self.by()));
        }
        // 5. Credential, 6. verify, 7. authorise: each takes what the one before it made.
        match permit(gate, parts, route, self.by()) {
            Ok(permitted) => Admission::In(permitted),
            Err(Denial::WrongAudience) if self.defer_audience && route.policy.audiences.is_empty() => {
                match undecided(gate, parts, route, self.by()) {
                    Ok(undecided) => Admission::Undecided(undecided, policy::permit_anonymous(route, self.by())),
                    Err(denial) => Admission::Refused(denial, Some(Arc::clone(route))),
                }
            }
            Err(denial) => {
                if denial == Denial::WrongAudience
                    && route.policy.audiences.is_empty()
                    && gate.asks_audience.load(Ordering::Relaxed)
                    && gate.notices.first(Notice::Audience)
                {
                    tracing::warn!(
                        "token for another audience refused by `gate.layer()`: a `require().audience(…)` behind it \
                         never sees the token. Use `gate.layer().deferring_audience()`, or add the audience to a \
                         route of the gate (`RoutePolicy::audiences`). Logged once"
                    );
                }
                Admission::Refused(denial, Some(Arc::clone(route)))
            }
        }
    }
}

/// Renders a denial: in the route's dialect; without a route, in the dialect whose client this looks like; else as a
/// gRPC status or a problem document.
fn refused(
    gate: &Inner,
    parts: &Parts,
    denial: Denial,
    dialect: Option<&dyn Dialect>,
    route: Option<Arc<Route>>,
    annotate: bool,
) -> (Reply, Verdict) {
    let reason = Reason::denied(&denial);
    reason.tell();
    let who = if annotate {
        route.as_deref().and_then(|route| gate.refused_token(parts, &denial, &route.policy))
    } else {
        None
    };
    let asked = route.as_ref().map(|route| route.policy.asked_scopes()).unwrap_or_default();
    let lost = dialect.is_none() && route.is_none();
    let dialect = dialect.or_else(|| lost.then(|| gate.endpoints.dialect_of_client(&parts.headers)).flatten());
    let plain =
        if reply::is_grpc(&parts.headers) { respond::denied_grpc(denial) } else { respond::denied(denial, &asked) };
    let reply = respond::worded(dialect, &parts.headers, denial, &plain)
        .unwrap_or_else(|| respond::hooked(gate.refusals.as_ref(), parts, denial, plain));
    (reply, Verdict { route, who, ..Verdict::new(reason) })
}

impl Inner {
    /// The claims of the token for which a request was refused.
    fn refused_token(&self, parts: &Parts, denial: &Denial, policy: &RoutePolicy) -> Option<Who> {
        let found = credential::extract_from(&parts.headers, parts.uri.query(), self.places(policy)).ok()??;
        RefusedToken::of(denial, &found.token)
    }

    /// The places of a token that a route accepts besides `Authorization`.
    fn places<'a>(&self, policy: &'a RoutePolicy) -> Places<'a> {
        let sources = self.dialect(policy).map(|dialect| dialect.sources()).unwrap_or_default();
        Places { query: sources.query, cookies: [policy.cookie.as_deref(), sources.cookie] }
    }

    /// The dialect in which a route refuses.
    pub(super) fn dialect(&self, policy: &RoutePolicy) -> Option<&dyn Dialect> {
        let name = policy.dialect.as_ref()?;
        // An endpoint's dialect first: it has the options that its clients expect.
        let own = self.endpoints.dialect_named(name);
        own.or_else(|| self.dialects.iter().find(|dialect| dialect.name() == name).map(AsRef::as_ref))
    }

    /// The client's address: the peer's, or the one that trusted proxies state.
    pub(super) fn client_address(&self, parts: &Parts) -> Option<IpAddr> {
        let Some(peer) = parts.extensions.get::<Peer>() else {
            if self.notices.first(Notice::NoPeer) {
                tracing::warn!(
                    "request without `Peer` in its extensions: logins, refreshes and forged tokens are not limited by \
                     address. Insert one where you accept connections: \
                     `request.extensions_mut().insert(Peer::new(address, tls))`. Logged once"
                );
            }
            return None;
        };
        let trusted: &[_] = if peer.may_forward() { &self.trusted_proxies } else { &[] };
        let client = headers::client_ip(&parts.headers, peer.address(), trusted);
        if peer.may_forward()
            && client == peer.address().to_canonical()
            && headers::says_for_whom(&parts.headers)
            && !headers::is_trusted(client, &self.trusted_proxies)
            && self.notices.first(Notice::UntrustedProxy)
        {
            tracing::warn!(
                peer = %client,
                "X-Forwarded-For ignored: the peer is not a trusted proxy, so all clients behind it count as one \
                 address and share its limits. If it is your proxy, list it: `GateBuilder::trusted_proxies`. Logged once"
            );
        }
        Some(client)
    }
}

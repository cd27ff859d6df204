//! The gate as a tower layer. A request takes nine steps, numbered as in docs/request-path.md:
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
//! [`GateLayer::admit`] performs steps 1 to 7, and [`GateService::answer`] steps 8 and 9. [`GateLayer::explain`]
//! performs steps 1 to 7 without side effects. A comment at each step explains its position in this order.

use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::Gate;
#[cfg(feature = "kuzzle")]
use super::Inner;
use super::body::GateBody;
use super::forward_buffered::{BufferedForward, ForwardBuffered, NoForward};
use super::notice::SetupNotice;

mod admit;
mod answer;
mod assertion;
mod call;
mod debt;
mod endpoint_run;
mod explain;
mod forward;
mod future;
mod judge;
mod permit;
mod permit_call;
mod refuse;
mod settle;
mod target;

#[cfg(feature = "kuzzle")]
pub(super) use admit::Admission;
pub(super) use admit::EndpointMatch;
pub(super) use admit::Settlement;
pub(super) use debt::{Debt, Receipt, Unpermitted};
pub use future::ResponseFuture;
use future::{FutureKind, PassedRequest};
pub use judge::{Judgement, PermittedRequest};
pub(super) use permit::withhold;
pub(super) use permit::{RoutedRequest, has_token_in_query, prepare};
#[cfg(feature = "kuzzle")]
pub(super) use permit_call::permit_call;
pub(super) use settle::{Judged, UNPAID};
#[cfg(feature = "kuzzle")]
pub(super) use target::set_target;

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
/// // With `annotated`, each reply has a `Verdict`, for an access log around the gate.
/// let app: Router = app.layer(gate.layer().annotated());
/// # let _ = app;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct GateLayer<M = NoForward> {
    gate: Gate,
    options: LayerOptions,
    forward: PhantomData<M>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LayerOptions {
    rewrite: bool,
    annotate: bool,
    edge: bool,
    defer_audience: bool,
    headers_only: bool,
    head_alone: bool,
}

impl GateLayer {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, options: LayerOptions::default(), forward: PhantomData }
    }

    /// Lets endpoints forward requests to the service behind the gate. Kuzzle's WebSocket needs this option, and so do
    /// calls to the service in Kuzzle's `POST /_query`. Without this option, these requests get 501. The service must
    /// be `Clone`, and its request body must be constructible from [`Bytes`].
    #[must_use]
    pub fn forward_buffered(self) -> GateLayer<BufferedForward> {
        GateLayer { gate: self.gate, options: self.options, forward: PhantomData }
    }
}

impl<M> GateLayer<M> {
    /// Rewrites a path to its canonical form. By default, a path that is not canonical is refused. Use this only for a
    /// gate *outside* the router. Inside an axum `Router`, the gate would check a different path from the one that is
    /// served.
    #[must_use]
    pub const fn rewriting(mut self) -> Self {
        self.options.rewrite = true;
        self
    }

    /// Allows an inner [`require().audience(…)`](super::RequireLayer::audience) to override the gate's own audience. By
    /// default, this layer refuses a token for another audience.
    ///
    /// If a route does not require an audience, a request with a token for another audience passes without a caller. A
    /// `require()` that accepts the token's audience then sets the caller. [`Identity`](super::Identity) and every
    /// other `require()` refuse the request. **Each handler without an `Identity` must therefore be behind a
    /// `require()`.** Otherwise the client gets 401 and an ERROR is logged, but the handler has already run.
    #[must_use]
    pub const fn deferring_audience(mut self) -> Self {
        self.options.defer_audience = true;
        self
    }

    /// Passes the caller to the service only in the identity headers, which saves an allocation per request. Behind
    /// this layer, [`Identity`](super::Identity) refuses every request. A `require()` does not find a caller, unless
    /// the route forwards the token.
    #[must_use]
    pub const fn headers_only(mut self) -> Self {
        self.options.headers_only = true;
        self
    }

    /// Adapts the layer for the standalone proxy. The service behind the layer must apply the policy's `upgrade`, and
    /// end upgraded connections with their [`Lease`](rotogate_core::lease::Lease).
    #[must_use]
    pub fn at_edge(mut self) -> Self {
        self.options.edge = true;
        // The proxy's listeners already report an untrusted proxy.
        self.gate.0.running.notices.first(SetupNotice::UntrustedProxy);
        self
    }

    #[cfg(feature = "kuzzle")]
    pub(super) fn ruled_by(&self, gate: Arc<Inner>) -> Self {
        Self { gate: Gate(gate), options: self.options, forward: PhantomData }
    }

    /// Adds a [`Verdict`](super::Verdict) to the extensions of each reply.
    #[must_use]
    pub const fn annotated(mut self) -> Self {
        self.options.annotate = true;
        self
    }
}

impl<S, M: Clone> Layer<S> for GateLayer<M> {
    type Service = GateService<S, M>;

    fn layer(&self, inner: S) -> GateService<S, M> {
        GateService { inner, layer: self.clone() }
    }
}

/// A service behind the gate.
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
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    R: Body<Data: From<Bytes>>,
{
    type Response = Response<GateBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S::Future> {
        if *request.method() == Method::HEAD && !self.layer.options.edge {
            return self.respond(request).to(&Method::HEAD);
        }
        self.respond(request)
    }
}

impl<S, M> GateService<S, M> {
    #[inline]
    fn respond<B, R>(&mut self, request: Request<B>) -> ResponseFuture<S::Future>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        M: ForwardBuffered<S, B>,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
        R: Body<Data: From<Bytes>>,
    {
        let (mut parts, body) = request.into_parts();
        let annotate = self.layer.options.annotate;
        let gate = &self.layer.gate.0;
        if let Some(permitted) = self.layer.permitted_before(&parts) {
            let passed = annotate.then(|| PassedRequest {
                gate: Arc::clone(gate),
                permitted: permitted.clone(),
                counted: None,
                is_guarded: false,
                undecided: None,
                reader: None,
            });
            let future = self.inner.call(Request::from_parts(parts, body));
            return ResponseFuture::new(FutureKind::Inner { future, passed, annotate });
        }
        let admission = self.layer.admit(&mut parts, EndpointMatch::Serve);
        let admission = match self.layer.settled_now(admission, &mut parts) {
            Ok(decision) => return self.answer(decision, parts, body),
            Err(admission) => admission,
        };
        // The ready service moves into the future, because a clone may not be ready.
        let clone = self.inner.clone();
        let mut service = Self { inner: std::mem::replace(&mut self.inner, clone), layer: self.layer.clone() };
        let layer = self.layer.clone();
        let settled = async move { (layer.awaited(admission, &mut parts).await, parts) };
        ResponseFuture::later(settled, move |(decision, parts)| service.answer(decision, parts, body))
    }
}

impl<M> GateLayer<M> {
    #[cfg(feature = "kuzzle")]
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.gate.0
    }
}

//! The path of a request, as tower sees it. [`GateService::call`] is the whole of it, in order; each step says why it
//! stands where it does.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, Request, Response, Uri};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::body::GateBody;
use super::endpoint::{self, Hit};
use super::identity::Identity;
use super::{Gate, Inner, preflight, respond};
use crate::credential::{self, Credential, Places};
use crate::denial::Denial;
use crate::dialect::{Dialect, Reply};
use crate::headers::{self, Peer};
use crate::policy::{self, Permitted};
use crate::route::path::CanonicalPath;
use crate::route::{Auth, BadCredential, Match, Route, RoutePolicy, authority};
use crate::session::{Scope, SessionId};

/// What became of a request, for an access log: in the extensions of the reply, where [`GateLayer::annotated`] asked
/// for it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// `passed`, `answered` by an endpoint, or the reason of a refusal; from a fixed set.
    pub reason: &'static str,
    /// The route that matched.
    pub route: Option<Arc<Route>>,
    /// The caller's session.
    pub session: Option<SessionId>,
}

/// Puts the gate in front of a service. See [`Gate::layer`].
#[derive(Clone, Debug)]
pub struct GateLayer {
    gate: Gate,
    rewrite: bool,
    annotate: bool,
}

impl GateLayer {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, rewrite: false, annotate: false }
    }

    /// Forwards the canonical path in the place of one that was spelt otherwise; without this such a request is refused.
    /// For a gate that stands *outside* of what routes by path: inside an axum `Router` the routing has happened already,
    /// and what was matched would not be what is served.
    #[must_use]
    pub const fn rewriting(mut self) -> Self {
        self.rewrite = true;
        self
    }

    /// Leaves a [`Verdict`] in the extensions of each reply.
    #[must_use]
    pub const fn annotated(mut self) -> Self {
        self.annotate = true;
        self
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> GateService<S> {
        GateService { inner, layer: self.clone() }
    }
}

/// The gate in front of a service.
#[derive(Clone, Debug)]
pub struct GateService<S> {
    inner: S,
    layer: GateLayer,
}

/// Where a request goes.
#[expect(clippy::large_enum_variant, reason = "taken apart where it is made, and never kept")]
enum Way {
    /// Into the service. What its policy permits rides along.
    In(Permitted),
    /// To one of our endpoints.
    Endpoint(Hit),
    /// Nowhere.
    Refused(Reply, Verdict),
}

impl<S, B, R> Service<Request<B>> for GateService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
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
        match self.layer.way(&mut parts) {
            Way::In(permitted) => {
                let verdict = annotate.then(|| Verdict {
                    reason: "passed",
                    route: Some(Arc::clone(permitted.route())),
                    session: permitted.caller().and_then(|caller| caller.token().session).map(|(id, _)| id),
                });
                prepare(gate, &mut parts, &permitted);
                parts.extensions.insert(permitted);
                let future = self.inner.call(Request::from_parts(parts, body));
                ResponseFuture { kind: Kind::Inner { future, verdict } }
            }
            Way::Endpoint(Hit::Operation(operation)) => {
                let address = gate.client_address(&parts);
                let answer = endpoint::answer(Arc::clone(gate), operation, parts, body, address);
                // Boxed: a rotation costs a disk write, and the passing path knows nothing of it.
                let answer = Box::pin(async move {
                    let (reply, reason) = answer.await;
                    (reply, annotate.then_some(Verdict { reason, route: None, session: None }))
                });
                ResponseFuture { kind: Kind::Endpoint { answer } }
            }
            Way::Endpoint(Hit::Jwks) => {
                let verdict = Verdict { reason: "answered", route: None, session: None };
                ResponseFuture::own(endpoint::jwks(gate, &parts.method), annotate.then_some(verdict))
            }
            Way::Endpoint(Hit::Metadata) => {
                let verdict = Verdict { reason: "answered", route: None, session: None };
                ResponseFuture::own(endpoint::metadata(gate, &parts.method), annotate.then_some(verdict))
            }
            Way::Endpoint(Hit::NearMiss) => {
                let (reply, verdict) = refused(gate, &parts, Denial::NearMiss, None);
                ResponseFuture::own(reply, annotate.then_some(verdict))
            }
            Way::Refused(reply, verdict) => ResponseFuture::own(reply, annotate.then_some(verdict)),
        }
    }
}

impl GateLayer {
    /// The decision. No await: whatever it needs is in memory.
    fn way(&self, parts: &mut Parts) -> Way {
        let gate = &self.gate.0;
        // 1. Host and target before anything that depends on them.
        let host = match authority::check(parts) {
            Ok(authority) => authority.host(),
            Err(denial) => return refuse(gate, parts, denial, None),
        };
        // 2. One canonical path: what is matched from here on is what is forwarded.
        let Ok(path) = CanonicalPath::parse(parts.uri.path()) else {
            return refuse(gate, parts, Denial::BadPath, None);
        };
        // 3. Our own endpoints before any route: no route, however wide, can shadow or forward them.
        if let Some(hit) = gate.endpoints.find(&path, parts.uri.path()) {
            return Way::Endpoint(hit);
        }
        // 4. The route, and with it what is asked of the caller.
        let preflight = preflight::requested_method(&parts.method, &parts.headers);
        let route = match gate.routes.find(Some(host), preflight.as_ref().unwrap_or(&parts.method), &path) {
            Match::Found(route) => route,
            Match::MethodNotAllowed(allowed) => {
                let verdict = Verdict { reason: Denial::MethodNotAllowed.reason(), route: None, session: None };
                let reply = if respond::is_grpc(&parts.headers) {
                    respond::denied_grpc(Denial::MethodNotAllowed)
                } else {
                    respond::method_not_allowed(allowed)
                };
                return Way::Refused(reply, verdict);
            }
            Match::None => return refuse(gate, parts, Denial::NoRoute, None),
        };
        if let Err(denial) = route.policy.admits(&path) {
            return refuse(gate, parts, denial, Some(route));
        }
        if path.is_rewritten() {
            let canonical = path.as_str().to_owned();
            if !self.rewrite || !set_path(parts, &canonical) {
                return refuse(gate, parts, Denial::BadPath, Some(route));
            }
        }
        if preflight.is_some() && route.policy.preflight_to_upstream {
            // Browsers send preflights without credentials; one that comes along was verified by nobody, and a route that
            // forwards tokens would pass it on as if it had been.
            parts.headers.remove(AUTHORIZATION);
            return Way::In(policy::permit_anonymous(route));
        }
        // 5. to 7. The credential, what it is, and what the route asks of it.
        match permit(gate, parts, route) {
            Ok(permitted) => Way::In(permitted),
            Err(denial) => refuse(gate, parts, denial, Some(route)),
        }
    }
}

/// Credential, verification, authorisation: each needs what the one before it made.
pub(super) fn permit(gate: &Inner, parts: &Parts, route: &Arc<Route>) -> Result<Permitted, Denial> {
    match (route.policy.auth, route.policy.bad_credential_on_optional) {
        // Nobody is asked; still no request passes with two Authorization headers, for the upstream to choose from.
        (Auth::None, _) => credential::at_most_one(&parts.headers).map(|()| policy::permit_anonymous(route)),
        (Auth::Required, _) => permit_caller(gate, parts, route)?.ok_or(Denial::NoCredential),
        (Auth::Optional, BadCredential::Refuse) => {
            Ok(permit_caller(gate, parts, route)?.unwrap_or_else(|| policy::permit_anonymous(route)))
        }
        (Auth::Optional, BadCredential::Anonymous) => {
            credential::at_most_one(&parts.headers)?;
            match permit_caller(gate, parts, route) {
                Ok(Some(caller)) => Ok(caller),
                // Two credentials are never a mistake to look over.
                Err(Denial::TwoCredentials) => Err(Denial::TwoCredentials),
                Ok(None) | Err(_) => Ok(policy::permit_anonymous(route)),
            }
        }
    }
}

/// `None` where no credential was sent.
fn permit_caller(gate: &Inner, parts: &Parts, route: &Arc<Route>) -> Result<Option<Permitted>, Denial> {
    let places = gate.places(&route.policy);
    let Some(found) = credential::extract_from(&parts.headers, parts.uri.query(), places)? else { return Ok(None) };
    // Before the token is looked at: whoever cannot send the request learns nothing, and its use confirms nothing.
    if found.by_cookie && !gate.origins.admit(parts, &route.policy) {
        return Err(Denial::CrossOrigin);
    }
    let verified = gate.checker.check(Credential::new(&found.token), gate.engine.confirmations())?;
    policy::authorise(route, verified, &gate.audiences).map(Some)
}

/// Makes a permitted request ready for the service: nothing that a client said of identities, then what the gate knows.
pub(super) fn prepare(gate: &Inner, parts: &mut Parts, permitted: &Permitted) {
    let policy = &permitted.route().policy;
    gate.protected.strip_untrusted(&mut parts.headers, policy);
    headers::strip_credentials(&mut parts.headers, policy);
    let places = gate.places(policy);
    for cookie in places.cookies.into_iter().flatten() {
        credential::remove_cookie(&mut parts.headers, cookie);
    }
    withhold_query_token(parts, places.query);
    if let Some(caller) = permitted.caller() {
        for (name, value) in caller.headers() {
            let name: &HeaderName = name;
            parts.headers.insert(name.clone(), value.clone());
        }
        parts.extensions.insert(Identity(Arc::clone(caller)));
    }
}

/// A token in the query is nobody's credential, and goes nowhere (requirement T2).
fn withhold_query_token(parts: &mut Parts, parameter: Option<&str>) {
    let Some(query) = parts.uri.query() else { return };
    let mut rest = credential::strip_query_token(query);
    if let Some(stripped) =
        parameter.and_then(|name| credential::strip_parameter(rest.as_deref().unwrap_or(query), name))
    {
        rest = Some(stripped);
    }
    if let Some(rest) = rest {
        let path = parts.uri.path();
        let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
        if !set_target(parts, target) {
            // Cannot happen to a part of a good target; if it does, the path alone is forwarded.
            let path = parts.uri.path().to_owned();
            set_target(parts, path);
        }
    }
}

fn refuse(gate: &Inner, parts: &Parts, denial: Denial, route: Option<&Arc<Route>>) -> Way {
    let (reply, verdict) = refused(gate, parts, denial, route);
    Way::Refused(reply, verdict)
}

/// In the words of the route's dialect, of gRPC, or plainly.
fn refused(gate: &Inner, parts: &Parts, denial: Denial, route: Option<&Arc<Route>>) -> (Reply, Verdict) {
    tracing::debug!(target: "rotogate::denial", reason = denial.reason(), detail = denial.detail());
    let none = Scope::default();
    let asked = route.map_or(&none, |route| &route.policy.scopes);
    let dialect = route.and_then(|route| gate.dialect(&route.policy));
    let reply = dialect.and_then(|dialect| dialect.refuse(&parts.headers, denial)).unwrap_or_else(|| {
        if respond::is_grpc(&parts.headers) { respond::denied_grpc(denial) } else { respond::denied(denial, asked) }
    });
    (reply, Verdict { reason: denial.reason(), route: route.map(Arc::clone), session: None })
}

/// Puts the canonical path into the request, its query untouched.
fn set_path(parts: &mut Parts, path: &str) -> bool {
    let whole = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    set_target(parts, whole)
}

fn set_target(parts: &mut Parts, target: String) -> bool {
    let Ok(target) = PathAndQuery::try_from(target) else { return false };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(target);
    match Uri::from_parts(uri) {
        Ok(uri) => {
            parts.uri = uri;
            true
        }
        Err(_) => false,
    }
}

impl Inner {
    /// Where a token may stand on a route besides `Authorization`.
    fn places<'a>(&self, policy: &'a RoutePolicy) -> Places<'a> {
        let sources = self.dialect(policy).map(|dialect| dialect.sources()).unwrap_or_default();
        Places { query: sources.query, cookies: [policy.cookie.as_deref(), sources.cookie] }
    }

    /// The dialect in whose words a route refuses.
    fn dialect(&self, policy: &RoutePolicy) -> Option<&dyn Dialect> {
        let name = policy.dialect.as_ref()?;
        self.dialects.iter().find(|dialect| dialect.name() == name).map(AsRef::as_ref)
    }

    /// The client's address: the peer's, or what trusted proxies say of it.
    fn client_address(&self, parts: &Parts) -> Option<IpAddr> {
        let peer = parts.extensions.get::<Peer>()?.address;
        Some(headers::client_ip(&parts.headers, peer, &self.trusted_proxies))
    }
}

pin_project! {
    /// The reply to come.
    pub struct ResponseFuture<F> {
        #[pin]
        kind: Kind<F>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<F> {
        Inner { #[pin] future: F, verdict: Option<Verdict> },
        Endpoint { answer: Pin<Box<dyn Future<Output = (Reply, Option<Verdict>)> + Send>> },
        Own { reply: Option<(Reply, Option<Verdict>)> },
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn own(reply: Reply, verdict: Option<Verdict>) -> Self {
        Self { kind: Kind::Own { reply: Some((reply, verdict)) } }
    }

    pub(super) fn inner(future: F) -> Self {
        Self { kind: Kind::Inner { future, verdict: None } }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<GateBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut response, verdict) = match self.project().kind.project() {
            KindProjection::Inner { future, verdict } => {
                let response = ready!(future.poll(cx))?;
                (response.map(GateBody::inner), verdict.take())
            }
            KindProjection::Endpoint { answer } => {
                let (reply, verdict) = ready!(answer.as_mut().poll(cx));
                (reply.map(GateBody::own), verdict)
            }
            // Polled again after it was ready: forbidden to callers, and no reason to panic.
            KindProjection::Own { reply } => match reply.take() {
                Some((reply, verdict)) => (reply.map(GateBody::own), verdict),
                None => return Poll::Pending,
            },
        };
        if let Some(verdict) = verdict {
            response.extensions_mut().insert(verdict);
        }
        Poll::Ready(Ok(response))
    }
}

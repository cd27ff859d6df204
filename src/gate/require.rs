//! What some routes of an application ask beyond the gate in front of it, or without one.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::body::GateBody;
use super::identity::Identity;
use super::layer::ResponseFuture;
use super::{Gate, layer, respond};
use crate::denial::Denial;
use crate::policy;
use crate::reason::Reason;
use crate::route::{Auth, Route, RoutePolicy};
use crate::session::Scope;

/// Lets a request pass whose caller has what is asked. See [`Gate::require`].
#[derive(Clone, Debug)]
pub struct RequireLayer {
    gate: Gate,
    route: Arc<Route>,
}

impl RequireLayer {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, route: Arc::new(Route::catch_all(RoutePolicy::default())) }
    }

    /// Asks for a scope (and for each of those asked before).
    ///
    /// Characters that no scope may hold (RFC 6749 §3.3) make a scope that no token has: everyone is refused.
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        self.policy(|policy| {
            let all = format!("{} {scope}", policy.scopes);
            policy.scopes = Scope::parse(&all).unwrap_or_else(|_| Scope::impossible());
        })
    }

    /// Asks that the token be meant for this audience (or one of those named before), instead of the gate's own.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        self.policy(|policy| policy.audiences.push(audience))
    }

    /// Lets a request without any credential pass, as nobody's. A bad credential is refused still.
    #[must_use]
    pub fn optional(self) -> Self {
        self.policy(|policy| policy.auth = Auth::Optional)
    }

    fn policy(mut self, change: impl FnOnce(&mut RoutePolicy)) -> Self {
        let mut policy = self.route.policy.clone();
        change(&mut policy);
        self.route = Arc::new(Route::catch_all(policy));
        self
    }
}

impl<S> Layer<S> for RequireLayer {
    type Service = Require<S>;

    fn layer(&self, inner: S) -> Require<S> {
        Require { inner, layer: self.clone() }
    }
}

/// A service behind a [`RequireLayer`].
#[derive(Clone, Debug)]
pub struct Require<S> {
    inner: S,
    layer: RequireLayer,
}

impl<S, B, R> Service<Request<B>> for Require<S>
where
    S: Service<Request<B>, Response = Response<R>>,
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
        match self.layer.judge(&mut parts) {
            Ok(()) => ResponseFuture::inner(self.inner.call(Request::from_parts(parts, body))),
            Err(denial) => {
                let reason = Reason::from(denial);
                reason.tell();
                let mut reply = respond::denied(denial, &self.layer.route.policy.scopes);
                // For the gate's layer around us, which thinks that the request passed.
                reply.extensions_mut().insert(reason);
                ResponseFuture::own(reply, None)
            }
        }
    }
}

impl RequireLayer {
    fn judge(&self, parts: &mut http::request::Parts) -> Result<(), Denial> {
        let gate = &self.gate.0;
        // The gate's layer in front of us has verified the token already; only what this route asks is judged.
        if let Some(identity) = Identity::of(&parts.extensions).filter(|identity| gate.checker.made(&identity.0)) {
            return policy::judge(&self.route.policy, &identity.0, &gate.audiences);
        }
        let permitted = layer::permit(gate, parts, &self.route)?;
        layer::prepare(gate, parts, &permitted);
        parts.extensions.insert(permitted);
        Ok(())
    }
}

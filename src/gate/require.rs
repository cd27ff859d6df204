//! What some routes of an application ask beyond the gate in front of it, or without one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::body::GateBody;
use super::layer::ResponseFuture;
use super::{Gate, layer, respond, upgrade};
use crate::denial::Denial;
use crate::policy::{By, Permitted, Undecided};
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

    /// Asks for a scope (and for each of those asked before); `"read write"` are two.
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
    ///
    /// Behind [`Gate::layer`], whose route asks for the gate's own audience first, a token must be for both: it cannot know
    /// that this `require()` follows, and lets no other token through to handlers. There, say
    /// [`gate.layer().deferring_audience()`](super::GateLayer::deferring_audience), or put the audience into a route of the
    /// gate ([`RoutePolicy::audiences`]).
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        self.gate.0.asks_audience.store(true, Ordering::Relaxed);
        self.policy(|policy| policy.audiences.push(audience))
    }

    /// Takes the tokens of the issuer of this name (`self`: our own; of another see
    /// [`IssuerRules::name`](crate::token::verify::IssuerRules::name)), and of those named before. Without it, our own, and
    /// those of issuers that are taken everywhere.
    #[must_use]
    pub fn issuer(self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.gate.0.issuers.contains(&name) {
            tracing::error!(issuer = name, "there is no issuer of this name: nobody passes by it");
        }
        self.policy(|policy| policy.issuers.push(name))
    }

    /// Lets a request without any credential pass, as nobody's. A bad credential is refused still.
    #[must_use]
    pub fn optional(self) -> Self {
        self.policy(|policy| policy.auth = Auth::Optional)
    }

    /// Lets the request upgrade its connection, to a WebSocket for example, which ends with the caller's session. Behind
    /// [`Gate::layer`] the `upgrade` of the layer's route decides instead.
    #[must_use]
    pub fn upgrade(self) -> Self {
        self.policy(|policy| policy.upgrade = true)
    }

    /// Leaves the `Authorization` header to the handler, which passes the caller's token on. Behind [`Gate::layer`] the
    /// `forward_token` of the layer's route decides instead.
    #[must_use]
    pub fn forward_token(self) -> Self {
        self.policy(|policy| policy.forward_token = true)
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
        if let Some(undecided) = parts.extensions.get::<Undecided>().filter(|undecided| undecided.by().gate == gate.id)
        {
            let permitted = undecided.decide(&self.route)?;
            layer::prepare(gate, parts, &permitted);
            parts.extensions.remove::<Undecided>();
            parts.extensions.insert(permitted);
            return Ok(());
        }
        // The gate's layer in front of us has verified the token already; only what this route asks is judged.
        let known = parts.extensions.get::<Permitted>().filter(|known| known.by().gate == gate.id);
        let (is_known, has_caller) = (known.is_some(), known.is_some_and(|known| known.caller().is_some()));
        let by = known.map_or(By { gate: gate.id, layer: false, defers: false }, Permitted::by);
        let permitted = layer::permit(gate, parts, &self.route, by)?;
        if !is_known {
            upgrade::settle(gate, parts, &permitted, None);
        }
        if !has_caller {
            layer::prepare(gate, parts, &permitted);
            parts.extensions.insert(permitted);
        }
        Ok(())
    }
}

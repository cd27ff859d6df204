//! Requirements for single routes of an application, with or without the gate's layer.
//!
//! ```
//! # use axum::{Router, routing::get};
//! # use rotogate::{Gate, Identity};
//! # fn app(gate: &Gate) -> Router {
//! async fn reports(identity: Identity) -> String {
//!     format!("for {}", identity.subject())
//! }
//!
//! Router::new().route("/reports", get(reports)).route_layer(gate.require().scope("reports").role("manager"))
//! # }
//! ```

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use serde_json::Value;
use tower::{Layer, Service};

use super::body::GateBody;
use super::browser::keep_cookie;
use super::identity::Identity;
use super::layer::{Judged, Receipt, ResponseFuture, UNPAID, Unpermitted};
use super::signed_out::Led;
use super::{Gate, layer, respond, upgrade};
use rotogate_core::claim::{ClaimPath, Role};
use rotogate_core::denial::Denial;
use rotogate_core::policy::{self, By, Permit, Permitted, Settled, Undecided};
use rotogate_core::reason::Reason;
use rotogate_core::route::{Auth, Route, RoutePolicy};
use rotogate_core::session::scope::{Scope, impossible};
use rotogate_core::verify_cache::Verified;

mod decide;

use decide::Considered;

/// Admits a request if its caller meets all conditions. See [`Gate::require`].
///
/// Each method adds a condition, and all conditions must be met. A request without an acceptable token gets 401. A
/// token that does not meet a condition gets 403. Each refusal is logged with the target `rotogate::denial`, and
/// appears in the [`Verdict`](super::Verdict) of an annotated layer.
///
/// ```
/// use axum::{Router, routing::get};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let admins = gate.require().role("admin").any_scope(["users.read", "users.write"]);
/// let app: Router = Router::new().route("/users", get(async || "all of them")).route_layer(admins);
/// # let _ = app;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct RequireLayer {
    pub(super) gate: Gate,
    route: Arc<Route>,
    conditions: Arc<Conditions>,
}

#[derive(Clone, Debug, Default)]
struct Conditions {
    /// The token must have at least one scope from each set.
    any_scopes: Vec<Scope>,
    roles: Vec<Role>,
    /// The token must have all these roles, and one of `roles`.
    all_roles: Vec<Role>,
    /// Claims and their required values. `None` stands for a malformed path, which no token matches.
    claims: Vec<(Option<ClaimPath>, Value)>,
    checks: Vec<Check>,
}

#[derive(Clone)]
struct Check(Arc<CheckFn>);

type CheckFn = dyn Fn(&Identity, &Parts) -> bool + Send + Sync;

rotogate_core::debug_with!(Check);

/// A malformed string becomes a scope that tokens cannot have.
fn required(all: &str) -> Scope {
    Scope::parse(all).unwrap_or_else(|_| {
        tracing::error!(scope = all, "malformed scope in `require()`: every request is refused");
        impossible()
    })
}

impl RequireLayer {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, route: Arc::new(Route::catch_all(RoutePolicy::default())), conditions: Arc::default() }
    }

    /// Requires a scope, in addition to the scopes of earlier calls. `"read write"` requires two scopes.
    ///
    /// A malformed string (RFC 6749 §3.3) is logged and becomes a scope that tokens cannot have, so every request is
    /// refused.
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        self.policy(|policy| policy.scopes = required(&format!("{} {scope}", policy.scopes)))
    }

    /// Requires one of these scopes, in addition to all scopes of [`Self::scope`]. Each call adds a set, and the token
    /// needs one scope from each set.
    ///
    /// ```
    /// # fn example(gate: &rotogate::Gate) -> rotogate::gate::RequireLayer {
    /// gate.require().any_scope(["orders.read", "orders.write"])
    /// # }
    /// ```
    #[must_use]
    pub fn any_scope<'a>(self, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        let scopes = required(&scopes.into_iter().collect::<Vec<_>>().join(" "));
        self.condition(|conditions| conditions.any_scopes.push(scopes))
    }

    /// Requires this role, or one of the roles from other calls of this method. To require several roles together, use
    /// [`Self::all_roles`]. Our own tokens have their roles in the claim `roles`. For another issuer's tokens,
    /// [`IssuerRules::roles`](rotogate_core::token::IssuerRules::roles) names the claims.
    ///
    /// `"kc:admin"` is the role `admin` in tokens of the issuer named `kc`. If [`Self::issuer`] names exactly one
    /// issuer, a role without an issuer belongs to that issuer. If `issuer` was not called, the role belongs to the
    /// only trusted issuer. With several trusted issuers or none, the role belongs to our own issuer.
    ///
    /// ```
    /// # fn example(gate: &rotogate::Gate) -> rotogate::gate::RequireLayer {
    /// gate.require().role("admin").role("auditor")
    /// # }
    /// ```
    #[must_use]
    pub fn role(self, role: &str) -> Self {
        let role = self.parsed(role);
        self.condition(|conditions| conditions.roles.push(role))
    }

    /// Requires all these roles, in addition to one of the roles of [`Self::role`].
    ///
    /// ```
    /// # fn example(gate: &rotogate::Gate) -> rotogate::gate::RequireLayer {
    /// gate.require().all_roles(["employee", "auditor"])
    /// # }
    /// ```
    #[must_use]
    pub fn all_roles<'a>(self, roles: impl IntoIterator<Item = &'a str>) -> Self {
        let roles: Vec<Role> = roles.into_iter().map(|role| self.parsed(role)).collect();
        self.condition(|conditions| conditions.all_roles.extend(roles))
    }

    // Requirement I17.
    fn parsed(&self, role: &str) -> Role {
        let checker = &self.gate.0.checker;
        let mut role = Role::parse(role, |issuer| checker.has_issuer(issuer));
        if role.issuer.is_none() && role.name.contains(':') {
            tracing::warn!(
                %role,
                "`require()`: no trusted issuer is named before the colon, so the whole string is the role"
            );
        }
        role.issuer = role.issuer.or_else(|| Some(checker.only_issuer()?.as_ref().into()));
        if role.issuer.is_none() && self.route.policy.issuers.len() != 1 && !self.gate.0.running.is_issuer {
            tracing::error!(%role, "a role in `require()` needs its issuer, because several issuers are trusted");
        }
        role
    }

    /// Requires that a claim has this value, or is a list that contains it. Examples of a [path](ClaimPath):
    /// `realm_access.roles`, and `"https://example.com/tenant"` with its quotes.
    ///
    /// If tokens of several issuers are accepted, also require the [`issuer`](Self::issuer), because each issuer gives
    /// a claim its own meaning.
    ///
    /// ```
    /// # fn example(gate: &rotogate::Gate) -> rotogate::gate::RequireLayer {
    /// gate.require().claim("org_id", "42").claim("realm_access.roles", "boss")
    /// # }
    /// ```
    #[must_use]
    pub fn claim(self, path: &str, value: impl Into<Value>) -> Self {
        let parsed = ClaimPath::parse(path);
        if let Err(error) = &parsed {
            tracing::error!(%error, "malformed claim path in `require()`: every request is refused");
        }
        let value = value.into();
        self.condition(|conditions| conditions.claims.push((parsed.ok(), value)))
    }

    /// Adds a check by the application. If the function returns `false`, the request is refused with 403 and the reason
    /// `predicate`. The function must not block, because it is called for each request. Inside `Router::nest` of axum,
    /// the URI lacks the prefix of the nest.
    ///
    /// ```
    /// # fn example(gate: &rotogate::Gate) -> rotogate::gate::RequireLayer {
    /// // Only the user may see the user's orders: /users/{subject}/orders.
    /// gate.require().check(|caller, head| head.uri.path().split('/').nth(2) == Some(caller.subject()))
    /// # }
    /// ```
    #[must_use]
    pub fn check(self, check: impl Fn(&Identity, &Parts) -> bool + Send + Sync + 'static) -> Self {
        self.condition(|conditions| conditions.checks.push(Check(Arc::new(check))))
    }

    /// Requires this audience, or one from an earlier call, instead of the gate's own audience.
    ///
    /// Behind [`Gate::layer`], a token must be for both audiences, because the layer checks the gate's own audience
    /// first. To change that, use [`gate.layer().deferring_audience()`](super::GateLayer::deferring_audience), or add
    /// the audience to a route of the gate ([`RoutePolicy::audiences`]).
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        self.gate.0.running.asks_audience.store(true, Ordering::Relaxed);
        self.policy(|policy| policy.audiences.push(audience))
    }

    /// Accepts only tokens of the issuer with this name, and of issuers from earlier calls. `self` is our own issuer.
    /// Other issuers are named by [`IssuerRules::name`](rotogate_core::token::IssuerRules::name). The default is our
    /// own issuer, and the issuers that every route accepts.
    #[must_use]
    pub fn issuer(self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.gate.0.checker.has_issuer(&name) {
            tracing::error!(
                issuer = name,
                "unknown issuer in `require()`: it never matches a token. Name an issuer that the gate trusts, or `self`"
            );
        }
        self.policy(|policy| policy.issuers.push(name))
    }

    /// Also accepts the access token from this cookie. A request that may change something must then come from our own
    /// origin or from [`GateBuilder::allowed_origins`](super::GateBuilder::allowed_origins). Behind [`Gate::layer`],
    /// the `cookie` setting of the layer's route decides instead.
    ///
    /// ```
    /// # fn example(gate: &rotogate::Gate) -> rotogate::gate::RequireLayer {
    /// gate.require().cookie("__Host-access")
    /// # }
    /// ```
    #[must_use]
    // Requirement T18.
    pub fn cookie(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.policy(|policy| policy.cookie = Some(name))
    }

    /// Also accepts a browser's session cookie: see [`Browser`](super::Browser).
    #[must_use]
    pub fn session(self) -> Self {
        self.policy(|policy| policy.credentials.session = true)
    }

    /// Admits a request without a credential. The request then has no caller. A request with an invalid credential is
    /// still refused.
    #[must_use]
    pub fn optional(self) -> Self {
        self.policy(|policy| policy.auth = Auth::Optional)
    }

    /// Lets the request upgrade its connection, for example to a WebSocket. The connection ends when the caller's
    /// session ends. Behind [`Gate::layer`], the `upgrade` setting of the layer's route decides instead.
    #[must_use]
    pub fn upgrade(self) -> Self {
        self.policy(|policy| policy.upgrade = true)
    }

    /// Leaves the `Authorization` header in the request, so that the handler can forward the token. Behind
    /// [`Gate::layer`], the `forward_token` setting of the layer's route decides instead.
    #[must_use]
    pub fn forward_token(self) -> Self {
        self.policy(|policy| policy.forward_token = true)
    }

    pub(super) fn policy(mut self, change: impl FnOnce(&mut RoutePolicy)) -> Self {
        let mut policy = self.route.policy.clone();
        change(&mut policy);
        self.route = Arc::new(Route::catch_all(policy));
        self
    }

    fn condition(mut self, change: impl FnOnce(&mut Conditions)) -> Self {
        change(Arc::make_mut(&mut self.conditions));
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
///
/// ```
/// use rotogate::gate::Require;
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
/// let reports: Require<_> = gate.require().scope("reports").layer(tower::service_fn(handler));
/// assert_eq!(reports.oneshot(request).await?.status(), 401, "the request has no token");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Require<S> {
    inner: S,
    layer: RequireLayer,
}

impl<S, B, R> Service<Request<B>> for Require<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    B: Send + 'static,
    R: Body<Data: From<Bytes>>,
{
    type Response = Response<GateBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S::Future> {
        let (mut parts, body) = request.into_parts();
        let considered = self.layer.consider(&mut parts, None);
        let owing = match self.layer.decided_now(considered, &mut parts) {
            Ok(decided) => return self.answer(decided, parts, body),
            Err(owing) => owing,
        };
        // The returned future takes the ready service, because a clone may not be ready.
        let clone = self.inner.clone();
        let mut service = Self { inner: std::mem::replace(&mut self.inner, clone), layer: self.layer.clone() };
        let layer = self.layer.clone();
        let decided = async move { (layer.decided(owing, &mut parts).await, parts) };
        ResponseFuture::later(decided, move |(decided, parts)| service.answer(decided, parts, body))
    }
}

impl<S> Require<S> {
    fn answer<B, R>(&mut self, judged: Result<(), Denial>, parts: Parts, body: B) -> ResponseFuture<S::Future>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        match judged {
            Ok(()) => {
                let adapts = self.layer.gate.0.adapts_alone(&parts, &self.layer.route);
                let future = self.inner.call(Request::from_parts(parts, body));
                match adapts {
                    Some(permitted) => ResponseFuture::required(future, &self.layer.gate.0, permitted),
                    None => ResponseFuture::inner(future),
                }
            }
            Err(denial) => {
                let reason = Reason::from(denial);
                reason.tell();
                let gate = &self.layer.gate.0;
                gate.engine.tell_refused(&denial);
                let scopes = Cow::Owned(self.layer.asked_scopes());
                let asked = gate.asked_by(&self.layer.route.policy, &parts.headers);
                let asked = respond::ChallengeParams { scopes, ..asked };
                let plain = respond::plain(&parts, denial, &asked);
                let mut reply = match gate.led_to_login(&parts, denial, &self.layer.route.policy, plain) {
                    Led::Shown(reply) => reply,
                    Led::Plain(plain) => gate.worded(&parts, Some(&self.layer.route.policy), denial, plain),
                };
                super::exchange::ClaimsChallenge::state(&parts, &mut reply);
                gate.give_nonce(denial, &mut reply);
                gate.clear_session(&parts, denial, &mut reply);
                // Without this reason, the gate's layer around this `require()` would report the request as `passed`.
                reply.extensions_mut().insert(reason);
                ResponseFuture::own(reply, None).to(&parts.method)
            }
        }
    }
}

impl RequireLayer {
    /// Returns `None` if the gate's layer lets this `require()` decide on the audience. The layer has already admitted
    /// and prepared that request.
    fn consider(&self, parts: &mut Parts, receipt: Option<&Receipt>) -> Result<Option<Considered>, Unpermitted> {
        let gate = &self.gate.0;
        if let Some(undecided) = parts.extensions.get::<Undecided>().filter(|undecided| undecided.by().gate == gate.id)
        {
            let permit = undecided.decide(&self.route)?;
            self.judge_conditions(parts, permit.caller())?;
            let Judged::Pass(permit, _) = gate.settle_now((permit, None), parts) else {
                return Err(UNPAID.into());
            };
            keep_cookie(gate, parts);
            let permitted = layer::prepare(gate, parts, permit).map_err(|(denial, _)| denial)?;
            parts.extensions.remove::<Undecided>();
            parts.extensions.insert(permitted);
            return Ok(None);
        }
        // The gate's layer in front has already verified the token, so only this route's conditions are checked.
        let known = parts.extensions.get::<Permitted>().filter(|known| known.by().gate == gate.id);
        let (is_known, has_caller) = (known.is_some(), known.is_some_and(|known| known.caller().is_some()));
        let by = known.map_or(By { gate: gate.id, layer: false, defers: false }, Permitted::by);
        let permit = layer::RoutedRequest::new(gate, parts, &self.route, by, &mut ()).with_receipt(receipt).permit()?;
        if let Some(caller) = permit.caller() {
            gate.renew_ahead(caller, parts);
        }
        self.judge_conditions(parts, permit.caller())?;
        Ok(Some(Considered { permit, is_known, has_caller }))
    }

    fn admit(
        &self,
        parts: &mut Parts,
        permit: Permit<Settled>,
        (is_known, has_caller): (bool, bool),
    ) -> Result<(), Denial> {
        let gate = &self.gate.0;
        if !is_known {
            upgrade::settle(gate, parts, permit.route(), permit.caller(), None);
        }
        if !has_caller {
            keep_cookie(gate, parts);
            let permitted = layer::prepare(gate, parts, permit).map_err(|(denial, _)| denial)?;
            parts.extensions.insert(permitted);
        }
        Ok(())
    }

    fn judge_conditions(&self, parts: &mut Parts, caller: Option<&Arc<Verified>>) -> Result<(), Denial> {
        let Conditions { any_scopes, roles, all_roles, claims, checks } = &*self.conditions;
        let Some(caller) = caller else { return Ok(()) };
        let has_one = |scopes: &Scope| scopes.iter().any(|scope| self.route.policy.has(&caller.token().scope, scope));
        if !any_scopes.iter().all(has_one) {
            return Err(Denial::InsufficientScope);
        }
        policy::judge_roles(&self.route.policy, roles, all_roles, caller.token())?;
        if claims.is_empty() && checks.is_empty() {
            return Ok(());
        }
        let caller = Identity::new(Arc::clone(caller));
        let has = |(path, value): &(Option<ClaimPath>, Value)| {
            path.as_ref().is_some_and(|path| path.holds(caller.all_claims(), value))
        };
        if !claims.iter().all(has) {
            return Err(Denial::MissingClaim);
        }
        if !checks.iter().all(|check| (check.0)(&caller, parts)) {
            return Err(Denial::Predicate);
        }
        caller.share_claims(&mut parts.extensions);
        Ok(())
    }

    fn asked_scopes(&self) -> Scope {
        let asked = &self.route.policy.scopes;
        let Some(any) = self.conditions.any_scopes.first() else { return asked.clone() };
        let any = self.conditions.any_scopes.iter().skip(1).fold(any.to_string(), |all, more| format!("{all} {more}"));
        Scope::parse(&format!("{asked} {any}")).unwrap_or_else(|_| asked.clone())
    }
}

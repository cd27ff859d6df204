//! Requirements for single routes of an application, with or without the gate's layer in front.
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
use super::layer::{ResponseFuture, Settled};
use super::signed_out::Led;
use super::{Gate, layer, respond, upgrade};
use rotogate_core::claim::ClaimPath;
use rotogate_core::denial::Denial;
use rotogate_core::policy::{self, By, Permitted, Undecided};
use rotogate_core::reason::Reason;
use rotogate_core::route::{Auth, Role, Route, RoutePolicy};
use rotogate_core::session::scope::{Scope, impossible};

/// Admits a request if its caller meets all conditions. See [`Gate::require`].
///
/// Each method adds a condition, and all conditions must hold. If the token is missing or not accepted here, the reply
/// is 401. If the token does not meet a condition, the reply is 403. Each refusal is logged (target
/// `rotogate::denial`), and appears in the [`Verdict`](super::Verdict) of an annotated layer.
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

/// Conditions for a caller, in addition to the conditions in a route's policy.
#[derive(Clone, Debug, Default)]
struct Conditions {
    /// Sets of scopes. The token must have at least one scope from each set.
    any_scopes: Vec<Scope>,
    /// Alternative roles. The token needs one of them, unless the list is empty.
    roles: Vec<Role>,
    /// Roles that the token must all have, in addition to one of `roles`.
    all_roles: Vec<Role>,
    /// Claims and their required values. `None` means a malformed path, which no token can satisfy.
    claims: Vec<(Option<ClaimPath>, Value)>,
    checks: Vec<Check>,
}

#[derive(Clone)]
struct Check(Arc<CheckFn>);

type CheckFn = dyn Fn(&Identity, &Parts) -> bool + Send + Sync;

rotogate_core::debug_with!(Check);

/// Parses the scopes of a requirement. If the string is malformed, the result is a scope that no token has.
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
    /// A malformed string (RFC 6749 §3.3) becomes a scope that no token has, so every request is refused. The mistake
    /// is logged.
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        self.policy(|policy| policy.scopes = required(&format!("{} {scope}", policy.scopes)))
    }

    /// Requires one of these scopes, in addition to all scopes of [`Self::scope`]. Each call adds a set, and the token
    /// needs one scope from each set. The challenge in the reply names all scopes.
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

    /// Requires this role, or one of the roles of other calls. To require several roles together, use
    /// [`Self::all_roles`]. For our own tokens, the roles are in the claim `roles`. For another issuer's tokens, they
    /// are in the claims that [`IssuerRules::roles`](rotogate_core::token::IssuerRules::roles) names.
    ///
    /// `"kc:admin"` is the role `admin` only in tokens of the issuer named `kc`. A role without an issuer belongs to
    /// the only issuer that [`Self::issuer`] names. If `issuer` was not called, the role belongs to the only trusted
    /// issuer if there is exactly one, and otherwise to our own issuer.
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

    /// Requires all of these roles, in addition to one of the roles of [`Self::role`]. The roles are spelt as in
    /// [`Self::role`].
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
            tracing::warn!(%role, "`require()`: no trusted issuer before the colon, so the whole string is the role");
        }
        role.issuer = role.issuer.or_else(|| Some(checker.only_issuer()?.as_ref().into()));
        if role.issuer.is_none() && self.route.policy.issuers.len() != 1 && !self.gate.0.running.is_issuer {
            tracing::error!(%role, "a role in `require()` needs its issuer, because several issuers are trusted");
        }
        role
    }

    /// Requires that a claim has this value, or is a list that contains it. For the path see [`ClaimPath`]. Examples:
    /// `realm_access.roles`, and `"https://example.com/tenant"` with its quotes.
    ///
    /// The meaning of a claim depends on its issuer. If tokens of several issuers are accepted, also require the
    /// [`issuer`](Self::issuer).
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

    /// Adds a check by the application. The function gets the caller and the head of the request. If it returns
    /// `false`, the request is refused with 403 and the reason `predicate`. The function is called for each request, so
    /// it must not block. Inside an axum nest, the head has only the rest of the path.
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

    /// Requires that the token is for this audience, or for the audience of an earlier call, instead of the gate's own
    /// audience.
    ///
    /// Behind [`Gate::layer`], a token must be for both audiences, because the layer's route requires the gate's own
    /// audience first. The layer cannot know that this `require()` is behind it. To change that, use
    /// [`gate.layer().deferring_audience()`](super::GateLayer::deferring_audience), or add the audience to a route of
    /// the gate ([`RoutePolicy::audiences`]).
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        self.gate.0.running.asks_audience.store(true, Ordering::Relaxed);
        self.policy(|policy| policy.audiences.push(audience))
    }

    /// Accepts tokens of the issuer with this name, and of the issuers of earlier calls. `self` is our own issuer. The
    /// names of other issuers are those in [`IssuerRules::name`](rotogate_core::token::IssuerRules::name). By default,
    /// tokens of our own issuer and of issuers that are accepted everywhere are accepted.
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

    /// Also accepts the access token from this cookie. A request that may change something must then come from a page
    /// of our own or of [`GateBuilder::allowed_origins`](super::GateBuilder::allowed_origins). Behind [`Gate::layer`],
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

    /// Admits a request that has no credential. The request then has no caller. An invalid credential is still refused,
    /// and the other conditions apply to requests with a credential.
    #[must_use]
    pub fn optional(self) -> Self {
        self.policy(|policy| policy.auth = Auth::Optional)
    }

    /// Lets the request upgrade its connection, for example to a WebSocket. The connection ends with the caller's
    /// session. Behind [`Gate::layer`], the `upgrade` setting of the layer's route decides instead.
    #[must_use]
    pub fn upgrade(self) -> Self {
        self.policy(|policy| policy.upgrade = true)
    }

    /// Leaves the `Authorization` header in the request, so that the handler can pass the caller's token on. Behind
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

/// A request that meets all conditions.
struct Judged {
    permitted: Permitted,
    /// Whether the gate's layer in front has already permitted the request, with a caller.
    is_known: bool,
    has_caller: bool,
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
        let judged = self.layer.judge_parts(&mut parts);
        let policy = &self.layer.route.policy;
        let wait = match &judged {
            Ok(_) => None,
            Err(denial) => layer::awaited(&self.layer.gate.0, &parts, *denial, policy),
        };
        let is_pending = matches!(&judged, Ok(Some(judged)) if judged.permitted.owes_proof());
        if wait.is_none() && !is_pending {
            let judged = judged.and_then(|judged| self.layer.admit(&mut parts, judged));
            return self.answer(judged, parts, body);
        }
        // The ready service is moved into the future, because a clone of it may not be ready.
        let clone = self.inner.clone();
        let mut service = Self { inner: std::mem::replace(&mut self.inner, clone), layer: self.layer.clone() };
        let layer = self.layer.clone();
        let admitted = async move {
            let judged = match wait {
                Some(wait) => {
                    let settled = wait.settled().await;
                    settled.give(&mut parts);
                    let judged = layer.judge_parts(&mut parts).map_err(|denial| settled.refusal(denial));
                    Settled::take_back(&mut parts);
                    judged
                }
                None => judged,
            };
            let judged = match judged {
                Ok(Some(judged)) => {
                    layer.gate.0.completed(judged.permitted).await.map(|permitted| Some(Judged { permitted, ..judged }))
                }
                judged => judged,
            };
            (judged.and_then(|judged| layer.admit(&mut parts, judged)), parts)
        };
        ResponseFuture::later(admitted, move |(admitted, parts)| service.answer(admitted, parts, body))
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
                    Led::Plain(plain) => respond::hooked(gate.refusals.as_ref(), &parts, denial, plain),
                };
                super::exchange::ClaimsChallenge::state(&parts, &mut reply);
                gate.give_nonce(denial, &mut reply);
                gate.clear_session(&parts, denial, &mut reply);
                // The gate's layer around this `require()` reads the reason. Without the reason, that layer would
                // report the request as `passed`.
                reply.extensions_mut().insert(reason);
                ResponseFuture::own(reply, None).to(&parts.method)
            }
        }
    }
}

impl RequireLayer {
    /// Judges a request. Returns `None` if the gate's layer has left the audience to this `require()`. In that case,
    /// this method has already admitted and prepared the request.
    fn judge_parts(&self, parts: &mut Parts) -> Result<Option<Judged>, Denial> {
        let gate = &self.gate.0;
        if let Some(undecided) = parts.extensions.get::<Undecided>().filter(|undecided| undecided.by().gate == gate.id)
        {
            let permitted = undecided.decide(&self.route)?;
            self.judge_conditions(parts, &permitted)?;
            keep_cookie(gate, parts);
            layer::prepare(gate, parts, &permitted)?;
            parts.extensions.remove::<Undecided>();
            parts.extensions.insert(permitted);
            return Ok(None);
        }
        // If the gate's layer in front has verified the token, only the conditions of this route are judged.
        let known = parts.extensions.get::<Permitted>().filter(|known| known.by().gate == gate.id);
        let (is_known, has_caller) = (known.is_some(), known.is_some_and(|known| known.caller().is_some()));
        let by = known.map_or(By { gate: gate.id, layer: false, defers: false }, Permitted::by);
        let permitted = layer::RoutedRequest::new(gate, parts, &self.route, by, &mut ()).permit()?;
        if let Some(caller) = permitted.caller() {
            gate.renew_ahead(caller, parts);
        }
        self.judge_conditions(parts, &permitted)?;
        Ok(Some(Judged { permitted, is_known, has_caller }))
    }

    /// Prepares a request that meets all conditions for the handler.
    fn admit(&self, parts: &mut Parts, judged: Option<Judged>) -> Result<(), Denial> {
        let gate = &self.gate.0;
        let Some(Judged { permitted, is_known, has_caller }) = judged else { return Ok(()) };
        if !is_known {
            upgrade::settle(gate, parts, &permitted, None);
        }
        if !has_caller {
            keep_cookie(gate, parts);
            layer::prepare(gate, parts, &permitted)?;
            parts.extensions.insert(permitted);
        }
        Ok(())
    }

    /// Judges scopes first, then roles and claims, then the application's checks.
    fn judge_conditions(&self, parts: &mut Parts, permitted: &Permitted) -> Result<(), Denial> {
        let Conditions { any_scopes, roles, all_roles, claims, checks } = &*self.conditions;
        let Some(caller) = permitted.caller() else { return Ok(()) };
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

    /// Returns the scopes that the challenge in the reply names.
    fn asked_scopes(&self) -> Scope {
        let asked = &self.route.policy.scopes;
        let Some(any) = self.conditions.any_scopes.first() else { return asked.clone() };
        let any = self.conditions.any_scopes.iter().skip(1).fold(any.to_string(), |all, more| format!("{all} {more}"));
        Scope::parse(&format!("{asked} {any}")).unwrap_or_else(|_| asked.clone())
    }
}

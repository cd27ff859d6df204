//! Step 7 of a request: judges a [`Verified`] token by the policy of a route. Only this module makes a [`Permitted`]
//! request, and only a [`Permitted`] request can be forwarded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::HeaderValue;

use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::dpop::UsedProof;
use crate::dpop::memory::ProofName;
use crate::route::{Auth, KeptConditions, Role, Route, RoutePolicy};
use crate::rule::Rule;
use crate::token::claims::AccessToken;
use crate::token::observer::Observer;
use crate::token::verify::IssuerRules;
use crate::verify_cache::Verified;

mod unmet;

pub use unmet::unmet_key;

/// The permit of a request: its route and its caller. The layer puts it into the extensions of the request for the
/// inner service.
#[derive(Clone, Debug)]
pub struct Permitted {
    route: Arc<Route>,
    caller: Option<Arc<Verified>>,
    by: By,
    /// The remaining steps for the caller's proof.
    proof: Option<Box<UsedProof>>,
    /// Whether the request came with the cookie of an ended session.
    after_session: bool,
    /// Whether the route's limits have counted the request.
    is_counted: bool,
    /// The header fields of the reply about these limits.
    quota: Option<Box<QuotaFields>>,
}

/// The values of `RateLimit-Policy` and `RateLimit` in a reply.
#[derive(Clone, Debug)]
pub struct QuotaFields {
    /// `RateLimit-Policy`.
    pub policy: HeaderValue,
    /// `RateLimit`.
    pub left: HeaderValue,
}

/// The issuer of a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// The gate.
    pub gate: GateId,
    /// Whether the gate's layer issued the permit, by its routes. A `require()` has no routes.
    pub layer: bool,
    /// Whether the layer leaves the audience to `require()`.
    pub defers: bool,
}

/// Identifies a gate. A gate accepts its own permits only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateId(u64);

impl GateId {
    /// A new id, which differs from those of other gates.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Permitted {
    /// A new permit, without a proof, for a request that no limit has counted.
    #[inline]
    fn new(route: &Arc<Route>, caller: Option<Arc<Verified>>, by: By) -> Self {
        Self { route: Arc::clone(route), caller, by, proof: None, after_session: false, is_counted: false, quota: None }
    }

    /// The route that the request matched.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Takes the caller of another permit, for a request that must pass two routes.
    pub fn with_caller_of(self, other: Self) -> Self {
        Self { caller: other.caller, proof: other.proof, ..self }
    }

    /// The caller; `None` on a public route, and on an optional route without a token.
    pub fn caller(&self) -> Option<&Arc<Verified>> {
        self.caller.as_ref()
    }

    /// Marks a request whose session cookie is ignored, because its session has ended.
    pub fn after_session(self) -> Self {
        Self { after_session: true, ..self }
    }

    /// Must the reply clear the session cookie?
    pub fn clears_session(&self) -> bool {
        self.after_session
    }

    /// Adds the proof of a caller who proved the key of the token.
    pub fn proved_by(self, proof: Option<Box<UsedProof>>) -> Self {
        Self { proof, ..self }
    }

    /// Must the reply contain a new nonce for the caller?
    pub fn renews_nonce(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.renews_nonce)
    }

    /// Must the store still count the caller's proof? Before the proof is counted, the permit permits nothing.
    pub fn owes_proof(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.owed.is_some())
    }

    /// Takes the proof that the store must count. The permit then no longer owes it.
    pub fn take_owed_proof(&mut self) -> Option<ProofName> {
        self.proof.as_mut()?.owed.take()
    }

    /// Must the limits of the route still count the request? Before the request is counted, the permit permits nothing.
    pub fn owes_count(&self) -> bool {
        !self.is_counted && !self.route.policy.rate.is_empty()
    }

    /// Notes that the limits have counted the request, or that no limit applies. `quota` has the reply's header fields.
    #[must_use]
    pub fn counted(self, quota: Option<Box<QuotaFields>>) -> Self {
        Self { is_counted: true, quota, ..self }
    }

    /// Have the limits counted the request?
    pub fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// The header fields of the reply about limits.
    pub fn quota(&self) -> Option<&QuotaFields> {
        self.quota.as_deref()
    }

    /// The issuer of this permit.
    pub fn by(&self) -> By {
        self.by
    }
}

impl Permitted {
    /// Route and caller.
    pub fn into_parts(self) -> (Arc<Route>, Option<Arc<Verified>>) {
        (self.route, self.caller)
    }
}

/// Permits a request without a caller, on a public or optional route.
pub fn permit_anonymous(route: &Arc<Route>, by: By) -> Permitted {
    Permitted::new(route, None, by)
}

/// Judges a caller by a second policy of the same gate, after a first policy has admitted it. Only the first policy
/// requires the gate's own audience.
///
/// # Errors
/// The errors of [`authorise`].
pub fn authorise_again<O: Observer>(
    route: &Arc<Route>,
    verified: Arc<Verified>,
    by: By,
    observer: &mut O,
) -> Result<Permitted, Denial> {
    let policy = &route.policy;
    if policy.auth != Auth::None {
        let token = verified.token();
        observer.judged(Rule::Issuer, judge_issuer(policy, token))?;
        observer.judged(Rule::Proof, judge_binding(policy, token))?;
        if !policy.audiences.is_empty() {
            observer.judged(Rule::Audience, judge_audience(policy, token))?;
        }
        observer.judged(Rule::Scope, judge_scopes(policy, token))?;
        observer.judged(Rule::Role, judge_route_roles(policy, token))?;
    }
    Ok(Permitted::new(route, Some(verified), by))
}

/// A request with a valid token for another audience than the gate's own. Only a `require()` for that audience can
/// permit it.
#[derive(Clone, Debug)]
pub struct Undecided {
    caller: Arc<Verified>,
    by: By,
    decided: Arc<AtomicBool>,
}

impl Undecided {
    /// A caller that a `require()` in the service will judge.
    pub fn new(caller: Arc<Verified>, by: By) -> Self {
        Self { caller, by, decided: Arc::default() }
    }

    /// The caller.
    pub fn caller(&self) -> &Arc<Verified> {
        &self.caller
    }

    /// The issuer of the later permit.
    pub fn by(&self) -> By {
        self.by
    }

    /// Has a `require()` judged the request since?
    pub fn is_decided(&self) -> bool {
        self.decided.load(Ordering::Acquire)
    }

    /// Judges the request by the route of a `require()`.
    ///
    /// # Errors
    /// The errors of [`authorise`].
    pub fn decide(&self, route: &Arc<Route>) -> Result<Permitted, Denial> {
        self.decided.store(true, Ordering::Release);
        if route.policy.audiences.is_empty() {
            return Err(Denial::WrongAudience);
        }
        authorise_again(route, Arc::clone(&self.caller), self.by, &mut ())
    }
}

/// Judges a token by the policy of a route: issuer first, then audience, then scopes, then roles.
///
/// # Errors
/// [`Denial::WrongIssuer`], [`Denial::WrongAudience`], [`Denial::InsufficientScope`], [`Denial::MissingRole`],
/// [`Denial::RolesOverage`].
pub fn authorise<O: Observer>(
    route: &Arc<Route>,
    verified: Arc<Verified>,
    by: By,
    observer: &mut O,
) -> Result<Permitted, Denial> {
    judge_observed(&route.policy, verified.token(), observer)?;
    Ok(Permitted::new(route, Some(verified), by))
}

/// Judges a token by a policy, whether or not the route requires a token.
///
/// # Errors
/// The denial of the rule that refuses the token.
pub fn judge(policy: &RoutePolicy, token: &AccessToken) -> Result<(), Denial> {
    judge_observed(policy, token, &mut ())
}

fn judge_observed<O: Observer>(policy: &RoutePolicy, token: &AccessToken, observer: &mut O) -> Result<(), Denial> {
    observer.judged(Rule::Issuer, judge_issuer(policy, token))?;
    observer.judged(Rule::Proof, judge_binding(policy, token))?;
    observer.judged(Rule::Audience, judge_audience(policy, token))?;
    observer.judged(Rule::Scope, judge_scopes(policy, token))?;
    observer.judged(Rule::Role, judge_route_roles(policy, token))
}

/// Judges the claims of a caller by the conditions of a route. `path` is the canonical path of the request, for routes
/// whose conditions name parameters of the path.
///
/// # Errors
/// [`Denial::Condition`].
// Requirements K20 and K22.
pub fn judge_conditions<O: Observer>(
    route: &Route,
    caller: &Verified,
    path: Option<&str>,
    observer: &mut O,
) -> Result<(), Denial> {
    let Some(conditions) = route.policy.conditions.as_deref().filter(|_| route.policy.auth != Auth::None) else {
        return Ok(());
    };
    let judged = match O::HAS_EFFECTS {
        true => caller.kept_conditions(conditions),
        false => Arc::new(KeptConditions::judged(conditions, &caller.token().claims())),
    };
    let param = |name: &str| route.params(path?).find(|(known, _)| *known == name).map(|(_, value)| value);
    observer.judged(Rule::Condition, if judged.hold(param) { Ok(()) } else { Err(Denial::Condition) })
}

/// Judges the caller of a call (MCP) by its rule, after the route of its path has permitted the request. A rule that
/// names no issuers accepts any issuer.
///
/// # Errors
/// The errors of [`authorise`], [`Denial::Condition`], and [`Denial::InsufficientAuthentication`].
pub fn judge_call<O: Observer>(
    rule: &Route,
    caller: &Verified,
    now: impl Fn() -> Timestamp,
    observer: &mut O,
) -> Result<(), Denial> {
    let (policy, token) = (&rule.policy, caller.token());
    if !policy.issuers.is_empty() {
        observer.judged(Rule::Issuer, judge_issuer(policy, token))?;
    }
    observer.judged(Rule::Proof, judge_binding(policy, token))?;
    observer.judged(Rule::Scope, judge_scopes(policy, token))?;
    observer.judged(Rule::Role, judge_route_roles(policy, token))?;
    judge_conditions(rule, caller, None, observer)?;
    // The clock is read where a login ages.
    let step_up = policy.step_up.as_ref().map_or(Ok(()), |_| judge_step_up(policy, token, now()));
    observer.judged(Rule::StepUp, step_up)
}

fn judge_audience(policy: &RoutePolicy, token: &AccessToken) -> Result<(), Denial> {
    let in_audience = if policy.audiences.is_empty() {
        token.is_for(&token.issued_by.audience)
    } else {
        token.is_for(&policy.audiences)
    };
    if in_audience { Ok(()) } else { Err(Denial::WrongAudience) }
}

fn judge_issuer(policy: &RoutePolicy, token: &AccessToken) -> Result<(), Denial> {
    if takes(policy, token) { Ok(()) } else { Err(Denial::WrongIssuer) }
}

/// Does the route accept the tokens of the issuer that vouched for this token's user? A route that names no issuers
/// accepts our own tokens, whoever vouched.
// Requirement I67.
pub fn takes(policy: &RoutePolicy, token: &AccessToken) -> bool {
    policy.takes(&token.vouching_issuer().name, token.is_accepted_everywhere())
}

/// May the route accept a token that these rules judge? One of our own tokens may be of a user of any issuer, which only
/// the verified token tells.
pub fn may_take(policy: &RoutePolicy, rules: &IssuerRules) -> bool {
    rules.ours || policy.takes(&rules.name, rules.everywhere)
}

/// Judges whether the route accepts an API key, and whether the token is bound as the route requires. The caller has
/// already proved the token's key or certificate.
fn judge_binding(policy: &RoutePolicy, token: &AccessToken) -> Result<(), Denial> {
    if !policy.credentials.key && token.is_api_key() {
        return Err(Denial::UnusableCredential);
    }
    let lacks_key = policy.dpop_required && token.bound_to().is_none();
    let lacks_certificate = policy.certificate_required && token.certificate().is_none();
    if lacks_key || lacks_certificate { Err(Denial::UnboundToken) } else { Ok(()) }
}

fn judge_scopes(policy: &RoutePolicy, token: &AccessToken) -> Result<(), Denial> {
    if policy.grants(&token.scope) { Ok(()) } else { Err(Denial::InsufficientScope) }
}

fn judge_route_roles(policy: &RoutePolicy, token: &AccessToken) -> Result<(), Denial> {
    judge_roles(policy, &policy.roles, &policy.all_roles, token)
}

/// Checks that the token has one of the roles `any`, if there are any, and the roles `all`. The route's policy decides
/// to which issuer a role without an issuer belongs.
///
/// # Errors
/// [`Denial::MissingRole`]; [`Denial::RolesOverage`] if the issuer left roles out.
pub fn judge_roles(policy: &RoutePolicy, any: &[Role], all: &[Role], token: &AccessToken) -> Result<(), Denial> {
    for role in all {
        if !may_name(policy, role, token) {
            return Err(Denial::MissingRole);
        }
        token.roles().judge([role])?;
    }
    if any.is_empty() {
        return Ok(());
    }
    let mut counting = any.iter().filter(|role| may_name(policy, role, token)).peekable();
    if counting.peek().is_none() {
        return Err(Denial::MissingRole);
    }
    token.roles().judge(counting)
}

/// Checks that the caller logged in as the route requires, and not too long ago.
///
/// # Errors
/// [`Denial::InsufficientAuthentication`].
pub fn judge_step_up(policy: &RoutePolicy, token: &AccessToken, now: Timestamp) -> Result<(), Denial> {
    match &policy.step_up {
        Some(step_up) if policy.auth != Auth::None && !step_up.is_met(token.login(), token.leeway(), now) => {
            Err(Denial::InsufficientAuthentication)
        }
        Some(_) | None => Ok(()),
    }
}

/// May this token name the role? A role without an issuer belongs to the only issuer that the route names, otherwise to
/// our own issuer.
fn may_name(policy: &RoutePolicy, role: &Role, token: &AccessToken) -> bool {
    match (&role.issuer, policy.issuers.as_slice()) {
        (Some(issuer), _) => *token.vouching_issuer().name == **issuer,
        (None, [only]) => *token.vouching_issuer().name == **only,
        (None, _) => token.vouching_issuer().is_ours,
    }
}

//! Checks a [`Verified`] token against the policy of a route.
//!
//! Only this module creates a [`Permitted`] request, and only a [`Permitted`] request can be forwarded.

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

/// The permission of a request, with its route and its caller. The layer passes the permission to the inner service as
/// an extension of the request.
#[derive(Clone, Debug)]
pub struct Permitted {
    route: Arc<Route>,
    caller: Option<Arc<Verified>>,
    by: By,
    proof: Option<Box<UsedProof>>,
    after_session: bool,
    is_counted: bool,
    quota: Option<Box<QuotaFields>>,
}

/// The values of `RateLimit-Policy` and `RateLimit` for a response.
#[derive(Clone, Debug)]
pub struct QuotaFields {
    /// The value of `RateLimit-Policy`.
    pub policy: HeaderValue,
    /// The value of `RateLimit`.
    pub left: HeaderValue,
}

/// Who issued a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// The gate.
    pub gate: GateId,
    /// Whether the gate's layer permitted the request, and not a `require()`.
    pub layer: bool,
    /// Whether the layer leaves the audience check to a `require()`.
    pub defers: bool,
}

/// The id of the gate that gave a permission. A gate accepts only its own permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateId(u64);

impl GateId {
    /// Creates a unique id.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Permitted {
    #[inline]
    fn new(route: &Arc<Route>, caller: Option<Arc<Verified>>, by: By) -> Self {
        Self { route: Arc::clone(route), caller, by, proof: None, after_session: false, is_counted: false, quota: None }
    }

    /// The route that the request matched.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Takes the caller and the proof from `other`, for a request that passes two routes.
    pub fn with_caller_of(self, other: Self) -> Self {
        Self { caller: other.caller, proof: other.proof, ..self }
    }

    /// The caller. `None` on a public route, or on an optional route if the request has no token.
    pub fn caller(&self) -> Option<&Arc<Verified>> {
        self.caller.as_ref()
    }

    /// Marks a request whose session cookie was ignored because the session has ended.
    pub fn after_session(self) -> Self {
        Self { after_session: true, ..self }
    }

    /// Returns whether the response must clear the session cookie.
    pub fn clears_session(&self) -> bool {
        self.after_session
    }

    /// Adds the caller's DPoP proof.
    pub fn proved_by(self, proof: Option<Box<UsedProof>>) -> Self {
        Self { proof, ..self }
    }

    /// Returns whether the response must contain a new nonce.
    pub fn renews_nonce(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.renews_nonce)
    }

    /// Returns whether the store must still record the proof.
    pub fn owes_proof(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.owed.is_some())
    }

    /// Takes the DPoP proof that must still be recorded in the store.
    pub fn take_owed_proof(&mut self) -> Option<ProofName> {
        self.proof.as_mut()?.owed.take()
    }

    /// Returns whether the limits must count the request before the permission is used.
    pub fn owes_count(&self) -> bool {
        !self.is_counted && !self.route.policy.rate.is_empty()
    }

    /// Records that the limits have counted the request, or do not apply.
    #[must_use]
    pub fn counted(self, quota: Option<Box<QuotaFields>>) -> Self {
        Self { is_counted: true, quota, ..self }
    }

    /// Returns whether the limits have counted the request.
    pub fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// The response headers about limits.
    pub fn quota(&self) -> Option<&QuotaFields> {
        self.quota.as_deref()
    }

    /// Who issued this permission.
    pub fn by(&self) -> By {
        self.by
    }
}

impl Permitted {
    /// The route and the caller.
    pub fn into_parts(self) -> (Arc<Route>, Option<Arc<Verified>>) {
        (self.route, self.caller)
    }
}

/// Permits a request without a caller, on a public or optional route.
pub fn permit_anonymous(route: &Arc<Route>, by: By) -> Permitted {
    Permitted::new(route, None, by)
}

/// Checks an admitted caller against a second policy of the same gate. The second policy does not require the gate's
/// own audience.
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

/// A request with a valid token for another audience. Only a `require()` for that audience can permit the request.
#[derive(Clone, Debug)]
pub struct Undecided {
    caller: Arc<Verified>,
    by: By,
    decided: Arc<AtomicBool>,
}

impl Undecided {
    /// Creates an undecided request, which a `require()` in the service must still authorise.
    pub fn new(caller: Arc<Verified>, by: By) -> Self {
        Self { caller, by, decided: Arc::default() }
    }

    /// The caller.
    pub fn caller(&self) -> &Arc<Verified> {
        &self.caller
    }

    /// Returns who permits the request.
    pub fn by(&self) -> By {
        self.by
    }

    /// Returns whether [`Self::decide`] was called.
    pub fn is_decided(&self) -> bool {
        self.decided.load(Ordering::Acquire)
    }

    /// Checks the request against the route of a `require()`.
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

/// Checks a token against the policy of a route.
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

/// Checks a token against a policy, even if the route does not require a token.
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

/// Checks a caller's claims against the route's conditions. `path` is the canonical path, from which path parameters
/// are read.
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

/// Checks the caller of an MCP call against the rule for the call. A rule without issuers accepts all issuers.
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

/// Returns whether the route accepts the issuer that authenticated the user. A route without issuers accepts all tokens
/// of the gate.
// Requirement I67.
pub fn takes(policy: &RoutePolicy, token: &AccessToken) -> bool {
    policy.takes(&token.vouching_issuer().name, token.is_accepted_everywhere())
}

/// Returns whether the route could accept a token under these rules. Always true for the gate's own tokens, whose
/// authenticating issuer is not known yet.
pub fn may_take(policy: &RoutePolicy, rules: &IssuerRules) -> bool {
    rules.ours || policy.takes(&rules.name, rules.everywhere)
}

/// Checks the binding of the token. The caller must already have proved possession of the key or certificate.
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

/// Checks that the token has all roles in `all`, and one of the roles in `any` unless it is empty. If a role does not
/// name its issuer, the route's policy determines the issuer.
///
/// # Errors
/// [`Denial::MissingRole`], or [`Denial::RolesOverage`] if the issuer omitted roles.
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

/// Checks how, and how recently, the caller logged in.
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

/// By default, the issuer of a role is the route's only issuer, or else the gate.
fn may_name(policy: &RoutePolicy, role: &Role, token: &AccessToken) -> bool {
    match (&role.issuer, policy.issuers.as_slice()) {
        (Some(issuer), _) => *token.vouching_issuer().name == **issuer,
        (None, [only]) => *token.vouching_issuer().name == **only,
        (None, _) => token.vouching_issuer().is_ours,
    }
}

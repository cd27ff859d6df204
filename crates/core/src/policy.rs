//! Checks a [`Verified`] token against the policy of a route.
//!
//! Only this module creates a [`Permit`], and only a request whose permit is [`Settled`] can be forwarded.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

use crate::claim::Role;
use crate::claim::condition::KeptConditions;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::dpop::UsedProof;
use crate::dpop::memory::ProofName;
use crate::route::{Auth, Route, RoutePolicy};
use crate::rule::Rule;
use crate::token::claims::AccessToken;
use crate::token::observer::Observer;
use crate::token::verify::IssuerRules;
use crate::verify_cache::Verified;

mod undecided;
mod unmet;

pub use undecided::Undecided;
pub use unmet::unmet_key;

/// The permission of a request. Only this module makes one, and it cannot be cloned.
///
/// A `Permit<Owing>` may still owe something, and nothing can be done with it. [`Permit::settled`] turns it into a
/// `Permit<Settled>`, which step 8 takes by value: [`Permit::into_permitted`].
#[derive(Debug)]
pub struct Permit<State> {
    permitted: Permitted,
    owed: Dues,
    state: PhantomData<State>,
}

/// The state of a [`Permit`] that may still owe something.
#[derive(Debug)]
pub enum Owing {}

/// The state of a [`Permit`] that owes nothing.
#[derive(Debug)]
pub enum Settled {}

/// What a permitted request may owe before it is forwarded, in the order of payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The shared store must record the DPoP proof.
    Proof = 1,
    /// The body of the request must be checked.
    Body = 2,
    /// The limits of the route must count the request.
    Count = 4,
    /// The route's upstream needs an exchanged token.
    Exchange = 8,
}

/// A set of [`Due`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dues(u8);

impl Dues {
    #[inline]
    fn on(route: &Route) -> Self {
        let nothing = Self(0);
        let count = if route.policy.rate.is_empty() { nothing } else { nothing.with(Due::Count) };
        if route.exchange.is_some() { count.with(Due::Exchange) } else { count }
    }

    const fn with(self, due: Due) -> Self {
        Self(self.0 | due as u8)
    }

    const fn without(self, due: Due) -> Self {
        Self(self.0 & !(due as u8))
    }

    const fn has(self, due: Due) -> bool {
        self.0 & due as u8 != 0
    }
}

/// What the gate knows of a permitted request. The layer passes it to the inner service as an extension of the request.
#[derive(Clone, Debug)]
pub struct Permitted {
    route: Arc<Route>,
    caller: Option<Arc<Verified>>,
    by: By,
    proof: Option<Box<UsedProof>>,
    after_session: bool,
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

impl<State> Permit<State> {
    /// The route that the request matched.
    pub fn route(&self) -> &Arc<Route> {
        &self.permitted.route
    }

    /// The caller. `None` on a public route, or on an optional route if the request has no token.
    pub fn caller(&self) -> Option<&Arc<Verified>> {
        self.permitted.caller.as_ref()
    }

    /// Who issued this permission.
    pub fn by(&self) -> By {
        self.permitted.by
    }

    /// The response headers about limits.
    pub fn quota(&self) -> Option<&QuotaFields> {
        self.permitted.quota()
    }

    /// Returns whether the response must clear the session cookie.
    pub fn clears_session(&self) -> bool {
        self.permitted.after_session
    }

    /// Gives the permission up. Returns the route and the caller.
    pub fn into_parts(self) -> (Arc<Route>, Option<Arc<Verified>>) {
        self.permitted.into_parts()
    }
}

impl Permit<Owing> {
    #[inline]
    fn new(route: &Arc<Route>, caller: Option<Arc<Verified>>, by: By) -> Self {
        let owed = Dues::on(route);
        let permitted =
            Permitted { route: Arc::clone(route), caller, by, proof: None, after_session: false, quota: None };
        Self { permitted, owed, state: PhantomData }
    }

    /// Takes the caller and the proof from `other`, for a request that passes two routes.
    #[must_use]
    pub fn with_caller_of(self, other: Self) -> Self {
        let Self { permitted: Permitted { caller, proof, .. }, owed, .. } = other;
        let own = self.owed.without(Due::Proof);
        let owed = if owed.has(Due::Proof) { own.with(Due::Proof) } else { own };
        Self { permitted: Permitted { caller, proof, ..self.permitted }, owed, ..self }
    }

    /// Marks a request whose session cookie was ignored because the session has ended.
    #[must_use]
    pub fn after_session(self) -> Self {
        Self { permitted: Permitted { after_session: true, ..self.permitted }, ..self }
    }

    /// Removes the caller, whose credential became invalid while the request waited. What the limits counted stays
    /// counted, but the response does not say what is left.
    #[must_use]
    pub fn without_caller(self) -> Self {
        let Permitted { route, by, .. } = self.permitted;
        let permitted = Permitted { route, caller: None, by, proof: None, after_session: false, quota: None };
        Self { permitted, owed: self.owed.without(Due::Proof), ..self }
    }

    /// Adds the caller's DPoP proof. The request owes the proof if the shared store must record it.
    #[must_use]
    pub fn proved_by(self, proof: Option<Box<UsedProof>>) -> Self {
        let owes = proof.as_ref().is_some_and(|proof| proof.owed.is_some());
        let owed = if owes { self.owed.with(Due::Proof) } else { self.owed };
        Self { permitted: Permitted { proof, ..self.permitted }, owed, ..self }
    }

    /// Takes the DPoP proof that the request owes, and owes until [`Self::proof_recorded`].
    pub fn take_owed_proof(&mut self) -> Option<ProofName> {
        self.permitted.proof.as_mut()?.owed.take()
    }

    /// Records that the shared store has recorded the proof.
    #[must_use]
    pub fn proof_recorded(self) -> Self {
        Self { owed: self.owed.without(Due::Proof), ..self }
    }

    /// Adds something to pay.
    #[must_use]
    pub fn owing(self, due: Due) -> Self {
        Self { owed: self.owed.with(due), ..self }
    }

    /// Returns whether the request owes this.
    pub fn owes(&self, due: Due) -> bool {
        self.owed.has(due)
    }

    /// Records that the limits have counted the request, or do not apply.
    #[must_use]
    pub fn counted(self, quota: Option<Box<QuotaFields>>) -> Self {
        Self { permitted: Permitted { quota, ..self.permitted }, owed: self.owed.without(Due::Count), ..self }
    }

    /// Records that the body of the request was checked.
    #[must_use]
    pub fn body_checked(self) -> Self {
        Self { owed: self.owed.without(Due::Body), ..self }
    }

    /// Records that an exchanged token is at hand, or that the route's exchange refuses the caller.
    #[must_use]
    pub fn exchanged(self) -> Self {
        Self { owed: self.owed.without(Due::Exchange), ..self }
    }

    /// The permission of a request that owes nothing.
    ///
    /// # Errors
    /// Returns the permit of a request that owes something.
    #[inline]
    pub fn settled(self) -> Result<Permit<Settled>, Self> {
        match self.owed {
            Dues(0) => Ok(Permit { permitted: self.permitted, owed: self.owed, state: PhantomData }),
            Dues(_) => Err(self),
        }
    }
}

impl Permit<Settled> {
    /// Uses the permission. The layer calls this as the last part of step 8.
    pub fn into_permitted(self) -> Permitted {
        self.permitted
    }
}

impl Permitted {
    /// The route that the request matched.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The caller. `None` on a public route, or on an optional route if the request has no token.
    pub fn caller(&self) -> Option<&Arc<Verified>> {
        self.caller.as_ref()
    }

    /// Returns whether the response must clear the session cookie.
    pub fn clears_session(&self) -> bool {
        self.after_session
    }

    /// Returns whether the response must contain a new nonce.
    pub fn renews_nonce(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.renews_nonce)
    }

    /// The response headers about limits.
    pub fn quota(&self) -> Option<&QuotaFields> {
        self.quota.as_deref()
    }

    /// Who issued this permission.
    pub fn by(&self) -> By {
        self.by
    }

    /// The route and the caller.
    pub fn into_parts(self) -> (Arc<Route>, Option<Arc<Verified>>) {
        (self.route, self.caller)
    }
}

/// Permits a request without a caller, on a public or optional route.
pub fn permit_anonymous(route: &Arc<Route>, by: By) -> Permit<Owing> {
    Permit::new(route, None, by)
}

/// Permits a request of the gate itself to an upstream: it has no caller, no limit counts it, and no token is exchanged.
pub fn permit_own(route: &Arc<Route>, by: By) -> Permit<Settled> {
    let Permit { permitted, .. } = Permit::new(route, None, by);
    Permit { permitted, owed: Dues(0), state: PhantomData }
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
) -> Result<Permit<Owing>, Denial> {
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
    Ok(Permit::new(route, Some(verified), by))
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
) -> Result<Permit<Owing>, Denial> {
    judge_observed(&route.policy, verified.token(), observer)?;
    Ok(Permit::new(route, Some(verified), by))
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

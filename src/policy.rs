//! From a [`Verified`] token and what a route asks to a [`Permitted`] request. Only this module makes one, and only a
//! [`Permitted`] can be forwarded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::denial::Denial;
use crate::route::{Auth, Route, RoutePolicy};
use crate::verify_cache::Verified;

/// A permitted request: its caller and its route. Found in the extensions of the request that
/// the inner service gets.
#[derive(Clone, Debug)]
pub struct Permitted {
    route: Arc<Route>,
    caller: Option<Arc<Verified>>,
    by: By,
}

/// Who permitted a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// The gate.
    pub gate: GateId,
    /// Did its layer, by its routes? Otherwise `require()` did, which knows nothing of them.
    pub layer: bool,
    /// Does it leave the audience to `require()`?
    pub defers: bool,
}

/// Tells gates apart: one believes what it has permitted itself, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateId(u64);

impl GateId {
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Permitted {
    /// The route that it matched.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The same request, by the caller of another route that it must pass too.
    pub(crate) fn of(self, other: Self) -> Self {
        Self { caller: other.caller, ..self }
    }

    /// The caller; `None` if the route asks for none, or if no credential was sent.
    pub fn caller(&self) -> Option<&Arc<Verified>> {
        self.caller.as_ref()
    }

    /// Who permitted it.
    pub(crate) fn by(&self) -> By {
        self.by
    }
}

impl Permitted {
    /// Route and caller.
    pub(crate) fn into_parts(self) -> (Arc<Route>, Option<Arc<Verified>>) {
        (self.route, self.caller)
    }
}

/// Permits a request without a caller, on a route that asks for none or where one is optional.
pub fn permit_anonymous(route: &Arc<Route>, by: By) -> Permitted {
    Permitted { route: Arc::clone(route), caller: None, by }
}

/// What a second policy of the same gate says of a caller whom a first one has let pass. That the token is for an audience
/// of ours is known then: the gate's own audience is asked for by the first policy alone.
///
/// # Errors
/// Those of [`authorise`].
pub(crate) fn authorise_again(route: &Arc<Route>, verified: Arc<Verified>, by: By) -> Result<Permitted, Denial> {
    let policy = &route.policy;
    if policy.auth != Auth::None {
        judge_issuer(policy, &verified)?;
        if !policy.audiences.is_empty() && !verified.token().is_for(&policy.audiences) {
            return Err(Denial::WrongAudience);
        }
        judge_scopes(policy, &verified)?;
    }
    Ok(Permitted { route: Arc::clone(route), caller: Some(verified), by })
}

/// A request whose token holds, for another audience than the gate's own, on its way to a `require()` that asks for that
/// audience. Nobody else takes it for permitted.
#[derive(Clone, Debug)]
pub(crate) struct Undecided {
    caller: Arc<Verified>,
    by: By,
    decided: Arc<AtomicBool>,
}

impl Undecided {
    pub(crate) fn new(caller: Arc<Verified>, by: By) -> Self {
        Self { caller, by, decided: Arc::default() }
    }

    pub(crate) fn caller(&self) -> &Arc<Verified> {
        &self.caller
    }

    pub(crate) fn by(&self) -> By {
        self.by
    }

    /// Has anybody judged it since?
    pub(crate) fn is_decided(&self) -> bool {
        self.decided.load(Ordering::Acquire)
    }

    /// The judgement of a route that asks for audiences.
    ///
    /// # Errors
    /// Those of [`authorise`].
    pub(crate) fn decide(&self, route: &Arc<Route>) -> Result<Permitted, Denial> {
        self.decided.store(true, Ordering::Release);
        if route.policy.audiences.is_empty() {
            return Err(Denial::WrongAudience);
        }
        authorise_again(route, Arc::clone(&self.caller), self.by)
    }
}

/// Judges what the route asks: issuer first, then audience, then scopes.
///
/// # Errors
/// [`Denial::WrongIssuer`], [`Denial::WrongAudience`], [`Denial::InsufficientScope`].
pub(crate) fn authorise(
    route: &Arc<Route>,
    verified: Arc<Verified>,
    own_audience: &Audiences,
    by: By,
) -> Result<Permitted, Denial> {
    judge(&route.policy, &verified, own_audience)?;
    Ok(Permitted { route: Arc::clone(route), caller: Some(verified), by })
}

pub(crate) fn judge(policy: &RoutePolicy, verified: &Verified, own_audience: &Audiences) -> Result<(), Denial> {
    let token = verified.token();
    judge_issuer(policy, verified)?;
    let in_audience = if policy.audiences.is_empty() {
        own_audience.of(&token.issuer).is_some_and(|audience| token.is_for(audience))
    } else {
        token.is_for(&policy.audiences)
    };
    if !in_audience {
        return Err(Denial::WrongAudience);
    }
    judge_scopes(policy, verified)
}

fn judge_issuer(policy: &RoutePolicy, verified: &Verified) -> Result<(), Denial> {
    let token = verified.token();
    if policy.takes(&token.issuer_name, token.everywhere) { Ok(()) } else { Err(Denial::WrongIssuer) }
}

fn judge_scopes(policy: &RoutePolicy, verified: &Verified) -> Result<(), Denial> {
    if policy.scopes.is_within(&verified.token().scope) { Ok(()) } else { Err(Denial::InsufficientScope) }
}

/// Audiences by issuer, of which its tokens must name one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audiences(pub(crate) Vec<(Arc<str>, Vec<Box<str>>)>);

impl Audiences {
    pub(crate) fn of(&self, issuer: &str) -> Option<&[Box<str>]> {
        self.0.iter().find(|(known, _)| **known == *issuer).map(|(_, audience)| audience.as_slice())
    }
}

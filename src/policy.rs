//! From a [`Verified`] token and what a route asks to a [`Permitted`] request. Only this module makes one, and only a
//! [`Permitted`] can be forwarded.

use std::sync::Arc;

use crate::denial::Denial;
use crate::route::{Route, RoutePolicy};
use crate::verified::Verified;

/// A request that its route lets pass: who the caller is, and where it goes. Found in the extensions of the request that
/// the inner service gets.
#[derive(Clone, Debug)]
pub struct Permitted {
    route: Arc<Route>,
    caller: Option<Arc<Verified>>,
}

impl Permitted {
    /// The route that it matched.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Who the caller is; `None` where the route asks nobody, or where nobody said.
    pub fn caller(&self) -> Option<&Arc<Verified>> {
        self.caller.as_ref()
    }
}

impl Permitted {
    /// Route and caller.
    pub(crate) fn into_parts(self) -> (Arc<Route>, Option<Arc<Verified>>) {
        (self.route, self.caller)
    }
}

/// Lets a request of nobody pass, on a route that asks nobody or leaves it open.
pub(crate) fn permit_anonymous(route: &Arc<Route>) -> Permitted {
    Permitted { route: Arc::clone(route), caller: None }
}

/// Judges what the route asks: audience first, then scopes.
///
/// # Errors
/// [`Denial::WrongAudience`], [`Denial::InsufficientScope`].
pub(crate) fn authorise(
    route: &Arc<Route>,
    verified: Arc<Verified>,
    own_audience: &Audiences,
) -> Result<Permitted, Denial> {
    judge(&route.policy, &verified, own_audience)?;
    Ok(Permitted { route: Arc::clone(route), caller: Some(verified) })
}

/// The same judgement, without a route around it.
pub(crate) fn judge(policy: &RoutePolicy, verified: &Verified, own_audience: &Audiences) -> Result<(), Denial> {
    let token = verified.token();
    let in_audience = if policy.audiences.is_empty() {
        own_audience.of(&token.issuer).is_some_and(|audience| token.is_for(audience))
    } else {
        token.is_for(&policy.audiences)
    };
    if !in_audience {
        return Err(Denial::WrongAudience);
    }
    if policy.scopes.is_within(&token.scope) { Ok(()) } else { Err(Denial::InsufficientScope) }
}

/// The audience that each issuer's tokens must name on routes that ask for none of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audiences(pub(crate) Vec<(Arc<str>, Vec<Box<str>>)>);

impl Audiences {
    fn of(&self, issuer: &str) -> Option<&[Box<str>]> {
        self.0.iter().find(|(known, _)| **known == *issuer).map(|(_, audience)| audience.as_slice())
    }
}

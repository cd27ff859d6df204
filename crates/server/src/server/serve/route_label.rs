//! The metric labels of a request: route and outcome.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rotogate::gate::{Reason, Verdict};
use rotogate_core::route::Route;

/// A route as a label. The label references the route instead of copying its id.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum RouteLabel<R = Arc<Route>> {
    Route(R),
    Endpoint,
    /// The gate responds to a CORS preflight before routing.
    Preflight,
    /// No route was found before the refusal.
    #[default]
    None,
}

/// A borrowed route. Cloning the `Arc` for a lookup would write to memory that all threads share.
pub(crate) type RouteRef<'a> = RouteLabel<&'a Arc<Route>>;

impl<R: AsRef<Route>> RouteLabel<R> {
    fn new(route: Option<R>, is_endpoint: bool) -> Self {
        match route {
            Some(route) => Self::Route(route),
            None if is_endpoint => Self::Endpoint,
            None => Self::None,
        }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Route(route) => &route.as_ref().id,
            Self::Endpoint => ENDPOINT,
            Self::Preflight => PREFLIGHT,
            Self::None => NO_ROUTE,
        }
    }
}

impl RouteLabel {
    pub(crate) fn from_verdict(verdict: Option<Verdict>) -> Self {
        let Some(verdict) = verdict else { return Self::Preflight };
        let is_endpoint = verdict.operation().is_some();
        Self::new(verdict.route, is_endpoint)
    }
}

impl<'a> RouteRef<'a> {
    pub(super) fn borrowed_from(verdict: Option<&'a Verdict>) -> Self {
        let Some(verdict) = verdict else { return Self::Preflight };
        Self::new(verdict.route.as_ref(), verdict.operation().is_some())
    }

    pub(crate) fn label(self) -> RouteLabel {
        match self {
            Self::Route(route) => RouteLabel::Route(Arc::clone(route)),
            Self::Endpoint => RouteLabel::Endpoint,
            Self::Preflight => RouteLabel::Preflight,
            Self::None => RouteLabel::None,
        }
    }
}

pub(crate) const ENDPOINT: &str = "_endpoint";
const PREFLIGHT: &str = "_preflight";
pub(crate) const NO_ROUTE: &str = "_none";

impl PartialEq for RouteLabel {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for RouteLabel {}

impl Borrow<str> for RouteLabel {
    fn borrow(&self) -> &str {
        self.id()
    }
}

impl Hash for RouteLabel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

pub(crate) fn outcome(verdict: Option<&Verdict>) -> Reason {
    verdict.map_or(Reason::PREFLIGHT, |verdict| verdict.reason)
}

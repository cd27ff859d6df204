//! The labels of a request in the metrics: its route and its outcome.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rotogate::gate::{Reason, Verdict};
use rotogate_core::route::Route;

/// A route as a label. It refers to the route, so that requests do not copy the id of the route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum RouteLabel<R = Arc<Route>> {
    Route(R),
    /// A request to one of the gate's own endpoints.
    Endpoint,
    /// A CORS preflight, to which the gate responds before routing.
    Preflight,
    /// A request that was refused before a route was found.
    #[default]
    None,
}

/// The route of a verdict that is still needed. The route is borrowed, because cloning the `Arc` for a lookup would
/// write to memory that all threads share.
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
    /// Returns the route of a verdict that is no longer needed.
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

const ENDPOINT: &str = "_endpoint";
const PREFLIGHT: &str = "_preflight";
const NO_ROUTE: &str = "_none";

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

/// Returns the outcome of a request, as in the access log and the metrics.
pub(crate) fn outcome(verdict: Option<&Verdict>) -> Reason {
    verdict.map_or(Reason::PREFLIGHT, |verdict| verdict.reason)
}

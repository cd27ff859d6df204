//! The labels of a request in the metrics: its route and its outcome.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rotogate::gate::{Reason, Verdict};
use rotogate_core::route::Route;

/// A route as a label. Shares the route, so that no request copies its id.
#[derive(Clone, Debug, Default)]
pub(crate) enum RouteLabel {
    Route(Arc<Route>),
    /// One of the gate's own endpoints.
    Endpoint,
    /// A CORS preflight, answered before routing.
    Preflight,
    /// Refused before a route was found.
    #[default]
    None,
}

impl RouteLabel {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Route(route) => &route.id,
            Self::Endpoint => ENDPOINT,
            Self::Preflight => PREFLIGHT,
            Self::None => NO_ROUTE,
        }
    }

    /// The route of a verdict that is not needed any more.
    pub(crate) fn from_verdict(verdict: Option<Verdict>) -> Self {
        let Some(verdict) = verdict else { return Self::Preflight };
        let operation = verdict.operation();
        match (verdict.route, operation) {
            (Some(route), _) => Self::Route(route),
            (None, Some(_)) => Self::Endpoint,
            (None, None) => Self::None,
        }
    }
}

/// The route of a verdict that is still needed. It borrows the route: cloning the `Arc` for a look-up would write to
/// memory that all threads share.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RouteRef<'a> {
    Route(&'a Arc<Route>),
    Endpoint,
    Preflight,
    None,
}

impl<'a> RouteRef<'a> {
    pub(super) fn from_verdict(verdict: Option<&'a Verdict>) -> Self {
        let Some(verdict) = verdict else { return Self::Preflight };
        match (&verdict.route, verdict.operation()) {
            (Some(route), _) => Self::Route(route),
            (None, Some(_)) => Self::Endpoint,
            (None, None) => Self::None,
        }
    }

    pub(crate) fn label(self) -> RouteLabel {
        match self {
            Self::Route(route) => RouteLabel::Route(Arc::clone(route)),
            Self::Endpoint => RouteLabel::Endpoint,
            Self::Preflight => RouteLabel::Preflight,
            Self::None => RouteLabel::None,
        }
    }

    pub(crate) fn id(self) -> &'a str {
        match self {
            Self::Route(route) => &route.id,
            Self::Endpoint => ENDPOINT,
            Self::Preflight => PREFLIGHT,
            Self::None => NO_ROUTE,
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

/// The outcome of a request, as in the access log and the metrics.
pub(crate) fn outcome(verdict: Option<&Verdict>) -> Reason {
    verdict.map_or(Reason::PREFLIGHT, |verdict| verdict.reason)
}

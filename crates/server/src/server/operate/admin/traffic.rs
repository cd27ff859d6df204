//! The operator's view of routes and upstreams.

use std::cmp::Reverse;

use http::Method;
use rotogate_core::route::{DEFAULT_METHODS, REGISTERED_METHODS, Route};
use serde::Serialize;
use utoipa::ToSchema;

use super::AdminState;
use super::routes::{RouteCounts, RouteFigures};
use crate::server::serve::route_label::{ENDPOINT, NO_ROUTE};
use rotogate_proxy::UpstreamAddress;

/// The routes.
#[derive(Serialize, ToSchema)]
pub(super) struct Routes {
    /// The routes in matching order. If two routes could serve a request, the first one serves it.
    pub(super) routes: Vec<RouteInfo>,
    /// The requests that belong to no route.
    pub(super) others: Vec<OtherRequests>,
}

/// Requests that belong to no route.
#[derive(Serialize, ToSchema)]
pub(super) struct OtherRequests {
    /// `_none` for requests that were refused before a route was found, or `_endpoint` for the gate's own endpoints.
    pub(super) id: &'static str,
    #[serde(flatten)]
    pub(super) figures: RouteFigures,
}

/// A route.
#[derive(Serialize, ToSchema)]
pub(super) struct RouteInfo {
    /// The route's id in logs and metrics.
    pub(super) id: String,
    /// The hosts that the route serves. Empty for every host that is not listed in a route.
    pub(super) hosts: Vec<String>,
    /// The pattern of the route's path. Empty for a rule that only applies to MCP calls.
    pub(super) path: String,
    /// The methods that the route serves.
    pub(super) methods: Vec<String>,
    /// Whether the route serves every method that routes can serve.
    #[serde(skip)]
    pub(super) any_method: bool,
    /// `required`, `optional` or `none`.
    pub(super) auth: &'static str,
    /// The scopes that a token must have. All of them are required.
    pub(super) scopes: Vec<String>,
    /// The scopes of which a token must have at least one.
    pub(super) any_scope: Vec<String>,
    /// The roles of which a token must have at least one.
    pub(super) roles: Vec<String>,
    /// The roles that a token must have. All of them are required.
    pub(super) all_roles: Vec<String>,
    /// The accepted issuers. Empty for the gate itself, and the issuers that every route accepts.
    pub(super) issuers: Vec<String>,
    /// The name of the route's upstream.
    pub(super) upstream: Option<String>,
    #[serde(flatten)]
    pub(super) figures: RouteFigures,
}

/// The routes in matching order, with their requests of the last 15 minutes.
#[utoipa::path(
    get, path = "/v1/routes", operation_id = "list_routes", tag = "routes",
    responses((status = 200, description = "done", body = Routes))
)]
pub(super) fn routes(state: &AdminState) -> Routes {
    let config = state.config.load();
    let mut sorted: Vec<&Route> = config.routes.iter().collect();
    // The routing table tries routes by host, then by specific pattern, then by methods.
    sorted.sort_by_cached_key(|route| (route.hosts.is_empty(), specificity(&route.path), route.methods.is_empty()));
    let counts = state.history.routes(RouteCounts::read(state));
    Routes {
        routes: sorted.into_iter().map(|route| info(state, route, &counts)).collect(),
        others: [NO_ROUTE, ENDPOINT].map(|id| OtherRequests { id, figures: counts.figures(id) }).into(),
    }
}

fn info(state: &AdminState, route: &Route, counts: &RouteCounts) -> RouteInfo {
    let policy = &route.policy;
    let texts = |words: &[String]| words.to_vec();
    let name = |method: &Method| method.as_str().to_owned();
    let methods = match route.methods.is_empty() {
        true => DEFAULT_METHODS.iter().map(name).chain(REGISTERED_METHODS.iter().copied().map(str::to_owned)).collect(),
        false => route.methods.iter().map(name).collect(),
    };
    RouteInfo {
        id: route.id.to_string(),
        hosts: texts(&route.hosts),
        path: route.path.clone(),
        methods,
        any_method: route.methods.is_empty(),
        auth: policy.auth.word(),
        scopes: policy.scopes.iter().map(str::to_owned).collect(),
        any_scope: policy.any_scope.iter().map(str::to_owned).collect(),
        roles: policy.roles.iter().map(ToString::to_string).collect(),
        all_roles: policy.all_roles.iter().map(ToString::to_string).collect(),
        issuers: texts(&policy.issuers),
        upstream: route
            .upstream
            .and_then(|upstream| state.serving.load().proxy.with_name(upstream, |name| name.map(str::to_owned))),
        figures: counts.figures(&route.id),
    }
}

/// Sorts plain segments before `{name}`, and `{name}` before `{*rest}`.
fn specificity(path: &str) -> Vec<(u8, Reverse<usize>, String)> {
    let kind = |segment: &str| match segment {
        _ if segment.starts_with("{*") => 2,
        _ if segment.starts_with('{') => 1,
        _ => 0,
    };
    path.split('/').map(|segment| (kind(segment), Reverse(segment.len()), segment.to_owned())).collect()
}

/// The upstreams.
#[derive(Serialize, ToSchema)]
pub(super) struct Upstreams {
    /// The upstreams in the order of the configuration.
    pub(super) upstreams: Vec<UpstreamInfo>,
}

/// An upstream.
#[derive(Serialize, ToSchema)]
pub(super) struct UpstreamInfo {
    pub(super) name: String,
    /// The number of requests in flight, including streams and tunnels.
    pub(super) in_flight: usize,
    /// The number of open connections.
    pub(super) connections: usize,
    /// The addresses to which requests are sent.
    pub(super) addresses: Vec<AddressInfo>,
}

/// An address of an upstream.
#[derive(Serialize, ToSchema)]
pub(super) struct AddressInfo {
    /// The address, as the log writes it.
    pub(super) address: String,
    /// `up`; `failing` if it is in service but its last attempts failed; `ejected` after failures; or `unhealthy`
    /// according to its health checks.
    pub(super) state: &'static str,
    /// The number of requests in flight.
    pub(super) in_flight: usize,
}

/// Lists the upstreams, with the state of each address.
#[utoipa::path(
    get, path = "/v1/upstreams", operation_id = "list_upstreams", tag = "routes",
    responses((status = 200, description = "done", body = Upstreams))
)]
pub(super) fn upstreams(state: &AdminState) -> Upstreams {
    let address =
        |UpstreamAddress { name, state, in_flight }: UpstreamAddress| AddressInfo { address: name, state, in_flight };
    let upstreams = state.serving.load().proxy.report().into_iter().map(|report| UpstreamInfo {
        name: report.name,
        in_flight: report.in_flight,
        connections: report.connections,
        addresses: report.addresses.into_iter().map(address).collect(),
    });
    Upstreams { upstreams: upstreams.collect() }
}

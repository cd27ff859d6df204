//! Health and metrics.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use rotogate::gate::Readiness;

use super::problem::Problem;
use super::state::GateState;
use super::{AdminState, Body, plain};

pub(crate) const ALIVE: &str = "alive\n";

/// Responds that the process is running.
#[utoipa::path(get, path = "/livez", operation_id = "live", tag = "health", responses((status = 200, description = "the process runs", body = String, content_type = "text/plain"), (status = "4XX", description = "the method is not allowed, or `Host` is neither an IP address nor a name in `admin.hosts` (421)", body = Problem, content_type = "application/problem+json")))]
pub(super) fn live() -> Response<Body> {
    plain(StatusCode::OK, ALIVE)
}

/// Reports whether the gate can serve requests, and its problems. The response also lists the states of issuers.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    tag = "health",
    responses(
        (status = 200, description = "the gate can serve requests, possibly with problems", body = String, content_type = "text/plain"),
        (status = 503, description = "the gate cannot serve requests; the body says why", body = String, content_type = "text/plain"),
        (status = "4XX", description = "the method is not allowed, or `Host` is neither an IP address nor a name in `admin.hosts` (421)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ready(state: &AdminState) -> Response<Body> {
    let (is_ready, readiness) = readiness(state).await;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let found = GateState::judged(state, is_ready, &readiness);
    // A gate whose upstream fails is still ready. Otherwise an orchestrator would stop sending requests to the gate.
    let first = if readiness == "ready" { found.word } else { &readiness };
    let problems = found.problems.iter().filter(|problem| problem.what != readiness);
    let problems: String = problems.map(|problem| format!("problem: {}\n", problem.what)).collect();
    plain(status, &format!("{first}\n{problems}{}", state.remote_issuers.states()))
}

pub(super) async fn readiness(state: &AdminState) -> (bool, String) {
    if *state.stopping.borrow() {
        return (false, "stopping".to_owned());
    }
    let ready = match state.gate.own_readiness().await {
        Readiness::Ready => "ready".to_owned(),
        Readiness::Degraded(why) => format!("degraded: {why}"),
        Readiness::NotReady(why) => return (false, format!("not ready: {why}")),
        _ => return (false, "not ready".to_owned()),
    };
    match state.remote_issuers.missing() {
        None => (true, ready),
        Some(issuer) => (false, format!("not ready: issuer {issuer} has no keys yet")),
    }
}

pub(super) async fn is_store_up(state: &AdminState) -> bool {
    matches!(state.gate.store_readiness().await, Readiness::Ready | Readiness::Degraded(_))
}

/// The metrics in the text format of OpenMetrics or Prometheus, as requested by `Accept`. A request over loopback needs
/// no token.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "health",
    responses((status = 200, description = "the metrics", body = String, content_type = "text/plain"), (status = "4XX", description = "the method is not allowed, or `Host` is neither an IP address nor a name in `admin.hosts` (421)", body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn metrics(state: &AdminState, headers: &HeaderMap) -> Response<Body> {
    const OPEN: &str = "application/openmetrics-text";
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_open = accepted.flat_map(|value| value.split(',')).any(|media| media.trim().starts_with(OPEN));
    let (is_ready, _) = readiness(state).await;
    let mut response = plain(StatusCode::OK, &state.metrics.text(is_ready, is_store_up(state).await, is_open));
    let media = match is_open {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

//! CORS preflights (requirement T19). The gate replies unless the route leaves the reply to its upstream.

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN};
use http::{HeaderMap, Method, Uri};

use super::Inner;
use rotogate_core::route::Match;
use rotogate_core::route::path::CanonicalPath;

/// Returns the requested method of a preflight (Fetch standard, «CORS-preflight request»). Returns `None` if the
/// request is not a preflight.
pub(super) fn requested_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// Returns whether the route leaves the reply to the upstream.
pub(super) fn is_for_upstream(gate: &Inner, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let Some(requested) = requested_method(method, headers) else { return false };
    let Ok(path) = CanonicalPath::parse(uri.path()) else { return false };
    if gate.endpoints.find(&path, uri.path()).is_some() {
        return false;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match gate.routes.find(host, &requested, &path) {
        Match::Found(route) => route.policy.preflight_to_upstream,
        Match::Ambiguous(_) | Match::MethodNotAllowed(_) | Match::None => false,
    }
}

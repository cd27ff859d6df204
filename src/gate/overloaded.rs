//! Load shedding: the response to a request that exceeds a limit. `Gate::overloaded` neither authorises nor counts the
//! request. The reply is in the client's dialect: some clients would read another format as success.

use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode, header::HOST};

use super::{Inner, endpoint::Hit};
use crate::dialect::{Dialect, Reply};
use rotogate_core::overload::{Refusal, TRY_AGAIN};
use rotogate_core::reply;
use rotogate_core::route::{Match, Route, path::CanonicalPath};

pub(super) fn overloaded(refusal: Refusal, dialect: Option<&dyn Dialect>, headers: &HeaderMap) -> Reply {
    let why = refusal.why();
    if reply::is_grpc(headers) {
        return reply::grpc_status(reply::GrpcCode::Unavailable, why);
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let worded = dialect.and_then(<dyn Dialect>::protocol).and_then(|protocol| protocol.failed(status, why));
    let mut reply = worded.unwrap_or_else(|| reply::problem(status, Some(why)));
    reply::retry_after(&mut reply, TRY_AGAIN);
    reply
}

impl Inner {
    /// Returns the dialect of the refusal, and the matching route. A malformed request has neither.
    pub(super) fn speaks<B>(&self, request: &Request<B>) -> (Option<&dyn Dialect>, Option<Arc<Route>>) {
        let uri = request.uri();
        let Ok(path) = CanonicalPath::parse(uri.path()) else { return (None, None) };
        match self.endpoints.find(&path, uri.path()) {
            Some(Hit::Operation(operation)) => return (self.endpoints.dialect(operation.endpoint()), None),
            Some(Hit::NearMiss(endpoint)) => {
                return (endpoint.and_then(|endpoint| self.endpoints.dialect(endpoint)), None);
            }
            Some(Hit::Jwks | Hit::Metadata(_) | Hit::Resource(_)) => return (None, None),
            None => {}
        }
        let named = || request.headers().get(HOST)?.to_str().ok();
        match self.routes.find(uri.host().or_else(named), request.method(), &path) {
            Match::Found(route) | Match::Ambiguous(route) => (self.dialect(&route.policy), Some(Arc::clone(route))),
            Match::MethodNotAllowed(_) | Match::None => (None, None),
        }
    }
}

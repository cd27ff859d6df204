//! The reply to a request for which there is no place. Nothing of it is judged: it finds no credential, asks no limit
//! and reads no body. What is looked for is only in whose words it is refused, because some clients take any other words
//! for a success.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode};

use super::endpoint::Hit;
use super::{Gate, Inner, Verdict, respond};
use crate::dialect::{Dialect, Reply};
use crate::reason::Reason;
use crate::route::path::CanonicalPath;
use crate::route::{Match, Route};

const WHY: &str = "too many requests are under way";
/// When to try again. Long enough that who keeps to it makes the load smaller, and short enough to wait for.
pub(crate) const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Gate {
    /// 503 with `Retry-After`, or gRPC's `UNAVAILABLE`.
    pub(crate) fn overloaded<B>(&self, request: &Request<B>) -> (Reply, Verdict) {
        let (dialect, route) = self.0.speaks(request);
        let reply = if respond::is_grpc(request.headers()) {
            respond::grpc_status("14", WHY)
        } else {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let worded = dialect.and_then(|dialect| dialect.failed(status, WHY));
            let mut reply = worded.unwrap_or_else(|| respond::problem(status, Some(WHY)));
            respond::retry_after(&mut reply, TRY_AGAIN);
            reply
        };
        let reason = Reason::OVERLOADED;
        reason.tell();
        (reply, Verdict { route, ..Verdict::new(reason) })
    }
}

impl Inner {
    /// In whose words a request would be refused, and its route. One that is malformed has neither.
    fn speaks<B>(&self, request: &Request<B>) -> (Option<&dyn Dialect>, Option<Arc<Route>>) {
        let uri = request.uri();
        let Ok(path) = CanonicalPath::parse(uri.path()) else { return (None, None) };
        match self.endpoints.find(&path, uri.path()) {
            Some(Hit::Operation(operation)) => return (self.endpoints.dialect(operation.endpoint()), None),
            Some(Hit::NearMiss(endpoint)) => {
                return (endpoint.and_then(|endpoint| self.endpoints.dialect(endpoint)), None);
            }
            Some(Hit::Jwks | Hit::Metadata) => return (None, None),
            None => {}
        }
        let named = || request.headers().get(HOST)?.to_str().ok();
        match self.routes.find(uri.host().or_else(named), request.method(), &path) {
            Match::Found(route) | Match::Ambiguous(route) => (self.dialect(&route.policy), Some(Arc::clone(route))),
            Match::MethodNotAllowed(_) | Match::None => (None, None),
        }
    }
}

//! CORS (requirement T19) with a list of origins. The gate responds to preflights before authentication.

use std::convert::Infallible;
use std::pin::Pin;

use futures_util::future::Either;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use super::body::RequestBody;
use super::request::ReplyBody;
use crate::server::error::KeyFault;
use rotogate::Gate;
use rotogate_config::{Config, CorsConfig};

static DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
static MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

#[derive(Debug)]
pub(crate) struct Cors<S> {
    gate: Gate,
    plain: S,
    /// `None` if no origin is allowed. Responses then have no CORS headers.
    with_cors: Option<tower_http::cors::Cors<S>>,
}

impl<S: Clone> Cors<S> {
    pub(crate) fn new(config: &Config, gate: Gate, inner: S) -> Result<Self, KeyFault> {
        let CorsConfig { origins, allow_credentials, max_age, expose } = &config.cors;
        let (allow_credentials, max_age) = (*allow_credentials, *max_age);
        let mut expose = expose.clone();
        // Pages that use DPoP need both headers for their next proof (RFC 9449 §8, §9). MCP pages need the challenge
        // and the session id.
        let of_dpop = [WWW_AUTHENTICATE, DPOP_NONCE.clone()].into_iter().filter(|_| config.uses_dpop());
        let is_mcp = config.resources.iter().any(|resource| resource.mcp.is_some());
        let of_mcp = [WWW_AUTHENTICATE, MCP_SESSION_ID.clone()].into_iter().filter(|_| is_mcp);
        for name in of_dpop.chain(of_mcp) {
            if !expose.contains(&name) {
                expose.push(name);
            }
        }
        let allowed = origins
            .iter()
            .map(HeaderValue::try_from)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| KeyFault::new("cors.origins", "not an origin"))?;
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::list(allowed))
            .allow_methods(AllowMethods::mirror_request())
            .allow_headers(AllowHeaders::mirror_request())
            .allow_credentials(allow_credentials)
            .max_age(max_age);
        let layer = if expose.is_empty() { layer } else { layer.expose_headers(expose) };
        let with_cors = (!origins.is_empty()).then(|| layer.layer(inner.clone()));
        Ok(Self { gate, with_cors, plain: inner })
    }
}

pub(crate) fn answers(config: &CorsConfig, gate: &Gate, head: &Parts) -> bool {
    if config.origins.is_empty() || !is_preflight(&head.method, &head.headers) {
        return false;
    }
    let request = Request::from_parts(head.clone(), ());
    !gate.leaves_preflight_to_upstream(&request) && !gate.answers_any_origin(&request)
}

fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// tower-http's future is boxed, because its header map would enlarge the future of every request.
pub(crate) type CorsFuture<F> = Either<F, Pin<Box<tower_http::cors::ResponseFuture<F>>>>;

impl<S> Cors<S>
where
    S: Service<Request<RequestBody>, Response = Response<ReplyBody>, Error = Infallible> + Clone,
{
    /// Calls the service, which is always ready. Clones only one of the two services, because a clone writes to memory
    /// that all threads share.
    pub(crate) fn call(&self, request: Request<RequestBody>) -> CorsFuture<S::Future> {
        let Some(with_cors) = &self.with_cors else { return Either::Left(self.plain.clone().call(request)) };
        // tower-http treats every `OPTIONS` request as a preflight, even without the preflight headers.
        let plain = *request.method() == Method::OPTIONS && !is_preflight(request.method(), request.headers());
        if !plain && !self.gate.leaves_preflight_to_upstream(&request) && !self.gate.answers_any_origin(&request) {
            Either::Right(Box::pin(with_cors.clone().call(request)))
        } else {
            Either::Left(self.plain.clone().call(request))
        }
    }
}

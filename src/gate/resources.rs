//! The metadata documents of protected resources (RFC 9728). All URLs come from the configuration, never from `Host`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use super::Inner;
use super::builder::error::BuildError;
use super::mcp::ReadyMcp;
use super::require::RequireLayer;
use rotogate_core::denial::Denial;
use rotogate_core::dpop::ALGORITHM_NAMES;
use rotogate_core::reason::Reason;
use rotogate_core::reply::{self, Reply};
use rotogate_core::route::{Implied, Resource, Route};
use rotogate_core::session::scope::{Scope, impossible};

const MAX_AGE: HeaderValue = HeaderValue::from_static("max-age=300");

#[derive(Debug)]
pub(super) struct ReadyResource {
    pub(super) path: String,
    /// The identifier, which is the audience of the resource's tokens.
    pub(super) url: String,
    pub(super) is_ours: bool,
    pub(super) document_path: String,
    pub(super) document_url: String,
    pub(super) scopes: Scope,
    pub(super) implied: Option<Arc<Implied>>,
    /// `None` if the gate does not authorise MCP calls individually.
    pub(super) mcp: Option<ReadyMcp>,
    document: Bytes,
}

#[derive(Serialize)]
struct Document<'a> {
    resource: &'a str,
    authorization_servers: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<&'a str>,
    bearer_methods_supported: [&'static str; 1],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_client_certificate_bound_access_tokens: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dpop_bound_access_tokens_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dpop_signing_alg_values_supported: Option<[&'static str; ALGORITHM_NAMES.len()]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_name: Option<&'a str>,
}

pub(super) fn ready(
    resources: Vec<Resource>,
    routes: &mut [Route],
    issuer: &str,
    (public_url, uses_dpop): (&str, bool),
    old: Option<&Inner>,
) -> Result<Vec<ReadyResource>, BuildError> {
    let mut all: Vec<ReadyResource> = Vec::new();
    for mut resource in resources {
        if let Some(why) = resource.problem() {
            return Err(BuildError::Resource { path: resource.path, why: why.into() });
        }
        if all.iter().any(|other| other.path == resource.path) {
            return Err(BuildError::Resource { path: resource.path, why: "two resources have this path".into() });
        }
        let of_it = |route: &Route| route.policy.resource.as_ref() == Some(&resource.path);
        if resource.mcp.is_none() && routes.iter().any(|route| of_it(route) && !route.calls.is_empty()) {
            let why = "a route has rules for the resource's MCP calls, but `Resource::mcp`, which reads the calls, \
                       is not set";
            return Err(BuildError::Resource { path: resource.path, why: why.into() });
        }
        if resource.mcp.is_some() && routes.iter().any(|route| of_it(route) && route.policy.upgrade) {
            let why = "`Resource::mcp` checks each call, but a route allows tunnels (`upgrade`), in which the gate \
                       cannot check calls";
            return Err(BuildError::Resource { path: resource.path, why: why.into() });
        }
        let implied = std::mem::take(&mut resource.implies);
        let implied = (implied != Implied::default()).then(|| Arc::new(implied));
        if implied.is_some() {
            routes.iter_mut().filter(|route| of_it(route)).for_each(|it| it.policy.implied.clone_from(&implied));
        }
        let url = resource.url(public_url);
        let own = [issuer.to_owned()];
        let servers =
            if resource.authorization_servers.is_empty() { &own[..] } else { &resource.authorization_servers };
        let of_it = || routes.iter().filter(|route| of_it(route)).map(|route| &route.policy);
        let document = Document {
            resource: &url,
            authorization_servers: servers,
            scopes_supported: resource.scopes.iter().collect(),
            bearer_methods_supported: ["header"],
            tls_client_certificate_bound_access_tokens: of_it().any(|policy| policy.certificate_required),
            dpop_bound_access_tokens_required: of_it().next().is_some() && of_it().all(|policy| policy.dpop_required),
            dpop_signing_alg_values_supported: uses_dpop.then_some(ALGORITHM_NAMES),
            resource_name: resource.name.as_deref(),
        };
        let document_path = resource.document_path();
        all.push(ReadyResource {
            document: serde_json::to_vec(&document).unwrap_or_default().into(),
            document_url: format!("{}{document_path}", public_url.trim_end_matches('/')),
            document_path,
            is_ours: servers.iter().any(|server| server == issuer),
            scopes: resource.scopes,
            implied,
            mcp: resource.mcp.map(|mcp| ReadyMcp::new(&resource.path, mcp, routes, old)).transpose()?,
            path: resource.path,
            url,
        });
    }
    for route in routes {
        let Some(path) = &route.policy.resource else { continue };
        let Some(resource) = all.iter().find(|resource| resource.path == *path) else {
            let why = "a route names the resource, but the gate has no description of it";
            return Err(BuildError::Resource { path: path.clone(), why: why.into() });
        };
        if !route.policy.audiences.contains(&resource.url) {
            route.policy.audiences.push(resource.url.clone());
        }
    }
    Ok(all)
}

impl RequireLayer {
    /// Applies the requirements of the protected resource with this path
    /// ([`Resource`](rotogate_core::route::Resource)). The token must be for the resource's audience. A scope that
    /// [implies](rotogate_core::route::Resource::implies) a required scope suffices. Challenges name the resource's
    /// metadata. Behind [`Gate::layer`](super::Gate::layer), use the same resource as the layer's route.
    ///
    /// ```
    /// # fn example(gate: &rotogate::Gate) -> rotogate::gate::RequireLayer {
    /// gate.require().resource("/files").scope("files.read")
    /// # }
    /// ```
    #[must_use]
    // Requirement M10.
    pub fn resource(self, path: impl Into<String>) -> Self {
        let path = path.into();
        let Some(resource) = named(&self.gate.0.resources, Some(&path)) else {
            tracing::error!(
                resource = path,
                "unknown resource in `require()`: every request is refused. Name the path of a resource of the gate"
            );
            return self.policy(|policy| policy.scopes = impossible());
        };
        let (implied, audience) = (resource.implied.clone(), resource.url.clone());
        self.policy(|policy| (policy.resource, policy.implied) = (Some(path), implied)).audience(audience)
    }
}

pub(super) fn named<'a>(all: &'a [ReadyResource], path: Option<&str>) -> Option<&'a ReadyResource> {
    all.iter().find(|resource| path == Some(&*resource.path))
}

/// Returns the resource of the requested tokens (RFC 8707), if this gate issues them. URLs are compared byte for byte,
/// so a relative URL or a URL with a fragment does not match.
// Requirement N45.
pub(super) fn granted(all: &[ReadyResource], asked: Option<Box<str>>) -> Result<Option<Box<str>>, Denial> {
    let is_granted = |asked: &str| all.iter().any(|resource| resource.is_ours && resource.url == asked);
    match asked {
        Some(asked) if !is_granted(&asked) => Err(Denial::InvalidTarget),
        asked => Ok(asked),
    }
}

/// Pages of any origin may read the document, because it is the same for every caller.
pub(super) fn document(resource: &ReadyResource, method: &Method) -> (Reply, Reason) {
    let mut reply = match *method {
        Method::GET | Method::HEAD => {
            let mut reply = Response::new(resource.document.clone().into());
            reply.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            reply.headers_mut().insert(CACHE_CONTROL, MAX_AGE);
            reply
        }
        Method::OPTIONS => {
            let mut reply: Reply = Response::new(Bytes::new().into());
            *reply.status_mut() = StatusCode::NO_CONTENT;
            for (name, value) in [
                (http::header::ALLOW, "GET, HEAD, OPTIONS"),
                (http::header::ACCESS_CONTROL_ALLOW_METHODS, "GET"),
                // The MCP SDK sends this header.
                (http::header::ACCESS_CONTROL_ALLOW_HEADERS, "mcp-protocol-version"),
                (http::header::ACCESS_CONTROL_MAX_AGE, "300"),
            ] {
                reply.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            reply
        }
        _ => {
            let allowed = [Method::GET, Method::HEAD, Method::OPTIONS];
            return (reply::method_not_allowed(&allowed), Denial::MethodNotAllowed.into());
        }
    };
    reply.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    (reply, Reason::ANSWERED)
}

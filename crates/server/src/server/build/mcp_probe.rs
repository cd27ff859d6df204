//! Probes upstreams with `check = "headers"` for `check --online`. They must compare the headers of MCP calls with the
//! body.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tower::ServiceExt;

use super::assemble::proxy_settings;
use crate::server::error::Faults;
use rotogate_config::{Config, ConfigErrors};
use rotogate_core::headers::Peer;
use rotogate_core::mcp::VERSIONS;
use rotogate_core::policy::{By, GateId, permit_own};
use rotogate_core::route::{Resource, Route};
use rotogate_proxy::Proxy;

/// The method in the body. It changes nothing at the server.
const METHOD: &str = "server/discover";
/// The method in the header of the second call.
const OTHER: &str = "tools/list";
const WITHIN: Duration = Duration::from_secs(10);

/// Sends two calls to each server. In the second call, the header and the body name different methods. Returns a line
/// per server.
///
/// # Errors
/// A server does not compare headers with bodies. A missing response is only reported as unchecked.
// Requirement M6.
pub(crate) async fn inspect(config: &Config) -> Result<Vec<String>, ConfigErrors> {
    let (mut lines, mut faults) = (Vec::new(), Faults::new(config));
    let is_asked = |resource: &Resource| resource.mcp.as_ref().is_some_and(|mcp| mcp.headers_alone);
    if !config.resources.iter().any(is_asked) {
        return Ok(lines);
    }
    let proxy = Proxy::new(config.upstreams.clone(), proxy_settings(config)).map_err(|why| why.to_string());
    for (index, resource) in config.resources.iter().enumerate().filter(|(_, resource)| is_asked(resource)) {
        let of_it = config.routes.iter().filter(|route| {
            route.policy.resource.as_ref() == Some(&resource.path) && route.calls.is_empty() && route.upstream.is_some()
        });
        let mut asked = Vec::new();
        for route in of_it {
            if asked.contains(&route.upstream) {
                continue;
            }
            asked.push(route.upstream);
            let name = route.upstream.and_then(|upstream| config.upstreams.get(upstream.position()));
            let name = name.map(|upstream| upstream.name.as_str()).unwrap_or_default();
            let compared = match &proxy {
                Ok(proxy) => compares(proxy, config, route, &resource.path).await,
                Err(why) => Err(why.clone()),
            };
            let key = format!("resources[{index}].mcp.check");
            match compared {
                Ok(true) => lines.push(format!(
                    "{}: the upstream {name} compares the headers of a call with its body",
                    resource.path
                )),
                Ok(false) => faults.add(
                    &key,
                    format!(
                        "the upstream {name} accepted a call whose header `Mcp-Method` differs from its body. A \
                         caller could bypass the rules of the gate, because they look only at the header. Use `check \
                         = \"body\"`"
                    ),
                ),
                Err(why) => faults.add_unchecked(&key, format!("the upstream {name} {why}")),
            }
        }
    }
    faults.result(lines)
}

/// Returns whether the server accepts the first call and refuses the second.
async fn compares(proxy: &Proxy, config: &Config, route: &Route, path: &str) -> Result<bool, String> {
    let agreed = send(proxy, config, route, path, METHOD).await?;
    if !agreed.is_success() {
        return Err(format!("responded to {METHOD} with {agreed}; expected 2xx"));
    }
    let differing = send(proxy, config, route, path, OTHER).await?;
    match differing {
        StatusCode::BAD_REQUEST => Ok(true),
        status if status.is_success() => Ok(false),
        status => Err(format!("responded with {status} to a call whose header and body differ; expected 400")),
    }
}

async fn send(proxy: &Proxy, config: &Config, route: &Route, path: &str, method: &str) -> Result<StatusCode, String> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": VERSIONS[0],
        "io.modelcontextprotocol/clientInfo": { "name": "rotogate-check", "version": env!("CARGO_PKG_VERSION") },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": METHOD, "params": { "_meta": meta } }).to_string();
    let host = config.server.public_url.authority().map_or("localhost", |authority| authority.as_str());
    let request = Request::post(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream")
        .header(HeaderName::from_static("mcp-protocol-version"), VERSIONS[0])
        .header(HeaderName::from_static("mcp-method"), HeaderValue::from_str(method).map_err(|why| why.to_string())?)
        .body(Full::new(Bytes::from(body)));
    let mut request = request.map_err(|why| format!("cannot be called at {path}: {why}"))?;
    let by = By { gate: GateId::next(), layer: true, defers: false };
    request.extensions_mut().insert(permit_own(&Arc::new(route.clone()), by).into_permitted());
    request.extensions_mut().insert(Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false));
    let answered = tokio::time::timeout(WITHIN, proxy.clone().oneshot(request)).await;
    let Ok(answered) = answered else { return Err(format!("does not respond within {WITHIN:?}")) };
    let Ok(response) = answered;
    match response.extensions().get::<rotogate_proxy::ProxyError>() {
        Some(why) => Err(format!("does not respond: {}", why.reason())),
        None => Ok(response.status()),
    }
}

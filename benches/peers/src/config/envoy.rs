//! Envoy.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::Common;
use crate::client::Speech;
use crate::contender::EnvoyAuth;
use crate::keys::{self, AUDIENCE, ISSUER};
use crate::serve::LEEWAY;
use crate::tls;

const TYPES: &str = "type.googleapis.com/envoy.extensions";
/// The tokens that `jwt_authn` keeps: more than there are. Its default is 100.
const CACHE: u32 = 8192;
/// More than the load needs. The defaults refuse beyond 1024.
const ENOUGH: u32 = 100_000;

/// Its settings are the defaults and those that `docs/ext-authz.md` asks for. `asked`: the gate's authorizer.
pub fn envoy(common: Common<'_>, auth: Option<EnvoyAuth>, asked: Option<SocketAddr>) -> Result<String> {
    let Common { listen, upstream, folder, keys, logs, tls, speech } = common;
    let mut filters = Vec::new();
    let mut clusters = vec![cluster("app", upstream, common.is_grpc())];
    match (auth, asked) {
        (Some(EnvoyAuth::Jwt { cache }), _) => filters.push(jwt_authn(common, cache)?),
        (Some(EnvoyAuth::Gate), Some(asked)) => {
            filters.push(ext_authz());
            clusters.push(cluster("gate", asked, true));
        }
        (Some(EnvoyAuth::Gate), None) => anyhow::bail!("no authorizer"),
        (None, _) => {}
    }
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
    }));
    let mut manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "public",
        "use_remote_address": true,
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": { "headers_with_underscores_action": "REJECT_REQUEST" },
        "http_filters": filters,
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "app" } }],
        }] },
    });
    if speech == Speech::Messages {
        manager["upgrade_configs"] = json!([{ "upgrade_type": "websocket" }]);
    }
    if logs {
        manager["access_log"] = access_log(&folder.join("access.log"));
    }
    let mut chain =
        json!({ "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }] });
    if tls {
        chain["transport_socket"] = secured(keys);
    }
    let listener = json!({ "name": "public", "address": address(listen), "filter_chains": [chain] });
    Ok(json!({ "static_resources": { "listeners": [listener], "clusters": clusters } }).to_string())
}

/// A line with about what rotogate's has.
fn access_log(file: &Path) -> Value {
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": format!("{TYPES}.access_loggers.file.v3.FileAccessLog"),
            "path": file,
            "log_format": { "json_format": {
                "time": "%START_TIME%", "id": "%REQ(X-REQUEST-ID)%", "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                "method": "%REQ(:METHOD)%", "host": "%REQ(:AUTHORITY)%", "path": "%REQ(:PATH)%",
                "protocol": "%PROTOCOL%", "status": "%RESPONSE_CODE%", "sent": "%BYTES_SENT%", "took": "%DURATION%",
                "upstream": "%UPSTREAM_HOST%", "upstream_took": "%RESPONSE_DURATION%", "agent": "%REQ(USER-AGENT)%",
            } },
        },
    }])
}

fn secured(keys: &Path) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
                "tls_certificates": [{
                    "certificate_chain": { "filename": tls::certificate(keys) },
                    "private_key": { "filename": tls::key(keys) },
                }],
            },
        },
    })
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn cluster(name: &str, of: SocketAddr, http2: bool) -> Value {
    let protocol = if http2 { "http2_protocol_options" } else { "http_protocol_options" };
    json!({
        "name": name,
        "circuit_breakers": { "thresholds": [{
            "max_connections": ENOUGH, "max_pending_requests": ENOUGH, "max_requests": ENOUGH,
        }] },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { protocol: {} },
        } },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(of) } }] }],
        },
    })
}

/// Signature, issuer, audience and times; the subject goes to the upstream.
fn jwt_authn(common: Common<'_>, cache: bool) -> Result<Value> {
    let mut provider = json!({
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": { "filename": keys::jwks(common.keys) },
        "clock_skew_seconds": LEEWAY,
        "claim_to_headers": [{ "header_name": "x-auth-subject", "claim_name": "sub" }],
    });
    if cache {
        provider["jwt_cache_config"] = json!({ "jwt_cache_size": CACHE });
    }
    Ok(json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": format!("{TYPES}.filters.http.jwt_authn.v3.JwtAuthentication"),
            "providers": { "bench": provider },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "bench" } }],
        },
    }))
}

fn ext_authz() -> Value {
    json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": format!("{TYPES}.filters.http.ext_authz.v3.ExtAuthz"),
            "transport_api_version": "V3",
            "failure_mode_allow": false,
            "status_on_error": { "code": "ServiceUnavailable" },
            "validate_mutations": true,
            "encode_raw_headers": true,
            "grpc_service": { "envoy_grpc": { "cluster_name": "gate" }, "timeout": "0.5s" },
        },
    })
}

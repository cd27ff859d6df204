//! What judging a call of the Model Context Protocol adds to a request whose token is cached: by its headers, and by bodies of
//! 1 KiB and 64 KiB. Whole requests through `Gate::layer`, no socket; the same request on a plain route is the base.
//!
//!     cargo bench --bench mcp

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::gate::NewSession;
use rotogate::route::{Mcp, McpCalls, McpCheck, Resource, Route, RoutePolicy};
use rotogate::session::Scope;
use rotogate::token::Keyring;
use support::{Case, Inner, interleave, measures};
use tower::{Layer, Service};

const ISSUER: &str = "https://auth.example.com";

/// A judged path, the size of its body, and what judging may add, in nanoseconds.
const CASES: [(&str, usize, f64); 3] =
    [("/headers", 1024, 150.0), ("/body", 1024, 3_000.0), ("/body", 65_536, 60_000.0)];

/// A call with an argument of this size.
fn call(size: usize) -> Bytes {
    let head = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"read_file","arguments":{"text":""#;
    let tail = r#""},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let text = "All work and no play makes Jack a dull boy. ".repeat(size / 40 + 1);
    let filled = size.saturating_sub(head.len() + tail.len());
    Bytes::from(format!("{head}{}{tail}", &text[..filled]))
}

fn policy(resource: Option<&str>) -> RoutePolicy {
    RoutePolicy {
        scopes: Scope::parse("read").unwrap(),
        audiences: vec!["api".into()],
        resource: resource.map(Into::into),
        ..RoutePolicy::default()
    }
}

async fn gate() -> Gate {
    let mut builder = Gate::builder()
        .issuer(ISSUER)
        .audience(["api"])
        .keys(Keyring::ephemeral().unwrap())
        .client(Client::public("web"))
        .rates(support::open_rates())
        .route(Route::new("/plain", policy(None)));
    for (path, check) in [("/headers", McpCheck::Headers), ("/body", McpCheck::Body)] {
        builder = builder
            .resource(Resource { mcp: Some(Mcp { check, ..Mcp::default() }), ..Resource::new(path) })
            .route(Route::new(path, policy(Some(path))));
        for pattern in ["tools/call:read_file", "tools/call:delete_*", "resources/read:file:///etc/*", "*"] {
            let calls = vec![McpCalls::parse(pattern).unwrap()];
            let rule = Route { calls, id: format!("{path} {pattern}").into(), ..Route::new("", policy(Some(path))) };
            builder = builder.route(rule);
        }
    }
    builder.build().await.unwrap()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let gate = runtime.block_on(gate());
    let new = NewSession::new("user", "web").scope("read write").unwrap();
    let issued = runtime.block_on(gate.sessions().start(new)).unwrap();
    let service = gate.layer().forward_buffered().layer(Inner);
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", issued.access_token.expose());
    for (name, value) in [
        ("host", "auth.example.com"),
        ("authorization", &*bearer),
        ("content-type", "application/json"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "read_file"),
    ] {
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let run = |path: &'static str, size: usize| {
        let (mut service, headers, body) = (service.clone(), headers.clone(), call(size));
        move || {
            let mut request = Request::post(path).body(Full::new(body.clone())).unwrap();
            *request.headers_mut() = headers.clone();
            let reply = service.call(request).now_or_never().expect("the body is there").unwrap();
            assert_eq!(reply.status(), 200);
        }
    };
    let name = |path: &str, size: usize| format!("{path}, {} KiB", size / 1024);
    let mut cases = Vec::new();
    for size in [1024, 65_536] {
        cases.push(Case::new(name("/plain", size), run("/plain", size)));
    }
    for (path, size, _) in CASES {
        cases.push(Case::new(name(path, size), run(path, size)));
    }
    let measured = interleave(cases, if measures() { 41 } else { 1 });
    measured.print("A call, its token cached", &name("/plain", 1024));
    println!();
    for (path, size, most) in CASES {
        let added = measured.difference(&name(path, size), &name("/plain", size));
        let verdict = if added <= most { "met" } else { "NOT met" };
        println!("{} adds {added:.0} ns (at most {most:.0}): {verdict}", name(path, size));
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
}

//! The cost of judging a call of the Model Context Protocol in a request with a cached token: by its headers, and by bodies of
//! 1 KiB and 64 KiB. Whole requests through `Gate::layer`, without a socket, compared with the same request on a plain route.
//! Then the program between a client and a server that streams: the delay of an event (requirement M15).
//!
//!     cargo bench --bench mcp

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ::support::Place;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::gate::NewSession;
use rotogate::route::{Mcp, Resource, Route, RoutePolicy};
use rotogate::session::Scope;
use rotogate::token::Keyring;
use support::program::goal;
use support::{Case, Inner, interleave, measures, quantile};
use tower::{Layer, Service};

const ISSUER: &str = "https://auth.example.com";

/// A judged path, the size of its body, and the most that judging may add, in nanoseconds.
const CASES: [(&str, usize, f64); 3] =
    [("/headers", 1024, 150.0), ("/body", 1024, 3_000.0), ("/body", 65_536, 60_000.0)];

/// The delay that the gate may add to the first event of a stream, in milliseconds.
const FIRST_EVENT_MILLIS: f64 = 5.0;
const SECRET: &str = "a-secret-of-the-agent";
const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
[admin]
listen = "127.0.0.1:0"
[issuer]
audience = ["api"]
[[clients]]
id = "agent"
secret_hash = "HASH"
grants = ["client_credentials"]
scopes = ["mcp"]
[[endpoints]]
dialect = "oauth2"
path = "/connect/token"
[[resources]]
path = "/mcp"
scopes = ["mcp"]
mcp = { check = "body" }
[[upstreams]]
name = "tools"
urls = ["http://UPSTREAM"]
[[routes]]
path = "/mcp"
resource = "/mcp"
upstream = "tools"
scopes = ["mcp"]
[[routes]]
resource = "/mcp"
calls = ["*"]
"#;

/// The lines of a head or of an event, up to the empty line.
fn lines(reader: &mut impl BufRead) -> Vec<String> {
    let lines = reader.lines().map(|line| line.expect("a line"));
    lines.skip_while(String::is_empty).take_while(|line| !line.is_empty()).collect()
}

/// From the write of the first event of a stream to its arrival at the client, in milliseconds.
fn first_event(address: &str, server: &TcpListener, token: &str) -> f64 {
    let body = call(512);
    let mut client = TcpStream::connect(address).unwrap();
    write!(
        client,
        "POST /mcp HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         MCP-Protocol-Version: 2026-07-28\r\nMCP-Method: tools/call\r\nMCP-Name: read_file\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    client.write_all(&body).unwrap();
    let (mut upstream, _) = server.accept().unwrap();
    assert!(lines(&mut BufReader::new(&upstream))[0].starts_with("POST /mcp "));
    upstream.set_nodelay(true).unwrap();
    write!(upstream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n").unwrap();
    let mut reader = BufReader::new(client);
    let head = lines(&mut reader);
    assert!(head[0].contains(" 200"), "{head:?}");
    let begun = Instant::now();
    upstream.write_all(b"data: {}\n\n").unwrap();
    // Through a gate the event is a chunk, whose size is a separate line.
    while !reader.by_ref().lines().next().expect("a line").unwrap().starts_with("data: ") {}
    begun.elapsed().as_secs_f64() * 1000.0
}

/// Alternates streams with and without the program between client and server.
fn first_events(rounds: usize) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let direct = server.local_addr().unwrap().to_string();
    let place = Place::new("");
    let made = place.run(&["client", "secret", "--stdin", "--json"], SECRET).stdout;
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let config = CONFIG.replace("HASH", made["secret_hash"].as_str().unwrap());
    place.write_config(&config.replace("UPSTREAM", &direct));
    let running = place.start();
    let gate = running.address.to_string();
    let form =
        format!("grant_type=client_credentials&client_id=agent&client_secret={SECRET}&resource=http://gate.test/mcp");
    let mut wire = TcpStream::connect(&gate).unwrap();
    write!(
        wire,
        "POST /connect/token HTTP/1.1\r\nHost: gate.test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
    .unwrap();
    let answer = std::io::read_to_string(wire).unwrap();
    let granted =
        answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str::<serde_json::Value>(body).ok());
    let granted = granted.unwrap_or_else(|| panic!("{answer}"));
    let token = granted["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let [mut through, mut without] = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        through.push(first_event(&gate, &server, token));
        without.push(first_event(&direct, &server, token));
    }
    let added = quantile(&through, 0.99) - quantile(&without, 0.99);
    goal("M15: first event of a stream, p99 over that without a gate", added, FIRST_EVENT_MILLIS, "ms");
}

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
    for (path, check) in [("/headers", true), ("/body", false)] {
        builder = builder
            .resource(Resource { mcp: Some(Mcp { headers_alone: check, ..Mcp::default() }), ..Resource::new(path) })
            .route(Route::new(path, policy(Some(path))));
        for pattern in ["tools/call:read_file", "tools/call:delete_*", "resources/read:file:///etc/*", "*"] {
            let rule = Route::mcp_rule([pattern], policy(Some(path))).unwrap();
            let rule = Route { id: format!("{path} {pattern}").into(), ..rule };
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
    println!();
    first_events(if measures() { 500 } else { 3 });
}

//! A4: all requests beyond `max_requests` are refused at once, and requests in flight continue.

use std::io::Write;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use super::upgrades;
use support::stub::{Edge, HEAD, ROUTES};
use support::wire::{Reply, Wire};
use support::{CONFIG, Gate, until};

const KUZZLE: &str = "[[endpoints]]\ndialect = \"kuzzle\"\npath = \"/k\"\n\
    [[routes]]\npath = \"/documents/{*rest}\"\ndialect = \"kuzzle\"\nupstream = \"app\"\n";

/// One address, and one caller, may have all requests.
const ALL: &str = "for_tests.max_requests_per_address = \"100%\"\nfor_tests.max_requests_per_caller = \"100%\"\n";

fn edge(most: usize) -> Edge {
    let config = support::with(HEAD, "server", &format!("max_requests = {most}\n{ALL}"));
    Edge::with(&format!("{config}{KUZZLE}{ROUTES}"), |_| {}, |_| {})
}

async fn under_way(gate: &Gate, count: u64) {
    until("so many requests are under way", async || gate.metric("rotogate_requests_in_flight").await == count).await;
}

/// Requests that stay for as long as their connections.
async fn held(edge: &Edge, count: u64) -> Vec<Wire> {
    let wires = (0..count).map(|_| {
        let mut wire = edge.wire();
        wire.head("GET /public/silent", &["Host: gate.test"]);
        wire
    });
    let wires = wires.collect();
    under_way(&edge.gate, count).await;
    let mut arrived = 0;
    until("they are upstream", async || {
        arrived += edge.stub.take().len() as u64;
        arrived == count
    })
    .await;
    wires
}

fn is_shed(reply: &Reply) {
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{reply:?}");
    assert_eq!(reply.header("cache-control"), "no-store", "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_beyond_the_most_requests_each_is_503_at_once_and_health_is_not_asked() {
    let edge = edge(2);
    let wires = held(&edge, 2).await;
    for line in
        ["GET /public/x", "GET /private", "GET /connect/token", "GET /nowhere/../x", "GET /.well-known/jwks.json"]
    {
        let reply = edge.ask(line, &[]);
        is_shed(&reply);
        assert_eq!((reply.header("content-type"), &reply.json()["status"]), ("application/problem+json", &json!(503)));
    }
    // No password is checked, and no credential looked for.
    is_shed(&edge.try_login(&[], "demo", &edge.gate.password));
    is_shed(&edge.ask_as("nonsense", "GET /private", &[]));
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(edge.gate.admin_get(path).await.status, 200, "{path}");
    }
    assert!(edge.stub.take().is_empty(), "nothing of it arrives");
    let public = "rotogate_requests_total{route=\"/public/{*rest}\",outcome=\"overloaded\",code=\"503\"}";
    assert_eq!(edge.gate.metric(public).await, 1);
    assert!(edge.gate.log().contains("rotogate.outcome=overloaded"));
    drop(wires);
    under_way(&edge.gate, 0).await;
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_a_connection_goes_on_after_a_503_unless_a_body_is_left_on_it_that_nobody_reads() {
    let edge = edge(1);
    let wires = held(&edge, 1).await;
    let mut kept = edge.wire();
    for _ in 0..3 {
        kept.head("GET /public/x", &["Host: gate.test"]);
        is_shed(&kept.reply());
    }
    // No 100 Continue.
    let mut waiting = edge.wire();
    waiting.head("POST /public/x", &["Host: gate.test", "Content-Length: 100000000", "Expect: 100-continue"]);
    is_shed(&waiting.reply());
    drop(wires);
    // The end of a client's side is not the end of its request, for some seconds.
    let mut place_is_free = || {
        kept.head("GET /public/x", &["Host: gate.test"]);
        let reply = kept.reply();
        if reply.status != 200 {
            is_shed(&reply);
        }
        reply.status == 200
    };
    until("the place is free", async || place_is_free()).await;
    assert!(waiting.is_closed(), "100 MB are not taken to throw them away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_over_http_2_the_requests_of_all_connections_count_together() {
    let edge = edge(3);
    let _wires = held(&edge, 1).await;
    let client = || Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<bytes::Bytes>>();
    let request =
        |path: &str| Request::get(format!("http://{}{path}", edge.gate.address)).body(Full::default()).unwrap();
    let (one, other) = (client(), client());
    let silent = [&one, &other].map(|client| tokio::spawn(client.request(request("/public/silent"))));
    under_way(&edge.gate, 3).await;
    for client in [&one, &other] {
        let reply = client.request(request("/public/x")).await.unwrap();
        assert_eq!((reply.status().as_u16(), &reply.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    }
    // A reset gives its place back.
    for task in silent {
        task.abort();
    }
    under_way(&edge.gate, 1).await;
    let reply = one.request(request("/public/x")).await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_a_reply_counts_until_its_last_byte() {
    let edge = edge(1);
    let mut stream = edge.wire();
    stream.head("GET /public/parts", &["Host: gate.test"]);
    assert_eq!(stream.reply_head().status, 200);
    edge.stub.push(b"first");
    assert_eq!(stream.chunk(), b"first");
    is_shed(&edge.ask("GET /public/x", &[]));
    edge.stub.push(b"");
    assert_eq!(stream.chunk(), b"");
    under_way(&edge.gate, 0).await;
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_an_upgraded_connection_holds_no_request_s_place() {
    let (port, _heads) = upgrades::upstream();
    let mut place = None;
    let gate = upgrades::gate_with(&support::with(CONFIG, "server", "max_requests = 1"), port, &mut place);
    let token = gate.login().await.access;
    let open = || upgrades::ask(&gate, "/ws", "websocket", &format!("authorization: Bearer {token}"));
    under_way(&gate, 0).await;
    let (first, mut tunnel) = open();
    assert!(upgrades::is(&first, 101), "{first}");
    under_way(&gate, 0).await;
    let (second, _other) = open();
    assert!(upgrades::is(&second, 101), "{second}");
    assert!(tunnel.get_mut().write_all(b"more").is_ok());
    assert_eq!(gate.get("/hello", &token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_who_has_words_of_its_own_for_a_failure_is_refused_in_them() {
    let edge = edge(1);
    let _wires = held(&edge, 1).await;
    let reply = edge.ask("POST /test.Echo/Unary", &["Content-Type: application/grpc", "Content-Length: 0"]);
    assert_eq!((reply.status, reply.header("grpc-status")), (200, "14"), "{reply:?}");
    for line in ["GET /documents/1", "GET /k/_me"] {
        let reply = edge.ask(line, &[]);
        is_shed(&reply);
        let json = reply.json();
        assert_eq!((&json["status"], &json["error"]["status"]), (&json!(503), &json!(503)), "{line}: {json}");
    }
}

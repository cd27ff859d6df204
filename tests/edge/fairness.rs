//! A9, A10, A11: one address or one caller leaves room for others. Each attack once took all of a gate; here the gate has
//! forty places, and 127.0.0.1 attacks.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use super::upgrades;
use support::stub::{Edge, HEAD, ROUTES};
use support::wire::{Reply, Wire};
use support::{CONFIG, until};

/// Forty places. One holder alone has 35 of them. Of the five others an address has at most four, a caller two, and a
/// part of that as they fill.
const SMALL: &str = "max_requests = 40\n";
const ALONE: usize = 35;

fn edge(upstream: &str) -> Edge {
    let head = support::with(HEAD, "server", SMALL);
    Edge::with(&format!("{head}{upstream}{ROUTES}"), |_| {}, |_| {})
}

/// A connection from another address of this machine.
async fn wire_from(last: u8, gate: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    let stream = socket.connect(gate).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    Wire::on(stream)
}

async fn ask_from(last: u8, edge: &Edge, line: &str, headers: &[&str]) -> Reply {
    let mut wire = wire_from(last, edge.gate.address).await;
    wire.head(line, &[&["Host: gate.test"], headers].concat());
    wire.reply()
}

/// Sends requests while each takes a place, and returns their number.
async fn hold(edge: &Edge, last: u8, line: &str, headers: &[&str], most: usize) -> Vec<Wire> {
    let mut held = Vec::new();
    let before = edge.gate.metric("rotogate_requests_in_flight").await;
    for number in 1..=most {
        let mut wire = wire_from(last, edge.gate.address).await;
        wire.head(line, &[&["Host: gate.test"], headers].concat());
        held.push(wire);
        until("it is under way", async || {
            edge.gate.metric("rotogate_requests_in_flight").await == before + number as u64
        })
        .await;
    }
    held
}

fn is_shed(reply: &Reply) {
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{reply:?}");
}

async fn counted(edge: &Edge, route: &str, outcome: &str) -> u64 {
    edge.gate.metric(&format!("rotogate_requests_total{{route=\"{route}\",outcome=\"{outcome}\",code=\"503\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a17_one_address_has_an_idle_gate_and_others_have_the_reserve() {
    let edge = edge("");
    let held = hold(&edge, 1, "GET /public/silent", &[], ALONE).await;
    for line in ["GET /public/x", "GET /private", "GET /.well-known/jwks.json"] {
        is_shed(&edge.ask(line, &[]));
        // The client's own `X-Forwarded-For` changes nothing.
        is_shed(&edge.ask(line, &["X-Forwarded-For: 127.0.0.9"]));
    }
    assert_eq!(counted(&edge, "/public/{*rest}", "address_overloaded").await, 2);
    for last in 2..10 {
        assert_eq!(ask_from(last, &edge, "GET /public/x", &[]).await.status, 200, "127.0.0.{last}");
    }
    drop(held);
    until("all of it is over", async || edge.gate.metric("rotogate_requests_in_flight").await == 0).await;
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_behind_a_trusted_proxy_each_client_is_an_address_and_the_proxy_none() {
    let head = support::with(HEAD, "server", &format!("{SMALL}trusted_proxies = [\"127.0.0.1\"]"));
    let edge = Edge::with(&format!("{head}{ROUTES}"), |_| {}, |_| {});
    let _held = hold(&edge, 1, "GET /public/silent", &["X-Forwarded-For: 203.0.113.1"], ALONE).await;
    is_shed(&edge.ask("GET /public/x", &["X-Forwarded-For: 203.0.113.1"]));
    is_shed(&edge.ask("GET /public/x", &["X-Forwarded-For: 198.51.100.1, 203.0.113.1"]));
    assert_eq!(edge.ask("GET /public/x", &["X-Forwarded-For: 203.0.113.2"]).status, 200);
    // IPv6 counts by /64.
    let _more = hold(&edge, 1, "GET /public/silent", &["X-Forwarded-For: 2001:db8::1"], 2).await;
    is_shed(&edge.ask("GET /public/x", &["X-Forwarded-For: 2001:db8::ffff:2"]));
    assert_eq!(edge.ask("GET /public/x", &["X-Forwarded-For: 2001:db8:0:1::1"]).status, 200);
    let _own = hold(&edge, 1, "GET /public/silent", &[], 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a17_one_caller_has_an_idle_gate_and_others_at_its_address_lose_nothing() {
    let edge = edge("");
    let (token, again) = (edge.login().access, edge.login().access);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let mut held = hold(&edge, 1, "GET /private/silent", &[&bearer(&token)], 20).await;
    held.extend(hold(&edge, 2, "GET /private/silent", &[&bearer(&again)], ALONE - 20).await);
    for last in 1..5 {
        let reply = ask_from(last, &edge, "GET /private/x", &[&bearer(&token)]).await;
        is_shed(&reply);
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(ask_from(last, &edge, "GET /public/x", &[]).await.status, 200, "who is not this caller");
    }
    assert_eq!(counted(&edge, "/{*rest}", "caller_overloaded").await, 4);
    let grpc = ["Content-Type: application/grpc", "Content-Length: 0", &bearer(&token)];
    assert_eq!(edge.ask("POST /test.Echo/Unary", &grpc).header("grpc-status"), "14");
    drop(held);
    until("all of it is over", async || edge.gate.metric("rotogate_requests_in_flight").await == 0).await;
    // The lent places have returned: the address has its own places, and no more.
    let _held = hold(&edge, 1, "GET /public/silent", &[], ALONE).await;
    is_shed(&edge.ask("GET /public/x", &[]));
    assert_eq!(ask_from(2, &edge, "GET /private/x", &[&bearer(&token)]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a18_at_an_upstream_one_caller_has_idle_places_and_waits_for_more() {
    // Ten places. One holder alone has eight.
    let edge = edge("max_requests = 10\nfor_tests.queue_timeout = \"30s\"\n");
    let token = format!("Authorization: Bearer {}", edge.login().access);
    let mut held = hold(&edge, 1, "GET /private/silent", &[&token], 8).await;
    let mut waits = wire_from(2, edge.gate.address).await;
    waits.head("GET /private/x", &["Host: gate.test", &token]);
    until("it waits", async || edge.gate.metric("rotogate_requests_in_flight").await == 9).await;
    for last in 1..6 {
        assert_eq!(ask_from(last, &edge, "GET /public/x", &[]).await.status, 200, "127.0.0.{last}");
    }
    assert_eq!(edge.gate.metric("rotogate_requests_in_flight").await, 9, "it waits still");
    held.pop();
    assert_eq!(waits.reply().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a18_who_waited_in_vain_is_told_why() {
    let edge = edge("max_requests = 10\nfor_tests.queue_timeout = \"50ms\"\n");
    let token = format!("Authorization: Bearer {}", edge.login().access);
    let _held = hold(&edge, 1, "GET /private/silent", &[&token], 8).await;
    is_shed(&ask_from(2, &edge, "GET /private/x", &[&token]).await);
    assert_eq!(counted(&edge, "/{*rest}", "upstream_share_taken").await, 1);
    let _others =
        (hold(&edge, 3, "GET /public/silent", &[], 1).await, hold(&edge, 4, "GET /public/silent", &[], 1).await);
    is_shed(&ask_from(5, &edge, "GET /public/x", &[]).await);
    assert_eq!(counted(&edge, "/public/{*rest}", "upstream_saturated").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a17_with_the_shipped_bounds_one_token_at_one_address_has_an_idle_upstream() {
    let edge = Edge::with(&format!("{HEAD}{ROUTES}"), |_| {}, |_| {});
    let token = format!("Authorization: Bearer {}", edge.login().access);
    let _held = hold(&edge, 1, "GET /private/silent", &[&token], 300).await;
    assert_eq!(edge.ask("GET /private/x", &[&token]).status, 200);
    assert_eq!(counted(&edge, "/{*rest}", "upstream_share_taken").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a10_tunnels_of_one_caller_are_counted_apart_from_requests() {
    let (port, _heads) = upgrades::upstream();
    let mut place = None;
    let config = support::with(
        CONFIG,
        "server",
        "for_tests.max_tunnels = 3\nfor_tests.max_tunnels_per_caller = 1\nmax_requests = 40",
    );
    let gate = upgrades::gate_with(&config, port, &mut place);
    let token = gate.login().await.access;
    let open = || upgrades::ask(&gate, "/ws", "websocket", &format!("authorization: Bearer {token}"));
    let (first, tunnel) = open();
    let (second, _other) = open();
    assert!(upgrades::is(&first, 101) && upgrades::is(&second, 101), "{first}{second}");
    assert_eq!(gate.metric("rotogate_tunnels").await, 2);
    let (third, _refused) = open();
    assert!(upgrades::is(&third, 503), "{third}");
    assert!(third.to_ascii_lowercase().contains("retry-after: 1"), "{third}");
    let outcome = "rotogate_requests_total{route=\"/ws\",outcome=\"tunnels_overloaded\",code=\"503\"}";
    assert_eq!(gate.metric(outcome).await, 1);
    // The caller's requests count separately.
    assert_eq!(gate.get("/hello", &token).await.status, 200);
    drop(tunnel);
    until("its place is free", async || gate.metric("rotogate_tunnels").await == 1).await;
    let (again, _tunnel) = open();
    assert!(upgrades::is(&again, 101), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_bodies_that_never_come_take_neither_the_places_nor_the_endpoint() {
    let edge = edge("");
    let form = ["Host: gate.test", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 100"];
    // One address alone has three of the four places.
    let mut waiting = Vec::new();
    for number in 1..=3 {
        let mut waits = edge.wire();
        waits.head("POST /connect/token", &form);
        waits.send("grant_type=");
        waiting.push(waits);
        until("it is waited for", async || edge.gate.metric("rotogate_pending_bodies").await == number).await;
    }
    let mut refused = edge.wire();
    refused.head("POST /connect/token", &form);
    is_shed(&refused.reply());
    assert_eq!(counted(&edge, "_endpoint", "bodies_overloaded").await, 1);
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
    // From another address a login succeeds, although it arrives in two pieces.
    let body = format!("client_id=web&grant_type=password&username=demo&password={}", edge.gate.password);
    let mut login = wire_from(2, edge.gate.address).await;
    login.head("POST /connect/token", &[&form[..2], &[&format!("Content-Length: {}", body.len())]].concat());
    login.send(&body[..10]);
    until("it is waited for", async || edge.gate.metric("rotogate_pending_bodies").await == 4).await;
    login.send(&body[10..]);
    assert_eq!(login.reply().status, 200);
    // The first body has only a few seconds.
    assert!(waiting.iter_mut().all(|waits| waits.reply().status == 408));
    until("nobody waits", async || edge.gate.metric("rotogate_pending_bodies").await == 0).await;
}

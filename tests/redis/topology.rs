//! Gates on a store whose servers change, fill up or lose each other.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use support::figure::print_time;
use support::pki::Pki;
use support::redis::{PRIMARY, Redis, Replicated};
use support::{Answer, CONFIG, Gate, Place, decided, send, until};
use tokio::task::JoinSet;

/// After an outage a gate serves again.
const BACK: Duration = Duration::from_secs(5);

fn two_gates(store: &str) -> (Place, [Arc<Gate>; 2]) {
    let place = Place::new(&format!("{CONFIG}[store]\nkind = \"redis\"\n{store}"));
    let gates = [place.start(), place.start()].map(Arc::new);
    (place, gates)
}

fn at(server: &Redis) -> String {
    format!("urls = [\"redis://127.0.0.1:{}\"]\n", server.port)
}

async fn readyz(gate: &Gate) -> Answer {
    let request = Request::builder().method(Method::GET).uri(format!("http://{}/readyz", gate.admin));
    send(request.body(Default::default()).unwrap()).await
}

/// Clients refresh at two gates while the primary is killed: each refreshes the last token that it got.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_c14_clients_go_on_over_a_failover_without_a_login() {
    const CLIENTS: usize = 6;
    let mut servers = Replicated::start(&[]);
    let urls: Vec<_> = servers.urls().iter().map(|url| format!("{url:?}")).collect();
    let store = format!("urls = [{}]\nsentinel = \"{PRIMARY}\"\nwait_replicas = 1\n", urls.join(", "));
    let (_place, gates) = two_gates(&store);
    let (stop, refreshed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut tokens = gates[0].login().await;
        let (gates, stop, refreshed) = (gates.clone(), Arc::clone(&stop), Arc::clone(&refreshed));
        clients.spawn(async move {
            let mut faults = 0u64;
            for n in client.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let answer = gates[n % 2].refresh(&tokens.refresh).await;
                if answer.status == StatusCode::OK {
                    tokens = answer.tokens();
                    refreshed.fetch_add(1, Ordering::SeqCst);
                } else {
                    assert!(answer.is_fault(), "the token works: {answer:?}");
                    faults += 1;
                }
            }
            (tokens, faults)
        });
    }
    // All sessions, at both gates.
    let more = async || {
        let before = refreshed.load(Ordering::SeqCst);
        until("refreshes go on", async || refreshed.load(Ordering::SeqCst) > before + 20 * CLIENTS as u64).await;
    };
    more().await;
    // A login and a logout that were acknowledged just before.
    let (last, ended) = (gates[0].login().await, gates[1].login().await);
    assert_eq!(gates[1].revoke(&ended.refresh).await.status, StatusCode::OK);
    let old = servers.servers[0].port;
    servers.servers[0].kill();
    servers.until("a replica becomes the primary", || servers.primary() != old);
    let promoted = tokio::time::Instant::now();
    let of_new = |said: &str| {
        let new = servers.servers.iter().find(|server| server.port == servers.primary());
        new.is_some_and(|new| new.cli(&["INFO", "replication"]).contains(said))
    };
    servers.until("the other replica follows the new primary", || of_new("state=online"));
    print_time("C12 the other replica follows, after a promotion", promoted.elapsed(), BACK);
    let followed = tokio::time::Instant::now();
    for gate in &gates {
        until("the gate serves", async || gate.refresh(&last.refresh).await.status == StatusCode::OK).await;
    }
    print_time("C12 both gates serve, after the replica follows", followed.elapsed(), BACK);
    more().await;
    stop.store(true, Ordering::SeqCst);
    let mut faults = 0;
    for (tokens, seen) in clients.join_all().await {
        assert_eq!(decided(async || gates[0].refresh(&tokens.refresh).await).await.status, StatusCode::OK);
        faults += seen;
    }
    assert!(faults > 0, "the primary was away");
    for gate in &gates {
        gate.until_refused(&ended.access).await;
        let refused = decided(async || gate.refresh(&ended.refresh).await).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
}

/// The primary's replicas stand for the majority that left it.
#[tokio::test]
async fn c17_a_primary_that_its_replicas_left_acknowledges_nothing_and_data_routes_close() {
    let primary = Redis::start(&[]);
    let replica = Redis::start(&[&format!("--replicaof 127.0.0.1 {}", primary.port)]);
    until("the replica follows", async || primary.cli(&["INFO", "replication"]).contains("state=online")).await;
    let (_place, [a, b]) = two_gates(&format!("{}wait_replicas = 1\n", at(&primary)));
    let [first, second] = [a.login().await, a.login().await];
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    until("the data routes close", async || b.get("/hello", &first.access).await.is_fault()).await;
    for gate in [&a, &b] {
        assert!(gate.refresh(&first.refresh).await.is_fault(), "neither a rotation nor a replay is acknowledged");
        assert!(gate.revoke(&second.refresh).await.is_fault(), "nor is a logout, first or repeated");
        assert!(gate.log_in("demo", &gate.password).await.is_fault(), "nor is a login");
    }
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    until("the same token works", async || b.refresh(&first.refresh).await.status == StatusCode::OK).await;
    b.until_refused(&second.access).await;
    assert_eq!(b.refresh(&second.refresh).await.status, StatusCode::BAD_REQUEST, "the logout was repeated");
}

#[tokio::test]
async fn c21_an_eviction_policy_that_changes_turns_the_gates_red_within_a_minute() {
    let server = Redis::start(&[]);
    let (_place, gates) = two_gates(&at(&server));
    for gate in &gates {
        assert_eq!(readyz(gate).await.status, StatusCode::OK);
    }
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    for gate in &gates {
        until("the gate is not ready", async || readyz(gate).await.status == StatusCode::SERVICE_UNAVAILABLE).await;
        let said = String::from_utf8_lossy(&readyz(gate).await.body).into_owned();
        assert!(said.contains("noeviction"), "{said}");
    }
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    for gate in &gates {
        until("the gate is ready again", async || readyz(gate).await.status == StatusCode::OK).await;
    }
}

#[tokio::test]
async fn c22_what_a_full_store_did_not_take_holds_at_the_gate_and_is_repeated_until_it_is_durable() {
    let server = Redis::start(&[]);
    let (_place, [a, b]) = two_gates(&format!("{}staleness = \"60s\"\n", at(&server)));
    let [first, other] = [a.login().await, a.login().await];
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(a.revoke(&first.refresh).await.is_fault());
    a.until_refused(&first.access).await;
    assert_eq!(b.get("/hello", &first.access).await.status, StatusCode::OK, "it is not written");
    assert!(b.refresh(&other.refresh).await.is_fault());
    until("a full store is not ready", async || readyz(&a).await.status == StatusCode::SERVICE_UNAVAILABLE).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    b.until_refused(&first.access).await;
    assert_eq!(b.refresh(&first.refresh).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(b.refresh(&other.refresh).await.status, StatusCode::OK, "nothing of it was consumed");
}

#[tokio::test]
async fn a_server_that_demands_certificates_takes_the_gates_own() {
    let pki = Pki::new();
    let (_server, port) = Redis::start_with_tls(&pki);
    let store = |more: &str| {
        format!("{CONFIG}[store]\nkind = \"redis\"\nurls = [\"rediss://localhost:{port}\"]\nca = \"ca.pem\"\n{more}")
    };
    let place = Place::new(&store("client_cert = { cert = \"gate.pem\", key = \"gate.key\" }\n"));
    let own = pki.issue(&["gate"]);
    for (name, text) in [("ca.pem", &pki.root_pem()), ("gate.pem", &own.cert), ("gate.key", &own.key)] {
        std::fs::write(place.path(name), text).unwrap();
        std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("there is no store yet"), "{said}");
    let gate = place.start();
    let first = gate.login().await;
    assert_eq!(gate.refresh(&first.refresh).await.status, StatusCode::OK);
    place.write_config(&store(""));
    let said = place.refused();
    assert!(said.contains(&format!("localhost:{port}")) && !said.contains(&own.key), "{said}");
}

#[test]
fn c20_check_online_says_what_a_start_would() {
    let server = Redis::start(&[]);
    let place = Place::new(&format!("{CONFIG}[store]\nkind = \"redis\"\n{}", at(&server)));
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("store: Redis at 127.0.0.1") && said.contains("there is no store yet"), "{said}");
    drop(place.start());
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("the store is this gate's"), "{said}");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let ran = place.run(&["check", "--online"], "");
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let started = place.refused();
    for said in [&ran.stderr, &started] {
        assert!(said.contains("allkeys-lru") && said.contains("set maxmemory-policy noeviction"), "{said}");
    }
    // Without `--online`, the configuration is good.
    place.done(&["check"], "");
}

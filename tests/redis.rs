//! Gates that share a store in Redis.

use std::process::Command;

use http::StatusCode;
use serde_json::Value;
use support::pki::write_private;
use support::proxy::Proxy;
use support::redis::Redis;
use support::redis_cluster::RedisCluster;
use support::round_trips::{RoundTrips, counts_round_trips};
use support::{CONFIG, Gate, Place, decided, keep_secret, until};

pub(crate) mod copy;
mod cut_short;
pub(crate) mod forged;
pub(crate) mod keys;
mod roll;
mod topology;
mod users;

/// The folder of a gate on this server.
pub(crate) fn place_on(server: &Redis) -> Place {
    Place::new(&format!("{CONFIG}{}", store_of(server)))
}

pub(crate) fn store_of(server: &Redis) -> String {
    format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\n", server.port)
}

/// The folder of another gate, as an operator would copy it: the same keys, the same users.
fn node_beside(first: &Place, server: &Redis) -> Place {
    let place = place_on(server);
    place.copy_data_from(first);
    place
}

/// Two gates of one folder, with one keyring and the same users.
fn nodes(server: &Redis) -> (Place, [Gate; 2]) {
    let place = place_on(server);
    let gates = [place.start(), place.start()];
    (place, gates)
}

/// Another gate continues what one gate began, and what that gate revokes ends at all.
pub(crate) async fn goes_on_and_ends([a, b]: [&Gate; 2]) {
    let first = a.login().await;
    assert_eq!(b.get("/hello", &first.access).await.status, StatusCode::OK);
    let second = b.refresh(&first.refresh).await.tokens();
    assert_eq!(a.refresh(&first.refresh).await.tokens(), second, "a repeat gets the same pair, wherever it comes");
    let third = b.refresh(&second.refresh).await.tokens();
    assert_eq!(a.revoke(&third.refresh).await.status, StatusCode::OK);
    for gate in [a, b] {
        gate.until_refused(&third.access).await;
        let refused = gate.refresh(&third.refresh).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]),
            (StatusCode::BAD_REQUEST, &Value::from("invalid_grant"))
        );
    }
}

#[tokio::test]
async fn what_one_gate_began_another_goes_on_with_and_what_it_revokes_ends_at_all() {
    let server = Redis::start(&[]);
    let (_place, [a, b]) = nodes(&server);
    goes_on_and_ends([&b, &a]).await;
    assert_eq!(a.stop(), Some(0));
    // The session continues at the other gate.
    let again = b.refresh(&b_login(&b, &server).await).await;
    assert_eq!(again.status, StatusCode::OK);
}

/// A session that begins while the server forgot its scripts.
async fn b_login(gate: &Gate, server: &Redis) -> String {
    server.cli(&["SCRIPT", "FLUSH"]);
    let answer = gate.log_in("demo", &gate.password).await;
    answer.tokens().refresh
}

#[tokio::test]
async fn a_store_that_is_away_closes_the_gate_and_one_that_is_back_opens_it() {
    let mut server = Redis::start(&["--appendonly yes", "--appendfsync always"]);
    let (_place, gates) = nodes(&server);
    closes_and_opens(gates, |is_away| if is_away { server.kill() } else { server.start_again() }).await;
}

/// Gates whose store is away refuse everything for now, and go on once it is back. `set_away` takes the store away, or
/// brings it back.
pub(crate) async fn closes_and_opens([a, b]: [Gate; 2], mut set_away: impl FnMut(bool)) {
    let first = a.login().await;
    set_away(true);
    until("a token is answered with 503", async || {
        a.get("/hello", &first.access).await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let refused = b.refresh(&first.refresh).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key("retry-after"));
    set_away(false);
    until("the token passes again", async || a.get("/hello", &first.access).await.status == StatusCode::OK).await;
    until("the same refresh token works", async || b.refresh(&first.refresh).await.status == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c44_a_start_waits_for_a_store_that_is_not_there_yet_and_says_so() {
    let server = Redis::start(&[]);
    let way = Proxy::to(server.port).await;
    let store = format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\n", way.port);
    let place = Place::new(&format!("{CONFIG}{store}"));
    // The state while the servers choose a primary.
    way.go_away(true);
    let starting = tokio::task::spawn_blocking(move || (place.start(), place));
    until("the gate has tried", async || way.accepted().len() > 10).await;
    way.go_away(false);
    let (gate, _place) = starting.await.unwrap();
    assert!(gate.log().contains("the store does not respond yet"));
    gate.login().await;
}

#[test]
fn c44_a_start_that_only_an_operator_can_mend_is_refused_at_once() {
    let server = Redis::start(&["--requirepass the-right-password"]);
    keep_secret("the-wrong-password");
    let url = format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\n", server.port);
    for more in ["", "password_file = \"store.pw\"\n"] {
        let place = Place::new(&format!("{CONFIG}{url}{more}"));
        write_private(&place.path("store.pw"), "the-wrong-password");
        let said = place.fails(&["serve"], "");
        assert!(said.contains("refuses the username or the password: correct them"), "{said}");
        assert!(!said.contains("does not respond yet"), "{said}");
    }
}

/// The store was opened, and does not answer when the gate reads from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c44_a_start_goes_on_after_a_store_that_failed_once_it_was_open() {
    let server = Redis::start(&[]);
    let way = Proxy::to(server.port).await;
    let store = format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\n", way.port);
    let place = Place::new(&format!("{CONFIG}{store}"));
    assert_eq!(place.start().stop(), Some(0), "the store is made");
    // The answer to the question which gates there are, which follows the opening.
    way.lose(Some("nodes"));
    let before = way.accepted().len();
    let starting = tokio::task::spawn_blocking(move || (place.start(), place));
    until("the gate has tried", async || way.accepted().len() > before + 30).await;
    way.lose(None);
    let (gate, _place) = starting.await.unwrap();
    assert!(gate.log().contains("the store does not respond yet"));
    gate.login().await;
}

// The proxy to the server is a task of this test, and a start waits for the proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c43_a_staleness_that_is_too_short_for_the_distance_is_an_error_of_check_and_a_warning_at_start() {
    let server = Redis::start(&[]);
    let way = Proxy::to(server.port).await;
    let store = format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\n", way.port);
    let place = Place::new(&format!("{CONFIG}{store}staleness = \"500ms\"\n"));
    let near = place.start();
    assert!(!near.log().contains("the configured staleness is too short"), "the server is near");
    assert_eq!(near.stop(), Some(0));
    place.done(&["check", "--online"], "");
    // A round trip of 140 ms at least.
    way.delay(std::time::Duration::from_millis(70));
    let ran = place.run(&["check", "--online"], "");
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("store.staleness") && ran.stderr.contains("raise `staleness`"), "{ran:?}");
    let far = place.start();
    assert!(far.log().contains("the configured staleness is too short"));
    way.delay(std::time::Duration::ZERO);
}

// The proxy to the server is a task of this test, and a start waits for the proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c42_a_login_takes_three_round_trips_to_redis_and_a_refresh_two() {
    let server = Redis::start(&[]);
    let way = RoundTrips::to(server.port).await;
    let config = format!("{CONFIG}[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\n", way.port);
    // At its bound, a login ends the oldest session besides.
    let place = Place::new(&support::with(&config, "sessions", "max_sessions_per_subject = 3"));
    let [a, b] = [place.start(), place.start()];
    counts_round_trips(&way, &a, &b, 3).await;
}

/// A key of the gates made the token, so the token names its session. An earlier token of the session ends it, too.
#[tokio::test]
async fn c22_r33_a_logout_by_refresh_token_while_the_store_is_away_holds_at_its_gate_and_is_repeated_until_it_is_durable()
 {
    let mut server = Redis::start(&["--appendonly yes", "--appendfsync always"]);
    let log = "[log]\nformat = \"json\"\n";
    let place = Place::new(&format!("{CONFIG}{}staleness = \"60s\"\n{log}", store_of(&server)));
    let [a, b] = [place.start(), place.start()];
    let (first, goes_on) = (a.login().await, a.login().await);
    let second = b.refresh(&first.refresh).await.tokens();
    server.kill();
    assert!(a.revoke(&first.refresh).await.is_fault());
    a.until_refused(&second.access).await;
    assert_eq!(a.revoke(&format!("{}x", goes_on.refresh)).await.status, StatusCode::OK, "an unknown token");
    assert_eq!(a.get("/hello", &goes_on.access).await.status, StatusCode::OK, "nothing vouches for that token");
    assert_eq!(b.get("/hello", &second.access).await.status, StatusCode::OK, "it is not written");
    until("the log says what a stop would lose", async || a.log().contains(r#""lost_at_end":1"#)).await;
    let revocations = || {
        let log = a.log();
        let lines = log.lines().filter(|line| line.contains(r#""event.action":"revocation""#));
        lines.map(|line| (line.contains(r#""owed":"memory""#), line.contains(r#""event.outcome":"unknown""#))).collect()
    };
    let lines: Vec<_> = revocations();
    assert_eq!(lines, [(true, true)]);
    server.start_again();
    b.until_refused(&second.access).await;
    until("a second line follows", async || revocations() == [(true, true), (false, false)]).await;
    let refused = decided(async || b.refresh(&second.refresh).await).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(decided(async || b.refresh(&goes_on.refresh).await).await.status, StatusCode::OK);
}

#[tokio::test]
async fn r26_r32_what_ends_at_one_gate_while_redis_lacks_it_does_not_come_back_with_another() {
    let mut server = Redis::start(&[]);
    let (place, gates) = nodes(&server);
    server.cli(&["SAVE"]);
    ends_while_the_store_lacks_it(&place, gates, || {
        server.kill();
        server.start_again();
    })
    .await;
}

/// The server loses writes of one gate that the other has not read, and the first gate stands still until the other has
/// ended sessions of those writes.
pub(crate) async fn ends_while_the_store_lacks_it(place: &Place, [a, b]: [Gate; 2], lose: impl FnOnce()) {
    // A connection of the gate may still lead to the restarted server.
    let begun = async || decided(async || b.log_in("demo", &b.password).await).await.tokens();
    let [logged_out, revoked, goes_on] = [begun().await, begun().await, begun().await];
    let id = place.json(&["token", "inspect"], &revoked.refresh)["session"].as_str().unwrap().to_owned();
    b.signal("STOP");
    lose();
    place.point_commands_at(&a);
    until("the gate asks the server that lacks them", async || {
        place.run(&["session", "show", &id], "").stderr.contains("there is no session")
    })
    .await;
    let answer = decided(async || a.revoke(&logged_out.refresh).await).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let said = place.fails(&["session", "revoke", &id], "");
    assert!(said.contains("It is revoked anyway, so that no gate writes it back"), "{said}");
    b.signal("CONT");
    until("it is written back", async || b.refresh(&goes_on.refresh).await.status == StatusCode::OK).await;
    for gate in [&a, &b] {
        for tokens in [&logged_out, &revoked] {
            gate.until_refused(&tokens.access).await;
            let refused = decided(async || gate.refresh(&tokens.refresh).await).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        }
    }
}

#[tokio::test]
async fn c45_a_restart_within_the_staleness_is_a_warning_and_a_store_that_stays_away_an_error() {
    let mut server = Redis::start(&["--appendonly yes", "--appendfsync always"]);
    let patient = Place::new(&format!("{CONFIG}{}staleness = \"60s\"\n", store_of(&server)));
    let a = patient.start();
    let other = node_beside(&patient, &server);
    let b = other.start();
    let first = a.login().await;
    let second = a.refresh(&first.refresh).await.tokens();
    server.kill();
    // The first use of its access token confirms the refresh, and the gate writes that into the store.
    assert_eq!(a.get("/hello", &second.access).await.status, StatusCode::OK);
    until("it is an error", async || b.log().contains("this gate does not receive changes from the store")).await;
    for late in
        ["cannot receive changes from the store at the moment", "cannot record which sessions use their new tokens"]
    {
        until(late, async || a.log().contains(late)).await;
    }
    server.start_again();
    until("the gate has looked", async || a.log().contains("has everything that this gate knows")).await;
    let log = a.log();
    assert!(!log.contains("ERROR"), "{log}");
    assert!(
        b.log().lines().any(|line| line.contains("ERROR") && line.contains("does not receive changes from the store"))
    );
}

/// The server crashes, and comes back with everything.
#[tokio::test]
async fn c38_a_restart_that_lost_nothing_is_no_error_and_nothing_is_written_back() {
    let mut server = Redis::start(&["--appendonly yes", "--appendfsync always"]);
    let (_place, [a, b]) = nodes(&server);
    let (first, other) = (a.login().await, b.login().await);
    let second = b.refresh(&first.refresh).await.tokens();
    server.kill();
    server.start_again();
    for gate in [&a, &b] {
        until("the gate has looked", async || gate.log().contains("has everything that this gate knows")).await;
        until("tokens are issued again", async || gate.log_in("demo", &gate.password).await.status == StatusCode::OK)
            .await;
        let log = gate.log();
        assert!(!log.contains("the store has lost writes") && !log.contains("lost writes that it had"), "{log}");
    }
    assert_eq!(decided(async || a.refresh(&second.refresh).await).await.status, StatusCode::OK);
    assert_eq!(decided(async || a.refresh(&other.refresh).await).await.status, StatusCode::OK);
}

/// The server crashes, and comes back with its last snapshot.
#[tokio::test]
async fn c15_c18_what_gates_know_holds_after_the_server_lost_its_last_writes() {
    let mut server = Redis::start(&[]);
    let (_place, [a, b]) = nodes(&server);
    let (ended, goes_on, replayed) = (a.login().await, a.login().await, a.login().await);
    server.cli(&["SAVE"]);
    assert_eq!(b.revoke(&ended.refresh).await.status, StatusCode::OK);
    a.until_refused(&ended.access).await;
    let next = b.refresh(&goes_on.refresh).await.tokens();
    let lost_reply = a.refresh(&replayed.refresh).await.tokens();
    let begun = b.login().await;
    server.kill();
    server.start_again();
    for gate in [&a, &b] {
        until("tokens are issued again", async || gate.log_in("demo", &gate.password).await.status == StatusCode::OK)
            .await;
        assert_eq!(gate.get("/hello", &ended.access).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(gate.refresh(&ended.refresh).await.status, StatusCode::BAD_REQUEST);
    }
    let again = decided(async || b.refresh(&replayed.refresh).await).await.tokens();
    assert_eq!(again, lost_reply, "the same pair at another gate");
    assert_eq!(decided(async || a.refresh(&next.refresh).await).await.status, StatusCode::OK);
    assert_eq!(decided(async || a.refresh(&begun.refresh).await).await.status, StatusCode::OK);
    assert_eq!(server.cli(&["HLEN", "{rg:0}:r"]), "1", "the revocation is in the store again");
}

#[test]
fn c20_a_gate_of_another_keyring_does_not_start() {
    let server = Redis::start(&[]);
    let (_place, gates) = nodes(&server);
    let other = place_on(&server);
    let mut command: Command = other.command();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("another keyring"), "{said}");
    drop(gates);
}

/// Two gates on a cluster, whose primaries are lost and replaced while both go on.
#[tokio::test]
async fn c12_gates_on_a_cluster_act_as_one_and_outlive_a_primary() {
    let mut cluster = RedisCluster::start(true, &[]);
    let store = format!(
        "[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{}\"]\ncluster = true\n",
        cluster.nodes[2].port
    );
    let place = Place::new(&format!("{CONFIG}{store}"));
    let [a, b] = [place.start(), place.start()];
    let mut kept = Vec::new();
    // Sessions in more than one partition.
    for _ in 0..12 {
        let first = a.login().await;
        assert_eq!(b.get("/hello", &first.access).await.status, StatusCode::OK);
        let second = b.refresh(&first.refresh).await.tokens();
        assert_eq!(a.refresh(&first.refresh).await.tokens(), second, "a repeat gets the same pair, wherever it comes");
        kept.push(a.refresh(&second.refresh).await.tokens());
    }
    let ended = kept.pop().unwrap();
    assert_eq!(b.revoke(&ended.refresh).await.status, StatusCode::OK);
    a.until_refused(&ended.access).await;
    b.until_refused(&ended.access).await;
    // Otherwise a replica replaces the primary before the gates notice the loss, on a fast machine.
    cluster.nodes[3].cli(&["CONFIG", "SET", "cluster-replica-no-failover", "yes"]);
    cluster.nodes[0].kill();
    until("a token is answered with 503", async || {
        a.get("/hello", &kept[0].access).await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    cluster.nodes[3].cli(&["CONFIG", "SET", "cluster-replica-no-failover", "no"]);
    cluster.until_promoted(3);
    until("the token passes again", async || a.get("/hello", &kept[0].access).await.status == StatusCode::OK).await;
    until("at the other gate as well", async || b.get("/hello", &kept[0].access).await.status == StatusCode::OK).await;
    for tokens in &kept {
        until("every session goes on", async || b.refresh(&tokens.refresh).await.status == StatusCode::OK).await;
    }
    // Each gate notices separately that the store is complete.
    let refused = decided(async || a.refresh(&ended.refresh).await).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let last = decided(async || a.log_in("demo", &a.password).await).await.tokens();
    assert_eq!(decided(async || b.revoke(&last.refresh).await).await.status, StatusCode::OK);
    a.until_refused(&last.access).await;
}

#[test]
fn c20_a_single_server_for_a_cluster_and_a_node_for_a_single_server_are_refused() {
    let (single, cluster) = (Redis::start(&[]), RedisCluster::start(false, &[]));
    for (port, key, part) in [
        (single.port, "cluster = true\n", "not a node of a cluster: remove cluster = true"),
        (cluster.nodes[0].port, "", "a node of a cluster: set cluster = true"),
    ] {
        let store = format!("[store]\nkind = \"redis\"\nurls = [\"redis://127.0.0.1:{port}\"]\n{key}");
        let output = Place::new(&format!("{CONFIG}{store}")).command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{said}");
    }
}

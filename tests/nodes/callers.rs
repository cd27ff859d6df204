//! Machines as callers at several gates of one store: their keys and their limits.

use std::io::Read;

use http::{Method, StatusCode};
use support::{decided, keep_secret, until};
use tokio::time::Instant;

use super::fleet::{Fleet, GATES};
use super::servers::Servers;
use crate::edge::upgrades::{ask, upstream};

/// Requests of a minute on the two limited routes.
const LIMIT: usize = 120;

fn rules(port: u16) -> String {
    let limited = |path: &str| {
        format!(
            "[[routes]]\nid = \"{path}\"\npath = \"/{path}/{{*rest}}\"\nupstream = \"app\"\ncredentials = [\"key\"]\n\
             rate = [{{ per = \"key\", limit = \"{LIMIT}/1m\", over = \"gates\" }}]\n"
        )
    };
    format!(
        "[api_keys]\nprefix = \"acme\"\n[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/ws\"\nupgrade = true\nupstream = \"ws\"\ncredentials = [\"key\"]\n{}{}",
        limited("shared"),
        limited("alone"),
    )
}

async fn status(fleet: &Fleet, gate: usize, path: &str, key: &str) -> StatusCode {
    decided(async || fleet.gate(gate).call(Method::GET, path, &[("x-api-key", key)], "").await).await.status
}

/// The number of passed requests, of this many requests at the gates that `gate` names. Each is decided at once: a limit
/// never waits for the store.
async fn passed(fleet: &Fleet, path: &str, key: &str, number: usize, gate: impl Fn(usize) -> usize) -> usize {
    let mut passed = 0;
    for n in 0..number {
        match fleet.gate(gate(n)).call(Method::GET, path, &[("x-api-key", key)], "").await.status {
            StatusCode::OK => passed += 1,
            other => assert_eq!(other, StatusCode::TOO_MANY_REQUESTS),
        }
    }
    passed
}

async fn keys_and_limits(servers: Servers) {
    let (port, _heads) = upstream();
    // The test is about limits, so the gates accept keys while they cannot reach the store, however slow the machine is.
    let rules = format!("when_stale = \"5m\"\n{}", rules(port));
    let mut fleet = Fleet::start_with(servers, "grace = \"10s\"", &rules, |_| {}).await;
    fleet.until_all_serve().await;
    let make = |fleet: &Fleet, name: &str| {
        let made = fleet.commands(0, |place| place.json(&["api-key", "create", name, "--user", "demo"], ""));
        let text = made["key"].as_str().unwrap().to_owned();
        keep_secret(&text);
        (text, made["id"].as_str().unwrap().to_owned())
    };
    let ((key, id), (other, _)) = (make(&fleet, "nightly"), make(&fleet, "weekly"));

    // K16: one gate has most of the load, and one is killed. The count may lack, or exceed, the requests that gates
    // hold.
    let begun = Instant::now();
    let before = passed(&fleet, "/shared/x", &key, LIMIT / 2, |n| if n % 4 == 0 { 2 } else { 1 }).await;
    fleet.kill(2);
    let after = passed(&fleet, "/shared/x", &key, 2 * LIMIT, |n| usize::from(n % 4 != 0)).await;
    let earned = usize::try_from(begun.elapsed().as_secs()).unwrap() * LIMIT / 60 + LIMIT / 60;
    let most = LIMIT + GATES + earned;
    assert!((LIMIT - GATES..=most).contains(&(before + after)), "{before} and {after} of {most}");
    // The other key has a separate count.
    assert_eq!(status(&fleet, 1, "/shared/x", &other).await, StatusCode::OK);

    // K17: without the store a gate goes on with its share.
    fleet.way(1).go_away(true);
    let begun = Instant::now();
    let admitted = passed(&fleet, "/alone/x", &key, LIMIT, |_| 1).await;
    // The share is earned anew as time passes.
    let most = LIMIT * 3 / 4 + usize::try_from(begun.elapsed().as_secs()).unwrap() * LIMIT / 60;
    assert!((LIMIT / GATES / 2..most).contains(&admitted), "{admitted} of {most}: neither open nor closed");
    fleet.heal();
    fleet.until_all_serve().await;

    // K4: the gate that acknowledged the revocation is gone at once.
    let mut streams = Vec::new();
    for gate in 1..GATES {
        let (answer, stream) = ask(fleet.gate(gate), "/ws", "chat", &format!("x-api-key: {key}"));
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        streams.push(stream);
    }
    fleet.commands(0, |place| place.done(&["api-key", "revoke", &id], ""));
    fleet.kill(0);
    for (gate, mut stream) in (1..GATES).zip(streams) {
        until("the key is refused", async || status(&fleet, gate, "/alone/x", &key).await == StatusCode::UNAUTHORIZED)
            .await;
        let mut rest = Vec::new();
        // A reset would be right, too, but not a connection that stays open.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
        assert_eq!(status(&fleet, gate, "/alone/x", &other).await, StatusCode::OK);
    }
    // The same after a restart.
    fleet.heal();
    assert_eq!(status(&fleet, 0, "/alone/x", &key).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k4_k16_k17_gates_on_redis_share_the_limits_of_keys_and_their_ends() {
    keys_and_limits(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k4_k16_k17_gates_on_postgresql_share_the_limits_of_keys_and_their_ends() {
    keys_and_limits(Servers::postgres()).await;
}

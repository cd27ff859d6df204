//! The answers to clients while the connection to the store fails, and a check that no write is lost: the table of
//! faults, row by row.

use std::time::Duration;

use http::StatusCode;
use support::proxy::Proxy;
use support::{Answer, CONFIG, Gate, Place, until, with};

use super::servers::Servers;

/// A gate behind a proxy, and a gate with its own connection to the store.
struct Two {
    servers: Servers,
    way: Proxy,
    place: Place,
    a: Gate,
    b: Gate,
}

impl Two {
    async fn start(servers: Servers, sessions: &str, store: &str) -> Self {
        let way = servers.way().await.unwrap();
        let config = format!("{CONFIG}{}{store}", servers.section());
        let place = servers.place(&with(&config, "sessions", sessions));
        let a = place.start_with(|command| servers.lead_over(&way, command));
        let b = place.start();
        Self { servers, way, place, a, b }
    }
}

const NO_WINDOW: &str = "grace = \"0s\"\nlost_response_window = \"0s\"";

/// A word in the replies to writes other than rotations.
const DONE: &str = "committed";

/// A word in the replies to rotations.
fn rotated(servers: &Servers) -> &'static str {
    if servers.is_postgres() { DONE } else { "swapped" }
}

fn is_dead(answer: &Answer) -> bool {
    answer.status == StatusCode::BAD_REQUEST && answer.error() == "invalid_grant"
}

/// Rows 1 and 5: no connection, silence, late replies, errors.
async fn out_of_reach(servers: Servers) {
    let two = Two::start(servers, NO_WINDOW, "staleness = \"60s\"\n").await;
    let Two { way, a, b, .. } = &two;
    let loading = "LOADING Redis is loading the dataset in memory";
    let faults: [(&str, &dyn Fn(bool)); 4] = [
        ("refused", &|on| way.go_away(on)),
        ("held", &|on| way.hold(on)),
        ("late", &|on| way.delay(Duration::from_millis(if on { 1500 } else { 0 }))),
        ("errors", &|on| way.answer(on.then_some(loading))),
    ];
    // The errors are of Redis' protocol.
    let number = if two.servers.is_postgres() { faults.len() - 1 } else { faults.len() };
    for (what, set) in &faults[..number] {
        let [kept, ended] = [a.login().await, a.login().await];
        assert_eq!(a.get("/hello", &ended.access).await.status, StatusCode::OK);
        set(true);
        let (refresh, login, logout, by_refresh_token, access) = tokio::join!(
            a.refresh(&kept.refresh),
            a.log_in("demo", &a.password),
            a.revoke(&ended.access),
            a.revoke(&ended.refresh),
            a.get("/hello", &kept.access),
        );
        for answer in [&refresh, &login, &logout, &by_refresh_token] {
            assert!(answer.is_fault(), "{what}: {answer:?}");
        }
        assert_eq!(access.status, StatusCode::OK, "{what}: within the staleness");
        assert_eq!(a.get("/hello", &ended.access).await.status, StatusCode::UNAUTHORIZED, "{what}: refused here");
        set(false);
        until("the same token works", async || {
            let answer = a.refresh(&kept.refresh).await;
            assert!(answer.status == StatusCode::OK || answer.is_fault(), "{what}: {answer:?}");
            answer.status == StatusCode::OK
        })
        .await;
        b.until_refused(&ended.access).await;
        assert!(is_dead(&b.refresh(&ended.refresh).await), "{what}: the logout was repeated");
    }
}

/// Row 3: the store has executed the write, and no reply arrives.
async fn in_doubt_without_a_window(servers: Servers) {
    let two = Two::start(servers, NO_WINDOW, "").await;
    let Two { way, a, b, servers, .. } = &two;
    let first = a.login().await;
    way.lose(Some(rotated(servers)));
    assert!(a.refresh(&first.refresh).await.is_fault());
    way.lose(None);
    let second = a.refresh(&first.refresh).await.tokens();
    assert_eq!(a.get("/hello", &second.access).await.status, StatusCode::OK);
    let third = b.refresh(&second.refresh).await.tokens();
    assert!(is_dead(&a.refresh(&second.refresh).await), "no repeat of what was answered");
    assert!(is_dead(&b.refresh(&third.refresh).await), "it was a reuse");
    // After an answer, a repetition is a reuse again.
    let first = a.login().await;
    way.lose(Some(rotated(servers)));
    assert!(a.refresh(&first.refresh).await.is_fault());
    way.lose(None);
    let second = a.refresh(&first.refresh).await.tokens();
    assert!(is_dead(&a.refresh(&first.refresh).await));
    assert!(is_dead(&a.refresh(&second.refresh).await));
    // Only the gate that wrote the record knows its state.
    let first = a.login().await;
    way.lose(Some(rotated(servers)));
    assert!(a.refresh(&first.refresh).await.is_fault());
    way.lose(None);
    assert!(is_dead(&b.refresh(&first.refresh).await));
}

/// Row 3 with a grace period, and for logins and logouts.
async fn in_doubt_within_grace(servers: Servers) {
    let two = Two::start(servers, "lost_response_window = \"0s\"", "staleness = \"60s\"\n").await;
    let Two { way, a, b, servers, .. } = &two;
    let [first, ended] = [a.login().await, a.login().await];
    way.lose(Some(rotated(servers)));
    assert!(a.refresh(&first.refresh).await.is_fault());
    let second = b.refresh(&first.refresh).await.tokens();
    way.lose(None);
    assert_eq!(a.refresh(&first.refresh).await.tokens(), second);
    way.lose(Some(DONE));
    assert!(a.log_in("demo", &a.password).await.is_fault());
    way.lose(Some(DONE));
    assert!(a.revoke(&ended.refresh).await.is_fault());
    for gate in [a, b] {
        gate.until_refused(&ended.access).await;
        assert!(is_dead(&gate.refresh(&ended.refresh).await));
    }
    way.lose(None);
    assert_eq!(servers.revocations(), "1", "one revocation");
    assert_eq!(a.refresh(&second.refresh).await.status, StatusCode::OK);
}

/// Row 7.
async fn unreadable(servers: Servers) {
    let two = Two::start(servers, NO_WINDOW, "").await;
    let Two { servers, a, b, .. } = &two;
    // The gate that wrote a record knows its content before the damage. It does not overwrite a record of another
    // version.
    for (what, refused_at) in [("of another version", vec![a, b]), ("damaged", vec![b])] {
        let is_damaged = what == "damaged";
        let mut broken = a.login().await;
        if is_damaged {
            servers.damage_records();
        } else {
            servers.change_versions();
        }
        let other = a.login().await;
        for gate in refused_at {
            assert!(gate.refresh(&broken.refresh).await.is_fault(), "{what}");
            assert_eq!(gate.get("/hello", &broken.access).await.status, StatusCode::OK, "{what}");
        }
        assert!(b.log().contains("store_failed"), "{what}");
        if is_damaged {
            broken = a.refresh(&broken.refresh).await.tokens();
        }
        let other = b.refresh(&other.refresh).await.tokens();
        // The end of the session outlives the record.
        a.revoke(&broken.access).await;
        a.until_refused(&broken.access).await;
        b.until_refused(&broken.access).await;
        assert!(!b.refresh(&broken.refresh).await.status.is_success(), "{what}");
        assert_eq!(a.refresh(&other.refresh).await.status, StatusCode::OK, "{what}");
    }
}

/// Row 9.
#[cfg(feature = "failpoints")]
async fn skewed(servers: Servers) {
    let two = Two::start(servers, NO_WINDOW, "").await;
    let Two { place, b, .. } = &two;
    let clock = place.path("clock");
    std::fs::write(&clock, "0").unwrap();
    let a = place.start_with(|command| {
        command.env("ROTOGATE_FAILPOINT", format!("wall-clock:{}", clock.display()));
    });
    let [first, ended] = [a.login().await, a.login().await];
    std::fs::write(&clock, "60000").unwrap();
    for answer in [a.refresh(&first.refresh).await, a.log_in("demo", &a.password).await] {
        assert!(answer.is_fault(), "{answer:?}");
    }
    assert_eq!(a.get("/hello", &first.access).await.status, StatusCode::OK);
    assert_eq!(a.revoke(&ended.refresh).await.status, StatusCode::OK);
    b.until_refused(&ended.access).await;
    let second = b.refresh(&first.refresh).await.tokens();
    std::fs::write(&clock, "0").unwrap();
    until("the gate issues again", async || a.refresh(&second.refresh).await.status == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_while_the_store_is_out_of_reach_nothing_is_consumed_and_a_logout_holds_at_its_gate() {
    out_of_reach(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_while_postgresql_is_out_of_reach_nothing_is_consumed_and_a_logout_holds_at_its_gate() {
    out_of_reach(Servers::postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_a_refresh_in_doubt_is_repeated_without_a_window_at_its_gate_and_once() {
    in_doubt_without_a_window(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_a_refresh_on_postgresql_in_doubt_is_repeated_at_its_gate_and_once() {
    in_doubt_without_a_window(Servers::postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_what_is_in_doubt_works_at_any_gate_within_grace() {
    in_doubt_within_grace(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_what_is_in_doubt_on_postgresql_works_at_any_gate_within_grace() {
    in_doubt_within_grace(Servers::postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_a_record_that_cannot_be_read_is_a_fault_of_its_session_alone() {
    unreadable(Servers::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_a_row_that_cannot_be_read_is_a_fault_of_its_session_alone() {
    unreadable(Servers::postgres()).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_a_gate_whose_clock_differs_issues_nothing_and_revokes() {
    skewed(Servers::redis()).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_a_gate_whose_clock_differs_from_postgresql_issues_nothing_and_revokes() {
    skewed(Servers::postgres()).await;
}

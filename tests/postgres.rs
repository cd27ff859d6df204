//! Gates that share a store in PostgreSQL.

use http::StatusCode;
use support::pki::write_private;
use support::postgres::Postgres;
use support::round_trips::{RoundTrips, counts_round_trips};
use support::{CONFIG, Gate, Place, decided, keep_secret, until};

mod copy;
mod forged;
mod nodes;

pub(crate) const PASSWORD: &str = "gate-store-password";

/// A server with the gates' user.
pub(crate) fn server() -> Postgres {
    keep_secret(PASSWORD);
    let server = Postgres::start(&[]);
    server.sql(&format!("create role gate login password '{PASSWORD}'; grant create on database postgres to gate"));
    server
}

pub(crate) fn place(server: &Postgres) -> Place {
    place_with(server, "")
}

fn place_with(server: &Postgres, more: &str) -> Place {
    place_of(&format!("{CONFIG}{}{more}", store_of(server)))
}

/// With the password of the gates' user.
fn place_of(config: &str) -> Place {
    let place = Place::new(config);
    write_private(&place.path("store.pw"), PASSWORD);
    place
}

pub(crate) fn store_of(server: &Postgres) -> String {
    let url = format!("postgres://gate@127.0.0.1:{}/postgres", server.port);
    format!("[store]\nkind = \"postgres\"\nurl = \"{url}\"\npassword_file = \"store.pw\"\n")
}

/// The folder of another gate, as an operator would copy it: the same keys, the same users.
fn node_beside(first: &Place, server: &Postgres) -> Place {
    let place = place(server);
    place.copy_data_from(first);
    place
}

/// Two gates of one folder, with one keyring and the same users.
fn nodes(server: &Postgres) -> (Place, [Gate; 2]) {
    let place = place(server);
    let gates = [place.start(), place.start()];
    (place, gates)
}

#[test]
fn c44_a_start_that_only_an_operator_can_mend_is_refused_at_once() {
    let server = server();
    let refused = |password: &str, url: &str| {
        let store = store_of(&server).replace("/postgres\"", url);
        let place = Place::new(&format!("{CONFIG}{store}"));
        write_private(&place.path("store.pw"), password);
        let said = place.fails(&["serve"], "");
        assert!(!said.contains("does not respond yet"), "{said}");
        said
    };
    let said = refused("not-the-password", "/postgres\"");
    assert!(said.contains("refuses the user, its password or its certificate: correct them"), "{said}");
    let said = refused(PASSWORD, "/nowhere\"");
    assert!(said.contains("has no such database: create it"), "{said}");
    server.sql("revoke create on database postgres from gate");
    let said = refused(PASSWORD, "/postgres\"");
    assert!(said.contains("does not allow the gate's user a required operation"), "{said}");
}

// The proxy to the server is a task of this test, and a start waits for the proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c42_a_login_takes_three_round_trips_to_postgresql_and_a_refresh_two() {
    let server = server();
    let way = RoundTrips::to(server.port).await;
    let store = store_of(&server).replace(&format!(":{}/", server.port), &format!(":{}/", way.port));
    let place = place_of(&support::with(&format!("{CONFIG}{store}"), "sessions", "max_sessions_per_subject = 3"));
    let [a, b] = [place.start(), place.start()];
    counts_round_trips(&way, &a, &b, 3).await;
}

#[tokio::test]
async fn what_one_gate_began_another_goes_on_with_and_what_it_revokes_ends_at_all() {
    let server = server();
    let (place, [mut a, b]) = nodes(&server);
    assert_ne!(server.sql("select issuer from rotogate.head"), "");
    super::redis::goes_on_and_ends([&a, &b]).await;
    // Begun sessions and revocations of a gate outlive its crash.
    let kept = a.login().await;
    let ended = a.login().await;
    assert_eq!(a.revoke(&ended.refresh).await.status, StatusCode::OK);
    a.kill();
    b.until_refused(&ended.access).await;
    assert_eq!(b.refresh(&ended.refresh).await.status, StatusCode::BAD_REQUEST);
    let kept = b.refresh(&kept.refresh).await.tokens();
    let again = place.start();
    assert_eq!(again.get("/hello", &kept.access).await.status, StatusCode::OK);
    assert_ne!(again.get("/hello", &ended.access).await.status, StatusCode::OK);
    assert_eq!(again.refresh(&kept.refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_store_that_is_away_closes_the_gate_and_one_that_is_back_opens_it() {
    let mut server = server();
    let (_place, gates) = nodes(&server);
    super::redis::closes_and_opens(gates, |is_away| if is_away { server.kill() } else { server.start_again() }).await;
}

/// A standby is promoted that lacks the last writes.
#[tokio::test]
async fn c15_c18_what_gates_know_holds_after_a_standby_was_promoted_that_lacks_the_last_writes() {
    let mut server = server();
    let (_place, [a, b]) = nodes(&server);
    let (ended, goes_on, replayed) = (a.login().await, a.login().await, a.login().await);
    let standby = server.copy();
    until("tokens pass", async || b.get("/hello", &ended.access).await.status == StatusCode::OK).await;
    until("tokens are issued", async || a.log_in("demo", &a.password).await.status == StatusCode::OK).await;
    // A connection of the gates may still lead to the restarted server.
    assert_eq!(decided(async || b.revoke(&ended.refresh).await).await.status, StatusCode::OK);
    a.until_refused(&ended.access).await;
    let next = decided(async || b.refresh(&goes_on.refresh).await).await.tokens();
    let lost_reply = decided(async || a.refresh(&replayed.refresh).await).await.tokens();
    let begun = decided(async || b.log_in("demo", &b.password).await).await.tokens();
    server.fail_over_to(&standby);
    for gate in [&a, &b] {
        until("tokens are issued again", async || gate.log_in("demo", &gate.password).await.status == StatusCode::OK)
            .await;
        assert_eq!(gate.get("/hello", &ended.access).await.status, StatusCode::UNAUTHORIZED);
        // Another of its connections may still lead to the server that is gone.
        let refused = decided(async || gate.refresh(&ended.refresh).await).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
    assert_ne!(server.sql("select adopted from rotogate.head"), "0");
    let again = decided(async || b.refresh(&replayed.refresh).await).await.tokens();
    assert_eq!(again, lost_reply, "the same pair at another gate");
    assert_eq!(decided(async || a.refresh(&next.refresh).await).await.status, StatusCode::OK);
    assert_eq!(decided(async || a.refresh(&begun.refresh).await).await.status, StatusCode::OK);
    let ends = "select count(*) from rotogate.session where get_byte(state, 1) = 1";
    assert_eq!(server.sql(ends), "1", "the revocation is in the store again");
}

#[tokio::test]
async fn r26_r32_what_ends_at_one_gate_while_postgresql_lacks_it_does_not_come_back_with_another() {
    let mut server = server();
    let (place, gates) = nodes(&server);
    let standby = server.copy();
    for gate in &gates {
        until("tokens are issued", async || gate.log_in("demo", &gate.password).await.status == StatusCode::OK).await;
    }
    super::redis::ends_while_the_store_lacks_it(&place, gates, || server.fail_over_to(&standby)).await;
}

#[test]
fn c20_a_gate_that_cannot_use_the_store_does_not_start_and_says_why_without_credentials() {
    let server = server();
    let (first, gates) = nodes(&server);
    let said = |place: &Place| {
        let output = place.command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !said.contains(PASSWORD), "{said}");
        said
    };
    let other = place(&server);
    let text = said(&other);
    assert!(text.contains("another keyring"), "{text}");
    server.sql("alter role gate set synchronous_commit = off");
    let text = said(&first);
    assert!(text.contains("synchronous_commit off") && text.contains("set it to on"), "{text}");
    drop(gates);
    // The command finds the mistake without the server.
    std::fs::remove_file(first.path("store.pw")).unwrap();
    let ran = first.run(&["check"], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("store.password_file"), "{ran:?}");
}

#[test]
fn c20_check_online_says_what_a_start_would() {
    let server = server();
    let place = place(&server);
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("store: PostgreSQL at 127.0.0.1") && said.contains("there is no store yet"), "{said}");
    assert_eq!(server.sql("select count(*) from pg_namespace where nspname = 'rotogate'"), "0", "nothing was made");
    let refused = |part: &str| {
        let ran = place.run(&["check", "--online"], "");
        assert!(ran.code == Some(2) && ran.stderr.contains(part) && !ran.stderr.contains(PASSWORD), "{ran:?}");
    };
    server.sql("revoke create on database postgres from gate");
    refused("to make the tables");
    server.sql("grant create on database postgres to gate");
    drop(place.start());
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("the store is this gate's"), "{said}");
    server.sql("alter system set synchronous_standby_names = 'nowhere'");
    server.sql("select pg_reload_conf()");
    refused("no standby is connected");
    server.sql("alter system reset synchronous_standby_names");
    server.sql("select pg_reload_conf()");
    server.sql("set role gate; revoke delete on rotogate.session from gate");
    refused("delete on table session");
    server.sql("set role gate; grant delete on rotogate.session to gate");
    place.done(&["check", "--online"], "");
    server.sql("insert into rotogate.migration values (99)");
    refused("schema version 99");
}

#[tokio::test]
async fn c22_what_the_store_did_not_take_holds_at_the_gate_and_is_repeated_until_it_is_durable() {
    let server = server();
    let place = place_with(&server, "staleness = \"60s\"\n");
    let [a, b] = [place.start(), place.start()];
    let [first, other, ended] = [a.login().await, a.login().await, a.login().await];
    // The gate has connections for revocations: a read-only server would refuse new ones.
    assert_eq!(a.revoke(&ended.refresh).await.status, StatusCode::OK);
    let read_only = |value: &str| {
        server.sql(&format!("alter system set default_transaction_read_only = {value}"));
        server.sql("select pg_reload_conf()");
    };
    read_only("on");
    until("the store takes no writes", async || b.refresh(&other.refresh).await.is_fault()).await;
    assert!(a.revoke(&first.refresh).await.is_fault());
    a.until_refused(&first.access).await;
    assert_eq!(b.get("/hello", &first.access).await.status, StatusCode::OK, "it is not written");
    read_only("off");
    b.until_refused(&first.access).await;
    assert_eq!(b.refresh(&first.refresh).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(b.refresh(&other.refresh).await.status, StatusCode::OK, "nothing of it was consumed");
}

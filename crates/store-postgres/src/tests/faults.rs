//! Faults of the server, and of the connection to it.

use support::proxy::Proxy;
use tokio::time::timeout;

use super::*;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::store::conformance::server::c2_each_operation_whose_reply_is_cut_is_done_once;
use rotogate_core::store::conformance::{gone, insert, later, rotated, session, start};

const PATIENCE: Duration = Duration::from_secs(60);

/// Cuts the reply to an operation after each fourth of its bytes, or after each with `CUT_EVERY=1` (tests/long.sh). The
/// operation must be done once, and return its normal result.
#[tokio::test]
async fn c2_a_reply_that_is_cut_after_any_byte_is_asked_for_again_and_the_write_done_once() {
    // One store makes ten connections a second at most, so several take turns.
    const STORES: usize = 12;
    let server = Server::start(&[]);
    let direct = PostgresStore::connect(patient(server.options().schema("rg"))).await.unwrap();
    let every = std::env::var("CUT_EVERY").map_or(4, |text| text.parse().expect("CUT_EVERY is a number"));
    let bytes = |first: usize| (first * every..).step_by(STORES * every);
    let turns = (0..STORES).map(|first| cut_after_each(&server, &direct, bytes(first)));
    let cuts: Vec<_> = futures_util::future::join_all(turns).await;
    assert!(cuts.iter().sum::<usize>() * every > 30, "{cuts:?}");
    // The last round of each store cuts nothing.
    let written = 2 * cuts.iter().map(|cuts| cuts + 1).sum::<usize>();
    assert_eq!(server.sql("select count(*) from rg.revocation_log"), written.to_string(), "each entry once");
}

/// Cuts a reply after each of these numbers of bytes, until nothing is cut. Returns the number of rounds that cut one.
async fn cut_after_each(server: &Server, direct: &PostgresStore, bytes: impl Iterator<Item = usize>) -> usize {
    let proxy = Proxy::to(server.port).await;
    let store = PostgresStore::connect(patient(suite::options_through(&proxy))).await.unwrap();
    let mut cuts = 0;
    for cut in bytes {
        let ways = (|| proxy.cut_after(cut), || proxy.has_cut());
        if !c2_each_operation_whose_reply_is_cut_is_done_once([&store, direct], cut as u64, ways).await {
            break;
        }
        cuts += 1;
    }
    cuts
}

/// The server reports success with a warning. Neither this reply nor that of a repetition, which finds the commit done,
/// may count as an acknowledgement.
#[tokio::test]
async fn c26_a_cancelled_wait_for_a_synchronous_standby_is_no_acknowledgement() {
    let server = Server::start(&[]);
    let patient = with(server.options().schema("rg"), |network| {
        (network.reply_timeout, network.operation_timeout) = (Some(PATIENCE), PATIENCE);
    });
    let store = Arc::new(PostgresStore::connect(patient).await.unwrap());
    let begun = session("alice", 1, start());
    insert(&*store, &begun).await;
    let set = |names: &str| {
        server.sql(&format!("alter system set synchronous_standby_names = '{names}'"));
        server.sql("select pg_reload_conf()");
    };
    set("nowhere");
    let cancel =
        "select count(pg_cancel_backend(pid)) from pg_stat_activity where usename = 'gate' and wait_event = 'SyncRep'";
    let cancelled = async || {
        let waiting = async {
            while server.sql(cancel) == "0" {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("it waits for the standby");
    };
    for _ in 0..2 {
        let revoking = tokio::spawn({
            let (store, entry) = (Arc::clone(&store), gone(begun.id));
            async move {
                store.load_to_revoke(begun.id).await.unwrap();
                store.revoke(entry, RevokedBecause::Logout).await
            }
        });
        cancelled().await;
        let error = revoking.await.unwrap().unwrap_err();
        assert_eq!(error.outcome(), WriteOutcome::InDoubt, "{error}");
        assert!(error.to_string().contains("synchronous standby"), "{error}");
    }
    // The record can be read, but no answer may depend on it yet.
    let read = store.load_to_revoke(begun.id).await.unwrap().unwrap();
    assert!(read.is_revoked());
    let settling = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.settle().await }
    });
    cancelled().await;
    assert_eq!(settling.await.unwrap().unwrap_err().outcome(), WriteOutcome::InDoubt);
    set("");
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    store.settle().await.unwrap();
}

/// This holds even if the settings of the role or the database differ.
#[tokio::test]
async fn c26_every_commit_waits_for_the_disk() {
    let server = Server::start(&[]);
    server.connect("rg").await;
    server.sql("create table seen (value text); grant insert on seen to gate");
    server.sql(
        "create function note() returns trigger language plpgsql as \
         'begin insert into seen values (current_setting(''synchronous_commit'')); return null; end'",
    );
    for table in ["session", "revocation"] {
        server.sql(&format!(
            "create constraint trigger noted after insert or update on rg.{table} deferrable initially deferred \
             for each row execute function note()"
        ));
    }
    let store = server.connect("rg").await;
    server.sql("alter role gate set synchronous_commit = off");
    let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'gate'";
    assert_ne!(server.sql(ended), "0");
    let begun = session("alice", 1, start());
    insert(&*store, &begun).await;
    let swapped = store.compare_and_swap(1, rotated(&begun, later(start(), 5)), None).await.unwrap();
    assert_eq!(swapped, Swap::Swapped);
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    assert_eq!(server.sql("select distinct value from seen"), "on");
    assert_eq!(server.sql("select count(*) from seen"), "4");
}

#[tokio::test]
async fn c32_what_one_node_swept_the_other_does_not_sweep_again() {
    let server = Server::start(&[]);
    let [a, b] = [server.connect("rg").await, server.connect("rg").await];
    let now = SystemTime::new().wall();
    let hours = |n: u64| Duration::from_secs(3600 * n);
    let over = session("alice", 1, now.minus(hours(1) / 2));
    let over = Session { expires: now.minus(hours(2)), latest_access_expires: now.minus(hours(2)), ..over };
    insert(&*a, &over).await;
    insert(&*a, &session("alice", 2, start())).await;
    let swept = conformance::server::c32_what_one_node_swept_the_other_does_not([Arc::clone(&a), Arc::clone(&b)]).await;
    assert_eq!(swept, 1);
    assert_eq!(b.list(Filter::All, None, 10).await.unwrap().sessions.len(), 1);
}

/// A record of another version is an error of that session alone. The session can still be revoked.
#[tokio::test]
async fn a_record_of_another_version_is_an_error_of_that_session_alone() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let [newer, known] = [1, 2].map(|n| session("alice", n, start()));
    insert(&*store, &newer).await;
    insert(&*store, &known).await;
    server.sql(&format!("update rg.session set state = set_byte(state, 0, 9) where id = '{}'", newer.id));
    let error = store.load(newer.id).await.unwrap_err();
    assert!(error.to_string().contains("version 9") && error.is_of_one_record(), "{error}");
    let error = store.compare_and_swap(1, rotated(&newer, later(start(), 5)), None).await.unwrap_err();
    assert!(error.is_of_one_record(), "{error}");
    store.confirm(vec![(newer.id, Generation::FIRST), (known.id, Generation::FIRST)]).await.unwrap();
    assert_eq!(store.load(known.id).await.unwrap(), Some(Session { confirmed: true, revision: 2, ..known.clone() }));
    let page = store.list(Filter::Subject("alice".into()), None, 10).await.unwrap();
    assert_eq!(page.sessions.len(), 1);
    let ended = store.revoke(gone(newer.id), RevokedBecause::Logout).await.unwrap();
    assert_eq!(ended.until, known.expires.plus(LEEWAY));
}

//! C23 and C24: the feed, in whatever order entries become visible, and after a loss of writes.

use support::figure::print_time;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::*;
use rotogate_core::store::conformance::server::{follow, next_loss, next_proof};
use rotogate_core::store::conformance::{gone, later, session, start};

/// A gate without a proof for longer than this refuses to decide.
const STALENESS: Duration = Duration::from_secs(2);

/// A revocation with an explicit end.
pub(super) fn entry(n: u64) -> Revocation {
    Revocation { until: later(start(), 600_000), ..gone(session("alice", n, start()).id) }
}

/// A database client beside the gate.
async fn beside(store: &PostgresStore) -> Client {
    let config = store.0.options.config(options::Purpose::Statements).unwrap();
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Writes an entry in a transaction that stays open.
async fn hold(client: &Client, entry: &Revocation) {
    client.batch_execute("begin; set local idle_in_transaction_session_timeout = 0").await.unwrap();
    let target = encode_target(&entry.target).unwrap();
    let effect = rotogate_core::store::kit::fields::encode_effect(entry.effect);
    let written = "with logged as (insert into rg.revocation_log (written, target, effect, until) \
                   values (rg.rg_now(), $1, $2, $3) returning id) \
                   insert into rg.revocation select $1, $1, $2, $3, id from logged";
    client.query(written, &[&target, &effect, &record::millis(entry.until)]).await.unwrap();
}

/// A transaction is held open between two others: the feed brings the later one, and the held one as soon as it commits.
#[tokio::test]
async fn c24_entries_that_commit_out_of_order_are_all_heard_of() {
    let server = Server::start(&[]);
    let [store, node] = [server.connect("rg").await, server.connect("rg").await];
    store.revoke(entry(1), RevokedBecause::Operator).await.unwrap();
    let mut feed = node.follow(Cursor::default(), follow()).await.unwrap();
    assert_eq!(next_proof(&mut *feed).await.0, [entry(1)]);
    let holds = beside(&store).await;
    hold(&holds, &entry(2)).await;
    store.revoke(entry(3), RevokedBecause::Operator).await.unwrap();
    let mut entries = Vec::new();
    for _ in 0..10 {
        // No step contains the held entry, and no step waits for it.
        let (more, _) = next_proof(&mut *feed).await;
        entries.extend(more);
    }
    assert_eq!(entries, [entry(3)]);
    // A reader that starts meanwhile finds the entry later, too.
    let (listed, between) = node.revocations_since(Cursor::default()).await.unwrap();
    assert_eq!(listed, [entry(1), entry(3)]);
    let mut late = node.follow(Cursor::default(), follow()).await.unwrap();
    assert_eq!(next_proof(&mut *late).await.0.len(), 2);
    store.revoke(entry(4), RevokedBecause::Operator).await.unwrap();
    let (listed, after) = node.revocations_since(between.clone()).await.unwrap();
    assert_eq!(listed, [entry(4)]);
    holds.batch_execute("commit").await.unwrap();
    for feed in [&mut feed, &mut late] {
        let (mut entries, _) = next_proof(&mut **feed).await;
        entries.sort_by(|a, b| a.target.cmp(&b.target));
        assert_eq!(entries, [entry(2), entry(4)]);
    }
    assert_eq!(node.revocations_since(after).await.unwrap().0, [entry(2)]);
    assert_eq!(node.revocations_since(between).await.unwrap().0.len(), 2);
}

/// A reader does not wait for an id whose transaction was rolled back.
#[tokio::test]
async fn c24_an_entry_that_was_rolled_back_leaves_no_gap_behind() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    store.revoke(entry(1), RevokedBecause::Operator).await.unwrap();
    let (_, before) = store.revocations_since(Cursor::default()).await.unwrap();
    let holds = beside(&store).await;
    hold(&holds, &entry(2)).await;
    store.revoke(entry(3), RevokedBecause::Operator).await.unwrap();
    let (_, between) = store.revocations_since(before.clone()).await.unwrap();
    assert!(between.as_bytes().len() > before.as_bytes().len(), "one id is missing");
    holds.batch_execute("rollback").await.unwrap();
    let (entries, after) = store.revocations_since(between).await.unwrap();
    assert_eq!((entries, after.as_bytes().len()), (Vec::new(), before.as_bytes().len()));
    assert_eq!(store.revocations_since(Cursor::default()).await.unwrap().1, after);
}

#[tokio::test]
async fn c24_a_long_transaction_of_others_delays_nothing() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    next_proof(&mut *feed).await;
    server.sql("create table theirs (n int); grant all on theirs to gate");
    let holds = beside(&store).await;
    holds.batch_execute("begin isolation level repeatable read; insert into theirs values (1)").await.unwrap();
    let began = Instant::now();
    for n in 0..10 {
        store.revoke(entry(n), RevokedBecause::Operator).await.unwrap();
        let mut entries = Vec::new();
        while entries.is_empty() {
            entries = next_proof(&mut *feed).await.0;
        }
        assert_eq!(entries, [entry(n)]);
    }
    print_time("C24 ten entries beside a long transaction", began.elapsed(), 10 * STALENESS);
}

#[tokio::test]
async fn c24_without_notifications_the_bound_holds() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let silent = PostgresStore::connect(server.options().schema("rg").unnamed_statements()).await.unwrap();
    assert!(!silent.0.options.listens() && store.0.options.listens());
    let mut feed = silent.follow(Cursor::default(), follow()).await.unwrap();
    next_proof(&mut *feed).await;
    store.revoke(entry(1), RevokedBecause::Operator).await.unwrap();
    let asked = Instant::now();
    let mut entries = Vec::new();
    while entries.is_empty() {
        entries = next_proof(&mut *feed).await.0;
    }
    assert_eq!(entries, [entry(1)]);
    print_time("C24 an entry without notifications", asked.elapsed(), STALENESS);
}

/// All connections are terminated, including those that listen.
#[tokio::test]
async fn c24_every_connection_that_is_terminated_is_made_again_and_nothing_is_lost() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    next_proof(&mut *feed).await;
    for n in 0..5 {
        let ended = server.sql(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'gate' and backend_type = 'client backend'",
        );
        assert!(ended.parse::<u32>().unwrap() > 1, "{ended}");
        let asked = Instant::now();
        store.revoke(entry(n), RevokedBecause::Operator).await.unwrap();
        let mut entries = Vec::new();
        while entries.is_empty() {
            entries = next_proof(&mut *feed).await.0;
        }
        assert_eq!(entries, [entry(n)]);
        print_time("C24 an entry after all connections ended", asked.elapsed(), STALENESS);
    }
}

/// The signs are another timeline, and a disk or log position that went back, as after the promotion of a standby or
/// the restore of a back-up. The feed then reads all live entries again.
#[tokio::test]
async fn c23_a_feed_says_what_shows_that_writes_were_lost() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    next_proof(&mut *feed).await;
    store.revoke(entry(1), RevokedBecause::Operator).await.unwrap();
    while next_proof(&mut *feed).await.0.is_empty() {}
    let known = std::mem::replace(&mut store.0.known.server.lock().name, "1 00000009".to_owned());
    assert!(known.ends_with(" 00000001"), "{known}");
    next_loss(&mut *feed).await;
    store.adopt().await.unwrap();
    assert_eq!(next_proof(&mut *feed).await.0, [entry(1)]);
    store.0.known.server.lock().written = i64::MAX;
    next_loss(&mut *feed).await;
    store.adopt().await.unwrap();
    assert_eq!(next_proof(&mut *feed).await.0, [entry(1)]);
    // If the sequence went back, the log has lost entries.
    server.sql("delete from rg.revocation_log; select setval('rg.log_id', 1, false)");
    next_loss(&mut *feed).await;
    store.adopt().await.unwrap();
    assert_eq!(next_proof(&mut *feed).await.0, [entry(1)]);
}

#[tokio::test]
async fn c23_a_log_that_was_trimmed_past_a_reader_is_made_up_by_the_live_entries() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    store.revoke(entry(0), RevokedBecause::Operator).await.unwrap();
    let (_, early) = store.revocations_since(Cursor::default()).await.unwrap();
    let mut feed = store.follow(early.clone(), follow()).await.unwrap();
    assert_eq!(next_proof(&mut *feed).await.0, []);
    for n in 1..500 {
        store.revoke(entry(n), RevokedBecause::Operator).await.unwrap();
    }
    // The entries are as old as after a quarter of an hour.
    server.sql("update rg.revocation_log set written = written - 1000000 where id < 400");
    store.sweep(Timestamp::ZERO).await.unwrap();
    assert_eq!(server.sql("select count(*) from rg.revocation_log"), "101");
    assert_eq!(store.revocations_since(early.clone()).await.unwrap().0.len(), 500);
    let mut from_early = store.follow(early, follow()).await.unwrap();
    let (entries, _) = next_proof(&mut *from_early).await;
    assert_eq!(entries.len(), 500);
    while next_proof(&mut *feed).await.0.len() < 499 {}
}

#[tokio::test]
async fn c23_a_database_that_was_emptied_answers_no_question() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let begun = session("alice", 1, start());
    conformance::insert(&*store, &begun).await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    next_proof(&mut *feed).await;
    server.sql("drop schema rg cascade");
    let again = server.connect("rg").await;
    for error in [
        store.load(begun.id).await.unwrap_err(),
        store.insert(session("alice", 2, start()), SubjectBound::NONE).await.unwrap_err(),
        store.revocations_since(Cursor::default()).await.unwrap_err(),
    ] {
        assert_eq!(error.outcome(), WriteOutcome::NotDone, "{error}");
        assert!(error.to_string().contains("lost writes"), "{error}");
        assert_eq!(rotogate_core::fault::Fault::from(error).retry_after(), Duration::from_secs(1));
    }
    next_loss(&mut *feed).await;
    let error = store.adopt().await.unwrap_err();
    assert!(error.to_string().contains("back-up"), "{error}");
    next_loss(&mut *feed).await;
    assert_eq!(again.load(begun.id).await.unwrap(), None);
}

//! Faults of the server, and of the connection to it.

use support::proxy::Proxy;

use super::super::line::Line;
use super::super::servers::Servers;
use super::suite::through;
use super::*;
use rotogate_core::store::conformance::server::{
    c2_each_operation_whose_reply_is_cut_is_done_once, follow, next_loss, next_proof,
};
use rotogate_core::store::conformance::{gone, insert, later, minimum, rotated, session, start};

/// Cuts the reply to an operation after each of its bytes. The operation must be done once, and return its normal
/// result.
#[tokio::test]
async fn c2_a_reply_that_is_cut_after_any_byte_is_asked_for_again_and_the_write_done_once() {
    // One store makes ten connections a second at most, so several take turns.
    const STORES: usize = 12;
    let cuts = futures_util::future::join_all((0..STORES).map(|first| cut_after_each((first..).step_by(STORES)))).await;
    assert!(cuts.iter().sum::<usize>() > 30, "{cuts:?}");
}

/// Cuts a reply after each of these numbers of bytes. Returns how many replies were cut.
async fn cut_after_each(bytes: impl Iterator<Item = usize>) -> usize {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.port).await;
    let store = through(&proxy).await;
    let direct = server.connect("rg").await;
    let mut cuts = 0;
    for (round, cut) in bytes.enumerate() {
        let ways = (|| proxy.cut_after(cut), || proxy.has_cut());
        let was_cut = c2_each_operation_whose_reply_is_cut_is_done_once([&store, &*direct], cut as u64, ways).await;
        let written = 2 * (round + 1);
        assert_eq!(server.cli(&["XLEN", "{rg:0}:log"]), written.to_string(), "each entry once");
        cuts += usize::from(was_cut);
        if !was_cut {
            break;
        }
    }
    cuts
}

/// The server may have lost the last acknowledged writes.
#[tokio::test]
async fn c18_a_feed_across_a_restart_of_the_server_says_that_writes_may_be_lost_and_goes_on() {
    let mut server = Server::start(&["--appendonly yes", "--appendfsync always"]);
    let store = server.connect("rg").await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    next_proof(&mut *feed).await;
    server.kill();
    assert!(feed.next().await.is_err() || feed.next().await.is_err());
    server.start_again();
    let ended = gone(session("alice", 1, start()).id);
    let ended = Revocation { until: later(start(), 600_000), ..ended };
    store.revoke(ended.clone(), RevokedBecause::Logout).await.unwrap();
    let mut entries = next_loss(&mut *feed).await;
    store.adopt().await.unwrap();
    entries.extend(next_proof(&mut *feed).await.0);
    entries.dedup();
    assert_eq!(entries, [ended]);
    // The feed reports the loss once.
    next_proof(&mut *feed).await;
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_given_to_it_again() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let begun = session("alice", 1, start());
    insert(&*store, &begun).await;
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(store.compare_and_swap(1, rotated(&begun, begun.issued_at), None).await.unwrap(), Swap::Swapped);
    server.cli(&["SCRIPT", "FLUSH"]);
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
}

#[tokio::test]
async fn c22_a_server_without_memory_writes_nothing_of_an_operation() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let begun = session("alice", 1, start());
    insert(&*store, &begun).await;
    store.check().await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap_err();
    assert_eq!(error.outcome(), WriteOutcome::NotDone, "{error}");
    assert!(error.to_string().contains("maxmemory"), "{error}");
    assert!(store.insert(session("alice", 2, start()), SubjectBound::NONE).await.is_err());
    assert!(store.compare_and_swap(1, rotated(&begun, begun.issued_at), None).await.is_err());
    assert!(store.check().await.is_err());
    assert_eq!(store.load(begun.id).await.unwrap(), Some(begun.clone()), "reading goes on");
    assert_eq!(store.revocations_since(Cursor::default()).await.unwrap().0, []);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    store.check().await.unwrap();
    assert_eq!(store.load(session("alice", 2, start()).id).await.unwrap(), None);
}

#[tokio::test]
async fn c23_a_log_that_was_trimmed_past_a_reader_is_made_up_by_the_live_entries() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let entry = |n| minimum(session("alice", n, start()).id, 2, later(start(), 600_000));
    store.revoke(entry(0), RevokedBecause::Operator).await.unwrap();
    let (_, early) = store.revocations_since(Cursor::default()).await.unwrap();
    let mut feed = store.follow(early.clone(), follow()).await.unwrap();
    assert_eq!(next_proof(&mut *feed).await.0, []);
    for n in 1..500 {
        store.revoke(entry(n), RevokedBecause::Operator).await.unwrap();
    }
    // The trim of the log that a beat does after a quarter of an hour.
    let args = vec![vec![1; 8], vec![1; 3], b"0".to_vec(), b"0-0".to_vec(), b"1".to_vec()];
    let first = store.0.partitions.first();
    let keys = vec![first.keys.named("n")];
    let answer = store.0.run(first, &super::super::script::BEAT, keys, args).await.unwrap();
    assert_eq!(answer.status, "beat");
    let kept: usize = server.cli(&["XLEN", "{rg:0}:log"]).parse().unwrap();
    assert!((1..400).contains(&kept), "{kept}");
    assert_eq!(store.revocations_since(early.clone()).await.unwrap().0.len(), 500);
    let (mut entries, _) = next_proof(&mut *feed).await;
    entries.sort_by(|a, b| a.target.cmp(&b.target));
    entries.dedup();
    assert!(entries.len() >= 499, "{}", entries.len());
    let mut from_early = store.follow(early, follow()).await.unwrap();
    assert_eq!(next_proof(&mut *from_early).await.0.len(), 500);
    // An entry that is missing but was not trimmed was lost.
    server.cli(&["XTRIM", "{rg:0}:log", "MAXLEN", "0"]);
    next_loss(&mut *feed).await;
}

#[tokio::test]
async fn c23_a_server_that_was_emptied_answers_no_question() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let begun = session("alice", 1, start());
    insert(&*store, &begun).await;
    let mut feed = store.follow(Cursor::default(), follow()).await.unwrap();
    next_proof(&mut *feed).await;
    server.cli(&["FLUSHALL"]);
    let again = server.connect("rg").await;
    for error in [
        store.load(begun.id).await.unwrap_err(),
        store.compare_and_swap(1, rotated(&begun, begun.issued_at), None).await.unwrap_err(),
        store.insert(session("alice", 2, start()), SubjectBound::NONE).await.unwrap_err(),
        store.revocations_since(Cursor::default()).await.unwrap_err(),
    ] {
        assert_eq!(error.outcome(), WriteOutcome::NotDone);
        assert!(error.to_string().contains("has lost writes"), "{error}");
    }
    next_loss(&mut *feed).await;
    // The data is another store now, which the gate must not use.
    let error = store.adopt().await.unwrap_err();
    assert!(error.to_string().contains("was emptied") && error.outcome() == WriteOutcome::NotDone, "{error}");
    next_loss(&mut *feed).await;
    assert_eq!(again.load(begun.id).await.unwrap(), None);
}

#[tokio::test]
async fn c32_what_one_node_swept_the_other_does_not_sweep_again() {
    let server = Server::start(&[]);
    let nodes = [server.connect("rg").await, server.connect("rg").await];
    conformance::server::c32_what_one_node_swept_the_other_does_not(nodes).await;
}

/// The server's clock decides, whatever the caller's clock says.
#[tokio::test]
async fn a_record_expires_an_hour_after_its_end() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let begun = session("alice", 1, start());
    insert(&*store, &begun).await;
    let key = format!("{{rg:0}}:s:{}", "*");
    let expires = |key: &str| {
        let script = "return redis.call('PEXPIRETIME', redis.call('KEYS', ARGV[1])[1])";
        server.cli(&["EVAL", script, "0", key]).parse::<u64>().unwrap()
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(expires(&key), begun.expires.plus(hour).as_millis());
    assert_eq!(expires("{rg:0}:sub:*"), begun.expires.plus(hour).as_millis());
    store.confirm(vec![(begun.id, Generation::FIRST)]).await.unwrap();
    assert_eq!(expires(&key), begun.expires.plus(hour).as_millis());
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    assert_eq!(expires(&key), begun.latest_access_expires.plus(hour).as_millis());
    assert_eq!(expires("{rg:0}:sub:*"), begun.latest_access_expires.plus(hour).as_millis());
}

#[tokio::test]
async fn c12_a_caller_that_does_not_go_on_keeps_no_other_from_a_connection() {
    let server = Server::start(&[]);
    let servers = Servers::new(&Arc::new(server.options()));
    let [one, other] = [(); 2].map(|()| Line::new(Arc::clone(&servers), Duration::ZERO));
    let mut waiting = Box::pin(one.connection());
    // The future has begun to make a connection, and is not polled from here on. A task that waits for several futures
    // does the same while it handles one of them.
    assert!(futures_util::poll!(&mut waiting).is_pending());
    tokio::time::timeout(PATIENCE, other.connection()).await.expect("the turn is free again").map(drop).unwrap();
    waiting.await.map(drop).unwrap();
}

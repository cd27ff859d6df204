//! C8: the proof in a complete step of the feed.

use support::proxy::Proxy;

use super::*;
use rotogate_core::clock::TimeSource;
use rotogate_core::store::FeedStep;
use rotogate_core::store::conformance::{later, minimum, session, start};

#[tokio::test]
async fn c8_the_clock_is_read_before_the_beat_is_sent() {
    let server = Server::start(&[]);
    let time = Arc::new(conformance::server::Readings::default());
    let clock = Arc::clone(&time);
    let proxy = Proxy::timed(server.port, Arc::new(move || clock.monotonic())).await;
    let store = RedisStore::connect(options(proxy.port)).await.unwrap();
    conformance::server::c8_the_clock_is_read_before_the_beat(&store, time, || proxy.passed()).await;
}

/// This holds even if it takes more than one reading of the log.
#[tokio::test]
async fn c8_a_step_is_complete_once_everything_up_to_the_beat_was_read() {
    let server = Server::start(&[]);
    conformance::server::c8_a_step_is_complete_once_all_was_read(&*server.connect("rg").await).await;
}

/// The entries arrive page by page, and the step is complete once the last page was read.
#[tokio::test]
async fn c23_a_reader_whose_place_was_trimmed_reads_the_live_ones_in_pages() {
    const WRITTEN: usize = 3000;
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let entry = |n| minimum(session("alice", n, start()).id, 2, later(start(), 600_000));
    store.revoke(entry(0), RevokedBecause::Operator).await.unwrap();
    let (_, early) = store.revocations_since(Cursor::default()).await.unwrap();
    for n in 1..=WRITTEN as u64 {
        store.revoke(entry(n), RevokedBecause::Operator).await.unwrap();
    }
    // Trims the log as a beat does.
    let trim = "local last = redis.call('XREVRANGE', '{rg:0}:log', '+', '-', 'COUNT', 1)[1][1] \
        redis.call('HSET', '{rg:0}:h', 'floor', last) \
        return redis.call('XTRIM', '{rg:0}:log', 'MINID', last)";
    server.cli(&["EVAL", trim, "0"]);
    let follow =
        Follow { time: Arc::new(conformance::server::Readings::default()), every: Duration::ZERO, row: Arc::default() };
    let mut feed = store.follow(early, follow).await.unwrap();
    let (mut found, mut largest) = (std::collections::BTreeSet::new(), 0);
    loop {
        let FeedStep { entries, complete, lost } = feed.next().await.unwrap();
        assert!(!lost);
        largest = largest.max(entries.len());
        found.extend(entries.into_iter().map(|entry| entry.target));
        if complete.is_some() {
            break;
        }
    }
    assert_eq!(found.len(), WRITTEN + 1);
    assert!(largest < WRITTEN, "{largest} of them in one step");
}

/// This holds for every moment of the not-before, and for every node.
#[tokio::test]
async fn c4_what_begins_after_a_not_before_was_acknowledged_is_later_than_it() {
    let server = Server::start(&[]);
    let nodes = [server.connect("rg").await, server.connect("rg").await];
    conformance::server::c4_what_begins_after_a_not_before_is_later(nodes).await;
}

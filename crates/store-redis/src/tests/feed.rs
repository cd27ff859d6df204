//! The feed of a reader whose place in the log was trimmed.

use super::*;
use rotogate_core::store::FeedStep;
use rotogate_core::store::conformance::{later, minimum, session, start};

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

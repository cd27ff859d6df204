//! A reader that gets entries from its beats only.

use super::super::tests::Server;
use super::*;
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::session::RevokedBecause;
use rotogate_core::store::Store;
use rotogate_core::store::conformance::{later, minimum, session, start};

#[tokio::test]
async fn c8_a_beat_proves_nothing_beyond_a_full_page() {
    const WRITTEN: u64 = 2 * PAGE as u64 + 1;
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let entry = |n| minimum(session("alice", n, start()).id, 2, later(start(), 600_000));
    store.revoke(entry(0), RevokedBecause::Operator).await.unwrap();
    let (_, early) = store.revocations_since(Cursor::default()).await.unwrap();
    for n in 1..=WRITTEN {
        store.revoke(entry(n), RevokedBecause::Operator).await.unwrap();
    }
    let follow = Follow { time: ManualTime::at(Timestamp::ZERO), every: Duration::ZERO, row: Arc::default() };
    let place = store.0.places(&early).unwrap()[0];
    let mut reader = Reader::new(&store.0, 0, place, &follow, Duration::ZERO);
    // Stops the reading beside the beats, which would return the entries before them.
    reader.reading = Some(Box::pin(std::future::pending()));
    let mut entries = 0;
    loop {
        let step = reader.step().await.unwrap();
        entries += step.entries.len() as u64;
        if step.complete.is_some() {
            break;
        }
    }
    assert_eq!(entries, WRITTEN);
}

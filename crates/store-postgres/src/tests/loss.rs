//! The recovery after the promotion of a standby that lacks acknowledged writes of the primary.

use super::feed::entry;
use super::*;
use rotogate_core::store::conformance::server::{follow, next_loss, next_proof};
use rotogate_core::store::conformance::{insert, rotated, session};

#[tokio::test]
async fn c15_what_a_promoted_standby_lacks_is_noticed_before_anything_is_written_and_is_written_back() {
    let mut server = Server::start(&[]);
    let [a, b] = [server.connect("rg").await, server.connect("rg").await];
    let begun = session("alice", 1, a.stamp_creation(Timestamp::ZERO).await.unwrap().unwrap());
    insert(&*a, &begun).await;
    let standby = server.copy();
    let mut feed = b.follow(Cursor::default(), follow()).await.unwrap();
    next_proof(&mut *feed).await;
    let next = rotated(&begun, begun.issued_at);
    assert_eq!(a.compare_and_swap(begun.revision, next.clone(), None).await.unwrap(), Swap::Swapped);
    a.revoke(entry(7), RevokedBecause::Operator).await.unwrap();
    while next_proof(&mut *feed).await.0.is_empty() {}
    server.fail_over_to(&standby);
    // The connections are new, and no beat was written yet. The store has the earlier record again, and no node may
    // rotate it.
    for node in [&a, &b] {
        let error = node.compare_and_swap(begun.revision, next.clone(), None).await.unwrap_err();
        assert!(error.to_string().contains("lost writes"), "{error}");
        assert_eq!(rotogate_core::fault::Fault::from(error).retry_after(), Duration::from_secs(1));
    }
    next_loss(&mut *feed).await;
    b.adopt().await.unwrap();
    assert_eq!(next_proof(&mut *feed).await.0, [], "the standby has none");
    assert!(b.predates_loss(begun.id).await.unwrap());
    assert!(a.load(begun.id).await.is_err(), "a has not adopted it");
    a.adopt().await.unwrap();
    a.revoke(entry(7), RevokedBecause::Restored).await.unwrap();
    a.restore(vec![next.clone()]).await.unwrap();
    assert_eq!(next_proof(&mut *feed).await.0, [entry(7)]);
    assert_eq!(b.load(begun.id).await.unwrap(), Some(next));
    assert!(b.predates_loss(begun.id).await.unwrap(), "a token ahead of it may still go on");
    let patience = Duration::from_secs(3600);
    assert!(!a.restoration(patience).await.unwrap().is_complete, "b has not said so");
    assert!(b.restoration(patience).await.unwrap().is_complete);
    assert!(a.restoration(patience).await.unwrap().is_complete);
}

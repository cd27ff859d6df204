//! Tests of two handles on one store that has lost writes.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{PATIENCE, created, follow, heard};
use super::{BY_OPERATOR, gone, insert, not_before, rotated, session, subject};
use crate::clock::{SystemTime, Timestamp};
use crate::session::Session;
use crate::store::{Cursor, Feed, SharedStore, Swap};

const LONG: Duration = Duration::from_secs(3600);

async fn lost(feed: &mut dyn Feed) {
    let waiting = async {
        loop {
            match feed.next().await {
                Ok(step) if step.lost => return,
                Ok(step) => assert_eq!(step.complete, None, "until the data is adopted"),
                Err(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the feed says it");
}

/// C15: after one node has adopted the data, every other node must adopt it before it can read or write.
pub async fn c15_a_loss_that_one_node_noticed_is_noticed_by_all<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let time = Arc::new(SystemTime::new());
    let begun = session("alice", 1, created(&*a, Timestamp::ZERO).await);
    insert(&*a, &begun).await;
    let mut feed = b.follow(Cursor::default(), follow(&time)).await.unwrap();
    heard(&mut *feed).await;
    for node in [&a, &b] {
        assert!(!node.predates_loss(begun.id).await.unwrap(), "nothing was lost");
        let restoration = node.restoration(LONG).await.unwrap();
        assert_eq!((restoration.adopted, restoration.is_complete), (Timestamp::ZERO, true));
    }
    let before = created(&*a, Timestamp::ZERO).await;
    a.adopt().await.unwrap();
    let next = rotated(&begun, begun.issued_at);
    assert!(b.load(begun.id).await.is_err());
    assert!(b.compare_and_swap(begun.revision, next.clone(), None).await.is_err());
    assert!(b.revoke(gone(begun.id), BY_OPERATOR).await.is_err());
    assert!(b.stamp_creation(Timestamp::ZERO).await.is_err());
    assert_eq!(a.load(begun.id).await.unwrap(), Some(begun.clone()), "nothing was done");
    lost(&mut *feed).await;
    b.adopt().await.unwrap();
    heard(&mut *feed).await;
    for node in [&a, &b] {
        assert!(node.predates_loss(begun.id).await.unwrap());
        assert!(node.restoration(LONG).await.unwrap().adopted >= before);
    }
    assert_eq!(b.compare_and_swap(begun.revision, next.clone(), None).await.unwrap(), Swap::Swapped);
    assert!(!a.predates_loss(begun.id).await.unwrap(), "it was written since");
    // A second adoption counts as a second loss.
    b.adopt().await.unwrap();
    assert!(b.predates_loss(begun.id).await.unwrap());
    assert!(a.load(begun.id).await.is_err());
}

/// C16: a recovery is complete when every node has written its data back, or a time limit has passed.
pub async fn c16_it_is_over_when_every_node_has_had_its_time<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let time = Arc::new(SystemTime::new());
    let mut feeds = [
        a.follow(Cursor::default(), follow(&time)).await.unwrap(),
        b.follow(Cursor::default(), follow(&time)).await.unwrap(),
    ];
    for feed in &mut feeds {
        heard(&mut **feed).await;
    }
    a.adopt().await.unwrap();
    assert!(!a.restoration(LONG).await.unwrap().is_complete, "b has not");
    assert!(!a.restoration(LONG).await.unwrap().is_complete);
    b.adopt().await.unwrap();
    assert!(!a.restoration(LONG).await.unwrap().is_complete, "it has only learned of it");
    assert!(b.restoration(LONG).await.unwrap().is_complete);
    assert!(a.restoration(LONG).await.unwrap().is_complete);
    // Node `b` does not adopt the data this time.
    a.adopt().await.unwrap();
    assert!(!a.restoration(LONG).await.unwrap().is_complete);
    let over = async { while !a.restoration(Duration::from_millis(1)).await.unwrap().is_complete {} };
    tokio::time::timeout(PATIENCE, over).await.expect("the time is over");
}

/// C15: a missing record is written back. An outdated record is also written back, unless the session was written after
/// the loss.
pub async fn c15_only_what_was_lost_is_written_back<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let now = created(&*a, Timestamp::ZERO).await;
    let all: Vec<Session> = (0..6).map(|number| session("alice", number, now)).collect();
    let [missing, older, same, written, ended, covered] = &*all else { unreachable!("six") };
    for session in [older, same, written, ended] {
        insert(&*a, session).await;
    }
    let next = |session: &Session| rotated(session, session.issued_at);
    a.adopt().await.unwrap();
    b.adopt().await.unwrap();
    let swapped = b.compare_and_swap(written.revision, next(written), None).await.unwrap();
    assert_eq!(swapped, Swap::Swapped);
    b.revoke(gone(ended.id), BY_OPERATOR).await.unwrap();
    let restored = [missing.clone(), next(older), same.clone(), next(&next(written)), next(ended)];
    for _ in 0..2 {
        a.restore(restored.to_vec()).await.unwrap();
        assert_eq!(b.load(missing.id).await.unwrap().as_ref(), Some(missing));
        assert_eq!(b.load(older.id).await.unwrap(), Some(next(older)));
        assert_eq!(b.load(same.id).await.unwrap().as_ref(), Some(same));
        assert_eq!(b.load(written.id).await.unwrap(), Some(next(written)), "it was written since");
        assert!(b.load(ended.id).await.unwrap().unwrap().is_revoked());
    }
    // Older records and revoked sessions must not be written back.
    a.restore(vec![older.clone()]).await.unwrap();
    assert_eq!(b.load(older.id).await.unwrap(), Some(next(older)));
    b.revoke(gone(covered.id), BY_OPERATOR).await.unwrap();
    a.restore(vec![covered.clone()]).await.unwrap();
    assert_eq!(b.load(covered.id).await.unwrap(), None);
    assert_eq!(b.compare_and_swap(missing.revision, next(missing), None).await.unwrap(), Swap::Swapped);
    let moment = b.stamp_not_before().await.unwrap();
    b.revoke(not_before(subject("alice"), moment), BY_OPERATOR).await.unwrap();
    let late = session("alice", 9, now);
    a.restore(vec![late.clone()]).await.unwrap();
    assert_eq!(b.load(late.id).await.unwrap(), None, "a session of a revoked subject must not be restored");
}

/// C37: two nodes acknowledged successive generations, and both writes were lost. The later generation is kept,
/// regardless of the order in which the records are written back.
pub async fn c37_of_two_nodes_that_write_a_session_back_the_later_record_stays<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let now = created(&*a, Timestamp::ZERO).await;
    let all: Vec<Session> = (0..4).map(|number| session("alice", number, now)).collect();
    let [missing, there, reversed, confirmed] = &*all else { unreachable!("four") };
    for session in [there, reversed, confirmed] {
        insert(&*a, session).await;
    }
    let next = |session: &Session| rotated(session, session.issued_at);
    let is_of_before = async |session: &Session| {
        assert!(b.predates_loss(session.id).await.unwrap(), "a newer token must not count as a sign of another loss");
        b.load(session.id).await.unwrap().unwrap()
    };
    a.adopt().await.unwrap();
    b.adopt().await.unwrap();
    for (first, second) in [(missing.clone(), next(missing)), (next(there), next(&next(there)))] {
        a.restore(vec![first]).await.unwrap();
        b.restore(vec![second.clone()]).await.unwrap();
        assert_eq!(is_of_before(&second).await, second);
    }
    let latest = next(&next(reversed));
    b.restore(vec![latest.clone()]).await.unwrap();
    a.restore(vec![next(reversed)]).await.unwrap();
    assert_eq!(is_of_before(reversed).await, latest);
    b.confirm(vec![(confirmed.id, confirmed.current)]).await.unwrap();
    a.restore(vec![next(confirmed)]).await.unwrap();
    let restored = is_of_before(confirmed).await;
    assert_eq!(restored.current, next(confirmed).current);
    assert!(restored.revision > next(confirmed).revision, "a node with the older record must not swap it");
    // A record is not overwritten if it was changed after the loss.
    let swapped = b.compare_and_swap(latest.revision, next(&latest), None).await.unwrap();
    assert_eq!(swapped, Swap::Swapped);
    a.restore(vec![next(&next(&latest))]).await.unwrap();
    assert_eq!(b.load(latest.id).await.unwrap(), Some(next(&latest)));
}

/// C38: the result is the number of missing records, not of offered records.
pub async fn c38_a_node_learns_how_many_records_were_missing<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let now = created(&*a, Timestamp::ZERO).await;
    let [kept, missing] = [1, 2].map(|number| session("alice", number, now));
    insert(&*a, &kept).await;
    a.adopt().await.unwrap();
    b.adopt().await.unwrap();
    assert_eq!(a.restore(vec![kept.clone()]).await.unwrap(), 0);
    assert_eq!(a.restore(vec![kept.clone(), missing.clone()]).await.unwrap(), 1);
    assert_eq!(b.restore(vec![kept, missing]).await.unwrap(), 0, "another node has written it back");
}

/// C39: times from a fast clock do not block logins after the store's clock is reset. `set_ahead` makes the store
/// remember a future time.
#[cfg(feature = "store-kit")]
pub async fn c39_a_shared_store_is_brought_back<S>(store: Arc<S>, set_ahead: impl FnOnce(Timestamp))
where
    S: SharedStore + crate::store::reset_clock::RemembersTime,
{
    use crate::store::reset_clock::{RemembersTime, ahead, reset_clock};
    use crate::store::{CounterUse, Inserted, SharedCounter, SubjectBound};

    let whole: Arc<dyn RemembersTime> = Arc::clone(&store) as _;
    let store = &*store;
    let now = created(store, Timestamp::ZERO).await;
    assert!(!ahead(store).await.unwrap().is_too_far(super::LEEWAY));
    let (day, later) = (LONG * 24, now.plus(LONG * 24));
    let [old, other] = [session("alice", 1, now), session("bob", 2, now)];
    insert(store, &old).await;
    insert(store, &other).await;
    store.revoke(not_before(subject("bob"), later), BY_OPERATOR).await.unwrap();
    set_ahead(later);
    assert_eq!(store.stamp_creation(Timestamp::ZERO).await.unwrap(), None, "nothing begins");
    let found = ahead(store).await.unwrap();
    assert!(found.is_too_far(super::LEEWAY) && found.latest >= later, "{found:?}");
    assert_eq!(reset_clock(&whole, LONG).await.unwrap(), 2);
    assert!(!ahead(store).await.unwrap().is_too_far(super::LEEWAY));
    assert!(store.load(old.id).await.unwrap().unwrap().is_revoked());
    for (number, name) in [(3, "alice"), (4, "bob")] {
        let begun = session(name, number, created(store, Timestamp::ZERO).await);
        assert_eq!(store.insert(begun, SubjectBound::NONE).await.unwrap(), Inserted::Inserted(Vec::new()));
    }
    // The reset also revokes sessions without a record.
    let (list, _) = store.revocations().await.unwrap();
    assert!(
        list.not_before(super::ISSUER, "alice", None) >= now && list.not_before(super::ISSUER, "bob", None) < later
    );
    assert_eq!(list.minimum(other.id), crate::session::rotation::REVOKED);
    assert_eq!(store.restoration(day).await.unwrap().adopted, Timestamp::ZERO);
    let counter = SharedCounter { name: [1; 16], every: LONG, burst: 1 };
    assert_eq!(store.count(counter, CounterUse::Take).await.unwrap(), None);
}

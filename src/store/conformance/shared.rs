//! What holds between two handles on one store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{BY_OPERATOR, ISSUER, LEEWAY, gone, insert, not_before, rotated, session, subject};
use crate::clock::{SystemTime, TimeSource, Timestamp};
use crate::revocation::{Effect, Revocation, RevocationList, Target};
use crate::session::SessionId;
use crate::store::{Cursor, Feed, Follow, Inserted, SharedStore, SubjectBound, Swap};

/// How long a behaviour waits for what must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn follow(time: &Arc<SystemTime>) -> Follow {
    Follow { time: Arc::clone(time) as Arc<dyn TimeSource>, every: Duration::from_millis(50) }
}

pub(super) async fn created<S: SharedStore>(store: &S, after: Timestamp) -> Timestamp {
    store.stamp_creation(after).await.unwrap().expect("the clocks agree")
}

/// The entries up to the next complete step.
pub(super) async fn heard(feed: &mut dyn Feed) -> (Vec<Revocation>, crate::store::Heard) {
    let mut entries = Vec::new();
    loop {
        let step = tokio::time::timeout(PATIENCE, feed.next()).await.expect("a step comes").unwrap();
        entries.extend(step.entries);
        if let Some(complete) = step.complete {
            return (entries, complete);
        }
    }
}

/// C4: a not-before is at or after whatever began before it on any node, and before whatever begins afterwards.
pub async fn c4_stamps_of_all_nodes_are_in_one_order<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    for _ in 0..10 {
        let before = [created(&*a, Timestamp::ZERO).await, created(&*b, Timestamp::ZERO).await];
        let moment = b.stamp_not_before().await.unwrap();
        assert!(before.iter().all(|at| *at <= moment), "{before:?} {moment:?}");
        a.revoke(not_before(subject("alice"), moment), BY_OPERATOR).await.unwrap();
        for node in [&a, &b] {
            assert!(created(&**node, Timestamp::ZERO).await > moment);
        }
    }
    // A moment that one node was given reaches all of them with its entry.
    let ahead = created(&*a, Timestamp::ZERO).await.plus(LEEWAY / 2);
    a.revoke(not_before(Target::Global, ahead), BY_OPERATOR).await.unwrap();
    assert!(created(&*b, ahead).await > ahead);
}

/// A stamp further ahead than the leeway means a wrong clock, and nothing begins.
pub async fn a_stamp_too_far_ahead_is_none<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let now = created(&*a, Timestamp::ZERO).await;
    assert_eq!(b.stamp_creation(now.plus(LEEWAY * 3)).await.unwrap(), None);
    assert!(b.stamp_creation(now.plus(LEEWAY / 2)).await.unwrap().is_some());
}

/// Both handles see and change the same sessions.
pub async fn what_one_node_wrote_the_other_has<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let begun = session("alice", 1, created(&*a, Timestamp::ZERO).await);
    insert(&*a, &begun).await;
    assert_eq!(b.load(begun.id).await.unwrap(), Some(begun.clone()));
    let next = rotated(&begun, begun.issued_at);
    assert_eq!(b.compare_and_swap(begun.revision, next.clone(), None).await.unwrap(), Swap::Swapped);
    let lost = a.compare_and_swap(begun.revision, rotated(&begun, begun.issued_at), None).await.unwrap();
    assert_eq!(lost, Swap::Changed(Some(Box::new(next))));
    a.revoke(gone(begun.id), BY_OPERATOR).await.unwrap();
    assert!(crate::store::rules::is_revoked(&b.load(begun.id).await.unwrap().unwrap()));
}

/// C4: a session that one node began is refused after another node's not-before, and none begins below it.
pub async fn c4_a_not_before_covers_sessions_of_other_nodes<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let begun = session("alice", 1, created(&*a, Timestamp::ZERO).await);
    insert(&*a, &begun).await;
    let late = session("alice", 2, created(&*a, Timestamp::ZERO).await);
    let moment = b.stamp_not_before().await.unwrap();
    b.revoke(not_before(subject("alice"), moment), BY_OPERATOR).await.unwrap();
    let swapped = a.compare_and_swap(begun.revision, rotated(&begun, begun.issued_at), None).await.unwrap();
    assert_eq!(swapped, Swap::NoLongerValid);
    assert_eq!(a.insert(late, SubjectBound::NONE).await.unwrap(), Inserted::NoLongerValid(moment));
    let afterwards = session("alice", 3, created(&*a, Timestamp::ZERO).await);
    insert(&*a, &afterwards).await;
}

/// A feed that begins where a list ends brings what another node writes, in time.
pub async fn a_feed_brings_what_another_node_wrote<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let time = Arc::new(SystemTime::new());
    let begun = session("alice", 1, created(&*a, Timestamp::ZERO).await);
    insert(&*a, &begun).await;
    a.revoke(gone(begun.id), BY_OPERATOR).await.unwrap();
    let (list, end) = b.revocations().await.unwrap();
    assert_eq!(list.len(), 1);
    let mut feed = b.follow(end, follow(&time)).await.unwrap();
    let before = time.monotonic();
    let (entries, complete) = heard(&mut *feed).await;
    assert_eq!(entries, [], "the list had it");
    assert!(complete.asked >= before && complete.answered >= complete.asked);
    let target = Target::Token { issuer: ISSUER.into(), jti: "t-1".into() };
    let until = begun.latest_access_expires.plus(LEEWAY);
    let token = Revocation { target, effect: Effect::Gone, until };
    let token = a.revoke(token, BY_OPERATOR).await.unwrap();
    let acknowledged = time.monotonic();
    let mut entries = Vec::new();
    loop {
        let (more, complete) = heard(&mut *feed).await;
        entries.extend(more);
        if complete.asked >= acknowledged {
            break;
        }
    }
    assert!(entries.contains(&token), "{entries:?}");
    let mut from_start = b.follow(Cursor::default(), follow(&time)).await.unwrap();
    let (all, _) = heard(&mut *from_start).await;
    assert_eq!(all.len(), 2);
}

/// C8: whatever was acknowledged before a node asked is applied once its step is complete. Under load, from a list and
/// a feed that begin in the middle of it.
pub async fn c8_a_complete_step_has_all_that_was_acknowledged_before<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let time = Arc::new(SystemTime::new());
    let began = created(&*a, Timestamp::ZERO).await;
    // The monotonic time after each acknowledgement.
    let acknowledged: Arc<Mutex<Vec<(SessionId, Duration)>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let (store, time, acknowledged) = (Arc::clone(&a), Arc::clone(&time), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                for n in 0..100 {
                    let id = session("alice", writer * 1000 + n, began).id;
                    let entry = Revocation { until: began.plus(LEEWAY * 100), ..gone(id) };
                    store.revoke(entry, BY_OPERATOR).await.unwrap();
                    let at = time.monotonic();
                    acknowledged.lock().unwrap().push((id, at));
                }
            })
        })
        .collect();
    let reader = {
        let (time, acknowledged, done) = (Arc::clone(&time), Arc::clone(&acknowledged), Arc::clone(&done));
        tokio::spawn(async move {
            let (list, end): (RevocationList, Cursor) = b.revocations().await.unwrap();
            let mut feed = b.follow(end, follow(&time)).await.unwrap();
            loop {
                let is_last = done.load(Ordering::SeqCst);
                let (entries, complete) = heard(&mut *feed).await;
                entries.iter().for_each(|entry| {
                    list.apply(entry);
                });
                let due: Vec<_> = acknowledged.lock().unwrap().clone();
                for (id, _) in due.iter().filter(|(_, at)| *at <= complete.asked) {
                    assert_eq!(list.minimum(*id), crate::session::rotation::REVOKED, "{id}");
                }
                if is_last && due.iter().all(|(_, at)| *at <= complete.asked) {
                    return list.len();
                }
            }
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert_eq!(reader.await.unwrap(), 400);
}

//! Tests of two handles on one store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::races::at_once;
use super::{BY_OPERATOR, ISSUER, LEEWAY, gone, insert, not_before, rotated, session, subject};
use crate::clock::{SystemTime, TimeSource, Timestamp};
use crate::revocation::{Effect, Revocation, RevocationList, Target};
use crate::session::SessionId;
use crate::store::{
    Admitted, CounterUse, Cursor, Feed, Follow, Inserted, NODE_KEPT, NodeRow, SharedCounter, SharedStore, SubjectBound,
    Swap,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn follow(time: &Arc<SystemTime>) -> Follow {
    Follow { time: Arc::clone(time) as Arc<dyn TimeSource>, every: Duration::from_millis(50), row: Arc::default() }
}

pub(super) async fn created<S: SharedStore>(store: &S, after: Timestamp) -> Timestamp {
    store.stamp_creation(after).await.unwrap().expect("the clocks agree")
}

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

/// C4: a not-before's stamp is at or after all earlier creation stamps, and before all later ones.
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
    // A caller may choose the moment of a not-before.
    let ahead = created(&*a, Timestamp::ZERO).await.plus(LEEWAY / 2);
    a.revoke(not_before(Target::Global, ahead), BY_OPERATOR).await.unwrap();
    assert!(created(&*b, ahead).await > ahead);
}

/// A stamp that is ahead by more than the leeway means that a clock is wrong.
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
    assert!(b.load(begun.id).await.unwrap().unwrap().is_revoked());
}

/// C4: another node's not-before invalidates a session, and prevents new sessions with an earlier creation time.
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

/// From the end of a list, a feed promptly delivers another node's later writes.
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

/// C8: a complete step contains every write that was acknowledged before the request, even under load.
pub async fn c8_a_complete_step_has_all_that_was_acknowledged_before<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let time = Arc::new(SystemTime::new());
    let began = created(&*a, Timestamp::ZERO).await;
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

fn counter(number: u8, every: Duration, burst: u32) -> SharedCounter {
    SharedCounter { name: [number; 16], every, burst }
}

/// C29: all nodes together admit as many attempts as one node would.
pub async fn c29_nodes_count_attempts_together<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let hour = Duration::from_secs(3600);
    let ten = counter(1, hour, 10);
    let takes = (0..40).map(|n| {
        let store = Arc::clone(if n % 2 == 0 { &a } else { &b });
        async move { store.count(ten, CounterUse::Take).await.unwrap() }
    });
    let refused: Vec<_> = at_once(takes).await.into_iter().flatten().collect();
    assert_eq!(refused.len(), 30);
    assert!(refused.iter().all(|wait| *wait > hour / 2 && *wait <= hour), "{refused:?}");
    assert_eq!(a.count(counter(2, hour, 10), CounterUse::Take).await.unwrap(), None, "another counter");
    b.count(ten, CounterUse::GiveBack).await.unwrap();
    assert_eq!(a.count(ten, CounterUse::Take).await.unwrap(), None);
    assert!(b.count(ten, CounterUse::Take).await.unwrap().is_some());
    // The store's clock decides when the next attempt is admitted.
    let soon = counter(3, Duration::from_millis(50), 1);
    assert_eq!(a.count(soon, CounterUse::Take).await.unwrap(), None);
    while let Some(wait) = b.count(soon, CounterUse::Take).await.unwrap() {
        assert!(wait <= soon.every, "{wait:?}");
        tokio::time::sleep(wait).await;
    }
}

/// C29: attempts that are counted afterwards overdraw the counter by at most one.
pub async fn c29_a_counter_of_what_has_happened_is_in_debt_by_one<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let every = Duration::from_secs(3600);
    let two = counter(1, every, 2);
    for _ in 0..2 {
        a.count(two, CounterUse::Charge).await.unwrap();
        assert_eq!(b.count(two, CounterUse::Look).await.unwrap(), None);
    }
    for _ in 0..3 {
        b.count(two, CounterUse::Charge).await.unwrap();
    }
    let debt = a.count(two, CounterUse::Look).await.unwrap().expect("in debt");
    assert!(debt > every / 2 && debt <= every, "{debt:?}");
}

/// C29: several counters all count an attempt, or none does.
pub async fn c29_several_counters_take_all_or_none<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let hour = Duration::from_secs(3600);
    let [two, one, debt, third, fourth] =
        [(1, 2), (2, 1), (3, 1), (4, 1), (5, 1)].map(|(n, burst)| counter(n, hour, burst));
    let take = |counters: &[SharedCounter]| counters.iter().map(|one| (*one, CounterUse::Take)).collect::<Vec<_>>();
    let refused = async |store: &S, counters| {
        let Admitted { is_known: false, refused: Some((place, wait)) } = store.admit(None, counters).await.unwrap()
        else {
            panic!("it refuses")
        };
        assert!(wait > hour / 2 && wait <= hour, "{wait:?}");
        place
    };
    let admitted = Admitted { is_known: false, refused: None };
    assert_eq!(a.admit(None, Vec::new()).await.unwrap(), admitted);
    assert_eq!(a.admit(None, take(&[two, one])).await.unwrap(), admitted);
    assert_eq!(refused(&b, take(&[two, one])).await, 1);
    assert_eq!(a.count(two, CounterUse::Take).await.unwrap(), None, "nothing was taken from it");
    assert_eq!(refused(&b, take(&[two, one])).await, 0, "the first that refuses");
    for _ in 0..2 {
        assert_eq!(a.admit(None, vec![(debt, CounterUse::Charge)]).await.unwrap(), admitted);
    }
    assert_eq!(refused(&b, vec![(debt, CounterUse::Look), (third, CounterUse::Take)]).await, 0);
    assert_eq!(refused(&a, vec![(fourth, CounterUse::Take), (debt, CounterUse::Look)]).await, 1);
    for untouched in [third, fourth] {
        assert_eq!(b.count(untouched, CounterUse::Take).await.unwrap(), None);
        assert!(a.count(untouched, CounterUse::Take).await.unwrap().is_some());
    }
}

/// C29: only the caller's own counter counts the attempt of a remembered caller.
pub async fn c29_a_remembered_caller_uses_only_its_own_counter<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let hour = Duration::from_secs(3600);
    let (own, all) = (counter(1, hour, 1), counter(2, hour, 1));
    let admit = async |store: &S| store.admit(Some(own), vec![(all, CounterUse::Take)]).await.unwrap();
    assert_eq!(admit(&a).await, Admitted { is_known: false, refused: None });
    let stranger = admit(&b).await;
    assert!(!stranger.is_known && stranger.refused.is_some_and(|(place, _)| place == 0), "{stranger:?}");
    b.remember(own.name, hour).await.unwrap();
    assert_eq!(admit(&a).await, Admitted { is_known: true, refused: None }, "its own counter was not used before");
    let known = admit(&b).await;
    assert!(known.is_known && known.refused.is_some_and(|(place, wait)| place == 0 && wait <= hour), "{known:?}");
}

/// A node that loads a record to revoke its session gets the current, durable record.
pub async fn what_is_read_for_a_revocation_is_the_record<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let begun = session("alice", 1, created(&*a, Timestamp::ZERO).await);
    assert_eq!(b.load_to_revoke(begun.id).await.unwrap(), None);
    insert(&*a, &begun).await;
    assert_eq!(b.load_to_revoke(begun.id).await.unwrap(), Some(begun.clone()));
    let next = rotated(&begun, begun.issued_at);
    assert_eq!(a.compare_and_swap(begun.revision, next.clone(), None).await.unwrap(), Swap::Swapped);
    assert_eq!(b.load_to_revoke(begun.id).await.unwrap(), Some(next));
    b.settle().await.unwrap();
}

/// `resolved` has no effect on a swap that got a response.
pub async fn what_was_answered_is_not_in_doubt<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let begun = session("alice", 1, created(&*a, Timestamp::ZERO).await);
    insert(&*a, &begun).await;
    let next = rotated(&begun, begun.issued_at);
    assert_eq!(a.compare_and_swap(begun.revision, next.clone(), None).await.unwrap(), Swap::Swapped);
    for node in [&a, &b] {
        assert_eq!(node.written_in_doubt(begun.id).await.unwrap(), None);
        node.resolved(begun.id);
        assert_eq!(node.load(begun.id).await.unwrap().as_ref(), Some(&next));
    }
}

/// C29: all nodes know a name that one node remembers.
pub async fn c29_what_one_node_remembers_another_knows<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let (name, other) = ([1; 16], [2; 16]);
    assert!(!b.remembers(name).await.unwrap());
    a.remember(name, Duration::from_secs(3600)).await.unwrap();
    a.remember(other, Duration::from_millis(1)).await.unwrap();
    assert!(b.remembers(name).await.unwrap());
    tokio::time::timeout(PATIENCE, async {
        while b.remembers(other).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("it is forgotten");
    assert!(a.remembers(name).await.unwrap());
}

/// C28: each node sees all nodes in the feed, with their rows.
pub async fn c28_each_node_sees_what_every_node_says_of_itself<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let time = Arc::new(SystemTime::new());
    assert_eq!(a.nodes().await.unwrap(), []);
    let names = async |store: &S| {
        let mut rows: Vec<_> = store.nodes().await.unwrap().into_iter().map(|seen| seen.row).collect();
        rows.sort_by(|a, b| a.node.cmp(&b.node));
        rows.into_iter().map(|NodeRow { node, kids, users, .. }| (node, kids, users)).collect::<Vec<_>>()
    };
    let mut feeds = Vec::new();
    for (store, name) in [(&a, "a"), (&b, "b")] {
        let follow = follow(&time);
        follow.row.change(|row| {
            row.node = name.into();
            row.kids = vec!["k1".into()];
            row.users = Some("u1".into());
        });
        let row = Arc::clone(&follow.row);
        let mut feed = store.follow(Cursor::default(), follow).await.unwrap();
        heard(&mut *feed).await;
        feeds.push((row, feed));
    }
    let row = |name: &str, kids: &[&str]| {
        let kids: Vec<Box<str>> = kids.iter().map(|kid| (*kid).into()).collect();
        (name.into(), kids, Some("u1".into()))
    };
    assert_eq!(names(&a).await, [row("a", &["k1"]), row("b", &["k1"])]);
    let (live, feed) = &mut feeds[1];
    live.change(|row| row.kids.push("k2".into()));
    // Wait for a response that was requested after the change.
    let changed = time.monotonic();
    while heard(&mut **feed).await.1.asked <= changed {}
    for store in [&a, &b] {
        assert_eq!(names(store).await, [row("a", &["k1"]), row("b", &["k1", "k2"])]);
    }
    assert_eq!(a.nodes_within(NODE_KEPT).await.unwrap().len(), 2);
    let now = created(&*a, Timestamp::ZERO).await;
    let ages: Vec<_> = b.nodes().await.unwrap().iter().map(|seen| now.since(seen.beat)).collect();
    assert!(ages.iter().all(|age| *age < PATIENCE), "{ages:?}");
}

/// All nodes that detect the same change get the same time for it. The next change gets a later time.
pub async fn a_change_that_every_node_finds_has_one_moment<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let (user, old, new) = ([1; 16], [2; 16], [3; 16]);
    let before = created(&*b, Timestamp::ZERO).await;
    let moment = a.stamp_change(user, new).await.unwrap();
    assert!(moment >= before);
    let since = created(&*a, Timestamp::ZERO).await;
    assert!(since > moment);
    assert_eq!(b.stamp_change(user, new).await.unwrap(), moment, "whoever began since stays");
    assert!(a.stamp_change([9; 16], new).await.unwrap() >= since, "another user");
    let back = b.stamp_change(user, old).await.unwrap();
    assert!(back >= since);
    let again = a.stamp_change(user, new).await.unwrap();
    assert!(again > moment, "not the first one");
    assert_eq!(b.stamp_change(user, new).await.unwrap(), again);
}

//! Tests of stores whose server fails, and of two gates on one server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::races::at_once;
use super::shared::{created, heard};
use super::{BY_OPERATOR, ISSUER, LEEWAY, gone, insert, later, minimum, not_before, rotated, session, start, subject};
use crate::clock::{SystemTime, TimeSource, Timestamp};
use crate::fault::Fault;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::rotation::REVOKED;
use crate::session::{RevokedBecause, SessionId};
use crate::store::{
    CounterUse, Cursor, Feed, Follow, Heard, Inserted, SharedCounter, SharedStore, Store, SubjectBound, Swap, Swept,
    WriteOutcome,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that strictly increases, so that readings of different threads are ordered.
#[derive(Default)]
pub struct Readings(AtomicU64);

impl TimeSource for Readings {
    fn wall(&self) -> Timestamp {
        start()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// The [`Follow`] options of these tests.
pub fn follow() -> Follow {
    Follow { time: Arc::new(SystemTime::new()), every: Duration::from_millis(50), row: Arc::default() }
}

/// Reads a feed up to its next proof. Returns the entries and the proof. Earlier failures are ignored.
pub async fn next_proof(feed: &mut dyn Feed) -> (Vec<Revocation>, Heard) {
    let mut entries = Vec::new();
    let until_complete = async {
        loop {
            let Ok(step) = feed.next().await else { continue };
            assert!(!step.lost, "nothing was lost");
            entries.extend(step.entries);
            if let Some(complete) = step.complete {
                return complete;
            }
        }
    };
    let complete = tokio::time::timeout(PATIENCE, until_complete).await.expect("it is heard of");
    (entries, complete)
}

/// Returns the entries that a feed delivers before it reports a loss.
pub async fn next_loss(feed: &mut dyn Feed) -> Vec<Revocation> {
    let mut entries = Vec::new();
    let until_lost = async {
        loop {
            let Ok(step) = feed.next().await else { continue };
            entries.extend(step.entries);
            if step.lost {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, until_lost).await.expect("the loss is noticed");
    entries
}

/// O4: an unknown entry may be a revocation, so later entries must wait. `put` writes the unknown entry.
pub async fn o4_an_unknown_entry_leaves_a_node_stale<S: SharedStore>(store: &S, put: impl FnOnce()) {
    let follow = Follow { every: Duration::from_millis(10), ..follow() };
    let mut feed = store.follow(Cursor::default(), follow).await.unwrap();
    while feed.next().await.unwrap().complete.is_none() {}
    put();
    let ends = gone(session("alice", 1, start()).id);
    store.revoke(Revocation { until: later(start(), 600_000), ..ends }, BY_OPERATOR).await.unwrap();
    // The response to an earlier request may still arrive.
    let (mut faults, mut proofs) = (0, 0);
    while faults < 5 {
        match feed.next().await {
            Ok(step) => proofs += usize::from(step.complete.is_some()),
            Err(_) => faults += 1,
        }
    }
    assert!(proofs <= 1, "{proofs}");
}

/// C2: an operation whose response is cut off is executed once, with its usual result.
///
/// `cut` cuts off the next response, and `has_cut` returns whether this has happened. Returns whether any response was
/// cut off.
pub async fn c2_each_operation_whose_reply_is_cut_is_done_once<S: Store>(
    [store, direct]: [&S; 2],
    number: u64,
    (cut, has_cut): (impl Fn(), impl Fn() -> bool),
) -> bool {
    let begun = session("alice", number, start());
    let next = rotated(&begun, later(start(), 5));
    let entry = minimum(begun.id, 2, later(start(), 600_000));
    let mut was_cut = false;
    cut();
    assert_eq!(store.insert(begun.clone(), SubjectBound::NONE).await.unwrap(), Inserted::Inserted(Vec::new()));
    was_cut |= has_cut();
    cut();
    assert_eq!(store.compare_and_swap(1, next.clone(), Some(entry)).await.unwrap(), Swap::Swapped);
    was_cut |= has_cut();
    cut();
    store.confirm(vec![(begun.id, next.current)]).await.unwrap();
    was_cut |= has_cut();
    cut();
    assert_eq!(store.load(begun.id).await.unwrap().map(|known| known.revision), Some(3));
    was_cut |= has_cut();
    cut();
    let ended = store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    was_cut |= has_cut();
    assert_eq!(ended.effect, Effect::SESSION_REVOKED);
    assert_eq!(direct.load(begun.id).await.unwrap().map(|known| known.revision), Some(4));
    was_cut
}

/// A write to an unreachable server fails and changes nothing. Returns the time until the error.
pub async fn a_server_that_is_away_is_an_error<S: Store>(store: Arc<S>, kill: impl FnOnce()) -> Duration {
    let begun = session("alice", 1, start());
    insert(&*store, &begun).await;
    kill();
    // Wait until the handle has lost its connection.
    while store.load(begun.id).await.is_ok() {}
    let time = SystemTime::new();
    let asked = time.monotonic();
    let error = store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap_err();
    assert_eq!(error.outcome(), WriteOutcome::NotDone, "{error}");
    let took = time.monotonic() - asked;
    assert_eq!(Fault::from(error).retry_after(), Duration::from_secs(1));
    took
}

/// Acknowledged writes survive three crashes, and the store recovers by itself.
pub async fn a_crash_loses_nothing_that_was_acknowledged<S: Store>(store: Arc<S>, mut crash: impl FnMut()) {
    let acknowledged: Arc<Mutex<Vec<(SessionId, bool)>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let (store, acknowledged, stop) = (Arc::clone(&store), Arc::clone(&acknowledged), Arc::clone(&stop));
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let begun = session("alice", writer << 32 | n, start());
                    if store.insert(begun.clone(), SubjectBound::NONE).await.is_err() {
                        continue;
                    }
                    let ends = n % 2 == 0 && store.revoke(gone(begun.id), RevokedBecause::Logout).await.is_ok();
                    acknowledged.lock().unwrap().push((begun.id, ends));
                }
            })
        })
        .collect();
    for round in 1..=3 {
        let before = acknowledged.lock().unwrap().len();
        let more = async {
            while acknowledged.lock().unwrap().len() < before + 100 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, more).await.unwrap_or_else(|_| panic!("no writes in round {round}"));
        crash();
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let (list, _) = store.revocations().await.unwrap();
    let ids: Vec<_> = acknowledged.lock().unwrap().clone();
    for (id, ended) in ids {
        let record = store.load(id).await.unwrap().expect("it was acknowledged");
        assert!(!ended || record.is_revoked(), "{id}");
        assert!(!ended || list.minimum(id) == REVOKED, "{id}");
    }
}

/// C8: the clock is read before the request for proof is sent. `passed` returns the times at which bytes were sent to
/// the server.
pub async fn c8_the_clock_is_read_before_the_beat<S: SharedStore>(
    store: &S,
    time: Arc<Readings>,
    passed: impl Fn() -> Vec<Duration>,
) {
    let follow = Follow { time, every: Duration::ZERO, row: Arc::default() };
    let mut feed = store.follow(Cursor::default(), follow).await.unwrap();
    for _ in 0..20 {
        let (_, complete) = heard(&mut *feed).await;
        let passed = passed();
        assert!(passed.iter().any(|at| *at > complete.asked && *at < complete.answered), "{complete:?} {passed:?}");
    }
}

/// C8: a step is complete once the log was read up to the requested position, even in several reads.
pub async fn c8_a_step_is_complete_once_all_was_read<S: SharedStore>(store: &S) {
    const WRITTEN: u64 = 2500;
    let entry = |n| minimum(session("alice", n, start()).id, 2, later(start(), 600_000));
    store.revoke(entry(0), BY_OPERATOR).await.unwrap();
    let (_, early) = store.revocations_since(Cursor::default()).await.unwrap();
    for n in 1..=WRITTEN {
        store.revoke(entry(n), BY_OPERATOR).await.unwrap();
    }
    let follow = Follow { time: Arc::new(Readings::default()), every: Duration::ZERO, row: Arc::default() };
    let mut feed = store.follow(early, follow).await.unwrap();
    let (entries, _) = heard(&mut *feed).await;
    assert_eq!(entries.len() as u64, WRITTEN);
}

/// C4: sessions that begin after a not-before, at any node, have a later creation time.
pub async fn c4_what_begins_after_a_not_before_is_later<S: SharedStore>([a, b]: [Arc<S>; 2]) {
    let now = created(&*a, Timestamp::ZERO).await;
    let moment = now.plus(LEEWAY / 2);
    a.revoke(not_before(subject("alice"), moment), BY_OPERATOR).await.unwrap();
    assert!(created(&*b, Timestamp::ZERO).await > moment);
    // A moment far in the future is a mistake, and must not block logins.
    a.revoke(not_before(subject("bob"), now.plus(LEEWAY * 100)), BY_OPERATOR).await.unwrap();
    created(&*b, Timestamp::ZERO).await;
}

/// C29: of a hundred attempts over all nodes, ten are admitted.
pub async fn c29_ten_a_minute_over_all_nodes_are_ten<S: SharedStore>(nodes: &[Arc<S>]) {
    let ten = SharedCounter { name: [1; 16], every: Duration::from_secs(60), burst: 10 };
    let takes = (0..100).map(|n| {
        let node = Arc::clone(&nodes[n % nodes.len()]);
        async move { node.count(ten, CounterUse::Take).await.unwrap().is_none() }
    });
    let taken = at_once(takes).await.into_iter().filter(|taken| *taken).count();
    assert_eq!(taken, 10);
}

/// C32: each entry is swept by only one node. Returns the number of swept sessions.
pub async fn c32_what_one_node_swept_the_other_does_not<S: SharedStore>([a, b]: [Arc<S>; 2]) -> u64 {
    let now = SystemTime::new().wall();
    let hours = |n: u64| Duration::from_secs(3600 * n);
    let entry = |n: u64, until| {
        let target = Target::Token { issuer: ISSUER.into(), jti: n.to_string().into() };
        Revocation { target, effect: Effect::Gone, until }
    };
    for n in 0..300 {
        a.revoke(entry(n, now.minus(hours(2))), BY_OPERATOR).await.unwrap();
    }
    let kept = a.revoke(entry(300, now.minus(hours(1) / 2)), BY_OPERATOR).await.unwrap();
    let (by_a, by_b) = tokio::join!(a.sweep(Timestamp::ZERO), b.sweep(Timestamp::MAX));
    let (by_a, by_b) = (by_a.unwrap(), by_b.unwrap());
    assert_eq!(by_a.revocations + by_b.revocations, 300);
    assert_eq!(b.sweep(Timestamp::MAX).await.unwrap(), Swept::default());
    assert_eq!(b.revocations_since(Cursor::default()).await.unwrap().0, [kept]);
    by_a.sessions + by_b.sessions
}

//! Concurrent callers. Each race runs many times, and every order must give a correct result.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{SECOND, gone, insert, later, minimum, not_before, rotated, session, start, subject};
use crate::session::{Generation, RevokedBecause, Session, SessionId, Status};
use crate::store::{Cursor, Filter, Inserted, Store, SubjectBound, Swap, WriteOutcome};

const ROUNDS: u64 = 40;

/// Starts all calls together, once all tasks are ready.
pub(super) async fn at_once<T: Send + 'static>(
    calls: impl ExactSizeIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(calls.len()));
    let mut tasks = JoinSet::new();
    for call in calls {
        let barrier = Arc::clone(&barrier);
        tasks.spawn(async move {
            barrier.wait().await;
            call.await
        });
    }
    tasks.join_all().await
}

/// If another caller wins, this caller reloads the record and tries again, like the engine.
async fn rotate(store: &dyn Store, id: SessionId) -> bool {
    let mut known = store.load(id).await.unwrap().unwrap();
    loop {
        let next = rotated(&known, later(start(), known.revision));
        match store.compare_and_swap(known.revision, next, None).await.unwrap() {
            Swap::Swapped => return true,
            Swap::NoLongerValid => return false,
            Swap::Changed(now) => {
                known = *now.unwrap();
                if known.status != Status::Live {
                    return false;
                }
            }
        }
    }
}

/// R1: one of two hundred concurrent callers wins, and the others receive its record.
pub async fn one_of_many_swaps_wins(store: Arc<dyn Store>) {
    const CALLERS: usize = 200;
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    let swaps = (0..CALLERS).map(|n| {
        let (store, next) = (Arc::clone(&store), rotated(&s, later(start(), n as u64)));
        async move { (store.compare_and_swap(1, next.clone(), None).await.unwrap(), next) }
    });
    let results = at_once(swaps).await;
    let winners: Vec<_> = results.iter().filter(|(swap, _)| *swap == Swap::Swapped).map(|(_, next)| next).collect();
    assert_eq!(winners.len(), 1);
    let known = store.load(s.id).await.unwrap().unwrap();
    assert_eq!(known, *winners[0]);
    let told = results.iter().filter(|(swap, _)| *swap == Swap::Changed(Some(Box::new(known.clone())))).count();
    assert_eq!(told, CALLERS - 1);
}

/// An acknowledged revocation stays in force despite concurrent rotations.
pub async fn a_rotation_never_undoes_a_revocation(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        let s = session("alice", round, start());
        insert(&*store, &s).await;
        let barrier = Arc::new(Barrier::new(4));
        let mut rotations = JoinSet::new();
        for _ in 0..3 {
            let (store, barrier, id) = (Arc::clone(&store), Arc::clone(&barrier), s.id);
            rotations.spawn(async move {
                barrier.wait().await;
                rotate(&*store, id).await
            });
        }
        barrier.wait().await;
        store.revoke(gone(s.id), RevokedBecause::Logout).await.unwrap();
        let at_once = store.load(s.id).await.unwrap().unwrap();
        assert_eq!(at_once.status, Status::Revoked(RevokedBecause::Logout));
        let came_through = rotations.join_all().await.into_iter().filter(|&won| won).count() as u64;
        let known = store.load(s.id).await.unwrap().unwrap();
        assert_eq!(known, at_once, "nothing changes a revoked session");
        assert_eq!(known.current.get(), 1 + came_through);
        assert_eq!(known.revision, 2 + came_through);
    }
}

/// A late confirmation has no effect, and a timely confirmation is not lost.
pub async fn a_rotation_never_loses_to_a_confirmation(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        let s = session("alice", round, start());
        insert(&*store, &s).await;
        let both = [true, true, false].map(|confirms| {
            let (store, id) = (Arc::clone(&store), s.id);
            async move {
                if confirms {
                    store.confirm(vec![(id, Generation::FIRST)]).await.unwrap();
                } else {
                    assert!(rotate(&*store, id).await);
                }
            }
        });
        at_once(both.into_iter()).await;
        let known = store.load(s.id).await.unwrap().unwrap();
        assert_eq!((known.current, known.previous, known.confirmed), (SECOND, Generation::FIRST, false));
        assert!(known.revision == 2 || known.revision == 3, "{}", known.revision);
        store.confirm(vec![(s.id, SECOND)]).await.unwrap();
        let confirmed = Session { confirmed: true, revision: known.revision + 1, ..known };
        assert_eq!(store.load(s.id).await.unwrap(), Some(confirmed));
    }
}

/// R9: after a subject's revocation is acknowledged, the subject's older sessions neither begin nor continue.
pub async fn no_session_slips_past_a_not_before(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        let name = format!("user-{round}");
        let old = session(&name, 2 * round, start());
        insert(&*store, &old).await;
        let barrier = Arc::new(Barrier::new(2));
        let inserting = tokio::spawn({
            let (store, barrier, name) = (Arc::clone(&store), Arc::clone(&barrier), name.clone());
            async move {
                barrier.wait().await;
                let young = session(&name, 2 * round + 1, later(start(), 1));
                (store.insert(young.clone(), SubjectBound::NONE).await.unwrap(), young)
            }
        });
        barrier.wait().await;
        store.revoke(not_before(subject(&name), later(start(), 1)), RevokedBecause::Operator).await.unwrap();
        let (inserted, young) = inserting.await.unwrap();
        assert!(!rotate(&*store, old.id).await);
        match inserted {
            Inserted::Inserted(_) => assert!(!rotate(&*store, young.id).await),
            Inserted::TooMany => panic!("there is no bound"),
            Inserted::NoLongerValid(cut) => {
                assert_eq!(cut, later(start(), 1));
                assert_eq!(store.load(young.id).await.unwrap(), None);
            }
        }
    }
    assert!(store.list(Filter::All, None, 1000).await.unwrap().sessions.iter().all(|s| s.current == Generation::FIRST));
}

/// A reader that advances its cursor gets every entry.
pub async fn a_reader_of_revocations_misses_none(store: Arc<dyn Store>) {
    const WRITERS: u64 = 4;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for n in 0..50 {
                // Writers update ten targets in turn.
                let id = session("alice", (writer + n) % 10, start()).id;
                let entry = minimum(id, 1 + n * WRITERS + writer, later(start(), n));
                store.revoke(entry, RevokedBecause::Operator).await.unwrap();
            }
        });
    }
    let mut known = BTreeMap::new();
    let mut cursor = Cursor::default();
    loop {
        // The next read must return what the finished writers wrote.
        while let Some(writer) = writers.try_join_next() {
            writer.unwrap();
        }
        let done = writers.is_empty();
        let (entries, end) = store.revocations_since(cursor).await.unwrap();
        cursor = end;
        known.extend(entries.into_iter().map(|entry| (entry.target.clone(), entry)));
        if done {
            break;
        }
        tokio::task::yield_now().await;
    }
    let (all, end) = store.revocations_since(Cursor::default()).await.unwrap();
    assert_eq!(end, cursor);
    assert_eq!(known, all.into_iter().map(|entry| (entry.target.clone(), entry)).collect());
}

/// R22: the limit is kept, because the inserting transaction counts live sessions.
pub async fn however_many_begin_at_once_no_more_live_than_may(store: Arc<dyn Store>) {
    no_more_live_than_may(&[store]).await;
}

/// The limit is kept across all nodes. If an insert conflicts at every attempt, the test repeats it like a client.
pub async fn no_more_live_than_may<S: Store + ?Sized>(nodes: &[Arc<S>]) {
    const MOST: u32 = 5;
    const CALLERS: u32 = 60;
    for (name, from, ends_oldest) in [("alice", 0, true), ("bob", 1000, false)] {
        let bound = SubjectBound { most: MOST, idle_ttl: super::SESSION_TTL, ends_oldest };
        let inserts = (0..CALLERS).map(|n| {
            let (node, is_one) = (Arc::clone(&nodes[n as usize % nodes.len()]), nodes.len() == 1);
            let begun = session(name, from + u64::from(n), later(start(), n.into()));
            async move {
                loop {
                    match node.insert(begun.clone(), bound).await {
                        Ok(inserted) => break inserted,
                        Err(error) if !is_one && error.outcome() == WriteOutcome::NotDone => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        let results = at_once(inserts).await;
        let refused = results.iter().filter(|inserted| **inserted == Inserted::TooMany).count();
        let ended: usize = results
            .iter()
            .map(|inserted| match inserted {
                Inserted::Inserted(ended) => ended.len(),
                Inserted::TooMany | Inserted::NoLongerValid(_) => 0,
            })
            .sum();
        let over = (CALLERS - MOST) as usize;
        assert_eq!((refused, ended), if !ends_oldest { (over, 0) } else { (0, over) });
        let page = nodes[0].list(Filter::Subject(name.into()), None, 1000).await.unwrap();
        let live = page.sessions.iter().filter(|session| session.status == Status::Live).count();
        assert_eq!(live, MOST as usize);
    }
}

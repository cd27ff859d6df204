//! Long operations run in steps, so that the writer serves other callers in between.

use super::*;
use rotogate_core::store::rules::MAX_SWEPT;

const HOUR: Duration = Duration::from_secs(3600);

/// Sessions from `START` on, each with its own revocation entry, which ends with the session.
async fn many(store: &RedbStore, number: usize) -> Vec<Session> {
    let sessions: Vec<_> = (0..number as u64).map(|n| session("alice", n, START)).collect();
    let writes = sessions.iter().map(|s| async {
        insert(store, s).await;
        store.revoke(Revocation { until: s.expires, ..gone(s.id) }, RevokedBecause::Logout).await.unwrap();
    });
    futures_util::future::join_all(writes).await;
    sessions
}

async fn swept_away(store: &RedbStore, sessions: &[Session]) -> usize {
    let mut gone = 0;
    for session in sessions {
        gone += usize::from(store.load(session.id).await.unwrap().is_none());
    }
    gone
}

#[tokio::test]
async fn a_step_of_the_sweep_removes_so_many_and_no_more() {
    let place = Place::new();
    let store = place.open();
    many(&store, MAX_SWEPT + 10).await;
    let over = START.plus(conformance::SESSION_TTL).plus(2 * HOUR);
    let step = || store.write(move |rules, state| rules.sweep_step(state, over));
    let all = MAX_SWEPT as u64;
    assert_eq!(step().await.unwrap(), Swept { sessions: all, revocations: all });
    assert_eq!(step().await.unwrap(), Swept { sessions: 10, revocations: 10 });
    assert_eq!(step().await.unwrap(), Swept::default());
}

#[tokio::test]
async fn a_rotation_asked_for_during_the_sweep_is_durable_long_before_it_ends() {
    const STEPS: usize = 8;
    let place = Place::new();
    let store = place.open();
    let over = START.plus(conformance::SESSION_TTL).plus(2 * HOUR);
    let expired = many(&store, STEPS * MAX_SWEPT).await;
    let living = session("bob", 1, over);
    insert(&store, &living).await;
    let before = store.commits();
    let rotation = async {
        let swap = store.compare_and_swap(1, rotated(&living, later(over, 1)), None).await.unwrap();
        (swap, swept_away(&store, &expired).await)
    };
    let (swept, (swap, by_then)) = tokio::join!(store.sweep(over), rotation);
    assert_eq!(swap, Swap::Swapped);
    assert!(by_then <= 2 * MAX_SWEPT, "{by_then} of {} were swept by then", expired.len());
    assert_eq!(swept.unwrap(), Swept { sessions: expired.len() as u64, revocations: expired.len() as u64 });
    assert!(store.commits() - before >= STEPS as u64, "each step is a commit of its own");
}

#[tokio::test]
async fn a_rotation_asked_for_while_much_is_confirmed_is_durable_before_that_ends() {
    let place = Place::new();
    let store = place.open();
    let sessions: Vec<_> = (0..8 * CONFIRMATIONS_PER_WRITE as u64).map(|n| session("alice", n, START)).collect();
    futures_util::future::join_all(sessions.iter().map(|s| insert(&store, s))).await;
    let living = session("bob", u64::MAX, START);
    insert(&store, &living).await;
    let rotation = async {
        let swap = store.compare_and_swap(1, rotated(&living, later(START, 1)), None).await.unwrap();
        let last = store.load(sessions[sessions.len() - 1].id).await.unwrap().unwrap();
        (swap, last.confirmed)
    };
    let seen = sessions.iter().map(|s| (s.id, Generation::FIRST)).collect();
    let (confirmed, (swap, last_confirmed)) = tokio::join!(store.confirm(seen), rotation);
    confirmed.unwrap();
    assert_eq!((swap, last_confirmed), (Swap::Swapped, false));
    for session in &sessions {
        assert!(store.load(session.id).await.unwrap().unwrap().confirmed);
    }
}

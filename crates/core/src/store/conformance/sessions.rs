//! Tests of records: load, insert, swap, confirm, list and sweep.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    ACCESS_TTL, LEEWAY, SECOND, client, gone, insert, later, minimum, not_before, rotated, session, start, subject,
};
use crate::clock::Timestamp;
use crate::revocation::Revocation;
use crate::session::{Generation, RevokedBecause, Session, SessionId, Status};
use crate::store::rules::MAX_ENDED;
use crate::store::{Cursor, Filter, Inserted, Store, SubjectBound, Swap, Swept};

const HOUR: Duration = Duration::from_secs(3600);

/// Every field is stored and returned.
pub async fn what_was_inserted_is_loaded(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    assert_eq!(store.load(s.id).await.unwrap(), None);
    insert(&*store, &s).await;
    assert_eq!(store.load(s.id).await.unwrap(), Some(s));
    assert_eq!(store.load(session("alice", 2, start()).id).await.unwrap(), None);
}

/// A session's claims are stored, and a swap replaces them.
pub async fn claims_are_kept(store: Arc<dyn Store>) {
    let mut s = session("alice", 1, start());
    s.claims.insert("roles", ["clerk"]).unwrap();
    insert(&*store, &s).await;
    assert_eq!(store.load(s.id).await.unwrap(), Some(s.clone()));
    let mut next = rotated(&s, later(start(), 5));
    next.claims.insert("roles", ["boss"]).unwrap();
    assert_eq!(store.compare_and_swap(1, next.clone(), None).await.unwrap(), Swap::Swapped);
    assert_eq!(store.load(s.id).await.unwrap(), Some(next));
}

/// A second insert with the same id is an error, and does not change the first session.
pub async fn an_id_is_inserted_once(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    assert!(store.insert(Session { revision: 7, ..s.clone() }, SubjectBound::NONE).await.is_err());
    assert_eq!(store.load(s.id).await.unwrap(), Some(s));
}

/// R1: a swap with another revision returns `Changed` and the current record.
pub async fn a_swap_needs_the_expected_revision(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    let next = rotated(&s, later(start(), 5));
    assert_eq!(store.compare_and_swap(1, next.clone(), None).await.unwrap(), Swap::Changed(None));
    insert(&*store, &s).await;
    assert_eq!(store.compare_and_swap(1, next.clone(), None).await.unwrap(), Swap::Swapped);
    assert_eq!(store.load(s.id).await.unwrap(), Some(next.clone()));
    let again = store.compare_and_swap(1, next.clone(), None).await.unwrap();
    assert_eq!(again, Swap::Changed(Some(Box::new(next.clone()))));
    let ahead = Session { revision: 9, ..next.clone() };
    assert_eq!(store.compare_and_swap(8, ahead, None).await.unwrap(), Swap::Changed(Some(Box::new(next))));
}

/// A swap must raise the revision and keep the subject.
pub async fn a_swap_must_raise_the_revision_and_keep_the_subject(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    assert!(store.compare_and_swap(1, s.clone(), None).await.is_err());
    let next = rotated(&s, later(start(), 5));
    assert!(store.compare_and_swap(1, Session { subject: "bob".into(), ..next.clone() }, None).await.is_err());
    assert!(store.compare_and_swap(1, Session { client: "tv".into(), ..next }, None).await.is_err());
    assert_eq!(store.load(s.id).await.unwrap(), Some(s));
}

/// A revoked session is not swapped, even with the right revision.
pub async fn a_revoked_session_is_never_swapped(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    store.revoke(gone(s.id), RevokedBecause::Logout).await.unwrap();
    let revoked = store.load(s.id).await.unwrap().unwrap();
    let back = Session { status: Status::Live, ..rotated(&revoked, later(start(), 5)) };
    let swap = store.compare_and_swap(revoked.revision, back, None).await.unwrap();
    assert_eq!(swap, Swap::Changed(Some(Box::new(revoked.clone()))));
    assert_eq!(store.load(s.id).await.unwrap(), Some(revoked));
}

/// A batch of confirmations skips other generations, unknown sessions and revoked sessions.
pub async fn a_confirmation_touches_one_field_and_only_of_the_current_generation(store: Arc<dyn Store>) {
    let [a, b, c] = [1, 2, 3].map(|n| session("alice", n, start()));
    let unknown = session("alice", 4, start()).id;
    for s in [&a, &b, &c] {
        insert(&*store, s).await;
    }
    store.revoke(gone(c.id), RevokedBecause::Operator).await.unwrap();
    let revoked = store.load(c.id).await.unwrap();
    let seen = vec![
        (unknown, Generation::FIRST),
        (b.id, SECOND),
        (b.id, Generation::NONE),
        (c.id, Generation::FIRST),
        (a.id, Generation::FIRST),
        (a.id, Generation::FIRST),
    ];
    assert_eq!(store.confirm(seen).await.unwrap(), [a.id], "what it changed, once");
    let confirmed = Session { confirmed: true, revision: 2, ..a.clone() };
    assert_eq!(store.load(a.id).await.unwrap(), Some(confirmed.clone()));
    assert_eq!(store.load(b.id).await.unwrap(), Some(b));
    assert_eq!(store.load(c.id).await.unwrap(), revoked);
    // A repeated confirmation must not change the record.
    assert_eq!(store.confirm(vec![(a.id, Generation::FIRST)]).await.unwrap(), []);
    assert_eq!(store.confirm(Vec::new()).await.unwrap(), []);
    assert_eq!(store.load(a.id).await.unwrap(), Some(confirmed));
}

/// Pages list each session once, oldest first.
pub async fn sessions_are_listed_page_by_page_in_order(store: Arc<dyn Store>) {
    let mut all = Vec::new();
    for n in 0..40_u64 {
        // `al` and `alice\0` must not be confused with `alice`.
        let subject = ["al", "alice", "alice\0", "bob"][(n % 4) as usize];
        all.push(session(subject, n, later(start(), n * 7 % 10)));
        insert(&*store, all.last().unwrap()).await;
    }
    check_pages(&*store, all).await;
}

async fn check_pages(store: &dyn Store, mut all: Vec<Session>) {
    all.sort_by_key(|s| s.id);
    for subject in [None, Some("alice"), Some("nobody")] {
        let filter = subject.map_or(Filter::All, |s| Filter::Subject(s.into()));
        let wanted: Vec<SessionId> =
            all.iter().filter(|s| subject.is_none_or(|wanted| *s.subject == *wanted)).map(|s| s.id).collect();
        for limit in [1, 3, wanted.len().max(1), 500] {
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let page = store.list(filter.clone(), after, limit).await.unwrap();
                assert!(page.sessions.len() <= limit);
                listed.extend(page.sessions.into_iter().map(|s| s.id));
                let Some(next) = page.next else { break };
                assert_eq!(Some(&next), listed.last());
                after = Some(next);
            }
            assert_eq!(listed, wanted, "{subject:?} by {limit}");
        }
    }
}

/// Sweeps and writes in engine time raise the last known time. Creation stamps do not.
pub async fn the_last_known_time_never_goes_back(store: Arc<dyn Store>) {
    assert_eq!(store.last_known_time().await.unwrap(), Timestamp::ZERO);
    let s = Session { issued_at: later(start(), 20), ..session("alice", 1, later(start(), 9_000)) };
    let s = Session { rotated_at: later(start(), 10), ..s };
    insert(&*store, &s).await;
    assert_eq!(store.last_known_time().await.unwrap(), later(start(), 20));
    let next = rotated(&s, later(start(), 50));
    assert_eq!(store.compare_and_swap(1, next, None).await.unwrap(), Swap::Swapped);
    assert_eq!(store.last_known_time().await.unwrap(), later(start(), 50));
    store.sweep(later(start(), 40)).await.unwrap();
    assert_eq!(store.last_known_time().await.unwrap(), later(start(), 50));
    store.sweep(later(start(), 60)).await.unwrap();
    assert_eq!(store.last_known_time().await.unwrap(), later(start(), 60));
}

/// A sweep keeps expired sessions and revocations for exactly an hour.
pub async fn a_sweep_removes_what_ended_an_hour_ago_and_nothing_else(store: Arc<dyn Store>) {
    let [early, late] = [1, 2].map(|n| session("alice", n, later(start(), n)));
    insert(&*store, &early).await;
    insert(&*store, &late).await;
    let short = minimum(session("bob", 3, start()).id, 2, early.expires);
    let long = minimum(session("bob", 4, start()).id, 2, late.expires);
    for entry in [&short, &long] {
        store.revoke(entry.clone(), RevokedBecause::Operator).await.unwrap();
    }
    let edge = early.expires.plus(HOUR);
    assert_eq!(store.sweep(edge).await.unwrap(), Swept::default());
    assert_eq!(store.sweep(later(edge, 1)).await.unwrap(), Swept { sessions: 1, revocations: 1 });
    assert_eq!(store.sweep(later(edge, 1)).await.unwrap(), Swept::default());
    assert_eq!(store.load(early.id).await.unwrap(), None);
    let page = store.list(Filter::Subject("alice".into()), None, 10).await.unwrap();
    assert_eq!(page.sessions, [late]);
    assert_eq!(store.revocations_since(Cursor::default()).await.unwrap().0, [long]);
    assert_eq!(store.sweep(Timestamp::ZERO).await.unwrap(), Swept::default());
}

/// A sweep continues through several steps.
pub async fn a_sweep_goes_on_until_all_is_removed(store: Arc<dyn Store>) {
    let mut inserts = JoinSet::new();
    for n in 0..1100 {
        let store = Arc::clone(&store);
        inserts.spawn(async move { insert(&*store, &session("alice", n, start())).await });
    }
    inserts.join_all().await;
    let swept = store.sweep(start().plus(super::SESSION_TTL).plus(2 * HOUR)).await.unwrap();
    assert_eq!(swept, Swept { sessions: 1100, revocations: 0 });
    assert!(store.list(Filter::All, None, 10).await.unwrap().sessions.is_empty());
}

/// R10: a session can be revoked while one of its access tokens is valid.
pub async fn a_session_outlives_its_last_access_token(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    let s = Session { expires: later(start(), 1), ..s };
    insert(&*store, &s).await;
    let token_ends = start().plus(ACCESS_TTL);
    assert_eq!(store.sweep(token_ends.plus(HOUR)).await.unwrap(), Swept::default());
    let next = rotated(&s, later(start(), 1000));
    assert_eq!(store.compare_and_swap(1, next.clone(), None).await.unwrap(), Swap::Swapped);
    assert_eq!(store.sweep(later(token_ends, 1000).plus(HOUR)).await.unwrap(), Swept::default());
    let entry = store.revoke(gone(s.id), RevokedBecause::Logout).await.unwrap();
    assert_eq!(entry.until, next.latest_access_expires.plus(LEEWAY));
    assert_eq!(store.sweep(later(token_ends, 1001).plus(HOUR)).await.unwrap().sessions, 1);
}

/// A new store is writable and empty.
pub async fn a_new_store_is_ready(store: Arc<dyn Store>) {
    store.check().await.unwrap();
    assert_eq!(store.revocations_since(Cursor::default()).await.unwrap(), (vec![], Cursor::default()));
    assert_eq!(store.list(Filter::All, None, 5).await.unwrap().next, None);
}

/// R22: if a subject has too many sessions, the oldest one is revoked or the new one is refused. Only live sessions
/// count.
pub async fn a_subject_has_so_many_live_sessions_and_no_more(store: Arc<dyn Store>) {
    let day = Duration::from_secs(86_400);
    let bound = |most, ends_oldest| SubjectBound { most, idle_ttl: day, ends_oldest };
    let refuse = |most| bound(most, false);
    let end = |most| bound(most, true);
    let s = |n| session("alice", n, later(start(), n));
    let began = || Inserted::Inserted(Vec::new());
    let entry = |n| Revocation { until: s(n).latest_access_expires.plus(LEEWAY), ..gone(s(n).id) };
    for n in 1..=3 {
        assert_eq!(store.insert(s(n), end(3)).await.unwrap(), began());
    }
    assert_eq!(store.insert(session("alice2", 9, start()), refuse(1)).await.unwrap(), began());

    assert_eq!(store.insert(s(4), refuse(3)).await.unwrap(), Inserted::TooMany);
    assert_eq!(store.load(s(4).id).await.unwrap(), None);
    assert_eq!(store.insert(s(4), end(3)).await.unwrap(), Inserted::Inserted(vec![entry(1)]));
    let ended = Session { status: Status::Revoked(RevokedBecause::TooMany), revision: 2, ..s(1) };
    assert_eq!(store.load(s(1).id).await.unwrap(), Some(ended));
    assert_eq!(store.revocations_since(Cursor::default()).await.unwrap().0, [entry(1)]);
    assert_eq!(store.load(s(2).id).await.unwrap(), Some(s(2)));

    let next = rotated(&s(3), later(start(), 4));
    assert_eq!(store.compare_and_swap(1, next, None).await.unwrap(), Swap::Swapped);
    store.revoke(gone(s(2).id), RevokedBecause::Logout).await.unwrap();
    assert_eq!(store.insert(s(5), refuse(3)).await.unwrap(), began());
    assert_eq!(store.insert(s(6), refuse(3)).await.unwrap(), Inserted::TooMany);
    // After the limit was lowered, an insert revokes several sessions.
    let Inserted::Inserted(ended) = store.insert(s(6), end(2)).await.unwrap() else { panic!("it began") };
    assert_eq!(ended.iter().map(|entry| &entry.target).collect::<Vec<_>>(), [&gone(s(3).id).target, &entry(4).target]);

    // Sessions older than a not-before do not count.
    store.revoke(not_before(subject("alice"), later(start(), 6)), RevokedBecause::Operator).await.unwrap();
    assert_eq!(store.insert(s(7), refuse(1)).await.unwrap(), began());
    assert_eq!(store.insert(s(8), refuse(1)).await.unwrap(), Inserted::TooMany);
    store.revoke(not_before(client("web"), later(start(), 7)), RevokedBecause::Operator).await.unwrap();
    assert_eq!(store.insert(s(8), refuse(1)).await.unwrap(), began());
    // Idle sessions and expired sessions do not count either.
    let idle = session("alice", 9, later(start(), 8).plus(day));
    assert_eq!(store.insert(idle.clone(), refuse(1)).await.unwrap(), began());
    let late = idle.expires;
    let kept = Session { issued_at: late, revision: 2, ..idle };
    assert_eq!(store.compare_and_swap(1, kept, None).await.unwrap(), Swap::Swapped);
    assert_eq!(store.insert(session("alice", 10, late), refuse(1)).await.unwrap(), began());
}

/// R22: the subject's oldest live sessions are revoked, regardless of the order of their writes.
pub async fn the_oldest_sessions_of_a_subject_give_way(store: Arc<dyn Store>) {
    let bound = |most| SubjectBound { most, idle_ttl: super::SESSION_TTL, ends_oldest: true };
    let s = |n| session("alice", n, later(start(), n));
    for n in [4, 2, 3, 1] {
        insert(&*store, &s(n)).await;
    }
    let others: Vec<_> =
        (10..).zip(["al", "alice\0", "alice2", "Alice"]).map(|(n, name)| session(name, n, start())).collect();
    for other in &others {
        insert(&*store, other).await;
    }
    assert_eq!(store.compare_and_swap(1, rotated(&s(1), later(start(), 9)), None).await.unwrap(), Swap::Swapped);
    for (new, most, gave_way) in [(5, 3, vec![1, 2]), (6, 3, vec![3]), (7, 9, vec![]), (8, 2, vec![4, 5, 6])] {
        let Inserted::Inserted(ended) = store.insert(s(new), bound(most)).await.unwrap() else { panic!("{new} began") };
        let ended: Vec<_> = ended.into_iter().map(|entry| entry.target).collect();
        assert_eq!(ended, gave_way.into_iter().map(|n| gone(s(n).id).target).collect::<Vec<_>>(), "for {new}");
    }
    for n in 1..=8 {
        assert_eq!(store.load(s(n).id).await.unwrap().unwrap().is_revoked(), n < 7, "{n}");
    }
    for other in others {
        assert_eq!(store.load(other.id).await.unwrap().as_ref(), Some(&other));
    }
}

/// One insert revokes at most about a thousand sessions, and later inserts revoke the rest.
pub async fn a_thousand_sessions_give_way_at_once_and_later_the_rest(store: Arc<dyn Store>) {
    const TOO_MANY: u64 = MAX_ENDED as u64 + 5;
    let mut inserts = JoinSet::new();
    for n in 0..TOO_MANY {
        let store = Arc::clone(&store);
        inserts.spawn(async move { insert(&*store, &session("alice", n, later(start(), n))).await });
    }
    inserts.join_all().await;
    let one = SubjectBound { most: 1, idle_ttl: super::SESSION_TTL, ends_oldest: true };
    let mut ended = Vec::new();
    for n in TOO_MANY..TOO_MANY + 2 {
        let begun = session("alice", n, later(start(), n));
        let Inserted::Inserted(gave_way) = store.insert(begun, one).await.unwrap() else { panic!("{n} began") };
        assert!(gave_way.len() <= MAX_ENDED, "{}", gave_way.len());
        ended.extend(gave_way.into_iter().map(|entry| entry.target));
    }
    let all: Vec<_> = (0..=TOO_MANY).map(|n| gone(session("alice", n, later(start(), n)).id).target).collect();
    assert_eq!(ended, all, "each once, the oldest first");
}

/// Checks of a store do not write anything that a gate could read.
pub async fn a_check_changes_nothing(store: Arc<dyn Store>) {
    let [kept, revoked] = [1, 2].map(|n| session("alice", n, start()));
    for s in [&kept, &revoked] {
        insert(&*store, s).await;
    }
    store.revoke(gone(revoked.id), RevokedBecause::Logout).await.unwrap();
    let content = async || {
        let page = store.list(Filter::All, None, 10).await.unwrap();
        (page.sessions, page.next, store.revocations_since(Cursor::default()).await.unwrap())
    };
    let before = content().await;
    for _ in 0..2 {
        store.check().await.unwrap();
        store.probe().await.unwrap();
    }
    assert_eq!(content().await, before);
    let next = rotated(&kept, later(start(), 5));
    assert_eq!(store.compare_and_swap(1, next, None).await.unwrap(), Swap::Swapped);
}

/// A revoked session is kept only until the expiry of its access tokens.
pub async fn a_revoked_session_is_kept_while_its_access_tokens_would_live(store: Arc<dyn Store>) {
    let [revoked, live] = [1, 2].map(|n| session("alice", n, start()));
    insert(&*store, &revoked).await;
    insert(&*store, &live).await;
    store.revoke(gone(revoked.id), RevokedBecause::Logout).await.unwrap();
    let end = revoked.latest_access_expires.plus(HOUR);
    assert_eq!(store.sweep(end).await.unwrap(), Swept::default());
    assert_eq!(store.sweep(later(end, 1)).await.unwrap().sessions, 1);
    assert_eq!(store.load(revoked.id).await.unwrap(), None);
    assert_eq!(store.list(Filter::Subject("alice".into()), None, 9).await.unwrap().sessions, [live]);
}

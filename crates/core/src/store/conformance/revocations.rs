//! Tests of revocations: effects, merging and reading.

use std::sync::Arc;
use std::time::Duration;

use super::{BY_OPERATOR, LEEWAY, client, gone, insert, later, minimum, not_before, rotated, session, start, subject};
use crate::clock::Timestamp;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::rotation::REVOKED;
use crate::session::{Generation, RevokedBecause, Session, Status};
use crate::store::{Cursor, Inserted, Store, SubjectBound, Swap};

async fn all(store: &dyn Store) -> Vec<Revocation> {
    store.revocations_since(Cursor::default()).await.unwrap().0
}

/// R10: a session's revocation is kept until its last access token expires, plus the leeway.
pub async fn a_session_is_revoked_with_its_record_and_its_entry(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    let entry = store.revoke(gone(s.id), RevokedBecause::Reuse).await.unwrap();
    assert_eq!(entry, Revocation { until: s.latest_access_expires.plus(LEEWAY), ..gone(s.id) });
    assert_eq!(all(&*store).await, [entry]);
    let revoked = Session { status: Status::Revoked(RevokedBecause::Reuse), revision: 2, ..s.clone() };
    assert_eq!(store.load(s.id).await.unwrap(), Some(revoked));
}

/// A repeated revocation can only extend `until`.
pub async fn a_repeated_revocation_changes_nothing_and_keeps_the_first_reason(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    let first = store.revoke(gone(s.id), RevokedBecause::Logout).await.unwrap();
    let record = store.load(s.id).await.unwrap();
    let (_, cursor) = store.revocations_since(Cursor::default()).await.unwrap();
    assert_eq!(store.revoke(gone(s.id), RevokedBecause::Reuse).await.unwrap(), first);
    assert_eq!(store.load(s.id).await.unwrap(), record);
    assert_eq!(store.revocations_since(cursor.clone()).await.unwrap(), (vec![], cursor));
    let longer = Revocation { until: later(first.until, 5), ..first };
    assert_eq!(store.revoke(longer.clone(), RevokedBecause::Reuse).await.unwrap(), longer);
    assert_eq!(store.load(s.id).await.unwrap(), record);
    assert_eq!(all(&*store).await, [longer]);
}

/// A raised minimum generation revokes earlier access tokens, but not the session.
pub async fn a_raised_minimum_does_not_end_a_session(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    let entry = store.revoke(minimum(s.id, 1, Timestamp::ZERO), BY_OPERATOR).await.unwrap();
    assert_eq!(entry.until, s.latest_access_expires.plus(LEEWAY));
    assert_eq!(store.load(s.id).await.unwrap(), Some(s.clone()));
    let swap = store.compare_and_swap(1, rotated(&s, later(start(), 5)), None).await.unwrap();
    assert_eq!(swap, Swap::Swapped);
}

/// For an unknown session, the caller's `until` is kept.
pub async fn an_unknown_session_is_revoked_as_given(store: Arc<dyn Store>) {
    let id = session("alice", 1, start()).id;
    let given = Revocation { until: later(start(), 77_000), ..gone(id) };
    assert_eq!(store.revoke(given.clone(), RevokedBecause::Logout).await.unwrap(), given);
    assert_eq!(all(&*store).await, [given]);
    assert_eq!(store.load(id).await.unwrap(), None);
}

/// R10: `until` is at least the given time, and at least the expiry of every matched session.
pub async fn an_entry_lives_as_long_as_what_it_matches(store: Arc<dyn Store>) {
    let short = session("alice", 1, start());
    let long = Session { latest_access_expires: later(short.expires, 500), ..session("alice", 2, start()) };
    let longest = Session { expires: later(short.expires, 9_000), ..session("bob", 3, start()) };
    for s in [&short, &long, &longest] {
        insert(&*store, s).await;
    }
    let day = Duration::from_secs(86_400);
    let alices = later(short.expires, 500).plus(LEEWAY);
    let anyones = longest.expires.plus(LEEWAY);
    let ends =
        [(subject("alice"), alices), (client("web"), anyones), (client("another"), anyones), (Target::Global, anyones)];
    for (target, end) in ends {
        let entry = store.revoke(not_before(target.clone(), start()), BY_OPERATOR).await.unwrap();
        assert_eq!(entry.until, end, "{target:?}");
        let given = Revocation { until: end.plus(day), ..entry };
        let entry = store.revoke(given.clone(), BY_OPERATOR).await.unwrap();
        assert_eq!(entry, given);
    }
    let given = Revocation { until: later(start(), 9), ..not_before(subject("nobody"), start()) };
    assert_eq!(
        store.revoke(given.clone(), BY_OPERATOR).await.unwrap(),
        Revocation { until: later(start(), 9), ..given }
    );
    let token = Revocation {
        target: Target::Token { issuer: super::ISSUER.into(), jti: "x".into() },
        effect: Effect::Gone,
        until: later(start(), 3),
    };
    assert_eq!(store.revoke(token.clone(), BY_OPERATOR).await.unwrap(), token);
}

/// `sub` and `client_id` are unique only within their issuer.
pub async fn other_issuers_do_not_touch_our_sessions(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    let issuer: Arc<str> = "https://idp.example".into();
    let theirs = [
        Target::Subject { issuer: Arc::clone(&issuer), subject: "alice".into() },
        Target::Client { issuer, client: "web".into() },
    ];
    for target in theirs {
        let entry = Revocation { until: later(start(), 1_000_000), ..not_before(target, later(start(), 1000)) };
        assert_eq!(store.revoke(entry.clone(), BY_OPERATOR).await.unwrap(), entry);
    }
    insert(&*store, &session("alice", 2, start())).await;
    assert_eq!(store.compare_and_swap(1, rotated(&s, later(start(), 5)), None).await.unwrap(), Swap::Swapped);
}

/// An effect that does not fit its target is an error.
pub async fn an_effect_that_does_not_fit_is_an_error(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    let token = Target::Token { issuer: super::ISSUER.into(), jti: "x".into() };
    let not_before = Effect::NotBefore(start());
    let mistakes = [
        (Target::Session(s.id), not_before),
        (subject("alice"), Effect::SESSION_REVOKED),
        (client("web"), Effect::Gone),
        (Target::Global, Effect::SESSION_REVOKED),
        (token, not_before),
    ];
    for (target, effect) in mistakes {
        let entry = Revocation { target, effect, until: later(start(), 5) };
        assert!(store.revoke(entry.clone(), BY_OPERATOR).await.is_err(), "{entry:?}");
        let next = rotated(&s, later(start(), 5));
        assert!(store.compare_and_swap(1, next, Some(entry.clone())).await.is_err(), "{entry:?}");
    }
    assert_eq!(store.load(s.id).await.unwrap(), Some(s));
    assert_eq!(all(&*store).await, []);
}

/// A not-before covers sessions that were created at the same moment. The latest of several not-befores is returned.
pub async fn an_insert_is_held_against_each_not_before(store: Arc<dyn Store>) {
    let cuts = [(subject("alice"), 10), (client("web"), 20), (Target::Global, 30)];
    for (n, (target, cut)) in (0..).zip(cuts) {
        let cut = later(start(), cut);
        store.revoke(not_before(target.clone(), cut), BY_OPERATOR).await.unwrap();
        for created in [start(), cut] {
            let s = session("alice", 1, created);
            assert_eq!(
                store.insert(s.clone(), SubjectBound::NONE).await.unwrap(),
                Inserted::NoLongerValid(cut),
                "{target:?}"
            );
            assert_eq!(store.load(s.id).await.unwrap(), None);
        }
        insert(&*store, &session("alice", n, later(cut, 1))).await;
    }
    // The latest not-before applies, not the last one that was written.
    store.revoke(not_before(subject("bob"), later(start(), 5)), BY_OPERATOR).await.unwrap();
    let bobs = store.insert(session("bob", 1, start()), SubjectBound::NONE).await.unwrap();
    assert_eq!(bobs, Inserted::NoLongerValid(later(start(), 30)));
}

/// A swap fails if a not-before covers the session.
pub async fn a_swap_is_held_against_each_not_before(store: Arc<dyn Store>) {
    for (n, target) in (0..).zip([subject("alice"), client("tv"), Target::Global]) {
        let named = Session { client: "tv".into(), ..session("alice", 10 + n, later(start(), n)) };
        insert(&*store, &named).await;
        store.revoke(not_before(target.clone(), later(start(), n)), BY_OPERATOR).await.unwrap();
        let entry = minimum(named.id, 2, later(start(), 9));
        let swap = store.compare_and_swap(1, rotated(&named, later(start(), 5)), Some(entry.clone())).await.unwrap();
        assert_eq!(swap, Swap::NoLongerValid, "{target:?}");
        assert_eq!(store.load(named.id).await.unwrap(), Some(named));
        assert!(!all(&*store).await.contains(&entry));
    }
    let younger = session("alice", 1, later(start(), 3));
    insert(&*store, &younger).await;
    let swap = store.compare_and_swap(1, rotated(&younger, later(start(), 5)), None).await.unwrap();
    assert_eq!(swap, Swap::Swapped);
}

/// A swap writes both its record and its revocation, or neither.
pub async fn a_swap_brings_its_revocation_or_neither(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    let next = rotated(&s, later(start(), 5));
    let entry = minimum(s.id, 2, later(start(), 600_000));
    let lost = store.compare_and_swap(7, Session { revision: 8, ..next.clone() }, Some(entry.clone())).await.unwrap();
    assert_eq!(lost, Swap::Changed(Some(Box::new(s))));
    assert_eq!(all(&*store).await, []);
    assert_eq!(store.compare_and_swap(1, next, Some(entry.clone())).await.unwrap(), Swap::Swapped);
    assert_eq!(all(&*store).await, [entry]);
}

/// In any order, the stronger effect and the later `until` win.
pub async fn entries_merge_and_never_weaken(store: Arc<dyn Store>) {
    let s = session("alice", 1, start());
    insert(&*store, &s).await;
    let end = s.latest_access_expires.plus(LEEWAY);
    for (n, wanted) in [(3, 3), (2, 3), (5, 5)] {
        let entry = store.revoke(minimum(s.id, n, Timestamp::ZERO), BY_OPERATOR).await.unwrap();
        let Effect::Minimum { minimum, .. } = entry.effect else { panic!("{entry:?}") };
        assert_eq!(minimum.get(), wanted);
    }
    store.revoke(gone(s.id), BY_OPERATOR).await.unwrap();
    let entry = store.revoke(minimum(s.id, 9, Timestamp::ZERO), BY_OPERATOR).await.unwrap();
    assert_eq!(entry, Revocation { until: end, ..gone(s.id) });
    for (cut, wanted) in [(10, 10), (5, 10), (20, 20)] {
        let entry = store.revoke(not_before(subject("alice"), later(start(), cut)), BY_OPERATOR).await.unwrap();
        assert_eq!(entry.effect, Effect::NotBefore(later(start(), wanted)));
    }
    let long = Revocation { until: later(s.expires, 1_000_000), ..not_before(subject("alice"), start()) };
    let entry = store.revoke(long.clone(), BY_OPERATOR).await.unwrap();
    assert_eq!(entry, Revocation { until: long.until, ..not_before(subject("alice"), later(start(), 20)) });
    // Requirement K4: a later entry that revokes only sessions does not undo the revocation of the API keys.
    let with_keys =
        Revocation { effect: Effect::not_before(later(start(), 15), true), ..not_before(subject("alice"), start()) };
    store.revoke(with_keys, BY_OPERATOR).await.unwrap();
    let entry = store.revoke(not_before(subject("alice"), later(start(), 30)), BY_OPERATOR).await.unwrap();
    let merged = Effect::NotBeforeWithKeys { sessions: later(start(), 30), keys: later(start(), 15) };
    assert_eq!(entry.effect, merged);
    assert_eq!(all(&*store).await, [Revocation { until: end, ..gone(s.id) }, entry]);
}

/// A merged entry is returned only at its new position.
pub async fn a_cursor_gives_what_came_after_it_once(store: Arc<dyn Store>) {
    // The order of entries is arbitrary.
    let since = async |cursor: Cursor| {
        let (mut entries, end) = store.revocations_since(cursor).await.unwrap();
        entries.sort_by(|a, b| a.target.cmp(&b.target));
        (entries, end)
    };
    let [a, b, c] = [1, 2, 3].map(|n| minimum(session("alice", n, start()).id, 2, later(start(), 600_000)));
    for entry in [&a, &b] {
        store.revoke(entry.clone(), BY_OPERATOR).await.unwrap();
    }
    let (entries, after_b) = since(Cursor::default()).await;
    assert_eq!(entries, [a.clone(), b.clone()]);
    store.revoke(c.clone(), BY_OPERATOR).await.unwrap();
    let a = Revocation { until: later(a.until, 5), ..a };
    store.revoke(a.clone(), BY_OPERATOR).await.unwrap();
    let (entries, end) = since(after_b).await;
    assert_eq!(entries, [a.clone(), c.clone()]);
    assert_eq!(since(end.clone()).await, (vec![], end.clone()));
    assert_eq!(since(Cursor::default()).await, (vec![a, b, c], end));
}

/// R10: the list that a gate reads at its start contains every entry. The cursor is after the last entry.
pub async fn the_list_for_a_start_has_every_entry(store: Arc<dyn Store>) {
    let sessions: Vec<_> = (0..100).map(|n| session("alice", n, start()).id).collect();
    for id in &sessions {
        store.revoke(gone(*id), BY_OPERATOR).await.unwrap();
    }
    store.revoke(not_before(subject("bob"), start()), BY_OPERATOR).await.unwrap();
    store.revoke(minimum(sessions[0], 2, later(start(), 600_000)), BY_OPERATOR).await.unwrap();
    let (entries, end) = store.revocations_since(Cursor::default()).await.unwrap();
    let (list, loaded_to) = store.revocations().await.unwrap();
    assert_eq!((list.len(), loaded_to), (entries.len(), end));
    assert!(sessions.iter().all(|id| list.minimum(*id) == REVOKED));
    assert_eq!(list.minimum(session("alice", 100, start()).id), Generation::NONE);
    assert_eq!(list.not_before(super::ISSUER, "bob", None), start());
}

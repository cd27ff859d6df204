//! The store or the directory fails, or the process dies: R2.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::poll;

use super::support::{HOUR, Mode, Pair, World, denied, failed, secs};
use crate::denial::Denial;
use crate::engine::written::Written;
use crate::engine::{AccountRule, IssueKind, Origin};
use crate::fault::Fault;
use crate::session::rotation::SessionEnd;
use crate::session::{Generation, RevokedBecause, Session, Status};
use crate::store::{Filter, Store};

#[tokio::test]
async fn r2_a_store_that_fails_is_a_fault_and_consumes_nothing() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    for mode in [Mode::WritesFail, Mode::AllFails] {
        w.store.set(mode);
        for _ in 0..3 {
            assert!(matches!(failed(w.refresh(&first.refresh).await), Fault::Store(_)));
        }
        w.store.set(Mode::Good);
        assert_eq!(w.record(first.session).await, before);
    }
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    assert_eq!(w.record(second.session).await.current, Generation::new(2));
}

#[tokio::test]
async fn r9_a_logout_whose_record_cannot_be_read_is_a_fault_and_holds_here() {
    let w = World::new().await;
    let (first, other) = (w.login().await, w.login().await);
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.store.set(Mode::AllFails);
    let log_out =
        async |token: &str| w.engine.revoke_refresh_token(token, "web", AccountRule::Any, &Origin::default()).await;
    assert!(matches!(failed(log_out(&first.refresh).await), Fault::Store(_)));
    for access in [&first.access, &second.access] {
        assert_eq!(w.check(access).unwrap_err(), Denial::TokenRevoked);
    }
    let edited = format!("{}A", other.refresh);
    assert!(!log_out(&edited).await.unwrap(), "none of ours, whatever the store does");
    w.check(&other.access).unwrap();
    w.store.set(Mode::Good);
    assert!(log_out(&first.refresh).await.unwrap());
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::Logout));
}

#[tokio::test]
async fn r2_a_login_that_could_not_be_written_leaves_no_session() {
    let w = World::new().await;
    w.store.set(Mode::WritesFail);
    assert!(matches!(failed(w.login_as("ada").await), Fault::Store(_)));
    w.store.set(Mode::Good);
    assert!(w.store.list(Filter::All, None, 10).await.unwrap().sessions.is_empty());
    w.login().await;
}

#[tokio::test]
async fn r2_a_directory_that_fails_is_a_fault_and_consumes_nothing() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    w.users.down.store(true, Ordering::SeqCst);
    assert!(matches!(failed(w.refresh(&first.refresh).await), Fault::Directory(_)));
    assert!(matches!(failed(w.login_as("ada").await), Fault::Directory(_)));
    w.users.down.store(false, Ordering::SeqCst);
    assert_eq!(w.record(first.session).await, before);
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r2_after_a_crash_between_commit_and_reply_the_repeat_gets_the_pair_that_was_committed() {
    let mut w = World::new().await;
    let first = w.login().await;
    w.store.set(Mode::DiesAfterWrite);
    {
        let mut lost = Box::pin(w.refresh(&first.refresh));
        assert!(poll!(&mut lost).is_pending());
    }
    let committed = w.record(first.session).await;
    assert_eq!(committed.current, Generation::new(2), "the commit is there");

    w.restart().await;
    let pair = w.refreshed(&first.refresh, IssueKind::Replayed).await;
    assert_eq!(w.refreshed(&first.refresh, IssueKind::Replayed).await, pair);
    assert_eq!(w.record(first.session).await, committed);
    let token = w.check(&pair.access).unwrap();
    assert_eq!(token.token().session, Some((first.session, Generation::new(2))));
    w.refreshed(&pair.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r2_a_request_that_is_dropped_after_the_commit_holds_nobody_up() {
    let w = World::new().await;
    let first = w.login().await;
    w.store.set(Mode::DiesAfterWrite);
    {
        let mut lost = Box::pin(w.refresh(&first.refresh));
        assert!(poll!(&mut lost).is_pending());
    }
    w.store.set(Mode::Good);
    w.refreshed(&first.refresh, IssueKind::Replayed).await;
}

#[tokio::test]
async fn r2_a_raised_minimum_survives_a_crash_right_after_the_commit() {
    let mut w = World::new().await;
    w.profile.revoke_previous_after = Some(secs(0));
    let first = w.login().await;
    w.store.set(Mode::DiesAfterWrite);
    {
        let mut lost = Box::pin(w.refresh(&first.refresh));
        assert!(poll!(&mut lost).is_pending());
    }
    w.restart().await;
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
}

#[tokio::test]
async fn a_session_revoked_between_decision_and_commit_is_not_rotated() {
    let w = World::new().await;
    let first = w.login().await;
    let (engine, record) = (Arc::clone(&w.engine), w.record(first.session).await);
    w.store.before_next_write(async move {
        engine.revoke_session(&record, RevokedBecause::Operator).await.unwrap();
    });
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::SessionRevoked(SessionEnd::Record));
    assert_eq!(w.record(first.session).await.current, Generation::FIRST);
}

#[tokio::test]
async fn all_sessions_revoked_between_decision_and_commit_are_not_rotated() {
    let w = World::new().await;
    let first = w.login().await;
    let engine = Arc::clone(&w.engine);
    w.store.before_next_write(async move {
        engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    });
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::SessionRevoked(SessionEnd::NotBefore));
}

#[tokio::test]
async fn a_login_that_a_revocation_overtakes_begins_after_it() {
    let w = World::new().await;
    let engine = Arc::clone(&w.engine);
    w.store.before_next_write(async move {
        engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    });
    let pair = Pair::from(w.login_as("ada").await.unwrap());
    w.check(&pair.access).unwrap();
    w.refreshed(&pair.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r2_a_revocation_that_could_not_be_written_holds_on_this_node_and_is_repeated() {
    let mut w = World::new().await;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    w.store.set(Mode::WritesFail);
    let log_out = async |w: &World| {
        w.engine.revoke_refresh_token(&first.refresh, "web", AccountRule::Any, &Origin::default()).await
    };
    assert!(matches!(failed(log_out(&w).await), Fault::Store(_)));
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::SessionRevoked(SessionEnd::List));
    // No reply claims success before the write is durable.
    assert!(matches!(failed(log_out(&w).await), Fault::Store(_)));

    w.store.set(Mode::Good);
    assert!(log_out(&w).await.unwrap());
    w.restart().await;
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::Logout));
}

#[tokio::test]
async fn r2_a_reuse_is_answered_only_when_its_revocation_is_durable() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    let third = w.refreshed(&second.refresh, IssueKind::Rotated).await;
    w.advance(HOUR / 60);
    w.store.set(Mode::WritesFail);
    assert!(matches!(failed(w.refresh(&first.refresh).await), Fault::Store(_)));
    assert_eq!(w.check(&third.access).unwrap_err(), Denial::TokenRevoked);
}

#[tokio::test]
async fn c15_what_was_written_shortly_before_the_store_was_last_heard_of_is_written_back_however_late() {
    let w = World::new().await;
    let (first, second) = (w.login().await.session, w.login().await.session);
    let (early, late) = (w.record(first).await, w.record(second).await);
    let written = Written::new(true);
    written.keep(secs(100), &early);
    written.keep(secs(108), &late);
    written.hear(secs(110));
    let ids = || written.lately().iter().map(|session| session.id).collect::<BTreeSet<_>>();
    assert_eq!(ids(), [first, second].into(), "it may take any time until the store is back");
    written.hear(secs(111));
    assert_eq!(ids(), [second].into());
    assert_eq!(written.recall(first, early.current).map(|session| session.id), Some(first));
    assert!(written.recall(first, early.current.next().unwrap()).is_none(), "a token that another engine issued");
    // A note that it is in use is part of what a swap expects, and of nothing that is written back.
    let seen = [(second, late.current)];
    written.confirm(&seen, vec![first]);
    assert_eq!(written.recall(second, late.current), Some(late.clone()), "the note found another record");
    written.confirm(&seen, vec![second]);
    let now = written.recall(second, late.current).unwrap();
    assert_eq!((now.confirmed, now.revision), (true, late.revision + 1));
    assert_eq!(written.lately(), std::slice::from_ref(&late));
    written.keep(secs(112), &Session { revision: late.revision - 1, ..late.clone() });
    assert_eq!(written.lately(), std::slice::from_ref(&late), "the later one stays");
    written.distrust(secs(112));
    assert!(written.recall(second, late.current).is_none());
    assert_eq!(written.lately(), [late], "another loss may follow");
}

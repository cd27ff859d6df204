//! Delivery is confirmed on the request path.

use super::support::{HOUR, Mode, World, denied, secs};
use crate::denial::Denial;
use crate::engine::{AccountRule, IssueKind, Origin};
use crate::session::Generation;

#[tokio::test]
async fn a_token_seen_for_the_first_time_confirms_its_generation() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    assert!(!w.engine.confirmations().has(first.session, Generation::new(2)), "minting confirms nothing");
    w.check(&second.access).unwrap();
    assert!(w.engine.confirmations().has(first.session, Generation::new(2)));
    w.engine.flush_confirmations().await.unwrap();
    assert!(!w.engine.confirmations().has(first.session, Generation::new(2)), "written, and forgotten here");
    let record = w.record(first.session).await;
    assert!(record.confirmed && record.current == Generation::new(2));
    // A hit in the cache makes no further note.
    w.check(&second.access).unwrap();
    assert!(!w.engine.confirmations().has(first.session, Generation::new(2)));
}

#[tokio::test]
async fn an_earlier_generation_in_use_does_not_confirm_the_current_one() {
    let w = World::new().await;
    let first = w.login().await;
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.check(&first.access).unwrap();
    w.engine.flush_confirmations().await.unwrap();
    assert!(!w.record(first.session).await.confirmed);
    w.advance(HOUR);
    w.refreshed(&first.refresh, IssueKind::Reissued).await;
}

#[tokio::test]
async fn a_token_that_is_refused_confirms_nothing() {
    let w = World::new().await;
    let first = w.login().await;
    w.engine.revoke_refresh_token(&first.refresh, "web", AccountRule::Any, &Origin::default()).await.unwrap();
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
    assert!(!w.engine.confirmations().has(first.session, Generation::FIRST));

    let late = w.login().await;
    w.advance(secs(700));
    assert_eq!(w.check(&late.access).unwrap_err(), Denial::TokenExpired);
    assert!(!w.engine.confirmations().has(late.session, Generation::FIRST));
}

#[tokio::test]
async fn a_note_that_could_not_be_written_is_kept_and_tried_again() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.check(&second.access).unwrap();
    w.store.set(Mode::WritesFail);
    for _ in 0..2 {
        w.engine.flush_confirmations().await.unwrap_err();
        assert!(w.engine.confirmations().has(first.session, Generation::new(2)));
    }
    w.store.set(Mode::Good);
    w.engine.flush_confirmations().await.unwrap();
    assert!(w.record(first.session).await.confirmed);
}

#[tokio::test]
async fn a_note_that_was_lost_errs_to_the_safe_side() {
    let mut w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.check(&second.access).unwrap();
    // The process is killed before it writes the note.
    w.restart().await;
    w.advance(secs(60));
    w.refreshed(&first.refresh, IssueKind::Reissued).await;
    assert_eq!(w.check(&second.access).unwrap_err(), Denial::TokenRevoked);
    assert!(matches!(denied(w.refresh(&second.refresh).await), Denial::Reuse { .. }));
}

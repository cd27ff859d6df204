//! Lifetimes of sessions, and changes of users: R8.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::support::{DAY, Pair, World, denied, scope, secs};
use crate::denial::Denial;
use crate::directory::User;
use crate::engine::IssueKind;
use crate::session::rotation::SessionEnd;
use crate::session::{RevokedBecause, Status};

#[tokio::test]
async fn r8_a_session_ends_however_often_it_is_refreshed() {
    let w = World::new().await;
    let mut pair = w.login().await;
    let end = w.record(pair.session).await.expires;
    for _ in 0..29 {
        w.advance(DAY);
        pair = w.refreshed(&pair.refresh, IssueKind::Rotated).await;
        assert_eq!(w.record(pair.session).await.expires, end);
    }
    w.advance(DAY - Duration::from_millis(1));
    let last = w.refresh(&pair.refresh).await.unwrap();
    assert!(last.expires <= end, "no access token outlives its session");
    w.advance(Duration::from_millis(1));
    assert_eq!(denied(w.refresh(&Pair::from(last).refresh).await), Denial::SessionExpired);
}

#[tokio::test]
async fn r8_no_access_token_is_issued_past_the_end_of_its_session() {
    let mut w = World::new().await;
    w.profile.idle_ttl = w.profile.session_ttl;
    let first = w.login().await;
    let end = w.record(first.session).await.expires;
    w.advance(w.profile.session_ttl - secs(100));
    let issued = w.refresh(&first.refresh).await.unwrap();
    assert_eq!(issued.expires.as_secs(), end.as_secs());
    assert!(issued.expires_in <= 100);
}

#[tokio::test]
async fn r8_an_idle_session_ends_and_use_of_access_tokens_does_not_count() {
    let w = World::new().await;
    let first = w.login().await;
    w.advance(w.profile.idle_ttl - Duration::from_millis(1));
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.advance(secs(5));
    w.check(&second.access).unwrap();
    w.refreshed(&first.refresh, IssueKind::Replayed).await;
    w.advance(w.profile.idle_ttl - secs(5));
    assert_eq!(denied(w.refresh(&second.refresh).await), Denial::SessionIdle);
}

#[tokio::test]
async fn r8_a_shorter_session_ttl_counts_for_sessions_that_are_there() {
    let mut w = World::new().await;
    let first = w.login().await;
    w.advance(DAY);
    (w.profile.session_ttl, w.profile.idle_ttl) = (DAY, DAY);
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::SessionExpired);
}

#[tokio::test]
async fn r8_i23_a_refresh_of_a_user_who_is_disabled_moved_or_removed_ends_the_session_for_good() {
    let w = World::new().await;
    let inactive = Denial::SessionRevoked(SessionEnd::UserInactive);
    let over = Denial::SessionRevoked(SessionEnd::Record);
    type Change = fn(&mut User);
    let changes: [(Change, Change); 2] = [
        (|user| user.active = false, |user| user.active = true),
        (|user| user.account = Some("another".into()), |user| user.account = None),
    ];
    for (change, back) in changes {
        let first = w.login().await;
        let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
        w.users.change("ada", change);
        w.check(&second.access).expect("the directory is asked at a refresh only");
        // A replay within the grace period asks the directory, too.
        assert_eq!(denied(w.refresh(&first.refresh).await), inactive);
        assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::UserChanged));
        w.check(&second.access).expect_err("its access tokens end with it");
        w.users.change("ada", back);
        assert_eq!(denied(w.refresh(&second.refresh).await), over, "it does not come back with the user");
    }
    let held = w.login().await;
    w.users.change("ada", |user| user.active = false);
    assert_eq!(denied(w.login_as("ada").await), Denial::WrongPassword);
    w.users.remove("ada");
    assert_eq!(denied(w.refresh(&held.refresh).await), inactive);
    assert_eq!(denied(w.refresh(&held.refresh).await), over);
}

#[tokio::test]
async fn r8_i23_a_later_valid_from_ends_the_sessions_before_it() {
    let w = World::new().await;
    let first = w.login().await;
    let changed = w.engine.clock().now();
    w.users.change("ada", |user| user.sessions_valid_from = changed);
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::SessionRevoked(SessionEnd::BeforeValidFrom));
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::UserChanged));
    let again = w.login().await;
    w.refreshed(&again.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r8_a_scope_taken_from_a_user_is_gone_at_the_next_refresh_and_at_a_repeat() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refresh(&first.refresh).await.unwrap();
    assert_eq!(second.scope, scope("read write"));
    let second = Pair::from(second);
    w.users.change("ada", |user| user.scopes = scope("read"));

    let repeat = w.refresh(&first.refresh).await.unwrap();
    assert_eq!((repeat.how, &repeat.scope), (IssueKind::Replayed, &scope("read")));
    let repeat = Pair::from(repeat);
    assert_eq!(repeat.refresh, second.refresh);
    assert_eq!(w.check(&repeat.access).unwrap().token().scope, scope("read"));
    let third = w.refresh(&second.refresh).await.unwrap();
    assert_eq!((third.how, third.scope), (IssueKind::Rotated, scope("read")));
}

#[tokio::test]
async fn a_client_asks_for_no_more_time_than_the_profile_allows() {
    let w = World::new().await;
    let issued = w.login_with("ada", None, "web", Some(DAY)).await.unwrap();
    assert_eq!(issued.expires_in, 86_400);
    let too_long = w.login_with("ada", None, "web", Some(DAY + Duration::from_secs(1))).await;
    assert_eq!(denied(too_long), Denial::TtlExceeded);
}

#[tokio::test]
async fn a_session_of_the_application_asks_no_directory() {
    let w = World::new().await;
    let first = Pair::from(w.start("somebody-else").await.unwrap());
    w.users.down.store(true, Ordering::SeqCst);
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
    assert_eq!(w.users.lookups.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_subject_that_no_token_could_hold_begins_nothing() {
    let w = World::new().await;
    for subject in ["", "a b", "caf\u{e9}", "a\n"] {
        assert!(matches!(denied(w.start(subject).await), Denial::MalformedRequest(_)), "{subject:?}");
    }
}

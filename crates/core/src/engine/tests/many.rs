//! The number of sessions of a subject: R22.

use super::support::{Pair, World, denied, secs};
use crate::denial::Denial;
use crate::engine::{Event, IssueKind};
use crate::session::rotation::SessionEnd;
use crate::session::{RevokedBecause, Status};

#[tokio::test]
async fn r22_one_more_login_ends_the_oldest_session_at_once() {
    let mut w = World::new().await;
    w.profile.max_sessions_per_subject = 2;
    let first = w.login().await;
    w.advance(secs(1));
    let second = w.login().await;
    w.check(&first.access).unwrap();
    let other = Pair::from(w.login_as("bob").await.unwrap());
    w.advance(secs(1));

    // The application's sessions count as well.
    let third = Pair::from(w.start("ada").await.unwrap());
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked, "at the next request");
    assert!(matches!(
        denied(w.refresh(&first.refresh).await),
        Denial::SessionRevoked(SessionEnd::Record | SessionEnd::List)
    ));
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::TooMany));
    assert_eq!(w.engine.counts().get(Event::Revoked), 1);
    for pair in [&second, &third, &other] {
        w.check(&pair.access).unwrap();
    }
    // A restart keeps the revocations.
    w.restart().await;
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
    w.advance(secs(1));
    let fourth = w.login().await;
    assert_eq!(w.check(&second.access).unwrap_err(), Denial::TokenRevoked);
    w.refreshed(&third.refresh, IssueKind::Rotated).await;
    w.refreshed(&fourth.refresh, IssueKind::Rotated).await;
    w.refreshed(&other.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r22_one_more_login_is_refused_until_there_is_room() {
    let mut w = World::new().await;
    (w.profile.max_sessions_per_subject, w.profile.ends_oldest) = (2, false);
    let [first, second] = [w.login().await, w.login().await];
    assert_eq!(denied(w.login_as("ada").await), Denial::TooManySessions);
    assert_eq!(denied(w.start("ada").await), Denial::TooManySessions);
    assert_eq!(w.engine.counts().get(Event::LoginRefused), 2);
    for pair in [&first, &second] {
        w.check(&pair.access).unwrap();
        w.refreshed(&pair.refresh, IssueKind::Rotated).await;
    }
    w.login_as("bob").await.unwrap();
    // Idle sessions are over.
    w.advance(w.profile.idle_ttl);
    w.login().await;
    w.login().await;
    assert_eq!(denied(w.login_as("ada").await), Denial::TooManySessions);
    w.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    w.login().await;
}

#[tokio::test]
async fn r22_logins_at_once_end_as_many_as_they_must() {
    let mut w = World::new().await;
    w.profile.max_sessions_per_subject = 3;
    let logins = futures_util::future::join_all((0..20).map(|_| w.login())).await;
    let live = logins.iter().filter(|pair| w.check(&pair.access).is_ok()).count();
    assert_eq!(live, 3);
}

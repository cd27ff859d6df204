//! A token that was superseded long ago: R4.

use super::support::{Pair, World, denied, secs};
use crate::denial::Denial;
use crate::engine::IssueKind;
use crate::session::profile::OnReuse;
use crate::session::rotation::SessionEnd;
use crate::session::{RevokedBecause, Status};

/// Three generations, the first superseded beyond its windows.
async fn chain(w: &World) -> [Pair; 3] {
    let first = w.login().await;
    w.check(&first.access).unwrap();
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.check(&second.access).unwrap();
    let third = w.refreshed(&second.refresh, IssueKind::Rotated).await;
    w.check(&third.access).unwrap();
    w.advance(secs(60));
    [first, second, third]
}

#[tokio::test]
async fn r4_a_reuse_ends_the_session_and_its_live_access_tokens() {
    let mut w = World::new().await;
    let [first, second, third] = chain(&w).await;
    let bystander = w.login().await;
    assert_eq!(w.checker.cached(), 3);
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::Reuse { .. }));
    for pair in [&first, &second, &third] {
        assert_eq!(w.check(&pair.access).unwrap_err(), Denial::TokenRevoked);
        assert_eq!(denied(w.refresh(&pair.refresh).await), Denial::SessionRevoked(SessionEnd::Record));
    }
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::Reuse));
    w.check(&bystander.access).unwrap();

    w.restart().await;
    assert_eq!(w.check(&third.access).unwrap_err(), Denial::TokenRevoked, "it was durable");
    w.check(&bystander.access).unwrap();
}

#[tokio::test]
async fn r4_deny_refuses_and_does_nothing_else() {
    let mut w = World::new().await;
    w.profile.on_reuse = OnReuse::Deny;
    let [first, _, third] = chain(&w).await;
    let before = w.record(first.session).await;
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::Reuse { .. }));
    assert_eq!(w.record(first.session).await, before);
    w.check(&third.access).unwrap();
    w.refreshed(&third.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r4_revoke_subject_ends_all_sessions_of_the_subject_and_no_others() {
    let mut w = World::new().await;
    w.profile.on_reuse = OnReuse::RevokeSubject;
    let [first, _, third] = chain(&w).await;
    let other_device = w.login().await;
    let bob = Pair::from(w.login_as("bob").await.unwrap());
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::Reuse { .. }));
    for pair in [&third, &other_device] {
        assert_eq!(w.check(&pair.access).unwrap_err(), Denial::TokenRevoked);
        assert!(matches!(denied(w.refresh(&pair.refresh).await), Denial::SessionRevoked(_)));
    }
    assert_eq!(denied(w.refresh(&other_device.refresh).await), Denial::SessionRevoked(SessionEnd::NotBefore));
    w.check(&bob.access).unwrap();
    // The user is not locked out.
    let again = w.login().await;
    w.check(&again.access).unwrap();
}

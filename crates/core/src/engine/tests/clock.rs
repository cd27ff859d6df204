//! Engine time: O9, and the windows of R3 on faulty clocks.

use super::support::{DAY, HOUR, T0, World, denied, failed, secs};
use crate::clock::ClockState;
use crate::denial::Denial;
use crate::engine::IssueKind;
use crate::fault::Fault;

#[tokio::test]
async fn o9_a_clock_stepped_back_reopens_no_window() {
    let mut w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.check(&second.access).unwrap();
    w.advance(secs(11));
    w.time.set_wall(T0.minus(secs(20)));
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::Reuse { .. }), "grace stays over");

    // A restart does not reopen the grace period either: the store remembers the time.
    let third = w.login().await;
    let fourth = w.refreshed(&third.refresh, IssueKind::Rotated).await;
    w.advance(secs(11));
    let fifth = w.refreshed(&fourth.refresh, IssueKind::Rotated).await;
    w.check(&fifth.access).unwrap();
    w.time.set_wall(w.engine.clock().now().minus(secs(25)));
    w.restart().await;
    assert!(matches!(denied(w.refresh(&third.refresh).await), Denial::Reuse { .. }));
}

#[tokio::test]
async fn o9_an_expired_access_token_stays_expired_when_the_clock_is_stepped_back() {
    let w = World::new().await;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    w.advance(secs(600 + 31));
    w.time.set_wall(T0);
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenExpired);
}

#[tokio::test]
async fn o9_behind_the_store_nothing_is_minted_and_nothing_consumed() {
    let mut w = World::new().await;
    w.advance(HOUR);
    let first = w.login().await;
    let before = w.record(first.session).await;
    w.time.set_wall(T0);
    w.restart().await;
    assert_eq!(w.engine.clock().state(), ClockState::Behind);
    for _ in 0..2 {
        assert!(matches!(failed(w.refresh(&first.refresh).await), Fault::Clock));
        assert!(matches!(failed(w.login_as("ada").await), Fault::Clock));
        assert!(matches!(failed(w.start("ada").await), Fault::Clock));
    }
    assert_eq!(w.record(first.session).await, before);
    // Issued tokens are still checked, on the later time.
    w.check(&first.access).unwrap();
    w.time.set_wall(T0.plus(HOUR));
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn o9_o26_a_clock_that_jumps_is_not_followed_and_prolongs_nothing() {
    let w = World::new().await;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    let before = w.record(first.session).await;
    w.time.set_wall(T0.plus(DAY * 365));
    // A token minted now would be expired. No token is minted, and nothing is consumed.
    assert!(matches!(failed(w.refresh(&first.refresh).await), Fault::Clock));
    assert!(matches!(failed(w.login_as("ada").await), Fault::Clock));
    assert_eq!(w.engine.clock().state(), ClockState::Jumped);
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenExpired, "by the later of the two clocks");
    assert_eq!(w.record(first.session).await, before, "and not persisted");
    w.time.set_wall(T0.plus(secs(1)));
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    assert_eq!(w.engine.clock().state(), ClockState::Good);
    w.check(&first.access).unwrap();
    w.check(&second.access).unwrap();
}

#[tokio::test]
async fn o26_a_token_that_was_never_seen_is_judged_by_the_later_of_the_two_clocks_too() {
    let w = World::new().await;
    let first = w.login().await;
    w.time.set_wall(T0.plus(2 * HOUR));
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenExpired);
}

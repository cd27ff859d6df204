//! Repeats and lost replies: R3.

use super::support::{Ask, DAY, HOUR, Mode, Pair, World, denied, failed, secs};
use crate::denial::Denial;
use crate::engine::{AccountRule, IssueKind, Origin};
use crate::fault::Fault;
use crate::session::rotation::SessionEnd;
use crate::session::{Generation, RevokedBecause, Status};

#[tokio::test]
async fn r3_a_repeat_within_grace_is_identical_and_says_what_is_left() {
    let w = World::new().await;
    let first = w.login().await;
    w.advance(secs(60));
    let issued = w.refresh(&first.refresh).await.unwrap();
    assert_eq!((issued.how, issued.expires_in), (IssueKind::Rotated, 600));
    let second = Pair::from(issued);
    let record = w.record(first.session).await;

    w.advance(secs(9));
    let repeat = w.refresh(&first.refresh).await.unwrap();
    assert_eq!((repeat.how, repeat.expires_in), (IssueKind::Replayed, 591));
    assert_eq!(Pair::from(repeat), second);
    assert_eq!(w.record(first.session).await, record, "a repeat writes nothing");
}

#[tokio::test]
async fn r3_repeats_do_not_extend_the_grace() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    for _ in 0..9 {
        w.advance(secs(1));
        assert_eq!(w.refreshed(&first.refresh, IssueKind::Replayed).await, second);
    }
    w.check(&second.access).unwrap();
    w.advance(secs(1));
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::Reuse { .. }));
}

#[tokio::test]
async fn r3_a_repeat_is_identical_after_new_keys_while_the_old_ones_are_there() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.set_keys(w.keys.ring(&["b", "a"], &[2, 1]));
    assert_eq!(w.refreshed(&first.refresh, IssueKind::Replayed).await, second);
    w.check(&second.access).unwrap();
    // The next rotation is made with the new keys.
    let third = w.refreshed(&second.refresh, IssueKind::Rotated).await;
    assert_eq!(w.check(&third.access).unwrap().token().kid(), Some("b"));
    assert_eq!(w.record(third.session).await.last.refresh_key, 2);
}

#[tokio::test]
async fn r3_without_the_old_signing_key_a_repeat_has_the_same_refresh_token_and_a_good_access_token() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    let before = w.record(first.session).await;
    w.set_keys(w.keys.ring(&["b"], &[1]));
    assert_eq!(w.check(&second.access).unwrap_err(), Denial::UnknownKey);

    w.advance(secs(5));
    let repeat = w.refreshed(&first.refresh, IssueKind::Replayed).await;
    assert_eq!(repeat.refresh, second.refresh);
    let token = w.check(&repeat.access).unwrap();
    assert_eq!(token.token().session, Some((first.session, Generation::new(2))), "the same generation");
    let after = w.record(first.session).await;
    assert_eq!(after.latest_access_expires, before.latest_access_expires.plus(secs(5)));
    assert_eq!(after.latest_access_expires, token.token().expires);
    assert_eq!((after.issued_at, after.rotated_at), (before.issued_at, before.rotated_at), "grace is not extended");
    assert_eq!(w.refreshed(&first.refresh, IssueKind::Replayed).await, repeat, "and from now on this is the pair");
}

#[tokio::test]
async fn r3_without_the_old_refresh_key_a_repeat_has_a_new_refresh_token_of_the_same_generation() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.set_keys(w.keys.ring(&["a"], &[2]));
    // Tokens of a removed key are unknown.
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::UnknownRefreshToken);
    assert_eq!(denied(w.refresh(&second.refresh).await), Denial::UnknownRefreshToken);
}

#[tokio::test]
async fn r3_a_repeat_with_less_than_half_a_life_left_gets_a_fresh_access_token_once_the_store_knows_its_end() {
    let w = World::new().await;
    let first = w.login().await;
    let short = || Ask { access_ttl: Some(secs(12)), ..Ask::default() };
    let second = Pair::from(w.ask(&first.refresh, short()).await.unwrap());
    let before = w.record(first.session).await;

    w.advance(secs(5));
    assert_eq!(Pair::from(w.ask(&first.refresh, short()).await.unwrap()), second, "more than half is left");
    w.advance(secs(2));
    w.store.set(Mode::WritesFail);
    assert!(matches!(failed(w.ask(&first.refresh, short()).await), Fault::Store(_)), "not before the store knows");
    w.store.set(Mode::Good);
    let repeat = w.ask(&first.refresh, short()).await.unwrap();
    assert_eq!((repeat.how, repeat.expires_in), (IssueKind::Replayed, 12));
    let repeat = Pair::from(repeat);
    assert_eq!(repeat.refresh, second.refresh);
    assert_ne!(repeat.access, second.access);
    let after = w.record(first.session).await;
    assert_eq!(after.latest_access_expires, before.latest_access_expires.max(after.last.access_expires));
    assert_eq!((after.current, after.issued_at), (Generation::new(2), before.issued_at));
    w.check(&repeat.access).unwrap();

    w.advance(secs(3));
    assert!(matches!(denied(w.ask(&first.refresh, short()).await), Denial::Reuse { .. }), "grace was not extended");
}

#[tokio::test]
async fn r3_the_latest_end_of_an_access_token_goes_up_before_a_later_one_is_handed_out() {
    let w = World::new().await;
    let first = Pair::from(w.login_with("ada", None, "web", Some(secs(30))).await.unwrap());
    let short = Ask { access_ttl: Some(secs(12)), ..Ask::default() };
    w.ask(&first.refresh, short).await.unwrap();
    w.advance(secs(7));
    let repeat = w.refresh(&first.refresh).await.unwrap();
    assert_eq!((repeat.how, repeat.expires_in), (IssueKind::Replayed, 600));
    assert_eq!(w.record(first.session).await.latest_access_expires, repeat.expires);
}

#[tokio::test]
async fn r3_near_the_sessions_end_a_repeat_is_identical_and_writes_nothing() {
    let mut w = World::new().await;
    w.profile.idle_ttl = w.profile.session_ttl;
    let first = w.login().await;
    w.advance(w.profile.session_ttl - secs(12));
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    let record = w.record(first.session).await;
    assert_eq!(record.last.access_expires.as_secs(), record.expires.as_secs());
    w.advance(secs(9));
    assert_eq!(w.refreshed(&first.refresh, IssueKind::Replayed).await, second);
    assert_eq!(w.record(first.session).await, record);
}

#[tokio::test]
async fn r3_grace_ends_with_the_next_rotation() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.refreshed(&second.refresh, IssueKind::Rotated).await;
    w.refreshed(&second.refresh, IssueKind::Replayed).await;
    let Denial::Reuse { generations_old, .. } = denied(w.refresh(&first.refresh).await) else { panic!("not a reuse") };
    assert_eq!(generations_old, 2);
}

#[tokio::test]
async fn r3_grace_ends_on_logout_and_on_revocation() {
    for by_operator in [false, true] {
        let w = World::new().await;
        let first = w.login().await;
        let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
        if by_operator {
            w.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
        } else {
            w.engine.revoke_refresh_token(&second.refresh, "web", AccountRule::Any, &Origin::default()).await.unwrap();
        }
        for token in [&first.refresh, &second.refresh] {
            assert!(matches!(denied(w.refresh(token).await), Denial::SessionRevoked(_)));
        }
    }
}

#[tokio::test]
async fn r3_grace_of_zero_means_never() {
    let mut w = World::new().await;
    (w.profile.grace, w.profile.lost_response_window) = (secs(0), secs(0));
    let first = w.login().await;
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::Reuse { .. }));
}

#[tokio::test]
async fn r3_a_lost_reply_is_made_good_while_nobody_used_it_and_what_was_lost_is_abandoned() {
    let w = World::new().await;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    let lost = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.advance(secs(300));
    let third = w.refreshed(&first.refresh, IssueKind::Reissued).await;
    assert_eq!(w.record(first.session).await.current, Generation::new(3));
    assert_eq!(w.check(&lost.access).unwrap_err(), Denial::TokenRevoked, "abandoned, at once");
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked, "and what came before it");
    w.check(&third.access).unwrap();

    // A thief who fetched it silently is detected here.
    assert!(matches!(denied(w.refresh(&lost.refresh).await), Denial::Reuse { .. }));
    assert_eq!(w.check(&third.access).unwrap_err(), Denial::TokenRevoked);
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::Reuse));
}

#[tokio::test]
async fn r3_an_abandoned_access_token_that_is_cached_is_refused_at_once() {
    let w = World::new().await;
    let first = w.login().await;
    let lost = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    // Another process verifies the token, so this one does not know of the use.
    let elsewhere = crate::session::confirm::Confirmations::default();
    let credential = crate::credential::Credential::new(&lost.access);
    w.checker.check(credential, || w.shown(&elsewhere), &mut ()).unwrap();
    assert_eq!(w.checker.cached(), 1);
    w.advance(secs(60));
    w.refreshed(&first.refresh, IssueKind::Reissued).await;
    assert_eq!(w.check(&lost.access).unwrap_err(), Denial::TokenRevoked);
}

#[tokio::test]
async fn r3_a_reissue_may_be_lost_as_well() {
    let w = World::new().await;
    let first = w.login().await;
    for generation in 2..6 {
        w.advance(HOUR);
        let how = if generation == 2 { IssueKind::Rotated } else { IssueKind::Reissued };
        w.refreshed(&first.refresh, how).await;
        assert_eq!(w.record(first.session).await.current, Generation::new(generation));
    }
    // The window begins at the first exchange: no reissue moves it.
    w.advance(DAY - HOUR * 3);
    assert!(matches!(denied(w.refresh(&first.refresh).await), Denial::Reuse { .. }));
}

#[tokio::test]
async fn r3_a_generation_that_was_used_is_not_reissued_even_before_the_note_is_written() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.check(&second.access).unwrap();
    assert!(!w.record(first.session).await.confirmed, "the note waits");
    w.advance(HOUR);
    let reuse = Denial::Reuse { generations_old: 1, superseded_for: Some(HOUR) };
    assert_eq!(denied(w.refresh(&first.refresh).await), reuse);
}

#[tokio::test]
async fn r3_logout_ends_the_time_for_lost_replies() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.engine.revoke_refresh_token(&second.refresh, "web", AccountRule::Any, &Origin::default()).await.unwrap();
    w.advance(HOUR);
    assert_eq!(denied(w.refresh(&first.refresh).await), Denial::SessionRevoked(SessionEnd::Record));
}

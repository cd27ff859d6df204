//! Logout, revocation, not-before and restarts: R9, R10.

use std::time::Duration;

use super::support::{AUDIENCE, Ask, DAY, HOUR, ISSUER, Mode, Pair, T0, World, denied, failed, scope, secs};
use crate::client::{Client, Grant};
use crate::denial::Denial;
use crate::engine::{AccountRule, IssueKind, IssuedTokens, Origin};
use crate::password::SecretHash;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::{RevokedBecause, Status};
use crate::store::Store;

async fn log_out(w: &World, token: &str, client: &str) -> Result<bool, crate::fault::Error> {
    w.engine.revoke_refresh_token(token, client, AccountRule::Any, &Origin::default()).await
}

#[tokio::test]
async fn r9_logout_ends_the_session_and_its_cached_access_tokens_before_it_answers() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.check(&first.access).unwrap();
    w.check(&second.access).unwrap();
    let other = w.login().await;
    assert!(log_out(&w, &second.refresh, "web").await.unwrap());
    for access in [&first.access, &second.access] {
        assert_eq!(w.check(access).unwrap_err(), Denial::TokenRevoked);
    }
    assert!(matches!(denied(w.refresh(&second.refresh).await), Denial::SessionRevoked(_)));
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::Logout));
    w.check(&other.access).unwrap();
}

#[tokio::test]
async fn r9_a_superseded_token_logs_its_session_out_too() {
    let w = World::new().await;
    let first = w.login().await;
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    assert!(log_out(&w, &first.refresh, "web").await.unwrap());
    assert_eq!(w.check(&second.access).unwrap_err(), Denial::TokenRevoked);
}

#[tokio::test]
async fn r9_logout_repeated_is_fine_and_keeps_the_first_reason() {
    let w = World::new().await;
    let first = w.login().await;
    for _ in 0..3 {
        assert!(log_out(&w, &first.refresh, "web").await.unwrap());
    }
    let record = w.record(first.session).await;
    w.engine.revoke_session(&record, RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.record(first.session).await, record);
}

#[tokio::test]
async fn r9_an_unknown_token_is_none_of_ours() {
    let w = World::new().await;
    let first = w.login().await;
    for token in ["", "garbage", &first.access, &first.refresh[..30]] {
        assert!(!log_out(&w, token, "web").await.unwrap());
    }
    w.check(&first.access).unwrap();
}

#[tokio::test]
async fn r9_only_its_own_client_logs_a_session_out() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    assert_eq!(denied(log_out(&w, &first.refresh, "other").await), Denial::OtherClient);
    assert_eq!(w.record(first.session).await, before);
    w.check(&first.access).unwrap();
}

#[tokio::test]
async fn r9_not_before_reaches_the_subject_the_client_or_everyone_and_nobody_else() {
    let w = World::new().await;
    let ada = w.login().await;
    let bob = Pair::from(w.login_as("bob").await.unwrap());
    let on_phone = Pair::from(w.login_with("bob", None, "phone", None).await.unwrap());
    for pair in [&ada, &bob, &on_phone] {
        w.check(&pair.access).unwrap();
    }
    w.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(&ada.access).unwrap_err(), Denial::TokenRevoked);
    w.check(&bob.access).unwrap();

    w.engine.revoke_client("web", RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(&bob.access).unwrap_err(), Denial::TokenRevoked);
    w.check(&on_phone.access).unwrap();

    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(&on_phone.access).unwrap_err(), Denial::TokenRevoked);
    for pair in [&ada, &bob] {
        assert!(matches!(denied(w.refresh(&pair.refresh).await), Denial::SessionRevoked(_)));
    }
}

#[tokio::test]
async fn r9_the_later_not_before_wins_whichever_comes_last() {
    let w = World::new().await;
    w.advance(HOUR);
    let first = w.login().await;
    w.advance(secs(1));
    w.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    w.engine.revoke(w.engine.subject_before("ada", T0), RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
    assert_eq!(w.engine.revocations().not_before(ISSUER, "ada", None), T0.plus(HOUR + secs(1)));
}

#[tokio::test]
async fn r9_logins_in_the_millisecond_of_a_revocation_are_told_apart() {
    let w = World::new().await;
    let before = w.login().await;
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    let between = w.login().await;
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    let after = w.login().await;
    assert_eq!(w.check(&before.access).unwrap_err(), Denial::TokenRevoked);
    assert_eq!(w.check(&between.access).unwrap_err(), Denial::TokenRevoked);
    w.check(&after.access).unwrap();
    w.refreshed(&after.refresh, IssueKind::Rotated).await;
}

#[tokio::test]
async fn r9_a_login_right_before_a_restart_is_reached_by_a_revocation_right_after_it() {
    let mut w = World::new().await;
    // Two revocations in one millisecond push the login ahead of the clock.
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    let before = w.login().await;
    w.restart().await;
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(&before.access).unwrap_err(), Denial::TokenRevoked);
    let after = w.login().await;
    w.check(&after.access).unwrap();
}

fn robot() -> Client {
    Client {
        secret_hash: Some(SecretHash::new("unused here")),
        grants: vec![Grant::ClientCredentials],
        scopes: Some(scope("read")),
        ..Client::public("robot")
    }
}

async fn client_token(w: &World) -> IssuedTokens {
    w.engine.client_token(&robot(), None, None, &w.profile, (None, None), &Origin::default()).await.unwrap()
}

#[tokio::test]
async fn r9_a_token_without_a_session_issued_in_the_second_of_a_revocation_is_good_and_an_earlier_one_is_not() {
    let w = World::new().await;
    let before = client_token(&w).await;
    w.check(before.access_token.expose()).unwrap();
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(before.access_token.expose()).unwrap_err(), Denial::TokenRevoked);
    // `iat` is a whole second: rounded down, it would lie before the revocation.
    let after = client_token(&w).await;
    w.check(after.access_token.expose()).unwrap();
    w.engine.revoke_client("robot", RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(after.access_token.expose()).unwrap_err(), Denial::TokenRevoked);
    let last = client_token(&w).await;
    w.check(last.access_token.expose()).unwrap();
}

#[tokio::test]
async fn a_token_without_a_session_is_revoked_by_its_name() {
    let mut w = World::new().await;
    let (one, two) = (client_token(&w).await, client_token(&w).await);
    assert!(one.refresh_token.is_none() && one.session.is_none());
    assert_eq!((one.scope.as_str(), one.expires_in), ("read", 600));
    let verified = w.check(one.access_token.expose()).unwrap();
    let jti = verified.token().jti.clone().unwrap();
    assert!(verified.token().is_for(&[AUDIENCE]));
    let entry = Revocation {
        target: Target::Token { issuer: ISSUER.into(), jti },
        effect: Effect::Gone,
        until: one.expires.plus(secs(30)),
    };
    w.engine.revoke(entry, RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(one.access_token.expose()).unwrap_err(), Denial::TokenRevoked);
    w.check(two.access_token.expose()).unwrap();
    w.restart().await;
    assert_eq!(w.check(one.access_token.expose()).unwrap_err(), Denial::TokenRevoked);
}

#[tokio::test]
async fn r10_every_kind_of_revocation_holds_after_a_restart() {
    let mut w = World::new().await;
    let by_logout = w.login().await;
    let by_subject = Pair::from(w.login_as("bob").await.unwrap());
    let by_client = Pair::from(w.login_with("ada", None, "phone", None).await.unwrap());
    let good = w.login().await;
    log_out(&w, &by_logout.refresh, "web").await.unwrap();
    w.engine.revoke_subject("bob", RevokedBecause::Operator).await.unwrap();
    w.engine.revoke_client("phone", RevokedBecause::Operator).await.unwrap();
    w.restart().await;
    for (pair, client) in [(&by_logout, "web"), (&by_subject, "web"), (&by_client, "phone")] {
        assert_eq!(w.check(&pair.access).unwrap_err(), Denial::TokenRevoked);
        let ask = Ask { client: Client::public(client), ..Ask::default() };
        assert!(matches!(denied(w.ask(&pair.refresh, ask).await), Denial::SessionRevoked(_)));
    }
    w.check(&good.access).unwrap();
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    w.restart().await;
    assert_eq!(w.check(&good.access).unwrap_err(), Denial::TokenRevoked);
}

#[tokio::test]
async fn r10_a_revoked_subject_stays_revoked_as_long_as_the_longest_session_could_live() {
    use crate::store::Store;

    let mut w = World::new().await;
    let mut pair = w.login().await;
    w.advance(DAY);
    pair = w.refreshed(&pair.refresh, IssueKind::Rotated).await;
    w.engine.revoke_subject("ada", RevokedBecause::Logout).await.unwrap();
    for _ in 0..28 {
        w.advance(DAY);
        w.engine.revocations().sweep(w.engine.clock().now());
        w.store.sweep(w.engine.clock().now()).await.unwrap();
        w.restart().await;
        assert!(matches!(
            denied(w.refresh(&pair.refresh).await),
            Denial::SessionRevoked(_) | Denial::SessionExpired | Denial::SessionIdle
        ));
        assert!(!w.engine.revocations().is_empty());
    }
    w.advance(DAY * 2 + Duration::from_secs(2 * 3600));
    w.engine.revocations().sweep(w.engine.clock().now());
    assert!(w.engine.revocations().is_empty(), "and no longer");
    // Requirement K4: as long as an API key of the subject could live.
    w.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    w.advance(DAY * 366);
    w.engine.revocations().sweep(w.engine.clock().now());
    assert!(!w.engine.revocations().is_empty());
}

#[tokio::test]
async fn r13_with_revoke_previous_after_zero_a_rotation_ends_the_access_token_before_it() {
    let mut w = World::new().await;
    w.profile.revoke_previous_after = Some(secs(0));
    let first = w.login().await;
    w.check(&first.access).unwrap();
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
    w.check(&second.access).unwrap();
    // The previous refresh token keeps its grace period.
    assert_eq!(w.refreshed(&first.refresh, IssueKind::Replayed).await, second);
    w.restart().await;
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
}

#[tokio::test]
async fn with_revoke_previous_after_some_time_a_cached_access_token_ends_at_that_moment() {
    let mut w = World::new().await;
    w.profile.revoke_previous_after = Some(secs(5));
    let first = w.login().await;
    w.check(&first.access).unwrap();
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.advance(Duration::from_millis(4_999));
    w.check(&first.access).unwrap();
    w.advance(Duration::from_millis(1));
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenRevoked);
    w.check(&second.access).unwrap();
}

#[tokio::test]
async fn without_revoke_previous_after_access_tokens_live_to_their_own_end() {
    let w = World::new().await;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.advance(secs(599));
    w.check(&first.access).unwrap();
}

/// Everything that a revocation could change.
async fn moved(w: &World) -> (Vec<u64>, crate::store::Cursor, u64, usize) {
    let list = w.engine.revocations();
    let epochs = (0..crate::revocation::epoch::SHARDS).map(|shard| list.epoch(shard)).collect();
    let end = w.engine.store().revocations_since(Default::default()).await.unwrap().1;
    (epochs, end, w.engine.counts().get(crate::engine::Event::Revoked), list.len())
}

#[tokio::test]
async fn r23_ending_what_has_ended_writes_nothing_and_raises_no_counter() {
    let w = World::new().await;
    let first = w.login().await;
    let before = w.record(first.session).await;
    let token = Revocation {
        target: Target::Token { issuer: ISSUER.into(), jti: "t".into() },
        effect: Effect::Gone,
        until: T0.plus(HOUR),
    };
    let moment = w.engine.clock().stamp_not_before();
    let all = async || {
        log_out(&w, &first.refresh, "web").await.unwrap();
        w.engine.revoke_session(&w.record(first.session).await, RevokedBecause::Operator).await.unwrap();
        // The revocation may use a record that was loaded before the session ended.
        w.engine.revoke_session(&before, RevokedBecause::Operator).await.unwrap();
        w.engine.revoke(token.clone(), RevokedBecause::Logout).await.unwrap();
        w.engine.revoke(w.engine.subject_before("bob", moment), RevokedBecause::Operator).await.unwrap();
    };
    all().await;
    let (once, record) = (moved(&w).await, w.record(first.session).await);
    for _ in 0..3 {
        all().await;
    }
    assert_eq!((moved(&w).await, w.record(first.session).await), (once, record));

    // The same holds after the sweep of the entries, when the last token that they could match has expired.
    w.advance(3 * HOUR);
    let now = w.engine.clock().now();
    w.engine.revocations().sweep(now);
    w.store.sweep(now).await.unwrap();
    // The record is gone, too. Whether the store lost it is not known, so the end is entered once more, and no more often.
    log_out(&w, &first.refresh, "web").await.unwrap();
    let once = moved(&w).await;
    log_out(&w, &first.refresh, "web").await.unwrap();
    w.engine.revoke(token, RevokedBecause::Logout).await.unwrap();
    assert_eq!(moved(&w).await, once);
}

#[tokio::test]
async fn r23_a_repetition_waits_for_the_store_where_the_first_time_did_not_reach_it() {
    let w = World::new().await;
    let first = w.login().await;
    w.store.set(Mode::WritesFail);
    for _ in 0..2 {
        assert!(matches!(failed(log_out(&w, &first.refresh, "web").await), crate::fault::Fault::Store(_)));
        assert_eq!(w.record(first.session).await.status, Status::Live);
    }
    w.store.set(Mode::Good);
    assert!(log_out(&w, &first.refresh, "web").await.unwrap());
    assert_eq!(w.record(first.session).await.status, Status::Revoked(RevokedBecause::Logout));
}

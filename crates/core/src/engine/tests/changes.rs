//! Users that change while they have sessions, or while they log in: R18.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::support::{Ask, Pair, T0, World, denied, secs};
use crate::denial::Denial;
use crate::directory::{PasswordMark, User};
use crate::engine::AccountRule;
use crate::session::RevokedBecause;
use crate::session::rotation::SessionEnd;

#[tokio::test]
async fn r18_a_login_under_way_is_looked_at_again_before_its_session_is_written() {
    // A user who is disabled or moved meanwhile does not get in.
    let out: [fn(&mut User); 2] = [|user| user.active = false, |user| user.account = Some("other".into())];
    for change in out {
        let w = World::new().await;
        *w.users.then.lock().unwrap() = Some(change);
        assert_eq!(denied(w.login_as("ada").await), Denial::WrongPassword);
        assert_eq!(w.users.authentications.load(Ordering::SeqCst), 2);
    }
    // Another password, or a raised not-before: the password is checked once more, and is still good here.
    let again: [fn(&mut User); 2] = [
        |user| user.password_mark = Some(PasswordMark::new(b"another")),
        |user| user.sessions_valid_from = T0.minus(secs(1)),
    ];
    for change in again {
        let w = World::new().await;
        *w.users.then.lock().unwrap() = Some(change);
        w.check(&w.login().await.access).unwrap();
        assert_eq!(w.users.authentications.load(Ordering::SeqCst), 2);
    }
    let w = World::new().await;
    w.login().await;
    assert_eq!(w.users.authentications.load(Ordering::SeqCst), 1, "and only then");
}

#[tokio::test]
async fn r18_a_login_that_a_revocation_overtakes_is_checked_once_more() {
    let w = World::new().await;
    let (engine, users) = (Arc::clone(&w.engine), Arc::clone(&w.users));
    w.store.before_next_write(async move {
        users.change("ada", |user| user.active = false);
        engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    });
    assert_eq!(denied(w.login_as("ada").await), Denial::WrongPassword);

    let engine = Arc::clone(&w.engine);
    w.store.before_next_write(async move {
        engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    });
    let pair = Pair::from(w.login_as("bob").await.unwrap());
    w.check(&pair.access).unwrap();
    assert_eq!(w.users.authentications.load(Ordering::SeqCst), 4);

    // Only the application knows whether its user may still log in.
    let engine = Arc::clone(&w.engine);
    w.store.before_next_write(async move {
        engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    });
    assert!(matches!(super::support::failed(w.start("carol").await), crate::fault::Fault::Contention));
    w.start("carol").await.unwrap();
}

#[tokio::test]
async fn r18_a_user_who_was_moved_refreshes_no_session_of_the_account_before() {
    let w = World::new().await;
    for account in [AccountRule::Any, AccountRule::Only(Some("acme"))] {
        w.users.change("eve", |user| user.account = Some("acme".into()));
        let issued = w.login_with("eve", Some("acme"), "web", None).await.unwrap();
        let pair = Pair::from(issued);
        w.users.change("eve", |user| user.account = Some("other".into()));
        let ask = Ask { account, ..Ask::default() };
        let denial = denied(w.ask(&pair.refresh, ask).await);
        assert_eq!(denial, Denial::SessionRevoked(SessionEnd::UserInactive));
    }
}

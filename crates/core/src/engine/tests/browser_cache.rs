//! Sessions of browsers in the cache of verified tokens.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use super::browser::{ACCESS, begin, rules};
use super::support::{Kind, Mode, World, denied, secs};
use crate::credential::Credential;
use crate::denial::Denial;
use crate::engine::{Origin, RenewWhen};
use crate::fault::Error;
use crate::session::rotation::RaisedMinimum;
use crate::session::{Generation, RevokedBecause};
use crate::verify_cache::{SessionAnswer, SessionMiss, Verified};

/// A request with this cookie, that waited for this answer.
fn check_after(world: &World, cookie: &str, answer: Option<&SessionAnswer>) -> Result<Arc<Verified>, Denial> {
    let miss = world.shown(world.engine.confirmations());
    let shown = || SessionMiss { miss, keyring: world.engine.keyring(), answer };
    world.checker.check_session(cookie.as_bytes(), shown, &mut ())
}

pub(super) fn check(world: &World, cookie: &str) -> Result<Arc<Verified>, Denial> {
    check_after(world, cookie, None)
}

pub(super) async fn load(world: &World, cookie: &Arc<str>, when: RenewWhen) -> Result<Arc<Verified>, Error> {
    world.engine.load_session(&world.checker, cookie, (&rules, None), when).await
}

fn generation(verified: &Verified) -> u64 {
    verified.token().session.unwrap().1.get()
}

pub(super) fn is_miss(checked: &Result<Arc<Verified>, Denial>) -> bool {
    matches!(checked, Err(Denial::SessionUnavailable(_)))
}

async fn cookie(world: &World) -> Arc<str> {
    begin(world).await.cookie.value().as_str().into()
}

#[tokio::test]
async fn b9_a_cookie_is_loaded_once_and_found_by_its_bytes_from_then_on() {
    let world = World::new().await;
    let cookie = cookie(&world).await;
    assert!(is_miss(&check(&world, &cookie)));
    let loads = world.store.loads.load(Ordering::SeqCst);
    let loaded = join_all((0..40).map(|_| load(&world, &cookie, RenewWhen::Over))).await;
    assert!(loaded.iter().all(|loaded| generation(loaded.as_ref().unwrap()) == 1));
    assert_eq!(world.store.loads.load(Ordering::SeqCst), loads + 1, "one read of the store");
    for _ in 0..200 {
        assert_eq!(&*check(&world, &cookie).unwrap().token().subject, "ada");
    }
    assert_eq!(world.store.loads.load(Ordering::SeqCst), loads + 1);
    // Nothing was noted as the use of a new token: that would be a write.
    world.engine.flush_confirmations().await.unwrap();
    assert_eq!(world.checker.cached(), 1);
}

#[tokio::test]
async fn b9_a_token_that_is_over_is_a_miss_and_forty_requests_renew_once() {
    let world = World::on(Kind::Shared).await;
    let cookie = cookie(&world).await;
    load(&world, &cookie, RenewWhen::Over).await.unwrap();
    world.advance(ACCESS + secs(1));
    assert!(is_miss(&check(&world, &cookie)));
    let loaded = join_all((0..40).map(|_| load(&world, &cookie, RenewWhen::Over))).await;
    assert!(loaded.iter().all(|loaded| generation(loaded.as_ref().unwrap()) == 2));
    assert_eq!(generation(&check(&world, &cookie).unwrap()), 2);
    let id = loaded[0].as_ref().unwrap().token().session.unwrap().0;
    assert_eq!(world.record(id).await.revision, 2);
}

#[tokio::test]
async fn b9_one_request_begins_a_renewal_ahead_and_all_find_what_it_wrote() {
    let world = World::new().await;
    let cookie = cookie(&world).await;
    let first = load(&world, &cookie, RenewWhen::Over).await.unwrap();
    let now = || world.engine.clock().now();
    assert!(!first.takes_renewal(now, || true));
    world.advance(secs(481));
    let found = check(&world, &cookie).unwrap();
    assert!(found.takes_renewal(now, || true) && !found.takes_renewal(now, || true), "one of them");
    assert_eq!(generation(&load(&world, &cookie, RenewWhen::Due).await.unwrap()), 2);
    // This thread had the session of before.
    let renewed = check(&world, &cookie).unwrap();
    assert!(generation(&renewed) == 2 && !renewed.takes_renewal(now, || true));
}

#[tokio::test]
async fn b16_no_token_is_a_session_and_no_session_cookie_is_a_token() {
    let world = World::new().await;
    let cookie = cookie(&world).await;
    load(&world, &cookie, RenewWhen::Over).await.unwrap();
    check(&world, &cookie).unwrap();
    let refused = Denial::MalformedToken("a session cookie is not a token");
    assert_eq!(world.check(&cookie).unwrap_err(), refused);
    assert!(world.checker.at_hand::<()>(cookie.as_bytes()).is_none());
    assert_eq!(world.verify_ignoring_expiry(&cookie, secs(60)).unwrap_err(), refused);
    let pair = world.login().await;
    world.check(&pair.access).unwrap();
    assert_eq!(check(&world, &pair.access).unwrap_err(), Denial::UnknownSessionCookie);
    let shown = || world.shown(world.engine.confirmations());
    assert!(world.checker.check(Credential::new(&pair.access), shown, &mut ()).is_ok());
}

#[tokio::test]
async fn b3_forged_cookies_count_against_their_source_and_touch_no_store() {
    let world = World::new().await;
    let cookie = cookie(&world).await;
    let loads = world.store.loads.load(Ordering::SeqCst);
    let forged = format!("{}AAAA", &cookie[..cookie.len() - 4]);
    for _ in 0..100 {
        assert_eq!(check(&world, &forged).unwrap_err(), Denial::UnknownSessionCookie);
    }
    let of = |result: crate::verify_cache::CheckResult| world.checker.results()[result as usize];
    assert_eq!(of(crate::verify_cache::CheckResult::Forged), 100);
    assert_eq!(world.store.loads.load(Ordering::SeqCst), loads);
}

#[tokio::test]
async fn b12_an_ended_session_is_refused_at_the_next_request_without_the_store() {
    for is_cached in [true, false] {
        let world = World::new().await;
        let begun = begin(&world).await;
        let cookie: Arc<str> = begun.cookie.value().as_str().into();
        if is_cached {
            load(&world, &cookie, RenewWhen::Over).await.unwrap();
        }
        world.engine.end_browser(&begun.cookie, &Origin::default()).await.unwrap();
        world.store.set(Mode::AllFails);
        let over = match is_cached {
            true => check(&world, &cookie).unwrap_err(),
            false => denied(load(&world, &cookie, RenewWhen::Over).await),
        };
        assert_eq!(over, Denial::SessionOver("it was ended"), "{is_cached}");
        // A refused cookie is refused again without a read of the store.
        let loads = world.store.loads.load(Ordering::SeqCst);
        assert_eq!(check(&world, &cookie).unwrap_err(), over);
        assert_eq!(world.store.loads.load(Ordering::SeqCst), loads);
    }
}

#[tokio::test]
async fn b12_a_revoked_subject_is_refused_at_the_next_request_without_the_store() {
    let world = World::new().await;
    let cookie = cookie(&world).await;
    load(&world, &cookie, RenewWhen::Over).await.unwrap();
    world.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    world.store.set(Mode::AllFails);
    assert_eq!(check(&world, &cookie).unwrap_err(), Denial::SessionOver("it was ended"));
}

#[tokio::test]
async fn b9_a_generation_that_another_gate_ended_is_a_reload_and_no_refusal() {
    let world = World::on(Kind::Shared).await;
    let begun = begin(&world).await;
    let cookie: Arc<str> = begun.cookie.value().as_str().into();
    let first = load(&world, &cookie, RenewWhen::Over).await.unwrap();
    // Another gate renewed the session, and its profile ends the tokens before.
    let now = world.engine.clock().now();
    let minimum = Generation::new(2);
    let until = begun.session.last.access_expires;
    let raised = RaisedMinimum { minimum, effective_from: now, before: Generation::NONE, until };
    world.engine.revocations().apply(&crate::revocation::raised_minimum(begun.session.id, raised, secs(0)));
    assert!(is_miss(&check(&world, &cookie)));
    // Nor is it one for the request that waited for what is old by now.
    let answer = SessionAnswer { cookie: Arc::clone(&cookie), outcome: Ok(first) };
    assert!(is_miss(&check_after(&world, &cookie, Some(&answer))));
}

#[tokio::test]
async fn b18_a_fault_is_answered_as_undecided_and_remembered_by_nobody() {
    let world = World::new().await;
    let cookie = cookie(&world).await;
    world.store.set(Mode::AllFails);
    assert!(matches!(load(&world, &cookie, RenewWhen::Over).await, Err(Error::Failed(_))));
    let outcome = Err(Denial::SessionUnavailable(secs(5)));
    let answer = SessionAnswer { cookie: Arc::clone(&cookie), outcome };
    assert_eq!(check_after(&world, &cookie, Some(&answer)).unwrap_err(), Denial::SessionUnavailable(secs(5)));
    world.store.set(Mode::Good);
    assert!(load(&world, &cookie, RenewWhen::Over).await.is_ok());
    assert!(check(&world, &cookie).is_ok());
}

#[tokio::test]
async fn b59_a_cached_session_takes_at_most_400_bytes_more_than_a_cached_token() {
    let world = World::new().await;
    let pair = world.login().await;
    world.check(&pair.access).unwrap();
    let token = world.checker.cached_bytes();
    let cookie = cookie(&world).await;
    load(&world, &cookie, RenewWhen::Over).await.unwrap();
    let session = world.checker.cached_bytes() - token;
    assert!(session <= token + 400, "{session} {token}");
}

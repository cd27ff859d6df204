//! Sessions of browsers: their beginning, renewal and end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use secrecy::SecretString;

use super::support::{
    Ask, DAY, HOUR, Kind, LEEWAY, Mode, PASSWORD, Pair, T0, World, denied, failed, refresh_on, scope, secs,
};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::engine::{Arrival, BrowserLogin, BrowserRules, Engine, IssuedTokens, Login, Origin, RenewWhen};
use crate::fault::{Error, Fault};
use crate::session::profile::Profile;
use crate::session::{Generation, RevokedBecause, Session, Status};
use crate::token::refresh;
use crate::token::session_cookie::SessionCookie;
use crate::token::verify::peek;
use crate::verify_cache::BrowserToken;

pub(super) const ACCESS: Duration = secs(600);
pub(super) const IDLE: Duration = secs(8 * 3600);
const LONGEST: Duration = secs(7 * 86_400);

pub(super) fn profile() -> Profile {
    let lost_response_window = secs(3600);
    Profile { access_ttl: ACCESS, idle_ttl: IDLE, session_ttl: LONGEST, lost_response_window, ..Profile::default() }
}

pub(super) fn rules(_: &Session) -> Result<BrowserRules, Denial> {
    Ok(BrowserRules { client: Arc::new(Client::public("web")), profile: profile() })
}

async fn begin_with(engine: &Engine, password: &str, presented: Option<&SessionCookie>) -> Result<BrowserLogin, Error> {
    begin_as("ada", engine, password, presented).await
}

async fn begin_as(
    username: &str,
    engine: &Engine,
    password: &str,
    presented: Option<&SessionCookie>,
) -> Result<BrowserLogin, Error> {
    let login = Login {
        proof: None,
        certificate: None,
        client: &Client::public("web"),
        account: None,
        username,
        password: &SecretString::from(password),
        scope: None,
        access_ttl: None,
        resource: None,
        profile: &profile(),
        dialect: "browser",
        arrived: Arrival::default(),
        origin: &Origin::default(),
    };
    engine.begin_browser(login, presented).await
}

pub(super) async fn begin(world: &World) -> BrowserLogin {
    begin_with(&world.engine, PASSWORD, None).await.unwrap()
}

async fn token_on(engine: &Engine, cookie: &SessionCookie, when: RenewWhen) -> Result<BrowserToken, Error> {
    let turn = engine.take_turn(cookie.session()).await;
    engine.browser_token(&turn, cookie, (&rules, None), when).await
}

async fn token(world: &World, cookie: &SessionCookie) -> Result<BrowserToken, Error> {
    token_on(&world.engine, cookie, RenewWhen::Over).await
}

fn claims(token: &BrowserToken) -> serde_json::Value {
    let payload = token.access_token.expose().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn generation(token: &BrowserToken) -> u64 {
    claims(token)["gen"].as_u64().unwrap()
}

#[tokio::test]
async fn b3_a_cookie_that_is_not_ours_touches_no_store() {
    let world = World::new().await;
    let begun = begin(&world).await;
    let loads = world.store.loads.load(Ordering::SeqCst);
    let value = begun.cookie.value();
    // Four values of the last character decode.
    let other = if value.ends_with('A') { 'Q' } else { 'A' };
    let forged = format!("{}{other}", &value[..value.len() - 1]);
    for other in [&*forged, "", "rc1_", "x.y.z"] {
        assert!(world.engine.session_cookie(other).is_none(), "{other}");
    }
    assert!(world.engine.session_cookie(&value).is_some());
    assert_eq!(world.store.loads.load(Ordering::SeqCst), loads);
}

#[tokio::test]
async fn b4_only_the_cookie_of_the_record_proves_its_session() {
    let world = World::new().await;
    let begun = begin(&world).await;
    let keyring = world.engine.keyring();
    // A holder of the keys can sign any session id, and knows no secret.
    let made = SessionCookie::new(keyring.refresh_keys(), begun.session.id).unwrap().unwrap();
    assert_eq!(denied(token(&world, &made).await), Denial::UnknownSessionCookie);
    assert_eq!(denied(world.engine.browser_session(&made, &rules).await), Denial::UnknownSessionCookie);
    world.engine.end_browser(&made, &Origin::default()).await.unwrap();
    assert_eq!(world.record(begun.session.id).await.status, Status::Live, "and it ends nothing");
    assert!(token(&world, &begun.cookie).await.is_ok());
    // Nor does a session with tokens have a cookie.
    let pair = world.login().await;
    let made = SessionCookie::new(keyring.refresh_keys(), pair.session).unwrap().unwrap();
    assert_eq!(denied(token(&world, &made).await), Denial::UnknownSessionCookie);
}

#[tokio::test]
async fn b2_no_refresh_token_of_a_browser_session_is_issued_or_taken() {
    let world = World::new().await;
    let begun = begin(&world).await;
    let (record, keyring) = (world.record(begun.session.id).await, world.engine.keyring());
    let last = &record.last;
    let made = refresh::make(
        keyring.refresh_keys(),
        last.refresh_key,
        record.id,
        record.current,
        &record.secret,
        &record.client,
    );
    let made = made.unwrap();
    let ask = || Ask { accepts: vec!["browser".into()], by_access: vec!["browser".into()], ..Ask::default() };
    world.advance(secs(60));
    for _ in 0..3 {
        let asked = refresh_on(&world.engine, made.expose(), ask(), &profile()).await;
        assert_eq!(denied(asked), Denial::UnknownRefreshToken);
    }
    assert_eq!(world.record(record.id).await, record, "no rule of superseded tokens applies");
}

#[tokio::test]
async fn b8_every_login_makes_another_session_and_ends_the_presented_one() {
    let world = World::new().await;
    let first = begin(&world).await;
    // A wrong password ends nothing.
    assert_eq!(denied(begin_with(&world.engine, "wrong", Some(&first.cookie)).await), Denial::WrongPassword);
    assert!(token(&world, &first.cookie).await.is_ok());
    let second = begin_as("bob", &world.engine, PASSWORD, Some(&first.cookie)).await.unwrap();
    assert_ne!(first.session.id, second.session.id);
    assert_ne!(*first.cookie.value(), *second.cookie.value());
    assert!(matches!(denied(token(&world, &first.cookie).await), Denial::SessionOver(_)));
    assert_eq!(world.record(first.session.id).await.status, Status::Revoked(RevokedBecause::Logout));
    assert!(token(&world, &second.cookie).await.is_ok());
    assert_eq!(second.presented_ends_in, None);
}

#[tokio::test]
async fn b8_the_presented_session_of_the_same_user_ends_after_grace_for_its_parallel_requests() {
    let world = World::new().await;
    let grace = profile().grace;
    let first = begin(&world).await;
    let second = begin_with(&world.engine, PASSWORD, Some(&first.cookie)).await.unwrap();
    assert_eq!(second.presented_ends_in, Some(grace));
    assert!(token(&world, &first.cookie).await.is_ok());
    // Durably: also at a gate that knows nothing of the login.
    assert_eq!(world.record(first.session.id).await.expires, world.engine.clock.now().plus(grace));
    world.advance(grace);
    assert!(matches!(denied(token(&world, &first.cookie).await), Denial::SessionOver(_)));
    assert!(token(&world, &second.cookie).await.is_ok());
    // A revocation that the store refuses takes effect at once.
    world.store.set(Mode::WritesFail);
    assert!(!world.engine.goes_on_for(&second.cookie, &second.session, grace).await);
}

#[tokio::test]
async fn b56_renewals_are_counted_by_their_end() {
    let world = World::new().await;
    let begun = begin(&world).await;
    let counts = || world.engine.counts().renewals().collect::<Vec<_>>();
    assert!(token(&world, &begun.cookie).await.is_ok());
    assert_eq!(counts(), [("ok", 0), ("over", 0), ("unavailable", 0)], "nothing is due");
    world.advance(ACCESS + secs(1));
    assert!(token(&world, &begun.cookie).await.is_ok());
    world.advance(ACCESS + secs(1));
    world.users.down.store(true, Ordering::SeqCst);
    assert!(token(&world, &begun.cookie).await.is_err());
    world.users.down.store(false, Ordering::SeqCst);
    world.users.change("ada", |user| user.active = false);
    assert!(token(&world, &begun.cookie).await.is_err());
    assert_eq!(counts(), [("ok", 1), ("over", 1), ("unavailable", 1)]);
}

#[tokio::test]
async fn b8_the_old_session_is_refused_here_although_the_store_does_not_take_its_end() {
    let world = World::new().await;
    let first = begin(&world).await;
    world.store.set(Mode::NoSessionEnds);
    let second = begin_as("bob", &world.engine, PASSWORD, Some(&first.cookie)).await.unwrap();
    assert!(matches!(denied(token(&world, &first.cookie).await), Denial::SessionOver(_)));
    assert!(token(&world, &second.cookie).await.is_ok());
}

#[tokio::test]
async fn b9_parallel_requests_of_two_gates_make_one_write_and_one_generation() {
    let world = World::on(Kind::Shared).await;
    let other = world.second_node().await;
    let begun = begin(&world).await;
    for round in 2..5 {
        world.advance(ACCESS + secs(1));
        let requests =
            (0..40).map(|n| token_on(if n % 2 == 0 { &world.engine } else { &other }, &begun.cookie, RenewWhen::Over));
        let tokens: Vec<_> = join_all(requests).await.into_iter().map(Result::unwrap).collect();
        assert!(tokens.iter().all(|token| generation(token) == round), "{round}");
        assert!(tokens.windows(2).all(|two| two[0].access_token.expose() == two[1].access_token.expose()));
        let record = world.record(begun.session.id).await;
        assert_eq!((record.current.get(), record.revision), (round, round));
    }
}

#[tokio::test]
async fn b9_a_session_is_renewed_from_four_fifths_of_its_token_on_and_not_before() {
    let world = World::new().await;
    let begun = begin(&world).await;
    world.advance(secs(479));
    let terms = token_on(&world.engine, &begun.cookie, RenewWhen::Due).await.unwrap().terms;
    assert_eq!((terms.renewed_at, world.record(begun.session.id).await.revision), (begun.session.issued_at, 1));
    world.advance(secs(2));
    assert_eq!(generation(&token(&world, &begun.cookie).await.unwrap()), 1, "a request that needs it not");
    let renewed = token_on(&world.engine, &begun.cookie, RenewWhen::Due).await.unwrap();
    assert_eq!((generation(&renewed), world.record(begun.session.id).await.revision), (2, 2));
    assert!(renewed.terms.renewed_at > terms.renewed_at);
}

#[tokio::test]
async fn b11_a_request_that_is_no_activity_renews_nothing() {
    let world = World::new().await;
    let begun = begin(&world).await;
    assert!(token_on(&world.engine, &begun.cookie, RenewWhen::Never).await.is_ok());
    world.advance(ACCESS + secs(1));
    let asked = token_on(&world.engine, &begun.cookie, RenewWhen::Never).await;
    assert_eq!(denied(asked), Denial::SessionNotRenewed);
    let looked = world.engine.browser_session(&begun.cookie, &rules).await.unwrap();
    assert_eq!(looked.idle_expires, begun.session.issued_at.plus(IDLE));
    assert_eq!(looked.expires, begun.session.created().plus(LONGEST));
    assert_eq!(world.record(begun.session.id).await.revision, 1);
}

#[tokio::test]
async fn b11_a_session_ends_after_idle_ttl_without_renewal_whatever_asks_about_it() {
    let world = World::new().await;
    let begun = begin(&world).await;
    for _ in 0..8 {
        world.advance(HOUR - secs(1));
        assert!(world.engine.browser_session(&begun.cookie, &rules).await.is_ok());
    }
    world.advance(secs(8));
    let over = Denial::SessionOver("it was idle for longer than `idle_ttl`");
    assert_eq!(denied(world.engine.browser_session(&begun.cookie, &rules).await), over);
    assert_eq!(denied(token(&world, &begun.cookie).await), over);
}

#[tokio::test]
async fn b11_no_renewal_moves_the_absolute_end() {
    let world = World::new().await;
    let begun = begin(&world).await;
    let ends = begun.session.created().plus(LONGEST);
    assert_eq!(begun.session.expires, ends);
    let mut writes = 0;
    while world.engine.clock().now().plus(HOUR) < ends {
        world.advance(HOUR);
        assert!(token(&world, &begun.cookie).await.is_ok());
        writes += 1;
    }
    let left = ends.since(world.engine.clock().now()) - Duration::from_millis(1);
    world.advance(left - secs(5));
    // A token that ends with the session is not renewed again and again.
    for _ in 0..5 {
        token_on(&world.engine, &begun.cookie, RenewWhen::Due).await.unwrap();
        world.advance(secs(1));
    }
    assert!(world.record(begun.session.id).await.revision <= writes + 2);
    assert!(world.engine.browser_session(&begun.cookie, &rules).await.is_ok());
    world.advance(Duration::from_millis(1));
    let over = Denial::SessionOver("it lasted longer than `session_ttl`");
    assert_eq!(denied(world.engine.browser_session(&begun.cookie, &rules).await), over);
    assert_eq!(denied(token(&world, &begun.cookie).await), over);
}

#[tokio::test]
async fn b14_a_disabled_user_or_a_new_password_ends_the_session_at_its_renewal() {
    type Change = fn(&mut crate::directory::User, Timestamp);
    let changes: [(Change, &str); 2] = [
        (|user, _| user.active = false, "its user was deleted, is inactive, or is in another account"),
        (|user, now| user.sessions_valid_from = now, "it began before the user's `sessions_valid_from`"),
    ];
    for (change, why) in changes {
        let world = World::new().await;
        let begun = begin(&world).await;
        world.advance(secs(60));
        let now = world.engine.clock().now();
        world.users.change("ada", |user| change(user, now));
        assert!(token(&world, &begun.cookie).await.is_ok(), "its token is still good");
        world.advance(ACCESS + secs(1));
        assert_eq!(denied(token(&world, &begun.cookie).await), Denial::SessionOver(why));
        let ended = Status::Revoked(RevokedBecause::UserChanged);
        assert_eq!(world.record(begun.session.id).await.status, ended, "for good");
    }
}

#[tokio::test]
async fn b14_a_revocation_of_the_subject_ends_the_session_at_once() {
    let world = World::new().await;
    let begun = begin(&world).await;
    assert!(token(&world, &begun.cookie).await.is_ok());
    world.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    assert!(matches!(denied(token(&world, &begun.cookie).await), Denial::SessionOver(_)));
    assert!(matches!(denied(world.engine.browser_session(&begun.cookie, &rules).await), Denial::SessionOver(_)));
}

#[tokio::test]
async fn b12_a_logout_ends_the_session_here_while_the_store_is_away() {
    let mut world = World::on(Kind::WithFile).await;
    let begun = begin(&world).await;
    world.store.set(Mode::AllFails);
    failed(token(&world, &begun.cookie).await);
    // The end is owed: refused here at once, and durable in a file beside the store.
    world.engine.end_browser(&begun.cookie, &Origin::default()).await.unwrap();
    assert!(matches!(denied(token(&world, &begun.cookie).await), Denial::SessionOver(_)));
    world.restart().await;
    assert!(matches!(denied(token(&world, &begun.cookie).await), Denial::SessionOver(_)));

    let world = World::on(Kind::Alone).await;
    let begun = begin(&world).await;
    world.store.set(Mode::AllFails);
    failed(world.engine.end_browser(&begun.cookie, &Origin::default()).await);
    assert!(matches!(denied(token(&world, &begun.cookie).await), Denial::SessionOver(_)), "refused all the same");
}

#[tokio::test]
async fn b18_a_fault_is_no_end() {
    let world = World::new().await;
    let begun = begin(&world).await;
    world.store.set(Mode::AllFails);
    assert!(matches!(failed(token(&world, &begun.cookie).await), Fault::Store(_)));
    failed(world.engine.browser_session(&begun.cookie, &rules).await);
    world.store.set(Mode::Good);
    world.advance(ACCESS + secs(1));
    world.users.down.store(true, Ordering::SeqCst);
    assert!(matches!(failed(token(&world, &begun.cookie).await), Fault::Directory(_)));
    world.users.down.store(false, Ordering::SeqCst);
    *world.store.spoilt.lock().unwrap() = Some(begun.session.id);
    failed(token(&world, &begun.cookie).await);
    *world.store.spoilt.lock().unwrap() = None;
    assert_eq!(generation(&token(&world, &begun.cookie).await.unwrap()), 2);
}

#[tokio::test]
async fn b10_a_gate_that_dies_in_a_renewal_loses_no_session() {
    for mode in [Mode::WritesFail, Mode::Refuses, Mode::Unanswered, Mode::DiesAfterWrite, Mode::Hangs] {
        let mut world = World::new().await;
        let begun = begin(&world).await;
        world.advance(ACCESS + secs(1));
        world.store.set(mode);
        {
            let mut renewing = Box::pin(token(&world, &begun.cookie));
            match futures_util::poll!(&mut renewing) {
                std::task::Poll::Ready(renewed) => drop(failed(renewed)),
                // The process dies here.
                std::task::Poll::Pending => {}
            }
        }
        world.restart().await;
        let renewed = token(&world, &begun.cookie).await.unwrap();
        // A write that was done is read, and not made again.
        assert_eq!(generation(&renewed), 2, "{mode:?}");
        assert_eq!(world.record(begun.session.id).await.revision, 2, "{mode:?}");
    }
}

#[tokio::test]
async fn b10_the_signing_key_of_its_token_may_go() {
    let world = World::new().await;
    let begun = begin(&world).await;
    world.set_keys(world.keys.ring(&["b"], &[2, 1]));
    let renewed = token(&world, &begun.cookie).await.unwrap();
    assert_eq!(generation(&renewed), 2);
    assert_eq!(peek(renewed.access_token.expose()).unwrap().kid.as_deref(), Some("b"));
    // The cookie needs the secret that made it for as long as it lives.
    assert_eq!(world.record(begun.session.id).await.browser.unwrap().key, 1);
    world.set_keys(world.keys.ring(&["b"], &[2]));
    assert!(world.engine.session_cookie(&begun.cookie.value()).is_none());
}

#[tokio::test]
async fn b10_a_store_that_lost_renewals_continues_the_session_only_where_its_end_would_be_known() {
    let world = World::new().await;
    let begun = begin(&world).await;
    // This gate knows of a later generation than the record has.
    let minimum = crate::session::rotation::RaisedMinimum {
        minimum: Generation::new(5),
        effective_from: T0,
        before: Generation::NONE,
        until: T0.plus(DAY),
    };
    world.engine.revocations().apply(&crate::revocation::raised_minimum(begun.session.id, minimum, LEEWAY));
    let over = Denial::SessionOver("the store lost changes to the session's record");
    assert_eq!(denied(token(&world, &begun.cookie).await), over);
}

#[tokio::test]
async fn b9_a_renewal_grants_what_user_and_client_still_have() {
    let world = World::new().await;
    let begun = begin(&world).await;
    world.users.change("ada", |user| user.scopes = scope("read"));
    world.advance(ACCESS + secs(1));
    let renewed = token(&world, &begun.cookie).await.unwrap();
    assert_eq!(claims(&renewed)["scope"], "read");
}

#[tokio::test]
async fn b8_an_application_begins_a_session_of_a_browser_for_which_no_directory_is_asked() {
    let world = World::new().await;
    let start = crate::engine::ApplicationLogin {
        vouched_by: None,
        subject: "guest",
        account: None,
        client: "web",
        scope: scope("read"),
        claims: crate::claim::OwnClaims::default(),
        profile: &profile(),
        origin: &Origin::default(),
    };
    let begun = world.engine.start_browser(start, None).await.unwrap();
    world.advance(ACCESS + secs(1));
    assert_eq!(generation(&token(&world, &begun.cookie).await.unwrap()), 2);
    assert_eq!(world.users.lookups.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn b2_a_client_still_gets_its_refresh_token() {
    let world = World::new().await;
    let issued: IssuedTokens = world.login_as("ada").await.unwrap();
    assert!(world.record(issued.session.unwrap()).await.browser.is_none());
    let pair: Pair = issued.into();
    assert!(world.refresh(&pair.refresh).await.is_ok());
}

#[tokio::test]
async fn b14_a_stream_of_a_disabled_user_ends_within_access_ttl_and_an_open_stream_writes_nothing() {
    let world = World::new().await;
    let begun = begin(&world).await;
    let id = begun.session.id;
    let terms = token(&world, &begun.cookie).await.unwrap().terms;
    let expires = begun.session.last.access_expires;
    let cookie = begun.cookie.value().as_str().into();
    let _stream = world.engine.live_sessions().begin(id, Generation::FIRST, expires, Some((&cookie, &terms)));
    let before = world.users.lookups.load(Ordering::SeqCst);
    let asked = || world.users.lookups.load(Ordering::SeqCst) - before;
    for round in 1..4 {
        world.engine.ask_about_browsers(None).await;
        assert_eq!(asked(), round - 1, "not before the life of an access token");
        world.advance(ACCESS + secs(1));
        world.engine.ask_about_browsers(None).await;
        world.engine.ask_about_browsers(None).await;
        assert_eq!(asked(), round);
    }
    assert_eq!(world.record(id).await.revision, 1);
    world.advance(ACCESS + secs(1));
    world.users.change("ada", |user| user.active = false);
    world.engine.ask_about_browsers(None).await;
    assert_eq!(world.record(id).await.status, Status::Revoked(RevokedBecause::UserChanged));
    assert_eq!(world.engine.revocations().minimum(id), crate::session::rotation::REVOKED);
}

#[tokio::test]
async fn b11_a_renewal_at_another_gate_prolongs_the_streams_here() {
    let world = World::on(Kind::Shared).await;
    let other = world.second_node().await;
    let begun = begin(&world).await;
    let terms = token(&world, &begun.cookie).await.unwrap().terms;
    let expires = begun.session.last.access_expires;
    let cookie = begun.cookie.value().as_str().into();
    let opened_by = Some((&cookie, &terms));
    let stream = world.engine.live_sessions().begin(begun.session.id, Generation::FIRST, expires, opened_by);
    assert_eq!(stream.idle_expires(), Some(begun.session.issued_at.plus(IDLE)));
    // Several generations later.
    for _ in 0..3 {
        world.advance(ACCESS + secs(1));
        token_on(&other, &begun.cookie, RenewWhen::Over).await.unwrap();
    }
    let left = begun.session.issued_at.plus(IDLE).since(world.engine.clock().now());
    world.advance(left - secs(2));
    world.engine.advance_expiring_lines().await;
    let renewed = world.record(begun.session.id).await;
    assert_eq!((renewed.current.get(), stream.generation().get()), (4, 4));
    assert_eq!(stream.idle_expires(), Some(renewed.issued_at.plus(IDLE)));
}

//! Sessions of browsers whose user logged in at a provider: when it is asked, and what its silence changes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::browser::{ACCESS, IDLE, profile, rules};
use super::support::{World, denied, failed, scope, secs};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::engine::live_sessions::LiveConnection;
use crate::engine::{ApplicationLogin, BrowserLogin, Origin, PresentedDevice, RenewWhen, SessionProvider};
use crate::fault::{Error, Fault};
use crate::revocation::Target;
use crate::session::{Binding, Generation, RevokedBecause, Status, VouchedBy};
use crate::token::session_cookie::SessionCookie;
use crate::verify_cache::{BrowserToken, ProviderTerms};

/// A provider that says this, and counts who asks.
#[derive(Default)]
struct Saying {
    says: Mutex<Says>,
    asked: AtomicUsize,
    answered: AtomicUsize,
}

#[derive(Clone, Copy, Default)]
enum Says {
    #[default]
    Good,
    Away,
    Over,
    /// Nothing, to the first that asks. To the others: good.
    NothingToTheFirst,
}

impl Saying {
    fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SessionProvider for Saying {
    async fn terms(
        &self,
        _: &SessionCookie,
        user: &VouchedBy,
        _: Timestamp,
        when: RenewWhen,
    ) -> Result<ProviderTerms, Error> {
        assert_eq!(&*user.subject, "ada at the provider");
        if when == RenewWhen::Never {
            return Err(Denial::SessionNotRenewed.into());
        }
        let before = self.asked.fetch_add(1, Ordering::SeqCst);
        let says = *self.says.lock().unwrap();
        match says {
            Says::Away => return Err(Fault::Provider { reason: "away", retry_after: secs(5) }.into()),
            Says::Over => return Err(Denial::SessionOver("its provider does not continue it").into()),
            Says::NothingToTheFirst if before == 0 => std::future::pending().await,
            Says::NothingToTheFirst | Says::Good => {}
        }
        self.answered.fetch_add(1, Ordering::SeqCst);
        let (end, access_token) = (Timestamp::MAX, None);
        Ok(ProviderTerms { access_token, token_until: end, is_refreshable: true, refresh_from: end, good_until: end })
    }
}

/// A provider that takes longer to answer than an access token lives.
struct Slow<'a>(&'a World);

#[async_trait]
impl SessionProvider for Slow<'_> {
    async fn terms(
        &self,
        _: &SessionCookie,
        _: &VouchedBy,
        _: Timestamp,
        _: RenewWhen,
    ) -> Result<ProviderTerms, Error> {
        self.0.advance(ACCESS + secs(1));
        let (end, access_token) = (Timestamp::MAX, None);
        Ok(ProviderTerms { access_token, token_until: end, is_refreshable: true, refresh_from: end, good_until: end })
    }
}

#[tokio::test]
async fn b63_a_token_is_good_however_long_the_provider_takes() {
    for is_due in [false, true] {
        let world = World::new().await;
        let begun = begin(&world).await;
        if is_due {
            world.advance(ACCESS + secs(1));
        }
        let turn = world.engine.take_turn(begun.session.id).await;
        let slow = Slow(&world);
        world.engine.browser_token(&turn, &begun.cookie, (&rules, Some(&slow)), RenewWhen::Over).await.unwrap();
        let record = world.record(begun.session.id).await;
        assert!(record.last.access_expires > world.engine.clock().now(), "{is_due}");
    }
}

async fn begin(world: &World) -> BrowserLogin {
    let start = ApplicationLogin {
        vouched_by: Some(VouchedBy::new("https://id.example", "ada at the provider")),
        subject: "kc|ada",
        account: None,
        client: "web",
        scope: scope("read"),
        claims: crate::claim::OwnClaims::default(),
        profile: &profile(),
        origin: &Origin::default(),
    };
    world.engine.start_at_provider(start, "browser").await.unwrap()
}

async fn request(world: &World, cookie: &SessionCookie, provider: &Saying) -> Result<BrowserToken, Error> {
    let turn = world.engine.take_turn(cookie.session()).await;
    world.engine.browser_token(&turn, cookie, (&rules, Some(provider)), RenewWhen::Over).await
}

async fn stream(world: &World, begun: &BrowserLogin, provider: &Saying) -> Arc<LiveConnection> {
    let terms = request(world, &begun.cookie, provider).await.unwrap().terms;
    let (expires, value) = (begun.session.last.access_expires, begun.cookie.value().as_str().into());
    world.engine.live_sessions().begin(begun.session.id, Generation::FIRST, expires, Some((&value, &terms)))
}

#[tokio::test]
async fn b11_b40_a_renewal_that_the_provider_does_not_permit_is_no_activity() {
    let (world, provider) = (World::new().await, Saying::default());
    let begun = begin(&world).await;
    let generation = async || world.record(begun.session.id).await.current.get();
    assert!(request(&world, &begun.cookie, &provider).await.unwrap().provider.is_some());
    world.advance(ACCESS + secs(1));
    provider.say(Says::Away);
    assert!(matches!(failed(request(&world, &begun.cookie, &provider).await), Fault::Provider { .. }));
    assert_eq!(generation().await, 1, "the request did not pass");
    provider.say(Says::Good);
    assert!(request(&world, &begun.cookie, &provider).await.is_ok());
    assert_eq!((generation().await, provider.asked()), (2, 3), "once for each request");
    // Requests that are answered with 503 prolong nothing.
    provider.say(Says::Away);
    for _ in 0..IDLE.as_secs() / 1800 {
        world.advance(Duration::from_secs(1800));
        let _ = request(&world, &begun.cookie, &provider).await;
    }
    provider.say(Says::Good);
    assert_eq!(
        denied(request(&world, &begun.cookie, &provider).await),
        Denial::SessionOver("it was idle for longer than `idle_ttl`")
    );
    let counts: Vec<_> = world.engine.counts().renewals().collect();
    assert_eq!((counts[0], counts[2].1 > 10), (("ok", 1), true), "{counts:?}");
}

#[tokio::test]
async fn b21_b48_a_request_without_its_device_does_not_use_up_the_refresh_token() {
    let (world, provider) = (World::new().await, Saying::default());
    let begun = begin(&world).await;
    world.advance(secs(60));
    // The record is not due, but the provider's token may be.
    let by = RenewWhen::OverBy(PresentedDevice::new(Binding::Required, None));
    let turn = world.engine.take_turn(begun.session.id).await;
    let refused = world.engine.browser_token(&turn, &begun.cookie, (&rules, Some(&provider)), by).await;
    assert_eq!((denied(refused.map(drop)), provider.asked()), (Denial::DeviceProofMissing, 0));
}

#[tokio::test]
async fn b42_a_logout_between_iat_and_the_session_ends_the_session() {
    for is_there in [true, false] {
        let world = World::new().await;
        let ended_at = world.engine.clock().now();
        if is_there {
            let user = Target::Subject { issuer: "https://id.example".into(), subject: "ada at the provider".into() };
            let ended = world.engine.before(user, ended_at, RevokedBecause::Logout);
            world.engine.end_elsewhere(ended, None, ended_at).await.unwrap();
        } else {
            world.engine.revoke_subject("kc|ada", RevokedBecause::Operator).await.unwrap();
        }
        world.advance(secs(2));
        let (before, after) = (begin(&world).await, begin(&world).await);
        let origin = Origin::default();
        let over = world.engine.end_if_over(&before, ended_at.minus(secs(1)), &origin).await;
        assert!(matches!(denied(over), Denial::ProviderLogin(_)));
        world.engine.end_if_over(&after, ended_at.plus(secs(1)), &origin).await.unwrap();
        let is_live = async |begun: &BrowserLogin| world.record(begun.session.id).await.status == Status::Live;
        assert_eq!((is_live(&before).await, is_live(&after).await), (false, true));
    }
}

#[tokio::test]
async fn b39_the_directory_is_not_asked_about_the_users_of_a_provider() {
    let (world, provider) = (World::new().await, Saying::default());
    let begun = begin(&world).await;
    for generation in 2..5 {
        world.advance(ACCESS + secs(1));
        assert!(request(&world, &begun.cookie, &provider).await.is_ok(), "a user whom it does not have");
        assert_eq!(world.record(begun.session.id).await.current.get(), generation);
    }
    assert_eq!(world.users.lookups.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn b40_a_session_of_a_provider_is_over_at_a_gate_that_has_none() {
    let world = World::new().await;
    let begun = begin(&world).await;
    let turn = world.engine.take_turn(begun.session.id).await;
    let token = world.engine.browser_token(&turn, &begun.cookie, (&rules, None), RenewWhen::Over).await;
    assert!(matches!(denied(token), Denial::SessionOver(_)));
}

#[tokio::test]
async fn b14_the_provider_of_an_open_stream_is_asked_once_in_access_ttl_and_nothing_is_written() {
    let (world, provider) = (World::new().await, Saying::default());
    let begun = begin(&world).await;
    let line = stream(&world, &begun, &provider).await;
    let before = provider.asked();
    for round in 1..4 {
        world.advance(ACCESS + secs(1));
        for _ in 0..3 {
            world.engine.ask_about_browsers(Some(&provider)).await;
        }
        assert_eq!(provider.asked() - before, round);
    }
    for says in [Says::Away, Says::Over] {
        provider.say(says);
        world.advance(ACCESS + secs(1));
        world.engine.ask_about_browsers(Some(&provider)).await;
    }
    assert_eq!(provider.asked() - before, 5);
    let record = world.record(begun.session.id).await;
    assert_eq!((record.revision, line.idle_expires()), (1, Some(begun.session.issued_at.plus(IDLE))), "no activity");
    // A session that has ended is not asked about.
    world.engine.end_refused_by_provider(&begun.cookie).await.unwrap();
    world.advance(ACCESS + secs(1));
    world.engine.ask_about_browsers(Some(&provider)).await;
    assert_eq!((provider.asked() - before, world.record(begun.session.id).await.revision), (5, 2));
}

#[tokio::test]
async fn b14_a_provider_that_hangs_for_one_stream_is_asked_about_the_others() {
    let (world, provider) = (World::new().await, Saying::default());
    let (first, second) = (begin(&world).await, begin(&world).await);
    let _lines = (stream(&world, &first, &provider).await, stream(&world, &second, &provider).await);
    provider.asked.store(0, Ordering::SeqCst);
    provider.answered.store(0, Ordering::SeqCst);
    provider.say(Says::NothingToTheFirst);
    world.advance(ACCESS + secs(1));
    let other_was_answered = async {
        while provider.answered.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = world.engine.ask_about_browsers(Some(&provider)) => panic!("the first answer never comes"),
        () = other_was_answered => {}
    }
    assert_eq!(provider.asked(), 2);
}

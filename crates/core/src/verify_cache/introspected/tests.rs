use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::clock::ManualTime;
use crate::credential::Credential;
use crate::introspection::Introspector;
use crate::limit::{Limits, Rates};
use crate::revocation::{Effect, Revocation, RevocationList, Target};
use crate::session::Scope;
use crate::session::confirm::Confirmations;
use crate::session::expiry::OnExpiry;
use crate::token::algorithm::Algorithm;
use crate::token::keyring::Keyring;
use crate::token::mint::mint;
use crate::token::verify::{IssuerKeys, Verifier};
use crate::token::{MintedClaims, TokenStyle};
use crate::verify_cache::{Check, IdentityHeaders, MissContext, TokenChecker};

const URL: &str = "https://idp.test";
const T0: Timestamp = Timestamp::from_millis(1_700_000_000_400);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An issuer whose responses the test sets. It counts the questions.
#[derive(Debug)]
struct Issuer {
    calls: AtomicUsize,
    asked: Mutex<Vec<String>>,
    /// The answers to come; then the last one again.
    answers: Mutex<VecDeque<Result<Value, IntrospectionFault>>>,
    /// A question takes one of these.
    doors: Semaphore,
}

#[async_trait]
impl Introspector for Arc<Issuer> {
    async fn introspect(&self, token: &str) -> Result<Bytes, IntrospectionFault> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.asked.lock().push(token.to_owned());
        self.doors.acquire().await.unwrap().forget();
        let mut answers = self.answers.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        answer.unwrap().map(|answer| answer.to_string().into())
    }

    fn identity(&self) -> Box<[u8]> {
        b"issuer".as_slice().into()
    }
}

impl Issuer {
    fn new(answer: Value) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            asked: Mutex::default(),
            answers: Mutex::new([Ok(answer)].into()),
            doors: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    fn answers(&self, answer: Result<Value, IntrospectionFault>) {
        *self.answers.lock() = [answer].into();
    }

    fn fails(&self) {
        self.answers(Err(IntrospectionFault::new("timeout", "no answer")));
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn active(changes: &Value) -> Value {
    let mut answer = json!({
        "active": true, "iss": URL, "aud": "api", "sub": "ada", "client_id": "app", "scope": "read", "jti": "j",
        "iat": T0.as_secs(), "exp": T0.as_secs() + 3600,
    });
    for (name, value) in changes.as_object().unwrap() {
        answer[name] = value.clone();
    }
    answer
}

fn inactive() -> Value {
    json!({ "active": false })
}

struct World {
    time: Arc<ManualTime>,
    issuer: Arc<Issuer>,
    checker: Arc<TokenChecker>,
    revocations: Arc<RevocationList>,
    limits: Arc<Limits>,
    confirmations: Arc<Confirmations>,
}

fn world(settings: impl FnOnce(Introspection) -> Introspection) -> World {
    with_rules(|introspection| {
        let rules = IssuerRules::introspected(URL, vec!["api".into()], settings(introspection));
        vec![rules.named("idp").scopes(Some(Scope::parse("read").unwrap()))]
    })
}

fn with_rules(rules: impl FnOnce(Introspection) -> Vec<IssuerRules>) -> World {
    let time = ManualTime::at(T0);
    let issuer = Issuer::new(active(&json!({})));
    let verifier = Verifier::new(rules(Introspection::by(Arc::clone(&issuer)))).unwrap();
    let clock = Arc::new(EngineClock::start(time.clone(), Timestamp::ZERO, Duration::ZERO));
    let revocations = Arc::new(RevocationList::new());
    let checker =
        TokenChecker::new(verifier, clock, Arc::clone(&revocations), IdentityHeaders::default(), 1 << 20, usize::MAX);
    let limits = Arc::new(Limits::new(Rates::default(), time.clone()));
    World { time, issuer, checker: Arc::new(checker), revocations, limits, confirmations: Arc::default() }
}

impl World {
    fn check_after(&self, token: &str, answer: Option<&Introspected>) -> Outcome {
        self.check_from(None, token, answer)
    }

    fn check_from(&self, source: Option<IpAddr>, token: &str, answer: Option<&Introspected>) -> Outcome {
        let (limits, confirmations) = (&*self.limits, &*self.confirmations);
        let shown = || MissContext { limits, confirmations, source: source.into(), introspected: None }.after(answer);
        self.checker.check(Check { taken: Some(&|_| true), ..Credential::new(token).into() }, shown, &mut ())
    }

    /// As a request is checked: it waits for the answer, and is checked again.
    async fn check(&self, token: &str) -> Outcome {
        let first = self.check_after(token, None);
        if !matches!(first, Err(Denial::IntrospectionUnavailable(_))) {
            return first;
        }
        let Some(wait) = self.checker.awaited_introspection(token, Some(&|_| true), false) else { return first };
        let answer = wait.ended().await;
        if let Some(answer) = &answer {
            answer.record(&self.limits, None.into());
        }
        self.check_after(token, answer.as_ref())
    }

    async fn denied(&self, token: &str) -> Denial {
        self.check(token).await.unwrap_err()
    }

    fn results(&self) -> Vec<(&'static str, u64)> {
        self.checker.introspections().into_iter().map(|(_, result, count)| (result, count)).collect()
    }

    /// Lets the tasks run that are ready.
    async fn settle(&self) {
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
    }
}

fn is_unavailable(denial: Denial) -> bool {
    matches!(denial, Denial::IntrospectionUnavailable(_))
}

#[tokio::test]
async fn i20_an_introspected_token_is_verified_as_any_other() {
    let w = world(|it| it);
    let verified = w.check("opaque").await.unwrap();
    assert_eq!((&*verified.token().subject, verified.token().scope.as_str()), ("ada", "read"));
    assert_eq!(&*verified.token().text, "opaque");
    assert!(w.check("opaque").await.is_ok());
    assert_eq!(w.issuer.calls(), 1);
    assert_eq!(*w.issuer.asked.lock(), ["opaque"]);
    assert_eq!(w.checker.cached(), 1);
    assert_eq!(w.results(), [("active", 1)]);
}

#[tokio::test]
async fn i21_one_question_is_asked_whatever_the_number_of_requests() {
    let w = Arc::new(world(|it| it));
    w.issuer.doors.forget_permits(Semaphore::MAX_PERMITS);
    let asked: Vec<_> = (0..50)
        .map(|_| {
            let w = Arc::clone(&w);
            tokio::spawn(async move { w.check("opaque").await })
        })
        .collect();
    w.settle().await;
    assert_eq!(w.issuer.calls(), 1);
    // A caller that leaves does not cancel the introspection for the others.
    asked[0].abort();
    w.issuer.doors.add_permits(1);
    for one in asked.into_iter().skip(1) {
        one.await.unwrap().unwrap();
    }
    assert_eq!(w.issuer.calls(), 1);
}

#[tokio::test]
async fn i21_a_response_counts_for_its_time_and_never_beyond_exp() {
    let w = world(|it| it);
    w.check("opaque").await.unwrap();
    w.time.advance(secs(23));
    w.check("opaque").await.unwrap();
    assert_eq!(w.issuer.calls(), 1);
    w.time.advance(secs(7));
    w.issuer.answers(Ok(inactive()));
    assert_eq!(w.denied("opaque").await, Denial::TokenInactive);
    assert_eq!(w.issuer.calls(), 2);
    // If the token expires sooner, its `exp` counts, without the leeway.
    w.issuer.answers(Ok(active(&json!({ "exp": T0.as_secs() + 40 }))));
    w.check("short").await.unwrap();
    w.time.advance(secs(9));
    w.check("short").await.unwrap();
    w.settle().await;
    let before = w.issuer.calls();
    w.time.advance(secs(1));
    w.issuer.answers(Ok(inactive()));
    assert_eq!(w.denied("short").await, Denial::TokenInactive);
    assert_eq!(w.issuer.calls(), before + 1);
}

#[tokio::test]
async fn i21_a_hit_in_the_last_fifth_asks_in_the_background() {
    let w = world(|it| it);
    w.check("opaque").await.unwrap();
    w.issuer.doors.forget_permits(Semaphore::MAX_PERMITS);
    w.time.advance(secs(24));
    for _ in 0..10 {
        // The answer is not waited for.
        w.check("opaque").await.unwrap();
    }
    w.settle().await;
    assert_eq!(w.issuer.calls(), 2);
    w.issuer.doors.add_permits(1);
    w.settle().await;
    // The new answer counts from its own moment.
    w.time.advance(secs(20));
    w.check("opaque").await.unwrap();
    assert_eq!(w.issuer.calls(), 2);
    // An answer in the background ends the token, too.
    w.time.advance(secs(5));
    w.issuer.answers(Ok(inactive()));
    w.issuer.doors.add_permits(1);
    w.check("opaque").await.unwrap();
    w.settle().await;
    assert_eq!(w.denied("opaque").await, Denial::TokenInactive);
    assert_eq!(w.issuer.calls(), 3);
}

#[tokio::test]
async fn i21_without_a_cache_each_request_asks() {
    let w = world(|it| it.cache(Duration::ZERO));
    for n in 1..=3 {
        w.check("opaque").await.unwrap();
        assert_eq!(w.issuer.calls(), n);
    }
    w.issuer.answers(Ok(inactive()));
    assert_eq!(w.denied("opaque").await, Denial::TokenInactive);
    assert_eq!(w.issuer.calls(), 4);
    w.issuer.fails();
    w.time.advance(secs(10));
    assert!(is_unavailable(w.denied("opaque").await));
}

#[tokio::test]
async fn i21_a_token_that_is_not_active_is_remembered_for_a_moment() {
    let w = world(|it| it);
    w.issuer.answers(Ok(inactive()));
    for _ in 0..5 {
        assert_eq!(w.denied("junk").await, Denial::TokenInactive);
    }
    w.issuer.answers(Ok(active(&json!({ "aud": 1 }))));
    for _ in 0..5 {
        assert!(matches!(w.denied("refused").await, Denial::BadClaim(_)));
    }
    assert_eq!(w.issuer.calls(), 2);
    w.time.advance(secs(5));
    w.issuer.answers(Ok(active(&json!({}))));
    w.check("junk").await.unwrap();
    assert_eq!(w.issuer.calls(), 3);
    assert_eq!(w.results(), [("active", 1), ("inactive", 1), ("refused", 1)]);
}

#[tokio::test]
async fn i21_junk_drives_no_more_than_the_bucket_and_evicts_nothing() {
    let w = world(|it| it);
    w.check("good").await.unwrap();
    w.issuer.answers(Ok(inactive()));
    let mut limited = 0;
    for n in 0..1000 {
        limited += usize::from(matches!(
            w.check(&format!("junk-{n}")).await,
            Err(Denial::RateLimited("introspected_unseen", _))
        ));
    }
    assert_eq!((w.issuer.calls(), limited), (1 + 149, 851), "the good token took one of the 150 of strangers");
    // The known token goes on, from the cache and beyond it.
    w.issuer.answers(Ok(active(&json!({}))));
    w.check("good").await.unwrap();
    w.time.advance(Duration::from_millis(1));
    assert!(matches!(w.denied("junk-1000").await, Denial::RateLimited("introspected_unseen", _)));
    w.time.advance(secs(31));
    w.check("good").await.unwrap();
    let tokens = Arc::clone(&w.checker.keys.load().introspected[0]);
    for n in 0..2 * MAX_INACTIVE {
        tokens.inactive.insert([n, n], InactiveToken { denial: Denial::TokenInactive, until: Timestamp::MAX });
    }
    tokens.inactive.run_pending_tasks();
    assert!(tokens.inactive.entry_count() <= MAX_INACTIVE);
    w.check("good").await.unwrap();
}

#[tokio::test]
async fn i21_junk_counts_as_forged_tokens_of_its_address() {
    let w = world(|it| it);
    w.issuer.answers(Ok(inactive()));
    let source = Some(IpAddr::from([192, 0, 2, 1]));
    let mut admitted = 0;
    for n in 0..100 {
        let token = format!("junk-{n}");
        if !matches!(w.check_from(source, &token, None), Err(Denial::IntrospectionUnavailable(_))) {
            continue;
        }
        admitted += 1;
        let answer = w.checker.awaited_introspection(&token, Some(&|_| true), false).unwrap().ended().await;
        answer.unwrap().record(&w.limits, source.into());
    }
    assert_eq!(admitted, 51, "the burst of forged_per_address, and the one that exceeds it");
    assert_eq!(w.issuer.calls(), 51);
}

#[tokio::test]
async fn i20_a_fault_decides_nothing_and_is_not_remembered() {
    let w = world(|it| it);
    for answer in [
        Err(IntrospectionFault::new("timeout", "slow")),
        Err(IntrospectionFault::new(IntrospectionFault::CLIENT_REFUSED, "401")),
        Ok(json!({ "active": "true" })),
        Ok(json!({ "active": 1 })),
        Ok(json!({})),
        Ok(json!([])),
    ] {
        let before = w.issuer.calls();
        w.issuer.answers(answer);
        assert!(is_unavailable(w.denied("opaque").await));
        assert_eq!(w.issuer.calls(), before + 1);
    }
    w.issuer
        .answers(Err(IntrospectionFault { retry_after: Some(secs(7)), ..IntrospectionFault::new("status", "503") }));
    assert_eq!(w.denied("opaque").await, Denial::IntrospectionUnavailable(secs(7)));
    assert_eq!(w.results(), [("client_refused", 1), ("malformed", 4), ("status", 1), ("timeout", 1)]);
    w.issuer.answers(Ok(active(&json!({}))));
    w.time.advance(secs(7));
    w.check("opaque").await.unwrap();
    // A good token passes while its response is valid, and no longer.
    w.issuer.fails();
    w.time.advance(secs(29));
    w.check("opaque").await.unwrap();
    w.time.advance(secs(1));
    assert!(is_unavailable(w.denied("opaque").await));
}

#[tokio::test]
async fn i20_a_response_may_count_for_longer_while_the_issuer_fails() {
    let w = world(|it| it.stale_if_error(secs(60)));
    w.check("opaque").await.unwrap();
    w.issuer.fails();
    w.time.advance(secs(31));
    w.check("opaque").await.unwrap();
    assert_eq!(w.issuer.calls(), 2, "it was asked first");
    w.check("opaque").await.unwrap();
    assert_eq!(w.issuer.calls(), 2, "and then not again at once");
    w.time.advance(secs(2));
    w.issuer.answers(Ok(inactive()));
    assert_eq!(w.denied("opaque").await, Denial::TokenInactive, "an answer counts at once");
    let w = world(|it| it.stale_if_error(secs(60)));
    w.check("opaque").await.unwrap();
    w.issuer.fails();
    w.time.advance(secs(90));
    assert!(is_unavailable(w.denied("opaque").await));
}

#[tokio::test]
async fn i21_a_question_that_crashes_is_a_fault_and_leaves_no_trace() {
    #[derive(Debug)]
    struct Crashes;
    #[async_trait]
    impl Introspector for Crashes {
        async fn introspect(&self, _: &str) -> Result<Bytes, IntrospectionFault> {
            panic!("a fault of the introspector")
        }
        fn identity(&self) -> Box<[u8]> {
            b"crashes".as_slice().into()
        }
    }
    let w = with_rules(|_| vec![IssuerRules::introspected(URL, vec!["api".into()], Introspection::by(Crashes))]);
    assert!(is_unavailable(w.denied("opaque").await));
    assert!(w.checker.keys.load().introspected[0].flights.is_empty());
}

#[tokio::test(start_paused = true)]
async fn i21_questions_under_way_are_bounded_in_number_and_time() {
    const STRANGERS: usize = MAX_UNSEEN_FLIGHTS - UNSEEN_FLIGHTS_KEPT;
    let w = Arc::new(world(|it| it));
    w.check("known").await.unwrap();
    w.issuer.doors.forget_permits(Semaphore::MAX_PERMITS);
    let mut waiting = Vec::new();
    for n in 0..STRANGERS {
        let w = Arc::clone(&w);
        // In this time the bucket of unseen tokens earns one token.
        w.time.advance(Duration::from_millis(5));
        waiting.push(tokio::spawn(async move { w.check(&format!("token-{n}")).await }));
        tokio::task::yield_now().await;
    }
    w.settle().await;
    assert_eq!(w.issuer.calls(), 1 + STRANGERS);
    assert!(is_unavailable(w.denied("one-more").await));
    assert_eq!(w.issuer.calls(), 1 + STRANGERS);
    // A token that was good has a place of its own.
    w.time.advance(secs(30));
    let known = {
        let w = Arc::clone(&w);
        tokio::spawn(async move { w.check("known").await })
    };
    w.settle().await;
    assert_eq!(w.issuer.calls(), 2 + STRANGERS);
    // No answer comes: tokio's paused clock moves on to the bound.
    for one in waiting.into_iter().chain([known]) {
        assert!(is_unavailable(one.await.unwrap().unwrap_err()));
    }
    w.issuer.doors.add_permits(1);
    w.check("one-more").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a19_strangers_leave_questions_to_addresses_that_had_good_tokens() {
    let w = world(|it| it);
    let known = Some(IpAddr::from([198, 51, 100, 1]));
    let stranger = |n: usize| Some(IpAddr::from([10, 0, (n >> 8) as u8, n as u8]));
    w.limits.record_valid(known);
    // Each below the limit of its address: first the questions under way, then those of a second.
    w.issuer.doors.forget_permits(Semaphore::MAX_PERMITS);
    for n in 0..1000 {
        w.check_from(stranger(n), &format!("slow-{n}"), None).unwrap_err();
    }
    w.settle().await;
    let asked = w.issuer.calls();
    assert_eq!(asked, MAX_UNSEEN_FLIGHTS - UNSEEN_FLIGHTS_KEPT);
    for n in 0..40 {
        assert!(is_unavailable(w.check_from(known, &format!("good-{n}"), None).unwrap_err()), "{n}");
    }
    w.settle().await;
    assert_eq!(w.issuer.calls(), asked + 40, "each of them is asked about");
    let second = w.check_from(stranger(1), "good-40", None);
    assert!(matches!(second, Err(Denial::RateLimited("introspected_unseen", _))), "{second:?}");
    // A stranger alone is not refused.
    let idle = world(|it| it);
    for n in 0..100 {
        idle.check(&format!("new-{n}")).await.unwrap();
    }
}

#[tokio::test]
async fn i21_a_revocation_of_ours_counts_at_once() {
    let late = T0.plus(secs(86_400));
    let issuer: Arc<str> = URL.into();
    for (target, effect) in [
        (Target::Token { issuer: issuer.clone(), jti: "j".into() }, Effect::Gone),
        (Target::Subject { issuer: issuer.clone(), subject: "ada".into() }, Effect::NotBefore(T0)),
        (Target::Client { issuer: issuer.clone(), client: "app".into() }, Effect::NotBefore(T0)),
        (Target::Global, Effect::NotBefore(T0)),
    ] {
        let w = world(|it| it);
        let verified = w.check("opaque").await.unwrap();
        w.revocations.apply(&Revocation { target, effect, until: late });
        assert_eq!(w.denied("opaque").await, Denial::TokenRevoked);
        assert_eq!(w.issuer.calls(), 1, "from the cache");
        assert_eq!(w.checker.check_again(&verified, None, OnExpiry::Close), Err(Denial::TokenRevoked));
        // A token that was not seen before is refused, too.
        assert_eq!(w.denied("another").await, Denial::TokenRevoked);
        assert_eq!(w.denied("another").await, Denial::TokenRevoked);
        assert_eq!(w.issuer.calls(), 2);
    }
}

#[tokio::test]
async fn i21_a_long_connection_asks_again_each_time_that_the_response_is_old() {
    let w = world(|it| it);
    let verified = w.check("opaque").await.unwrap();
    let again = || w.checker.check_again(&verified, None, OnExpiry::Close);
    for _ in 0..23 {
        w.time.advance(secs(1));
        again().unwrap();
    }
    assert_eq!(w.issuer.calls(), 1);
    w.time.advance(secs(2));
    again().unwrap();
    w.settle().await;
    assert_eq!(w.issuer.calls(), 2);
    w.issuer.fails();
    // A fault ends it only when no answer came for longer than a question takes.
    for _ in 0..59 {
        w.time.advance(secs(1));
        again().unwrap();
        w.settle().await;
    }
    w.time.advance(secs(1));
    assert!(is_unavailable(again().unwrap_err()));
    let w = world(|it| it);
    let verified = w.check("opaque").await.unwrap();
    let again = || w.checker.check_again(&verified, None, OnExpiry::Close);
    w.issuer.answers(Ok(inactive()));
    w.time.advance(secs(30));
    again().unwrap();
    w.settle().await;
    assert_eq!(again(), Err(Denial::TokenInactive));
    // This holds although the cache does not have the token.
    let w = world(|it| it.negative(Duration::ZERO));
    let verified = w.check("opaque").await.unwrap();
    let again = || w.checker.check_again(&verified, None, OnExpiry::Close);
    w.issuer.answers(Ok(inactive()));
    w.checker.keys.load().introspected[0].seen.invalidate_all();
    again().unwrap();
    w.settle().await;
    assert_eq!(again(), Err(Denial::TokenInactive));
}

#[tokio::test]
async fn r15_a_long_connection_that_waits_for_the_issuer_goes_on_when_it_answers_again() {
    let w = world(|it| it);
    let verified = w.check("opaque").await.unwrap();
    let again = || w.checker.check_again(&verified, None, OnExpiry::Close);
    w.issuer.fails();
    w.time.advance(secs(61));
    for asked in 2..5 {
        assert!(is_unavailable(again().unwrap_err()));
        w.settle().await;
        assert_eq!(w.issuer.calls(), asked, "no request asks");
        assert!(is_unavailable(again().unwrap_err()));
        w.settle().await;
        assert_eq!(w.issuer.calls(), asked, "once a second");
        w.time.advance(secs(1));
    }
    w.issuer.answers(Ok(active(&json!({}))));
    assert!(is_unavailable(again().unwrap_err()));
    w.settle().await;
    again().unwrap();
    w.time.advance(secs(90));
    w.issuer.answers(Ok(inactive()));
    assert!(is_unavailable(again().unwrap_err()));
    w.settle().await;
    assert_eq!(again(), Err(Denial::TokenInactive));
}

#[tokio::test]
async fn i20_a_connection_that_may_outlive_its_token_does_so() {
    let w = world(|it| it);
    let verified = w.check("opaque").await.unwrap();
    w.issuer.answers(Ok(inactive()));
    w.time.advance(secs(3601));
    w.checker.check_again(&verified, None, OnExpiry::Keep).unwrap();
    w.settle().await;
    w.checker.check_again(&verified, None, OnExpiry::Keep).unwrap();
    assert_eq!(w.issuer.calls(), 1);
    w.time.advance(secs(60));
    assert_eq!(w.checker.check_again(&verified, None, OnExpiry::Close), Err(Denial::TokenExpired));
}

fn keyring() -> Keyring {
    Keyring::generate(Algorithm::EdDsa).unwrap()
}

fn jwt(keyring: &Keyring) -> String {
    let claims = MintedClaims {
        bound_to: None,
        certificate: None,
        vouched_by: None,
        issuer: URL,
        subject: "ada",
        audience: &["api".into()],
        expires: T0.plus(secs(3600)),
        issued_at: T0,
        jti: "j",
        client: "app",
        scope: &Scope::parse("read").unwrap(),
        session: None,
        account: None,
        delegation: None,
        own: None,
        style: TokenStyle::default(),
    };
    mint(keyring.signer(), &claims).unwrap().expose().to_owned()
}

fn keys(keyring: &Keyring) -> IssuerKeys {
    IssuerKeys::from_jwks(keyring.jwks().to_string().as_bytes(), None).unwrap()
}

#[tokio::test]
async fn i20_a_jwt_is_verified_by_keys_alone_unless_its_issuer_is_always_asked() {
    let ring = keyring();
    let beside = |settings: fn(Introspection) -> Introspection| {
        with_rules(|introspection| {
            let rules = IssuerRules::external(URL, vec!["api".into()], keys(&ring));
            vec![rules.introspection(settings(introspection))]
        })
    };
    let w = beside(|it| it);
    w.issuer.answers(Ok(inactive()));
    w.check(&jwt(&ring)).await.unwrap();
    assert_eq!(w.denied(&jwt(&keyring())).await, Denial::UnknownKey);
    assert_eq!(w.issuer.calls(), 0);
    assert_eq!(w.denied("opaque").await, Denial::TokenInactive);
    assert_eq!(w.issuer.calls(), 1);

    let w = beside(Introspection::always);
    w.issuer.answers(Ok(inactive()));
    assert_eq!(w.denied(&jwt(&ring)).await, Denial::TokenInactive, "the issuer has the last word");
    assert_eq!(w.issuer.calls(), 1);
    let forged = {
        let good = jwt(&ring);
        let (message, signature) = good.rsplit_once('.').unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(vec![7; URL_SAFE_NO_PAD.decode(signature).unwrap().len()]))
    };
    assert_eq!(w.denied(&forged).await, Denial::BadSignature);
    assert_eq!(w.denied(&jwt(&keyring())).await, Denial::UnknownKey);
    assert_eq!(w.issuer.calls(), 1, "a forged token costs no question");
    w.time.advance(secs(5));
    w.issuer.answers(Ok(active(&json!({ "sub": "eve" }))));
    assert_eq!(&*w.check(&jwt(&ring)).await.unwrap().token().subject, "eve");

    let w =
        with_rules(|introspection| vec![IssuerRules::introspected(URL, vec!["api".into()], introspection.always())]);
    w.check(&jwt(&ring)).await.unwrap();
    assert_eq!(w.issuer.calls(), 1, "without keys it is asked about each");
    let w = world(|it| it);
    assert_eq!(w.denied(&jwt(&ring)).await, Denial::UnknownKey, "without `always` about none");
    assert_eq!(w.issuer.calls(), 0);
}

#[tokio::test]
async fn i20_no_other_server_sees_what_is_not_its_own() {
    let w = world(|it| it.prefix("ory_at_"));
    let (limits, confirmations) = (&*w.limits, &*w.confirmations);
    let shown = || MissContext { limits, confirmations, source: None.into(), introspected: None };
    for token in ["rg1_AAAA", "other", "ory_at_ü", "ory_at_a b", &"ory_at_".repeat(4000)] {
        assert!(matches!(w.denied(token).await, Denial::MalformedToken(_)), "{token:.20}");
    }
    // A route that does not accept the issuer, and a call that names no issuer.
    let token = Credential::new("ory_at_1");
    let elsewhere = w.checker.check(Check { taken: Some(&|_| false), ..token.into() }, shown, &mut ());
    assert!(matches!(elsewhere, Err(Denial::MalformedToken(_))));
    assert!(matches!(w.checker.check(token, shown, &mut ()), Err(Denial::MalformedToken(_))));
    assert_eq!(w.issuer.calls(), 0);
    w.check("ory_at_1").await.unwrap();
}

#[tokio::test]
async fn i21_other_keys_forget_no_introspected_token_and_other_rules_do() {
    let w = world(|it| it);
    w.check("opaque").await.unwrap();
    let rules = |scope: &str| {
        let rules =
            IssuerRules::introspected(URL, vec!["api".into()], Introspection::by(Arc::clone(&w.issuer))).named("idp");
        rules.scopes(Some(Scope::parse(scope).unwrap()))
    };
    let another = IssuerRules::external("https://other.test", vec!["api".into()], keys(&keyring()));
    assert!(w.checker.set_verifier(Verifier::new(vec![rules("read"), another]).unwrap()));
    w.check("opaque").await.unwrap();
    assert_eq!(w.issuer.calls(), 1);
    assert!(w.checker.set_verifier(Verifier::new(vec![rules("write")]).unwrap()));
    assert!(w.check("opaque").await.unwrap().token().scope.is_empty());
    assert_eq!(w.issuer.calls(), 2);
    w.checker.set_verifier(Verifier::new(Vec::new()).unwrap());
    assert!(matches!(w.denied("opaque").await, Denial::MalformedToken(_)));
}

#[tokio::test]
async fn d14_the_digest_of_an_introspected_token_is_computed_once() {
    let w = world(|it| it);
    let verified = w.check("opaque").await.unwrap();
    assert_eq!(verified.digest(|_| None), None, "no digest is kept that could not be computed");
    assert_eq!(verified.digest(|_| Some([1; 32])), Some([1; 32]));
    // A hit of the cache is the same token.
    let known = w.check("opaque").await.unwrap();
    assert_eq!(known.digest(|_| panic!("computed again")), Some([1; 32]));
}

#[tokio::test]
async fn i20_a_pause_that_the_issuer_asks_for_is_for_all_tokens_and_kept_answers_count_on() {
    let w = world(|it| it.cache(secs(10)).stale_if_error(secs(120)));
    w.check("good").await.unwrap();
    let busy = |of_asker| {
        let fault = IntrospectionFault::new("status", "it answered");
        Err(IntrospectionFault { retry_after: Some(secs(30)), of_asker, ..fault })
    };
    w.issuer.answers(busy(false));
    assert_eq!(w.denied("one").await, Denial::IntrospectionUnavailable(secs(30)));
    w.issuer.answers(Ok(active(&json!({}))));
    w.time.advance(secs(10));
    assert_eq!(w.denied("two").await, Denial::IntrospectionUnavailable(secs(20)));
    w.check("good").await.unwrap();
    assert_eq!(w.issuer.calls(), 2);
    w.time.advance(secs(20));
    w.check("two").await.unwrap();
    // With another status than 503 it is for one token, unless the issuer refuses two in a row.
    w.issuer.answers(busy(true));
    assert_eq!(w.denied("three").await, Denial::IntrospectionUnavailable(secs(30)));
    let calls = w.issuer.calls();
    assert_eq!(w.denied("three").await, Denial::IntrospectionUnavailable(secs(30)));
    assert_eq!(w.issuer.calls(), calls);
    w.issuer.answers(Ok(active(&json!({}))));
    w.check("four").await.unwrap();
    w.issuer.answers(busy(true));
    for token in ["five", "six", "seven"] {
        assert_eq!(w.denied(token).await, Denial::IntrospectionUnavailable(secs(30)));
    }
    assert_eq!(w.issuer.calls(), calls + 3, "the third is not asked about");
}

#[tokio::test]
async fn i20_without_a_cache_a_pause_is_for_all_tokens_too() {
    let w = world(|it| it.cache(Duration::ZERO));
    let fault = IntrospectionFault::new("status", "it answered 503");
    w.issuer.answers(Err(IntrospectionFault { retry_after: Some(secs(30)), ..fault }));
    assert_eq!(w.denied("one").await, Denial::IntrospectionUnavailable(secs(30)));
    w.time.advance(secs(10));
    assert_eq!(w.denied("two").await, Denial::IntrospectionUnavailable(secs(20)));
    assert_eq!(w.issuer.calls(), 1);
}

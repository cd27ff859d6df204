//! A reply that outlives the grace period until its tokens are used: I71 to I76.

use std::collections::HashSet;

use super::model::LIMITS;
use super::*;
use rotogate_core::session::confirm::token_digest;
use support::random::Random;

mod between;
mod losses;
mod stored;

const HOUR: u64 = 3600;

/// A provider that ends the login if a refresh token is presented twice.
#[derive(Default)]
struct Strict {
    state: Mutex<Login>,
    next: Mutex<Option<Step>>,
    /// Holds its replies back, unless open.
    held: Mutex<Option<Arc<Semaphore>>>,
}

#[derive(Default)]
struct Login {
    /// The number in the valid refresh token.
    valid: usize,
    presented: Vec<String>,
    has_ended: bool,
}

rotogate_core::debug_with!(Strict);

impl Strict {
    fn presented(&self) -> Vec<String> {
        self.state.lock().unwrap().presented.clone()
    }

    fn has_ended(&self) -> bool {
        self.state.lock().unwrap().has_ended
    }

    /// Holds replies back until permits are added.
    fn hold(&self) -> Arc<Semaphore> {
        let held = Arc::new(Semaphore::new(0));
        *self.held.lock().unwrap() = Some(Arc::clone(&held));
        held
    }

    /// What happens to the next request instead.
    fn next(&self, step: Step) {
        *self.next.lock().unwrap() = Some(step);
    }
}

#[async_trait]
impl Provider for Strict {
    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        let form: Vec<_> = form_urlencoded::parse(&request.body).collect();
        let token = form.iter().find(|(name, _)| name == "refresh_token").unwrap().1.to_string();
        let step = self.next.lock().unwrap().take();
        match step {
            Some(Step::NotSent) => return Err(SendError::NotSent("no connection".to_owned())),
            Some(Step::Reply(reply)) => return Ok(reply),
            Some(Step::Lost | Step::Silent) | None => {}
        }
        self.state.lock().unwrap().presented.push(token.clone());
        let held = self.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.acquire().await.unwrap().forget();
        }
        let mut login = self.state.lock().unwrap();
        let is_valid = token == format!("refresh-{}", login.valid);
        login.has_ended |= !is_valid;
        if login.has_ended {
            return Ok(dead());
        }
        login.valid += 1;
        match step {
            None => Ok(granted(login.valid)),
            Some(_) => Err(SendError::Lost("closed".to_owned())),
        }
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        oauth::read(token, reply)
    }

    fn aged(&self, reply: ProviderReply, passed: Duration) -> ProviderReply {
        oauth::aged(reply, passed)
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        oauth::access_token(reply)
    }

    fn renewal(&self, request: &ProviderRequest, reply: &ProviderReply) -> Option<crate::relay::Renewal> {
        oauth::renewal(request, reply)
    }

    async fn revoke(&self, _: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        Ok((true, reply(200, "")))
    }
}

struct Setting {
    world: World,
    provider: Arc<Strict>,
}

impl Setting {
    fn new() -> Self {
        let world = World::new();
        world.ended.2.accepts.store(true, Ordering::SeqCst);
        Self { world, provider: Arc::default() }
    }

    fn relay(&self) -> Arc<Relay> {
        self.relay_with(RelayRules::default())
    }

    fn relay_with(&self, rules: RelayRules) -> Arc<Relay> {
        Arc::new(Relay::new(self.parts(rules)).unwrap())
    }

    fn parts(&self, rules: RelayRules) -> RelayParts {
        let World { time, clock, store, ended, keyring, .. } = &self.world;
        RelayParts {
            endpoint: "/auth/token".to_owned(),
            settings: RelaySettings {
                sealer: Sealer::new(keyring, "/auth/token", "https://id.example/token"),
                rules,
                provider: self.provider.clone(),
            },
            store: store.clone(),
            is_alone: false,
            counts_proofs: None,
            end_tokens: ended.clone(),
            clock: clock.clone(),
            limits: LIMITS.clone(),
            time: time.clone(),
        }
    }

    fn fails(&self, operation: Option<&'static str>) {
        *self.world.store.fails.lock().unwrap() = operation;
    }

    async fn rows(&self) -> usize {
        let mut number = 0;
        for space in [EXCHANGES, KEPT_REPLIES, TOKEN_USES] {
            number += self.world.store.inner.row_keys(space, None, usize::MAX).await.unwrap().len();
        }
        number
    }
}

/// A request of the client with this refresh token.
fn refresh(n: usize) -> Presented {
    let token = format!("refresh-{n}");
    let body = format!("grant_type=refresh_token&client_id=spa&refresh_token={token}").into_bytes();
    let request = ProviderRequest { body: Zeroizing::new(body), ..ProviderRequest::default() };
    Presented { request, ..presented(&token) }
}

/// The number of the pair that the client got, or `None` if it must log in again.
async fn pair(relay: &Relay, presented: Presented) -> Option<usize> {
    match relay.exchange(presented).await {
        RelayAnswer::Reply(reply, _) if reply.status == 200 => {
            let token = oauth::access_token(&reply).unwrap();
            Some(token.strip_prefix("access-").unwrap().parse().unwrap())
        }
        RelayAnswer::Reply(..) | RelayAnswer::InvalidGrant(_) => None,
        other => panic!("{other:?}"),
    }
}

async fn use_access(relay: &Relay, n: usize) {
    relay.record_uses(&[token_digest(&format!("access-{n}"))]).await.unwrap();
}

#[tokio::test]
async fn i71_hours_after_a_lost_reply_the_old_token_gets_a_new_pair_by_one_exchange() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    setting.world.pass(23 * HOUR);
    let all: Vec<_> = (0..20).map(|_| start(&relay, refresh(0))).collect();
    let mut sources = HashSet::new();
    for one in all {
        let (body, source) = body(one.await.unwrap());
        assert!(body.contains("refresh-2"), "{body}");
        sources.insert(format!("{source:?}"));
    }
    assert!(sources.contains("Renewed"), "{sources:?}");
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-1"]);
    // The new reply is repeated within grace, then kept as the first one was.
    setting.world.pass(20);
    let (again, source) = body(relay.exchange(refresh(0)).await);
    assert!(again.contains("refresh-2") && again.contains("280"), "{again}");
    assert_eq!(source, Source::Replayed);
    setting.world.pass(23 * HOUR);
    assert_eq!(pair(&relay, refresh(0)).await, Some(3));
    // This reply arrives. The client goes on with it.
    assert_eq!(pair(&relay, refresh(3)).await, Some(4));
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-1", "refresh-2", "refresh-3"]);
    assert!(!setting.provider.has_ended());
}

#[tokio::test]
async fn i71_the_window_ends_and_can_be_absent() {
    for (window, wait) in [(24 * HOUR, 24 * HOUR), (0, 31), (20, 31)] {
        let setting = Setting::new();
        let lost_response_window = Duration::from_secs(window);
        let relay = setting.relay_with(RelayRules { lost_response_window, ..RelayRules::default() });
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        setting.world.pass(wait);
        assert_eq!(pair(&relay, refresh(0)).await, None, "{window}");
        assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-0"], "the provider detects the reuse");
    }
}

#[tokio::test]
async fn i72_a_use_of_either_token_at_any_gate_ends_the_window() {
    for by_access in [true, false] {
        let setting = Setting::new();
        let [relay, other] = [setting.relay(), setting.relay()];
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        setting.world.pass(HOUR);
        if by_access {
            use_access(&other, 1).await;
        } else {
            assert_eq!(pair(&other, refresh(1)).await, Some(2));
        }
        assert_eq!(pair(&relay, refresh(0)).await, None, "{by_access}");
        assert_eq!(setting.provider.presented().last().unwrap(), "refresh-0", "the provider detects the reuse");
        assert!(setting.provider.has_ended());
    }
}

#[tokio::test]
async fn i72_within_grace_a_used_reply_is_repeated_as_before() {
    let setting = Setting::new();
    let relay = setting.relay();
    let first = body(relay.exchange(refresh(0)).await).0;
    use_access(&relay, 1).await;
    assert_eq!(body(relay.exchange(refresh(0)).await), (first, Source::Replayed));
    setting.world.pass(31);
    assert_eq!(pair(&relay, refresh(0)).await, None);
}

/// The thief exchanges the token first, does not use the new access token, and waits for the owner.
#[tokio::test]
async fn i73_a_thief_who_waits_with_an_unused_pair_is_detected_by_the_provider() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1), "the thief");
    setting.world.pass(5 * HOUR);
    assert_eq!(pair(&relay, refresh(0)).await, Some(2), "the owner");
    // The relay does not answer the abandoned token from memory, not even within grace.
    assert_eq!(pair(&relay, refresh(1)).await, None, "the thief");
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-1", "refresh-1"]);
    assert!(setting.provider.has_ended());
}

#[tokio::test]
async fn i74_a_pair_that_was_ended_is_not_renewed_and_the_provider_decides() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    setting.world.pass(HOUR);
    setting.world.ended.2.has_ended.store(true, Ordering::SeqCst);
    assert_eq!(pair(&relay, refresh(0)).await, None);
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-0"]);
    setting.world.ended.2.has_ended.store(false, Ordering::SeqCst);
    setting.world.pass(31);
    assert_eq!(pair(&relay, refresh(0)).await, None, "the reply is gone");
    assert_eq!(setting.provider.presented().len(), 3);
}

#[tokio::test]
async fn i74_a_revocation_of_either_refresh_token_removes_the_reply() {
    for revoked in [0, 1] {
        let setting = Setting::new();
        let relay = setting.relay();
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        setting.world.pass(HOUR);
        relay.revoke(refresh(revoked)).await;
        let ended: HashSet<_> = setting.world.ended.0.lock().unwrap().drain(..).collect();
        let expected: &[&str] = if revoked == 0 { &["access-1"] } else { &[] };
        assert_eq!(ended, expected.iter().map(|token| (*token).to_owned()).collect());
        assert_eq!(pair(&relay, refresh(0)).await, None, "{revoked}");
        assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-0"]);
    }
}

#[tokio::test]
async fn i75_only_replies_whose_use_the_gate_would_see_are_kept_longer() {
    let long = format!(r#"{{"access_token":"access-1","refresh_token":"refresh-1","x":"{}"}}"#, "x".repeat(16 << 10));
    let old = r#"{"access_token":"access-1"}"#.to_owned();
    for (accepts, reply_body) in [(false, None), (true, Some(long)), (true, Some(old))] {
        let setting = Setting::new();
        setting.world.ended.2.accepts.store(accepts, Ordering::SeqCst);
        if let Some(body) = reply_body {
            setting.provider.next(Step::Reply(reply(200, &body)));
        }
        let relay = setting.relay();
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        assert_eq!(relay.kept_replies(), (0, 0));
        setting.world.pass(31);
        let sent = setting.provider.presented().len();
        pair(&relay, refresh(0)).await;
        assert_eq!(setting.provider.presented()[sent..], ["refresh-0"]);
    }
}

#[tokio::test]
async fn i75_another_presenter_gets_nothing_of_a_kept_reply() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    setting.world.pass(HOUR);
    let other = Presented { presenter: Presenter { client: "other".into(), ..Presenter::default() }, ..refresh(0) };
    assert_eq!(pair(&relay, other).await, None);
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-0"]);
}

#[tokio::test]
async fn i76_a_lost_reply_to_the_kept_token_is_treated_as_one_to_a_presented_token() {
    for (after_unknown, retried) in [(AfterUnknown::TryOnce, true), (AfterUnknown::Refuse, false)] {
        let setting = Setting::new();
        let relay = setting.relay_with(RelayRules { after_unknown, ..RelayRules::default() });
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        setting.world.pass(HOUR);
        setting.provider.next(Step::NotSent);
        assert_eq!(unavailable(relay.exchange(refresh(0)).await).0, "provider_unreachable");
        setting.provider.next(Step::Lost);
        assert_eq!(unavailable(relay.exchange(refresh(0)).await).0, "relay_unknown");
        assert_eq!(pair(&relay, refresh(0)).await, None);
        let sent: &[&str] = &["refresh-0", "refresh-1", "refresh-1"];
        assert_eq!(setting.provider.presented(), &sent[..if retried { 3 } else { 2 }]);
    }
}

#[tokio::test]
async fn i76_a_refusal_of_the_kept_token_is_the_answer_and_ends_the_window() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    setting.world.pass(HOUR);
    setting.provider.next(Step::Reply(dead()));
    assert_eq!(pair(&relay, refresh(0)).await, None);
    assert_eq!(body(relay.exchange(refresh(0)).await).1, Source::Replayed);
    setting.world.pass(31);
    assert_eq!(pair(&relay, refresh(0)).await, None);
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-0"]);
}

#[tokio::test]
async fn i76_while_the_store_fails_nothing_is_sent_and_a_use_is_noted_again() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    setting.world.pass(HOUR);
    for operation in ["load", "insert"] {
        *setting.world.store.fails.lock().unwrap() = Some(operation);
        unavailable(relay.exchange(refresh(0)).await);
    }
    *setting.world.store.fails.lock().unwrap() = Some("remove");
    relay.record_uses(&[token_digest("access-1")]).await.unwrap_err();
    unavailable(relay.exchange(refresh(1)).await);
    assert_eq!(setting.provider.presented(), ["refresh-0"]);
    *setting.world.store.fails.lock().unwrap() = None;
    use_access(&relay, 1).await;
    assert_eq!(pair(&relay, refresh(0)).await, None);
}

#[tokio::test]
async fn i76_two_gates_exchange_a_kept_token_once() {
    let setting = Setting::new();
    let [a, b] = [setting.relay(), setting.relay()];
    assert_eq!(pair(&a, refresh(0)).await, Some(1));
    setting.world.pass(HOUR);
    let answers = tokio::join!(a.exchange(refresh(0)), b.exchange(refresh(0)));
    for answer in [answers.0, answers.1] {
        match answer {
            RelayAnswer::Reply(reply, _) => assert!(text(&reply).contains("refresh-2")),
            RelayAnswer::Unavailable { reason, .. } => assert_eq!(reason, "relay_pending"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pair(&b, refresh(0)).await, Some(2));
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-1"]);
}

/// Schedules of two holders of one refresh token. A holder who has used the access token of a pair shows that it arrived.
#[tokio::test]
async fn i73_of_two_holders_who_both_go_on_one_is_detected() {
    for seed in 0..2000 {
        let mut dice = Random::from_seed(seed);
        let setting = Setting::new();
        let relay = setting.relay();
        // The pair of each holder, and whether its access token was used.
        let mut holds = [0, 0];
        let mut used = HashSet::new();
        let mut steps = Vec::new();
        for _ in 0..14 {
            let who = usize::from(dice.one_in(2));
            match dice.below(4) {
                0 => setting.world.pass([1, 40, HOUR][dice.below(3) as usize]),
                1 if holds[who] > 0 => {
                    use_access(&relay, holds[who]).await;
                    used.insert(holds[who]);
                }
                _ => {
                    let before = holds[who];
                    let latest = setting.provider.state.lock().unwrap().valid;
                    let got = pair(&relay, refresh(before)).await;
                    steps.push((who, before, got));
                    let Some(got) = got else { break };
                    // A pair that is newer than the newest was issued. If somebody used the newest, only its holder goes
                    // on.
                    let goes_on = got > latest;
                    assert!(!goes_on || before == latest || !used.contains(&latest), "seed {seed}: {steps:?}");
                    holds[who] = got;
                }
            }
        }
        let sent = setting.provider.presented();
        let once: HashSet<_> = sent.iter().collect();
        assert!(once.len() == sent.len() || setting.provider.has_ended(), "seed {seed}: {sent:?}");
    }
}

/// A client whose replies are lost now and then, at gates that are killed now and then.
#[tokio::test]
async fn i71_an_honest_client_is_never_logged_out_however_many_replies_are_lost() {
    for seed in 0..500 {
        let mut dice = Random::from_seed(seed);
        let setting = Setting::new();
        let mut relay = setting.relay();
        let mut holds = 0;
        for _ in 0..20 {
            let got = pair(&relay, refresh(holds)).await.unwrap_or_else(|| panic!("seed {seed}"));
            if dice.one_in(2) {
                holds = got;
                if dice.one_in(2) {
                    use_access(&relay, got).await;
                }
            }
            setting.world.pass([1, 29, 31, HOUR, 23 * HOUR][dice.below(5) as usize]);
            if dice.one_in(4) {
                relay = setting.relay();
            }
        }
        assert!(!setting.provider.has_ended(), "seed {seed}");
    }
}

#[test]
fn i75_the_rows_of_a_relay_are_bounded_in_number_and_size_and_have_an_end() {
    use super::super::kept::{CountedRows, MAX_KEPT, MAX_KEPT_BYTES};
    let id = |n: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        RowKey(id)
    };
    let (now, until) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
    let mut rows = CountedRows::default();
    assert!((0..MAX_KEPT).all(|n| rows.add(id(n), until, 1, now)));
    assert!(!rows.add(id(MAX_KEPT), until, 1, now), "one more");
    assert!(rows.add(id(0), until, 1, now), "a reply takes the place of its predecessor");
    rows.remove(id(1));
    assert!(rows.add(id(MAX_KEPT), until, 1, now));
    assert!(rows.add(id(MAX_KEPT + 1), Timestamp::from_secs(3), MAX_KEPT_BYTES, until), "all others have ended");
    assert!(!rows.add(id(0), until, 1, now), "one more byte");
}

#[tokio::test]
async fn i75_a_reply_that_another_gate_removed_is_no_longer_counted() {
    let setting = Setting::new();
    let [a, b] = [setting.relay(), setting.relay()];
    assert_eq!(pair(&a, refresh(0)).await, Some(1));
    assert_eq!(pair(&a, refresh(1)).await, Some(2));
    assert_eq!(a.kept_replies(), (1, 0), "the second, for which the first made room");
    use_access(&b, 2).await;
    assert_eq!((a.kept_replies(), b.kept_replies()), ((1, 0), (0, 0)));
    a.count_again().await.unwrap();
    assert_eq!(a.kept_replies(), (0, 0));
}

#[test]
fn i75_every_row_has_its_turn_to_be_looked_up() {
    use super::super::kept::CountedRows;
    let mut rows = CountedRows::default();
    let ids: Vec<_> = (0..5).map(|n| RowKey([n; 32])).collect();
    assert!(ids.iter().all(|id| rows.add(*id, Timestamp::from_secs(9), 1, Timestamp::ZERO)));
    let turns: Vec<_> = (0..4).map(|_| rows.next(2)).collect();
    assert_eq!(turns, [&ids[..2], &ids[2..4], &ids[4..], &ids[..2]]);
}

//! Events for a simulated receiver. The tests move the time, and run the steps of an outbox one by one.

mod stalls;

use std::sync::LazyLock;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::receiver::Receiver;

use super::super::ReceiverSettings;
use super::super::outbox::{KEPT_FOR, MAX_PAUSE, MAX_STORED, MAX_WAITING, SAVE_EVERY, TRIES, TURN};
use super::super::record::{LEASE, RENEW};
use super::super::streams::tests::{FakeGate, gate};
use super::*;
use rotogate_core::clock::{ManualTime, TimeSource};
use rotogate_core::engine::ended::{End, EndPlace, EndedBatch};
use rotogate_core::http_client::HttpClient;
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::{RevokedBecause, Session};
use rotogate_core::store::conformance::{gone, insert, session};
use rotogate_core::store::relay::RelayStore;
use rotogate_core::store::{Cursor, MemoryStore, Store, StoreError};
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::event_key::EventKey;
use rotogate_core::token::keyring::KeyMaterial;

const ISS: &str = "https://gate.test";
const TOKEN: &str = "token-of-the-gate-at-the-receiver";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

static KEY: LazyLock<Arc<EventKey>> =
    LazyLock::new(|| Arc::new(EventKey::new(&KeyMaterial::generate(Algorithm::Rs256).unwrap()).unwrap()));

#[async_trait]
impl ReceiverGate for FakeGate {
    fn issuer(&self) -> Arc<str> {
        ISS.into()
    }

    fn adopted(&self) -> Timestamp {
        Timestamp::ZERO
    }

    async fn ended_since(&self, after: Cursor) -> Result<(EndedBatch, Cursor), StoreError> {
        self.begins("ended_since");
        self.reads().await;
        let (entries, end) = self.store.revocations_since(after).await?;
        Ok((EndedBatch::new(ISS, &entries), end))
    }

    async fn next_ends(
        &self,
        batch: &EndedBatch,
        clients: &[Box<str>],
        place: EndPlace,
    ) -> Result<(Vec<End>, Option<EndPlace>), StoreError> {
        self.begins("next_ends");
        batch.next(&*self.store, ISS, clients, place, self.now()).await
    }
}

struct World {
    at: Receiver,
    time: Arc<ManualTime>,
    store: Arc<MemoryStore>,
    is_shared: bool,
    plan: ReceiverPlan,
    _folder: support::Place,
    sessions: Vec<Session>,
}

impl World {
    fn new(is_shared: bool) -> Self {
        let at = Receiver::start(TOKEN);
        let folder = support::Place::new("");
        let file = folder.path("token");
        std::fs::write(&file, TOKEN).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let settings = ReceiverSettings {
            name: "siem".into(),
            url: at.url.as_str().into(),
            audience: "https://siem.test".into(),
            token_file: file,
            clients: vec!["web".into()],
        };
        let (key, http) = (Arc::clone(&KEY), HttpClient::new().unwrap());
        Self {
            plan: ReceiverPlan { settings, key, http, fingerprint: String::new() },
            at,
            time: ManualTime::at(Timestamp::from_secs(1_800_000_000)),
            store: Arc::new(MemoryStore::new(ISS, Duration::ZERO)),
            is_shared,
            _folder: folder,
            sessions: Vec::new(),
        }
    }

    /// A run of the program.
    fn begin(&self, run: u8) -> Outbox {
        let gate: Arc<dyn ReceiverGate> = gate(&self.store, &self.time, self.is_shared);
        let record = record(&gate, &self.plan, [run; 16]);
        Outbox::new(gate, record, (self.plan.clone(), Arc::default()))
    }

    /// Ends this number of the client's sessions.
    async fn end(&mut self, number: usize) {
        for _ in 0..number {
            let number = self.sessions.len() as u64;
            let session = session("ada", number, self.time.wall());
            insert(&*self.store, &session).await;
            self.store.revoke(gone(session.id), RevokedBecause::Reuse).await.unwrap();
            self.sessions.push(session);
        }
    }

    /// Steps of so long, and the sweeps of a gate.
    async fn steps(&self, outbox: &mut Outbox, number: usize, length: Duration) {
        for _ in 0..number {
            outbox.step().await.unwrap();
            self.time.advance(length);
            self.store.sweep(self.time.wall()).await.unwrap();
        }
    }

    fn taken(&self) -> Vec<String> {
        self.at
            .state()
            .taken
            .iter()
            .map(|token| part(token, 1)["sub_id"]["session"]["id"].as_str().unwrap().into())
            .collect()
    }

    fn ids(&self) -> Vec<String> {
        self.sessions.iter().map(|session| session.id.to_string()).collect()
    }

    fn asked(&self) -> usize {
        self.at.state().asked.len()
    }

    fn answers(&self, status: u16, body: &str) {
        let body = body.to_owned();
        self.at.state().lie = Some(Box::new(move |_| Some((status, body.clone()))));
    }
}

fn part(token: &str, number: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap()).unwrap()
}

fn figures(outbox: &Outbox) -> [u64; 4] {
    let counted = &outbox.counted;
    [&counted.sent, &counted.refused, &counted.dropped, &counted.waiting].map(|count| count.load(Ordering::Relaxed))
}

#[tokio::test]
async fn s24_s27_an_event_is_a_token_of_its_own_key_and_says_what_ended() {
    let mut world = World::new(false);
    world.end(1).await;
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    assert_eq!(world.asked(), 0, "a new receiver hears of what ends from now on");
    world.end(1).await;
    outbox.step().await.unwrap();
    let asked = world.at.state().asked.first().cloned().unwrap();
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/events"));
    let (header, mut claims) = (part(&asked.text, 0), part(&asked.text, 1));
    assert_eq!(header, json!({ "alg": "RS256", "typ": "secevent+jwt", "kid": KEY.kid() }));
    let names: Vec<_> = ["jti", "txn"].iter().map(|name| claims.as_object_mut().unwrap().remove(*name)).collect();
    assert!(names.iter().all(|name| name.as_ref().unwrap().as_str().unwrap().len() == 22));
    let now = 1_800_000_000;
    let expected = json!({
        "iss": ISS,
        "iat": now,
        "aud": "https://siem.test",
        "sub_id": {
            "format": "complex",
            "user": { "format": "iss_sub", "iss": ISS, "sub": "ada" },
            "session": { "format": "opaque", "id": world.ids()[1] },
        },
        "events": { SESSION_REVOKED: {
            "event_timestamp": now, "initiating_entity": "policy", "reason_admin": { "en": "reuse" },
        } },
    });
    assert_eq!(claims, expected, "no exp, no sub");
    assert_eq!(figures(&outbox), [1, 0, 0, 0]);
}

#[tokio::test]
async fn s25_events_come_in_order_and_a_kill_before_the_position_is_kept_repeats_them() {
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    world.end(3).await;
    // The third event fails, so the position is not stored. Then the program is killed.
    let mut number = 0;
    world.at.state().lie = Some(Box::new(move |_| {
        number += 1;
        (number == 3).then(|| (503, String::new()))
    }));
    outbox.step().await.unwrap();
    assert_eq!(world.taken(), world.ids()[..2]);
    drop(outbox);
    let mut outbox = world.begin(2);
    outbox.step().await.unwrap();
    let ids = world.ids();
    assert_eq!(world.taken(), [&ids[..2], &ids].concat(), "none is lost");
    let jti = |number: usize| part(&world.at.state().taken[number], 1)["jti"].clone();
    assert_eq!((jti(0), jti(1)), (jti(2), jti(3)), "a repetition has the same name");
    assert_ne!(jti(0), jti(1));
    drop(outbox);
    // Once the position was stored, no event is repeated.
    world.begin(3).step().await.unwrap();
    assert_eq!(world.taken().len(), 5);
}

#[tokio::test]
async fn s22_s25_an_attempt_says_the_time_of_the_end_and_ends_no_later_login() {
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    world.answers(503, "");
    world.end(1).await;
    let until = world.time.wall();
    let target = Target::Subject { issuer: ISS.into(), subject: "ada".into() };
    let entry = Revocation { target, effect: Effect::not_before(until, false), until: until.plus(KEPT_FOR) };
    world.store.revoke(entry, RevokedBecause::Logout).await.unwrap();
    // The gate reads the ends some time after they were written, tries often, and moves them to a row.
    world.time.advance(Duration::from_secs(7));
    world.steps(&mut outbox, 60, Duration::from_secs(60)).await;
    drop(outbox);
    let mut outbox = world.begin(2);
    world.at.state().lie = None;
    world.time.advance(MAX_PAUSE);
    outbox.step().await.unwrap();
    let state = world.at.state();
    let claims: Vec<_> = state.taken.iter().map(|token| part(token, 1)).collect();
    let times = |claims: &Value| {
        (claims["iat"].as_u64().unwrap(), claims["events"][SESSION_REVOKED]["event_timestamp"].as_u64().unwrap())
    };
    let (read, moment) = (until.plus(Duration::from_secs(7)).as_secs(), until.as_secs());
    assert_eq!(claims.iter().map(times).collect::<Vec<_>>(), [(read, read), (moment, moment)]);
    // One name has one content.
    for token in &state.asked {
        let tried = part(&token.text, 1);
        assert!(claims.contains(&tried), "{tried}");
    }
    assert!(state.asked.len() > 10);
}

#[tokio::test]
async fn s25_after_an_hour_without_the_receiver_all_events_come_in_order() {
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    world.answers(503, "");
    for _ in 0..360 {
        if world.sessions.len() < 20 {
            world.end(1).await;
        }
        outbox.step().await.unwrap();
        world.time.advance(Duration::from_secs(10));
    }
    assert!((10..20).contains(&world.asked()), "the pause grows: {}", world.asked());
    assert_eq!(figures(&outbox), [0, 0, 0, 20]);
    world.at.state().lie = None;
    world.time.advance(MAX_PAUSE);
    outbox.step().await.unwrap();
    assert_eq!(world.taken(), world.ids());
    assert_eq!(figures(&outbox), [20, 0, 0, 0]);
}

#[tokio::test]
async fn s25_an_event_that_waited_for_a_day_is_dropped_and_counted() {
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    world.answers(503, "");
    world.end(2).await;
    outbox.step().await.unwrap();
    world.time.advance(KEPT_FOR - Duration::from_secs(1));
    world.end(1).await;
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [0, 0, 0, 3]);
    world.time.advance(Duration::from_secs(1));
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [0, 0, 2, 1]);
    world.at.state().lie = None;
    world.time.advance(MAX_PAUSE);
    outbox.step().await.unwrap();
    assert_eq!(world.taken(), world.ids()[2..]);
}

#[tokio::test]
async fn s25_after_an_outage_of_a_day_with_kills_each_event_came_in_order_or_is_counted() {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    world.answers(503, "");
    // Ten hours: the store has forgotten the sessions. A session that ends just before the kill is still in the store.
    world.end(300).await;
    world.steps(&mut outbox, 20 * 60, MINUTE / 2).await;
    assert!(world.store.load(world.sessions[0].id).await.unwrap().is_none());
    world.end(1).await;
    outbox.step().await.unwrap();
    drop(outbox);
    let mut outbox = world.begin(2);
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [0, 0, 0, 301]);
    // Thirteen hours more, another kill, and an hour: the first 300 waited for a day.
    world.steps(&mut outbox, 13 * 60, MINUTE).await;
    drop(outbox);
    let mut outbox = world.begin(3);
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [0, 0, 0, 301]);
    world.steps(&mut outbox, 65, MINUTE).await;
    assert_eq!(figures(&outbox), [0, 0, 300, 1]);
    world.at.state().lie = None;
    world.time.advance(MAX_PAUSE);
    world.end(1).await;
    outbox.step().await.unwrap();
    assert_eq!(world.taken(), world.ids()[300..]);
    assert_eq!(figures(&outbox), [2, 0, 300, 0]);
    // The rows are gone: what is left is the record of the receiver.
    assert_eq!(world.store.relay_ids().await.unwrap().len(), 1);
    // A receiver that comes back within the day has all of them, once.
    world.answers(503, "");
    world.end(300).await;
    world.steps(&mut outbox, 120, MINUTE).await;
    drop(outbox);
    let mut outbox = world.begin(4);
    world.at.state().lie = None;
    outbox.step().await.unwrap();
    assert_eq!(world.taken(), world.ids()[300..]);
    drop(outbox);
    world.begin(5).step().await.unwrap();
    assert_eq!(world.taken().len(), 302);
    assert_eq!(world.store.relay_ids().await.unwrap().len(), 1);
}

#[tokio::test]
async fn s25_more_events_than_fit_in_memory_wait_in_the_store_and_outlive_the_records_of_their_sessions() {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    world.answers(503, "");
    let all = MAX_WAITING + 1000;
    world.end(all).await;
    let began = world.time.wall();
    world.steps(&mut outbox, 3, MINUTE / 60).await;
    // What is resolved at once may come on top.
    let [.., in_memory] = figures(&outbox);
    assert!((MAX_WAITING as u64..MAX_WAITING as u64 + 100).contains(&in_memory), "{in_memory}");
    // A kill between the first rows and the first position reads the same revocations again.
    world.time.advance(SAVE_EVERY);
    outbox.step().await.unwrap();
    assert!(world.store.relay_ids().await.unwrap().len() > 10);
    drop(outbox);
    let mut outbox = world.begin(2);
    world.steps(&mut outbox, 10, MINUTE).await;
    assert_eq!(figures(&outbox), [0, 0, 0, all as u64]);
    // The store forgets the sessions. After another kill the rows still have their ends.
    world.steps(&mut outbox, 120, MINUTE).await;
    assert!(world.store.load(world.sessions[all - 1].id).await.unwrap().is_none());
    drop(outbox);
    let mut outbox = world.begin(3);
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [0, 0, 0, all as u64]);
    // Those of the first reading waited for a day. The receiver hears of the others, in order, once.
    world.time.advance(began.plus(KEPT_FOR + SAVE_EVERY + MINUTE / 2).since(world.time.wall()));
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [0, 0, in_memory, all as u64 - in_memory]);
    world.at.state().lie = None;
    world.time.advance(MAX_PAUSE / 20);
    for _ in 0..3 {
        world.time.advance(MINUTE / 60);
        outbox.step().await.unwrap();
    }
    let first = usize::try_from(in_memory).unwrap();
    assert_eq!(world.taken(), world.ids()[first..]);
    assert_eq!(world.store.relay_ids().await.unwrap().len(), 1, "the rows are gone");
}

#[tokio::test]
async fn s25_events_beyond_the_bound_of_the_rows_are_dropped_and_counted() {
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    world.answers(503, "");
    world.end(3).await;
    outbox.step().await.unwrap();
    world.time.advance(SAVE_EVERY);
    outbox.step().await.unwrap();
    drop(outbox);
    // As if further rows had all that the bound allows.
    let gate: Arc<dyn ReceiverGate> = gate(&world.store, &world.time, false);
    let full = |known: &mut Sent| {
        let mut text = serde_json::to_value(&*known).unwrap();
        (text["events"], text["rows"][1]) = (MAX_STORED.into(), (text["rows"][1].as_u64().unwrap() + 1).into());
        *known = serde_json::from_value(text).unwrap();
        true
    };
    record(&gate, &world.plan, [2; 16]).change(full).await.unwrap();
    let mut outbox = world.begin(2);
    world.end(5).await;
    outbox.step().await.unwrap();
    world.time.advance(SAVE_EVERY);
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [0, 0, 5, MAX_STORED]);
    world.at.state().lie = None;
    world.time.advance(MAX_PAUSE);
    outbox.step().await.unwrap();
    assert_eq!(world.taken(), world.ids()[..3]);
    world.end(1).await;
    outbox.step().await.unwrap();
    assert_eq!(world.taken().last(), world.ids().last());
    assert_eq!(figures(&outbox), [4, 0, 5, 0]);
}

#[tokio::test]
async fn s25_a_slow_receiver_holds_up_no_reading() {
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    let time = Arc::clone(&world.time);
    world.at.state().lie = Some(Box::new(move |_| {
        time.advance(Duration::from_secs(10));
        None
    }));
    world.end(100).await;
    outbox.step().await.unwrap();
    assert_eq!(world.asked() as u64, TURN.as_secs() / 10);
    world.end(50).await;
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [12, 0, 0, 138]);
    for _ in 0..30 {
        outbox.step().await.unwrap();
    }
    assert_eq!(world.taken(), world.ids());
}

#[tokio::test]
async fn s25_an_event_that_the_receiver_calls_bad_is_skipped_and_holds_up_no_other() {
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    world.end(1).await;
    // The receiver has not read the key yet, so it accepts the event later.
    world.answers(400, r#"{"err":"invalid_key","description":"unknown kid"}"#);
    for _ in 0..2 * TRIES {
        outbox.step().await.unwrap();
        world.time.advance(MAX_PAUSE);
    }
    assert_eq!(figures(&outbox), [0, 0, 0, 1]);
    world.at.state().lie = None;
    outbox.step().await.unwrap();
    assert_eq!(figures(&outbox), [1, 0, 0, 0]);
    // An event that the receiver would reject again.
    world.end(2).await;
    let bad = world.ids()[1].clone();
    world.at.state().lie = Some(Box::new(move |asked| {
        let is_bad = part(&asked.text, 1)["sub_id"]["session"]["id"] == *bad;
        is_bad.then(|| (400, r#"{"err":"invalid_request"}"#.to_owned()))
    }));
    let before = world.asked();
    for _ in 0..TRIES {
        outbox.step().await.unwrap();
        world.time.advance(MAX_PAUSE);
    }
    assert_eq!(figures(&outbox), [2, 1, 0, 0]);
    assert_eq!(world.asked() - before, TRIES as usize + 1);
    assert_eq!(world.taken().last(), world.ids().last());
}

#[tokio::test]
async fn s25_of_two_gates_one_sends_and_the_other_takes_over() {
    let mut world = World::new(true);
    let (mut first, mut second) = (world.begin(1), world.begin(2));
    first.step().await.unwrap();
    assert_eq!(second.step().await.unwrap(), RENEW, "the first gate has it");
    world.end(2).await;
    second.step().await.unwrap();
    assert_eq!(world.taken().len(), 0);
    first.step().await.unwrap();
    assert_eq!(world.taken(), world.ids());
    // The first gate is killed with an event that it has not sent.
    world.end(1).await;
    world.time.advance(LEASE);
    second.step().await.unwrap();
    assert_eq!(world.taken(), world.ids(), "each once");
    assert_eq!(first.step().await.unwrap(), RENEW, "it comes back too late");
    assert_eq!(world.taken().len(), 3);
}

#[tokio::test]
async fn s25_a_gate_that_stood_still_for_longer_than_its_lease_goes_on_from_the_other_gates_position() {
    let mut world = World::new(true);
    let (mut first, mut second) = (world.begin(1), world.begin(2));
    first.step().await.unwrap();
    world.time.advance(LEASE);
    second.step().await.unwrap();
    world.end(3).await;
    second.step().await.unwrap();
    assert_eq!(world.taken(), world.ids());
    world.time.advance(LEASE);
    first.step().await.unwrap();
    assert_eq!(world.taken(), world.ids(), "each once");
}

#[tokio::test]
async fn s26_s25_no_other_host_gets_an_event_or_the_token() {
    let mut world = World::new(false);
    let mut outbox = world.begin(1);
    outbox.step().await.unwrap();
    let other = Receiver::start(TOKEN);
    world.end(1).await;
    world.answers(302, &other.url);
    outbox.step().await.unwrap();
    assert_eq!((world.asked(), other.state().asked.len()), (1, 0), "no redirect is followed");
    assert_eq!(figures(&outbox), [0, 0, 0, 1]);
}

//! Streams at a simulated transmitter. The tests move the time, and run the steps of a stream one by one.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use support::transmitter::{Asked, State, Transmitter};

use super::super::record::{LEASE, RENEW};
use super::super::{Access, NotTaken, StreamError, StreamSettings};
use super::*;
use rotogate_core::clock::{ManualTime, TimeSource, Timestamp};
use rotogate_core::denial::EventFlaw;
use rotogate_core::http_client::{Allowed, ClientCredentials, FetchTarget, HttpClient};
use rotogate_core::store::memory::MemoryStore;
use rotogate_core::store::relay::{RelayRecord, RelayStore};

const ISS: &str = "https://idp.test/";
const AUDIENCE: &str = "https://gate.test/events";
const TOKEN: &str = "token-of-the-receiver";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// A gate that judges events by a table. The tokens are not signed.
pub(crate) struct FakeGate {
    pub(crate) store: Arc<MemoryStore>,
    time: Arc<ManualTime>,
    is_shared: bool,
    key: hmac::Key,
    streams: OnceLock<Streams>,
    taken: Mutex<Vec<String>>,
    verdicts: Mutex<BTreeMap<String, NotTaken>>,
    /// Called before the gate reads or writes, with the name of the operation.
    pub(crate) hook: Mutex<Option<Hook>>,
    /// How long the gate reads revocations, in seconds of both clocks.
    pub(crate) reads_for: AtomicU64,
}

pub(crate) type Hook = Box<dyn FnMut(&str) + Send>;

impl FakeGate {
    pub(crate) fn begins(&self, operation: &str) {
        if let Some(hook) = &mut *self.hook.lock() {
            hook(operation);
        }
    }

    pub(crate) async fn reads(&self) {
        for _ in 0..self.reads_for.load(Ordering::Relaxed) {
            self.begins("ended_since");
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.time.advance(Duration::from_secs(1));
        }
    }
}

impl fmt::Debug for FakeGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeGate")
    }
}

#[async_trait]
impl StreamGate for FakeGate {
    async fn take(&self, issuer: &str, audience: &[Box<str>], set: SecretString) -> Result<(), NotTaken> {
        assert_eq!((issuer, audience), ("idp", &[AUDIENCE.into()][..]));
        let set = set.expose_secret();
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(set.split('.').nth(1).unwrap()).unwrap()).unwrap();
        let jti = claims["jti"].as_str().unwrap();
        if let Some(verdict) = self.verdicts.lock().get(jti) {
            return Err(*verdict);
        }
        let of =
            |kind: &str| claims["events"].get(format!("https://schemas.openid.net/secevent/ssf/event-type/{kind}"));
        let text = |value: &Value| value.as_str().map(Into::into);
        let verification = of("verification").map(|event| StreamNotice::Verification { state: text(&event["state"]) });
        let updated =
            of("stream-updated").map(|event| StreamNotice::Updated { status: text(&event["status"]).unwrap() });
        if let Some(notice) = verification.or(updated) {
            match self.streams.get().unwrap().hears(issuer, &notice).await {
                Ok(true) => {}
                Ok(false) => return Err(NotTaken::Refused(EventFlaw::State)),
                Err(_) => return Err(NotTaken::Undecided),
            }
        }
        self.taken.lock().push(jti.to_owned());
        Ok(())
    }

    fn note_critical_members(&self, issuer: &str, members: Vec<Box<str>>) {
        assert_eq!((issuer, members), ("idp", vec!["tenant".into()]));
    }

    fn records(&self) -> Arc<dyn RelayStore> {
        self.begins("records");
        Arc::clone(&self.store) as _
    }

    fn seals(&self, message: &[u8]) -> Vec<Vec<u8>> {
        vec![hmac::sign(&self.key, message).as_ref().to_vec()]
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn now(&self) -> Timestamp {
        self.time.wall()
    }
}

fn unsigned(claims: &Value) -> String {
    format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn transmitter() -> Transmitter {
    Transmitter::start(ISS, AUDIENCE, TOKEN, Box::new(unsigned))
}

/// A gate with one stream, whose steps the test runs.
struct World {
    gate: Arc<FakeGate>,
    streams: Streams,
    stream: Stream,
    is_alive: Arc<AtomicBool>,
    record: StreamRecord,
    _folder: support::Place,
}

fn plan(at: &Transmitter, delivery: Delivery) -> (StreamPlan, support::Place) {
    let folder = support::Place::new("");
    let file = folder.path("token");
    std::fs::write(&file, TOKEN).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let settings = StreamSettings {
        issuer: "idp".into(),
        iss: ISS.into(),
        transmitter: at.url.as_str().into(),
        hosts: Vec::new(),
        audience: vec![AUDIENCE.into()],
        events: vec![REVOKED.into()],
        delivery,
        verify_every: Duration::from_secs(3600),
    };
    let http = HttpClient::new().unwrap();
    (StreamPlan { settings, access: Access::File(file), http, fingerprint: at.url.clone() }, folder)
}

pub(crate) fn gate(store: &Arc<MemoryStore>, time: &Arc<ManualTime>, is_shared: bool) -> Arc<FakeGate> {
    Arc::new(FakeGate {
        store: Arc::clone(store),
        time: Arc::clone(time),
        is_shared,
        key: hmac::Key::new(hmac::HMAC_SHA256, b"of the keyring"),
        streams: OnceLock::new(),
        taken: Mutex::default(),
        verdicts: Mutex::default(),
        hook: Mutex::default(),
        reads_for: AtomicU64::default(),
    })
}

fn world_of(gate: Arc<FakeGate>, at: &Transmitter, delivery: Delivery) -> World {
    let (plan, folder) = plan(at, delivery);
    world_with(gate, plan, folder)
}

fn world_with(gate: Arc<FakeGate>, plan: StreamPlan, folder: support::Place) -> World {
    let streams = Streams::new(Arc::clone(&gate) as _).unwrap();
    gate.streams.set(streams.clone()).unwrap();
    let record = StreamRecord::new(Arc::clone(&gate) as _, &plan.settings.record_parts(), streams.0.run);
    let is_alive = Arc::<AtomicBool>::default();
    let stream = Stream::new(Arc::clone(&gate) as _, record.clone(), (plan.clone(), Arc::clone(&is_alive)));
    let task = TaskGuard::spawn(std::future::pending());
    let running = RunningStream { plan, record: record.clone(), is_alive: Arc::clone(&is_alive), task };
    streams.0.all.lock().push(running);
    World { gate, streams, stream, is_alive, record, _folder: folder }
}

fn world(at: &Transmitter) -> World {
    let store = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
    world_of(gate(&store, &ManualTime::at(Timestamp::from_secs(1_800_000_000)), false), at, Delivery::Poll)
}

impl World {
    fn alive(&self) -> bool {
        assert_eq!(self.streams.alive(), [("idp".into(), self.is_alive.load(Ordering::Relaxed))]);
        self.is_alive.load(Ordering::Relaxed)
    }

    fn taken(&self) -> Vec<String> {
        self.gate.taken.lock().clone()
    }
}

/// Answers polls at once.
fn at_once(asked: &Asked) -> Option<(u16, String)> {
    (asked.path == "/poll" && asked.body["ack"].is_null() && asked.body["setErrs"].is_null())
        .then(|| (200, json!({ "sets": {} }).to_string()))
}

fn user() -> Value {
    json!({ "format": "iss_sub", "iss": ISS, "sub": "user-1" })
}

fn acknowledged(at: &Transmitter) -> Vec<String> {
    at.state().acknowledged.clone()
}

#[tokio::test]
async fn s16_a_stream_is_created_and_found_again() {
    let at = transmitter();
    at.state().lie = Some(Box::new(at_once));
    let mut one = world(&at);
    assert!(one.stream.step().await > Duration::from_millis(500), "no transmitter is asked in a loop");
    let created = at.state().asked.iter().find(|asked| asked.path == "/streams").cloned().unwrap();
    let asked = json!({ "events_requested": [REVOKED], "delivery": { "method": "urn:ietf:rfc:8936" } });
    assert_eq!((created.method.as_str(), created.body), ("POST", asked));
    // After a restart, the gate knows the stream's id.
    let restarted = || world_of(gate(&one.gate.store, &one.gate.time, false), &at, Delivery::Poll);
    restarted().stream.step().await;
    assert_eq!((at.count("POST", "/streams"), at.count("PATCH", "/streams"), at.count("GET", "/streams")), (1, 1, 0));
    // A gate that does not know the id gets 409, and then uses the listed stream.
    world(&at).stream.step().await;
    assert_eq!((at.count("POST", "/streams"), at.count("PATCH", "/streams"), at.count("GET", "/streams")), (2, 2, 1));
    // A stream that the transmitter has forgotten is created again.
    at.state().stream = None;
    restarted().stream.step().await;
    assert_eq!((at.count("POST", "/streams"), at.count("PATCH", "/streams")), (3, 3));
}

/// A document of the transmitter, with some members changed.
fn changed(document: &str, changes: &Value) -> String {
    let mut document: Value = serde_json::from_str(document).unwrap();
    for (path, value) in changes.as_object().unwrap() {
        match (document.pointer_mut(path), value) {
            (Some(place), value) => *place = value.clone(),
            (None, _) => panic!("{path}"),
        }
    }
    document.to_string()
}

#[tokio::test]
async fn s16_each_lie_of_a_transmitter_is_refused_alone() {
    let metadata = "/.well-known/ssf-configuration/ssf";
    let at = transmitter();
    let base = at.url.trim_end_matches("/ssf").to_owned();
    let document = json!({
        "issuer": at.url, "configuration_endpoint": format!("{base}/streams"), "status_endpoint": format!("{base}/status"),
        "verification_endpoint": format!("{base}/verify"), "delivery_methods_supported": ["urn:ietf:rfc:8936"],
        "critical_subject_members": ["tenant"],
    })
    .to_string();
    let stream = json!({
        "stream_id": "f67e39a0", "iss": ISS, "aud": [AUDIENCE], "events_delivered": [REVOKED],
        "delivery": { "method": "urn:ietf:rfc:8936", "endpoint_url": format!("{base}/poll") },
    })
    .to_string();
    let of = |text: &str, changes: Value| changed(text, &changes);
    let elsewhere = "http://127.0.0.2:9/streams";
    let lies = [
        (metadata, 200, of(&document, json!({ "/issuer": "https://other.test/ssf" })), "issuer is not exactly"),
        (metadata, 200, of(&document, json!({ "/issuer": format!("{}/", at.url) })), "issuer is not exactly"),
        (metadata, 200, of(&document, json!({ "/status_endpoint": null })), "status_endpoint is missing"),
        (metadata, 200, of(&document, json!({ "/verification_endpoint": 1 })), "is not a text"),
        (metadata, 200, of(&document, json!({ "/delivery_methods_supported": [] })), "has no urn:ietf:rfc:8936"),
        (metadata, 200, of(&document, json!({ "/configuration_endpoint": elsewhere })), "is on another host"),
        (metadata, 200, of(&document, json!({ "/configuration_endpoint": "file:///etc/passwd" })), "is no URL"),
        (metadata, 200, document.replacen('{', "{\"issuer\":\"x\",", 1), "malformed"),
        (metadata, 200, format!("{{\"x\":\"{}\"}}", "y".repeat(300 << 10)), "longer than"),
        (metadata, 302, elsewhere.to_owned(), "no redirect is followed"),
        (metadata, 200, of(&document, json!({ "/critical_subject_members": "tenant" })), "critical_subject_members"),
        (metadata, 404, "{}".to_owned(), "404"),
        ("/streams", 201, of(&stream, json!({ "/iss": "https://other.test/" })), "iss of the stream"),
        ("/streams", 201, of(&stream, json!({ "/aud": "https://another.test" })), "stream of another receiver"),
        ("/streams", 201, of(&stream, json!({ "/aud": [AUDIENCE, "https://another.test"] })), "another receiver"),
        ("/streams", 201, of(&stream, json!({ "/aud": [] })), "another receiver"),
        ("/streams", 201, of(&stream, json!({ "/delivery/method": "urn:ietf:rfc:8935" })), "delivery.method"),
        ("/streams", 201, of(&stream, json!({ "/delivery/endpoint_url": null })), "endpoint_url is missing"),
        ("/streams", 201, of(&stream, json!({ "/stream_id": "" })), "is not a text"),
        ("/streams", 201, of(&stream, json!({ "/delivery/endpoint_url": elsewhere })), "is on another host"),
        ("/streams", 302, elsewhere.to_owned(), "no redirect is followed"),
        ("/streams", 202, stream.clone(), "answered 202"),
        ("/streams", 403, "{}".to_owned(), "answered 403"),
    ];
    for (path, status, body, says) in lies {
        let at = Transmitter::start(ISS, AUDIENCE, TOKEN, Box::new(unsigned));
        // The false URL has the port of another simulated transmitter.
        let own = at.url.trim_end_matches("/ssf").to_owned();
        let body = body.replace(&base, &own);
        at.state().lie = Some(Box::new(move |asked| {
            let is_it = asked.path == path && asked.method != "DELETE";
            if is_it { Some((status, body.clone())) } else { at_once(asked) }
        }));
        let mut world = world(&at);
        let error = world.stream.try_step().await.unwrap_err().to_string();
        assert!(error.contains(says) || says == "malformed" && !error.is_empty(), "{says}: {error}");
        assert!(world.stream.step().await >= Duration::from_millis(500), "a pause follows");
        assert_eq!(at.count("POST", "/poll"), 0, "{says}");
        assert!(!world.alive());
        let has_begun = at.count("POST", "/streams") > 0;
        assert_eq!(
            has_begun,
            path == "/streams",
            "{says}: nothing was sent to a transmitter that is not the right one"
        );
        let is_removed = at.count("DELETE", "/streams") > 0;
        assert_eq!(is_removed, status == 201 && !says.contains("text") && !says.contains("host"), "{says}");
    }
}

#[tokio::test]
async fn s16_a_host_that_is_listed_may_have_the_endpoints() {
    let (at, other) = (transmitter(), transmitter());
    let listed = other.address.to_string();
    let poll = format!("http://{listed}/poll");
    let stream = json!({
        "stream_id": "f67e39a0", "iss": ISS, "aud": AUDIENCE,
        "delivery": { "method": "urn:ietf:rfc:8936", "endpoint_url": poll },
    });
    at.state().lie = Some(Box::new(move |asked| {
        (asked.path == "/streams").then(|| (201, stream.to_string())).or_else(|| at_once(asked))
    }));
    other.state().lie = Some(Box::new(at_once));
    let mut strict = world(&at);
    strict.stream.step().await;
    let (plan, folder) = plan(&at, Delivery::Poll);
    let settings = StreamSettings { hosts: vec![listed.as_str().into()], ..plan.settings };
    let store = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
    let gate = gate(&store, &ManualTime::at(Timestamp::from_secs(1_800_000_000)), false);
    world_with(gate, StreamPlan { settings, ..plan }, folder).stream.step().await;
    assert_eq!((at.count("POST", "/poll"), other.count("POST", "/poll")), (0, 1));
}

#[tokio::test]
async fn s17_an_event_is_acknowledged_after_it_is_taken() {
    let at = transmitter();
    let mut world = world(&at);
    let event = json!({ REVOKED: { "event_timestamp": 1 } });
    at.send("good", &user(), &event);
    at.send("later", &user(), &event);
    at.send("refused", &user(), &event);
    world.gate.verdicts.lock().insert("later".to_owned(), NotTaken::Undecided);
    world.gate.verdicts.lock().insert("refused".to_owned(), NotTaken::Refused(EventFlaw::Audience));
    let pause = world.stream.step().await;
    assert!(
        pause >= Duration::from_millis(500),
        "an event that was not decided comes again, but not at once: {pause:?}"
    );
    assert_eq!(world.taken(), ["good", "verification-1"], "the answer to the first request is among them");
    assert_eq!(acknowledged(&at), Vec::<String>::new(), "no poll said anything yet");
    // The poll with the acknowledgements fails, so the next poll repeats them.
    at.state().lie = Some(Box::new(|asked| (asked.path == "/poll").then(|| (500, String::new()))));
    world.stream.step().await;
    assert_eq!(acknowledged(&at), Vec::<String>::new());
    at.state().lie = None;
    world.stream.step().await;
    assert_eq!(acknowledged(&at), ["good", "verification-1"]);
    assert_eq!(at.state().refused["refused"]["err"], "invalid_audience");
    assert_eq!(at.state().waiting.keys().collect::<Vec<_>>(), ["later"]);
    world.gate.verdicts.lock().clear();
    assert_eq!(world.stream.step().await, Duration::ZERO, "what is new is acknowledged at once");
    at.send("next", &user(), &event);
    world.stream.step().await;
    assert_eq!(acknowledged(&at).last().unwrap(), "later");
    assert_eq!(world.taken().last().unwrap(), "next");
}

#[tokio::test]
async fn s17_more_events_are_fetched_at_once_and_repeated_ones_are_not() {
    let at = transmitter();
    for number in 0..250 {
        at.send_text(&format!("e-{number:03}"), &unsigned(&json!({ "jti": format!("e-{number:03}"), "events": {} })));
    }
    let mut world = world(&at);
    for _ in 0..3 {
        assert_eq!(world.stream.step().await, Duration::ZERO);
    }
    assert!(world.taken().len() >= 250);
    // The gate does not poll in a loop if the transmitter forgets acknowledgements.
    let same =
        json!({ "sets": { "x": unsigned(&json!({ "jti": "x", "events": {} })) }, "moreAvailable": true }).to_string();
    at.state().lie = Some(Box::new(move |asked| (asked.path == "/poll").then(|| (200, same.clone()))));
    assert_eq!(world.stream.step().await, Duration::ZERO);
    assert!(world.stream.step().await > Duration::from_millis(100));
}

#[tokio::test]
async fn s18_one_gate_has_the_stream_and_another_takes_over() {
    let at = transmitter();
    at.state().lie = Some(Box::new(at_once));
    let store = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let mut first = world_of(gate(&store, &time, true), &at, Delivery::Poll);
    let mut second = world_of(gate(&store, &time, true), &at, Delivery::Poll);
    let polls = |of: &Transmitter| of.count("POST", "/poll");
    first.stream.step().await;
    for _ in 0..6 {
        assert_eq!(second.stream.step().await, RENEW, "another gate has it");
        time.advance(RENEW);
        let before = polls(&at);
        first.stream.step().await;
        assert_eq!(polls(&at), before + 1, "the lease is renewed");
    }
    // The first gate stops renewing its lease.
    time.advance(LEASE - Duration::from_secs(1));
    assert_eq!(second.stream.step().await, RENEW);
    time.advance(RENEW);
    let before = polls(&at);
    second.stream.step().await;
    assert_eq!(polls(&at), before + 1);
    assert!(LEASE + RENEW <= Duration::from_secs(20), "S18");
    assert_eq!(first.stream.step().await, RENEW, "it comes back too late");
    assert_eq!(polls(&at), before + 1);
    // A gate that stops in an orderly way releases the stream at once.
    second.streams.close().await;
    first.stream.step().await;
    assert_eq!(polls(&at), before + 2);
    assert_eq!(at.count("POST", "/streams"), 1, "there is one stream for all of them");
}

#[tokio::test]
async fn s18_a_record_that_no_gate_wrote_decides_nothing() {
    let at = transmitter();
    at.state().lie = Some(Box::new(at_once));
    let store = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let mut world = world_of(gate(&store, &time, true), &at, Delivery::Poll);
    world.stream.step().await;
    let id = store.relay_ids().await.unwrap()[0];
    type Forge = fn(&mut RelayRecord);
    let forged: [Forge; 4] = [
        |record| record.owner = [7; 16],
        |record| record.lease = Timestamp::MAX,
        |record| record.sealed.extend(b" "),
        |record| record.sealed.truncate(7),
    ];
    for forge in forged {
        let before = at.count("POST", "/poll");
        let real = store.load_relay(id).await.unwrap().unwrap();
        let mut record = real.clone();
        record.attempt += 1;
        forge(&mut record);
        store.swap_relay(id, real.version(), record).await.unwrap();
        world.stream.step().await;
        assert_eq!(at.count("POST", "/poll"), before + 1, "a forged lease stops no gate");
        assert!(!world.alive(), "and its stream is not called alive");
    }
    assert!(world.record.hold().await.unwrap().1);
}

/// Waits for the requested verification event, and takes it.
async fn verified(world: &mut World, at: &Transmitter) {
    at.until("a verification event", |state: &mut State| (!state.waiting.is_empty()).then_some(()));
    world.stream.step().await;
}

#[tokio::test]
async fn s21_a_stream_is_alive_if_its_verification_event_came() {
    let at = transmitter();
    let mut world = world(&at);
    world.stream.step().await;
    verified(&mut world, &at).await;
    assert!(world.alive());
    let asked = |at: &Transmitter| at.count("POST", "/verify");
    let first = at.state().asked.iter().find(|asked| asked.path == "/verify").cloned().unwrap();
    assert_eq!((first.body["stream_id"].as_str(), first.body["state"].as_str().unwrap().len()), (Some("f67e39a0"), 32));
    // The next verification event is due after `verify_every`. It does not arrive.
    at.state().lie = Some(Box::new(at_once));
    at.state().verifies = None;
    world.gate.time.advance(Duration::from_secs(3590));
    world.stream.step().await;
    assert_eq!(asked(&at), 1);
    world.gate.time.advance(Duration::from_secs(10));
    world.stream.step().await;
    assert_eq!((asked(&at), world.alive()), (2, true));
    world.gate.time.advance(Duration::from_secs(119));
    world.stream.step().await;
    assert!(world.alive());
    world.gate.time.advance(Duration::from_secs(1));
    world.stream.step().await;
    assert_eq!((asked(&at), world.alive()), (2, false), "silence is not health");
    // A verification event with another state is refused, and changes nothing.
    world.gate.time.advance(Duration::from_secs(300));
    at.state().verifies = Some(Box::new(|state| state.to_ascii_uppercase().into()));
    at.state().lie = None;
    world.stream.step().await;
    at.send("e-1", &user(), &json!({ REVOKED: {} }));
    verified(&mut world, &at).await;
    assert_eq!(asked(&at), 3);
    at.send("e-2", &user(), &json!({ REVOKED: {} }));
    world.stream.step().await;
    assert_eq!(at.state().refused["verification-3"]["err"], "invalid_state");
    assert!(!world.alive());
    // A verification event without a state was not requested. It is accepted, but proves nothing.
    at.send("own", &user(), &json!({ support::transmitter::VERIFICATION: {} }));
    world.stream.step().await;
    assert_eq!((world.taken().last().unwrap().as_str(), world.alive()), ("own", false));
    // The next event that arrives makes the stream alive again.
    at.state().verifies = Some(Box::new(|state| state.into()));
    world.gate.time.advance(Duration::from_secs(500));
    at.send("e-3", &user(), &json!({ REVOKED: {} }));
    world.stream.step().await;
    at.send("e-4", &user(), &json!({ REVOKED: {} }));
    world.gate.time.advance(Duration::from_secs(300));
    world.stream.step().await;
    verified(&mut world, &at).await;
    assert!(world.alive());
}

#[tokio::test]
async fn s21_a_paused_stream_is_asked_once_to_go_on() {
    let at = transmitter();
    let mut world = world(&at);
    world.stream.step().await;
    verified(&mut world, &at).await;
    assert!(world.alive());
    let stays = |asked: &Asked| {
        let paused = json!({ "stream_id": "f67e39a0", "status": "paused", "reason": "license" }).to_string();
        (asked.path == "/status").then_some((200, paused)).or_else(|| at_once(asked))
    };
    at.state().lie = Some(Box::new(stays));
    for _ in 0..3 {
        world.gate.time.advance(Duration::from_secs(3600));
        world.stream.step().await;
        assert!(!world.alive());
    }
    assert_eq!(at.count("POST", "/status"), 1, "one try");
    let asked = at.state().asked.iter().rfind(|asked| asked.method == "POST" && asked.path == "/status").cloned();
    assert_eq!(asked.unwrap().body, json!({ "stream_id": "f67e39a0", "status": "enabled" }));
    // The transmitter reports itself when the stream is enabled or disabled.
    at.state().lie = None;
    let updated = |jti: &str, status: &str| {
        let kind = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated";
        at.send(jti, &json!({ "format": "opaque", "id": "f67e39a0" }), &json!({ kind: { "status": status } }));
    };
    for (jti, status) in [("u-1", "enabled"), ("u-2", "disabled")] {
        updated(jti, status);
        world.stream.step().await;
        assert_eq!(world.alive(), status == "enabled");
    }
    // An unknown status, or the status of another stream, is ignored.
    for answer in [r#"{"stream_id":"other","status":"enabled"}"#, r#"{"status":"fine"}"#, "[]"] {
        at.state().lie = Some(Box::new(move |asked| {
            (asked.path == "/status").then(|| (200, answer.to_owned())).or_else(|| at_once(asked))
        }));
        world.gate.time.advance(Duration::from_secs(3600));
        world.stream.step().await;
        assert!(!world.alive());
    }
}

#[tokio::test]
async fn s21_a_pushed_verification_is_known_to_every_gate() {
    let at = transmitter();
    let store = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let push = || Delivery::Push("http://127.0.0.1:9/events".to_owned(), "of the endpoint".into());
    let mut first = world_of(gate(&store, &time, true), &at, push());
    let mut second = world_of(gate(&store, &time, true), &at, push());
    at.state().verifies = None;
    assert_eq!(first.stream.step().await, RENEW);
    assert_eq!(second.stream.step().await, RENEW);
    assert_eq!(at.count("POST", "/poll"), 0);
    let created = at.state().stream.clone().unwrap();
    let delivery = json!({
        "method": "urn:ietf:rfc:8935", "endpoint_url": "http://127.0.0.1:9/events",
        "authorization_header": "Bearer of the endpoint",
    });
    assert_eq!(created["delivery"], delivery);
    let state = at.state().asked.iter().find(|asked| asked.path == "/verify").unwrap().body["state"].clone();
    let event = |state: &Value| {
        SecretString::from(unsigned(
            &json!({ "jti": "v", "events": { support::transmitter::VERIFICATION: { "state": state } } }),
        ))
    };
    let taken = |world: &World, state: &Value| {
        let (gate, event) = (Arc::clone(&world.gate), event(state));
        async move { gate.take("idp", &[AUDIENCE.into()], event).await }
    };
    assert_eq!(taken(&second, &json!("x")).await, Err(NotTaken::Refused(EventFlaw::State)));
    assert_eq!(taken(&second, &state).await, Ok(()));
    assert_eq!(taken(&second, &state).await, Err(NotTaken::Refused(EventFlaw::State)), "once");
    first.stream.step().await;
    assert!(first.alive() && second.alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s29_a_reload_begins_what_is_new_and_ends_what_is_gone() {
    let at = transmitter();
    at.state().lie = Some(Box::new(at_once));
    let world = world(&at);
    let streams = Streams::new(Arc::clone(&world.gate) as _).unwrap();
    let (one, _folder) = plan(&at, Delivery::Poll);
    streams.replace(vec![one.clone()]);
    at.until("a poll", |state| state.asked.iter().any(|asked| asked.path == "/poll").then_some(()));
    // A kept stream keeps its flag. A stream that ends still has its own while the next one begins.
    let flags = |streams: &Streams| {
        streams.0.all.lock().iter().map(|one| Arc::as_ptr(&one.is_alive).addr()).collect::<Vec<_>>()
    };
    let first = flags(&streams);
    streams.replace(vec![one.clone()]);
    assert_eq!(flags(&streams), first, "the same configuration goes on");
    streams.replace(vec![StreamPlan { fingerprint: "another".to_owned(), ..one.clone() }]);
    assert_ne!(flags(&streams), first);
    let push = |token: &str| {
        let delivery = Delivery::Push("http://127.0.0.1:9/e".to_owned(), token.into());
        StreamPlan { settings: StreamSettings { delivery, ..one.settings.clone() }, ..one.clone() }
    };
    streams.replace(vec![push("a")]);
    let first = flags(&streams);
    streams.replace(vec![push("b")]);
    assert_ne!(flags(&streams), first, "another token of the sender");
    streams.replace(Vec::new());
    assert!(streams.alive().is_empty());
}

#[tokio::test]
async fn a_client_proves_itself_for_each_token_and_no_more_often() {
    let at = transmitter();
    at.state().lie = Some(Box::new(at_once));
    let (plan, folder) = plan(&at, Delivery::Poll);
    let url = format!("http://{}/token", at.address);
    let access = Access::Client {
        credentials: Arc::new(|| Ok(ClientCredentials::public("gate"))),
        token_url: Arc::new(move || FetchTarget::parse(&url, Allowed::by_operator()).ok()),
        scope: "ssf.read ssf.manage".to_owned(),
    };
    let store = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
    let gate = gate(&store, &ManualTime::at(Timestamp::from_secs(1_800_000_000)), false);
    let mut world = world_with(gate, StreamPlan { access, ..plan }, folder);
    world.stream.step().await;
    world.stream.step().await;
    assert_eq!((at.count("POST", "/token"), at.count("POST", "/poll")), (1, 2));
    let form = at.state().asked.iter().find(|asked| asked.path == "/token").unwrap().text.clone();
    assert_eq!(form, "grant_type=client_credentials&scope=ssf.read+ssf.manage&client_id=gate");
    // A refused token is not used again.
    at.state().lie = Some(Box::new(|asked| (asked.path == "/poll").then(|| (401, String::new()))));
    world.stream.step().await;
    at.state().lie = Some(Box::new(at_once));
    world.stream.step().await;
    assert_eq!(at.count("POST", "/token"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_task_panics_begins_anew() {
    let at = transmitter();
    let world = world(&at);
    let begun = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&begun);
    let hook = move |_: &str| assert!(count.fetch_add(1, Ordering::Relaxed) > 0, "a bug");
    *world.gate.hook.lock() = Some(Box::new(hook));
    let streams = Streams::new(Arc::clone(&world.gate) as _).unwrap();
    streams.replace(vec![plan(&at, Delivery::Poll).0]);
    for _ in 0..60 {
        if begun.load(Ordering::Relaxed) > 1 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it did not begin anew");
}

/// The answers of a transmitter that has moved all of its endpoints, but for its metadata.
fn moved(at: &Transmitter) -> impl FnMut(&Asked) -> Option<(u16, String)> + Send + 'static {
    let (url, base) = (at.url.clone(), format!("{}/moved", at.url.trim_end_matches("/ssf")));
    move |asked| {
        let answer = match asked.path.as_str() {
            "/.well-known/ssf-configuration/ssf" => json!({
                "issuer": url, "configuration_endpoint": format!("{base}/streams"),
                "status_endpoint": format!("{base}/status"), "verification_endpoint": format!("{base}/verify"),
                "critical_subject_members": ["tenant"],
            }),
            "/moved/streams" => {
                let mut delivery = asked.body["delivery"].clone();
                delivery["endpoint_url"] = format!("{base}/poll").into();
                json!({ "stream_id": "f67e39a0", "iss": ISS, "aud": AUDIENCE, "delivery": delivery })
            }
            "/moved/status" => json!({ "stream_id": "f67e39a0", "status": "enabled" }),
            "/moved/poll" => json!({ "sets": {} }),
            "/moved/verify" => json!({}),
            _ => return Some((503, String::new())),
        };
        Some((200, answer.to_string()))
    }
}

#[tokio::test]
async fn s17_a_transmitter_that_moves_its_endpoints_is_found_again() {
    let at = transmitter();
    let mut world = world(&at);
    world.stream.step().await;
    let found = |at: &Transmitter| at.count("GET", "/.well-known/ssf-configuration/ssf");
    // An event that is not decided says nothing about the endpoints.
    world.gate.verdicts.lock().insert("later".to_owned(), NotTaken::Undecided);
    at.send("later", &user(), &json!({ REVOKED: { "event_timestamp": 1 } }));
    for _ in 0..4 {
        assert!(matches!(world.stream.try_step().await, Err(StreamError::Undecided)));
        world.stream.step().await;
    }
    world.gate.verdicts.lock().clear();
    world.stream.step().await;
    at.send("good", &user(), &json!({ REVOKED: { "event_timestamp": 1 } }));
    world.stream.step().await;
    assert!(world.taken().contains(&"good".to_owned()));
    at.state().lie = Some(Box::new(moved(&at)));
    for _ in 0..3 {
        assert_eq!(found(&at), 1);
        world.stream.step().await;
    }
    world.stream.step().await;
    assert_eq!((found(&at), at.count("POST", "/moved/poll")), (2, 1));
    let polled = at.state().asked.last().unwrap().body.clone();
    assert!(polled["ack"].as_array().unwrap().contains(&json!("good")), "what was taken is acknowledged: {polled}");
    assert_eq!((at.count("PATCH", "/moved/streams"), at.count("POST", "/moved/streams")), (1, 0), "the same stream");
}

#[tokio::test]
async fn s21_status_and_verification_are_asked_for_where_the_transmitter_has_moved_them() {
    // The endpoint that still answers, and the one that is asked for at its new place.
    for (still, other) in [("/verify", "/moved/status"), ("/status", "/moved/verify")] {
        let at = transmitter();
        let push = Delivery::Push("http://127.0.0.1:9/events".to_owned(), "of the endpoint".into());
        let store = Arc::new(MemoryStore::new("https://gate.test", Duration::ZERO));
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        at.state().verifies = None;
        let mut world = world_of(gate(&store, &time, false), &at, push);
        world.stream.step().await;
        let mut moved = moved(&at);
        at.state().lie = Some(Box::new(move |asked| if asked.path == still { None } else { moved(asked) }));
        // The verification event does not come, so the next is due after minutes, and the status after an hour.
        for _ in 0..14 {
            time.advance(Duration::from_secs(300));
            world.stream.step().await;
        }
        assert!(at.state().asked.iter().any(|asked| asked.path == other), "{other}");
    }
}

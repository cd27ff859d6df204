//! A gate with a stand-in for a decision point.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use http::Request;
use http::request::Parts;
use rotogate_core::clock::{ManualTime, TimeSource};
use rotogate_core::decision::{DecisionFault, DecisionPoint};
use rotogate_core::engine::Origin;
use rotogate_core::route::{RouteDecision, RoutePolicy};
use rotogate_core::session::Scope;
use rotogate_core::store::memory::nodes::{MemoryNode, Way};
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::{EventProtocol, SentNotice};
use rotogate_core::token::{Algorithm, IssuerKeys, IssuerRules};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::Gate;
use crate::gate::{GateBuilder, Judgement, NewSession, Whose};
use rotogate_core::client::Client;

const IDP: &str = "https://idp.test";

type Answer = Result<PolicyDecision, DecisionFault>;

/// Answers all questions alike.
#[derive(Debug)]
struct StandIn {
    answer: Mutex<Answer>,
    asked: Mutex<Vec<Value>>,
    count: AtomicUsize,
    /// Each answer takes one, while answers are held back.
    released: Semaphore,
    holds: AtomicBool,
}

#[derive(Clone, Debug)]
struct Asked(Arc<StandIn>);

#[async_trait]
impl DecisionPoint for Asked {
    async fn decide(&self, question: &[u8], id: &str) -> Answer {
        assert_eq!(id.len(), 36);
        self.0.asked.lock().push(serde_json::from_slice(question).unwrap());
        self.0.count.fetch_add(1, Ordering::SeqCst);
        if self.0.holds.load(Ordering::SeqCst) {
            self.0.released.acquire().await.unwrap().forget();
        }
        self.0.answer.lock().clone()
    }

    fn identity(&self) -> Box<[u8]> {
        Box::default()
    }
}

struct World {
    gate: Gate,
    point: Asked,
    token: String,
}

fn rules(point: &Asked, allow: u64) -> DecisionPointRules {
    let times = Duration::from_secs(allow);
    DecisionPointRules { allow: times, deny: times, ..DecisionPointRules::new("pdp", point.clone()) }
}

fn route() -> Route {
    let claims = vec![rotogate_core::claim::ClaimPath::parse("org_id").unwrap()];
    let decision = RouteDecision { action: Some("read".into()), claims, ..RouteDecision::new("pdp", "order", "{id}") };
    let policy = RoutePolicy { decision: Some(Arc::new(decision)), ..RoutePolicy::default() };
    Route { id: "orders".into(), ..Route::new("/orders/{id}", policy) }
}

fn idp_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[7; 32])
}

/// A trusted issuer, which tells the gate of its users.
fn idp() -> IssuerRules {
    let x = URL_SAFE_NO_PAD.encode(idp_key().verifying_key().as_bytes());
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k1", "alg": "EdDSA", "use": "sig" });
    let keys = IssuerKeys::from_jwks(json!({ "keys": [key] }).to_string().as_bytes(), None).unwrap();
    IssuerRules::external(IDP, vec!["api".into()], keys).named("idp")
}

/// The issuer's event: the claims of a user have changed.
fn changed_claims(at: Timestamp) -> String {
    let header = json!({ "alg": "EdDSA", "typ": "secevent+jwt", "kid": "k1" });
    let uri = "https://schemas.openid.net/secevent/caep/event-type/token-claims-change";
    let claims = json!({ "iss": IDP, "aud": "gate", "iat": at.as_secs(), "jti": "e-1", "events": { uri: {} },
        "sub_id": { "format": "iss_sub", "iss": IDP, "sub": "ada" } });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(idp_key().sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}

impl World {
    async fn new(allow: u64) -> Self {
        Self::with(allow, Gate::builder().keys(Keyring::ephemeral().unwrap())).await
    }

    async fn with(allow: u64, builder: GateBuilder) -> Self {
        let point = Asked(Arc::new(StandIn {
            answer: Mutex::new(Ok(PolicyDecision::Permit)),
            asked: Mutex::default(),
            count: AtomicUsize::new(0),
            released: Semaphore::new(0),
            holds: AtomicBool::new(false),
        }));
        let gate = Self::gate(builder, &point, allow).await;
        let session = NewSession::new("ada", "web").scope("read").unwrap().claim("org_id", "42").unwrap();
        let token = gate.sessions().start(session).await.unwrap().access_token.expose().to_owned();
        Self { gate, point, token }
    }

    async fn gate(builder: GateBuilder, point: &Asked, allow: u64) -> Gate {
        let scoped = RoutePolicy { scopes: Scope::parse("admin").unwrap(), ..route().policy };
        let builder = builder
            .issuer("https://api.test")
            .client(Client::public("web"))
            .trusted_issuer(idp())
            .decision_point(rules(point, allow))
            .route(route())
            .route(Route::new("/admin/{id}", scoped))
            .route(Route::new("/free/{*rest}", RoutePolicy::default()));
        builder.build().await.unwrap()
    }

    /// Delivers the event of the issuer.
    async fn told(&self) -> Result<(), rotogate_core::fault::Error> {
        let gate = &self.gate.0;
        let (protocol, token) = (EventProtocol::SecurityEvents, changed_claims(gate.engine.clock().now()));
        let sent = SentNotice { protocol, issuer: "idp", audience: &["gate".into()], token: &token };
        let reported = gate.checker.verify_notice(sent).map_err(Into::into);
        gate.take_notice("idp", protocol, reported, &Origin::default()).await
    }

    fn head(&self, path: &str) -> Parts {
        let request = Request::get(path).header("host", "api.test");
        let request = request.header("authorization", format!("Bearer {}", self.token));
        request.body(()).unwrap().into_parts().0
    }

    /// The status of a request, its `Retry-After` and its challenge.
    async fn get(&self, path: &str) -> (u16, Option<String>, String) {
        match self.gate.judge(&self.head(path)).await {
            Judgement::Permitted(_) => (200, None, String::new()),
            Judgement::Refused(reply) => {
                let header = |name: &str| reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                (reply.status().as_u16(), header("retry-after"), header("www-authenticate").unwrap_or_default())
            }
            Judgement::Endpoint => panic!("an endpoint"),
        }
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.0
    }

    fn answers(&self, answer: Answer) {
        *self.point.0.answer.lock() = answer;
    }

    fn count(&self) -> usize {
        self.point.0.count.load(Ordering::SeqCst)
    }
}

fn unclear() -> Answer {
    Err(DecisionFault::new("it answered 500"))
}

fn busy(seconds: u64, of_asker: bool) -> Answer {
    let retry_after = Some(Duration::from_secs(seconds));
    Err(DecisionFault { retry_after, of_asker, ..DecisionFault::new("it answered 503") })
}

/// The rules of api/schemas of openid/authzen: access-evaluation-request, subject-base, action-base, resource-base.
fn meets_the_schema(question: &Value) {
    let members = |value: &Value, required: &[&str], known: Option<&[&str]>| {
        let object = value.as_object().unwrap();
        assert!(required.iter().all(|name| object.contains_key(*name)), "{value}");
        assert!(known.is_none_or(|known| object.keys().all(|name| known.contains(&name.as_str()))), "{value}");
    };
    let required = ["subject", "resource", "action"];
    members(question, &required, Some(&["subject", "resource", "action", "context"]));
    members(&question["subject"], &["type", "id"], None);
    members(&question["resource"], &["type", "id"], None);
    members(&question["action"], &["name"], None);
    let texts = ["/subject/type", "/subject/id", "/resource/type", "/resource/id", "/action/name"];
    assert!(texts.iter().all(|text| question.pointer(text).unwrap().is_string()), "{question}");
    let objects = ["/subject/properties", "/action/properties", "/context"];
    assert!(objects.iter().all(|object| question.pointer(object).unwrap().is_object()), "{question}");
}

#[tokio::test]
async fn k26_a_question_meets_the_schema_and_says_who_wants_what() {
    let world = World::new(0).await;
    assert_eq!(world.status("/orders/99%201").await, 200);
    let asked = world.point.0.asked.lock().pop().unwrap();
    meets_the_schema(&asked);
    let expected = json!({
        "subject": { "type": "user", "id": "ada", "properties": {
            "iss": "https://api.test", "client_id": "web", "scope": ["read"], "org_id": "42",
        } },
        "action": { "name": "read", "properties": { "method": "GET" } },
        "resource": { "type": "order", "id": "99%201" },
        "context": { "route": "orders" },
    });
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn k27_everything_but_a_decision_is_503_and_local_rules_come_first() {
    let world = World::new(0).await;
    assert_eq!(world.status("/orders/1").await, 200);
    world.answers(Ok(PolicyDecision::Deny));
    let (status, _, challenge) = world.get("/orders/1").await;
    assert_eq!(status, 403);
    assert!(!challenge.contains(" scope="), "{challenge}");
    world.answers(Ok(PolicyDecision::StepUp("gold".into())));
    let (status, _, challenge) = world.get("/orders/1").await;
    let expected = "Bearer error=\"insufficient_user_authentication\", acr_values=\"gold\"";
    assert_eq!((status, challenge.as_str()), (401, expected));
    world.answers(busy(7, false));
    let (status, retry, challenge) = world.get("/orders/1").await;
    assert_eq!((status, retry.as_deref(), challenge.as_str()), (503, Some("7"), ""));
    let before = world.count();
    assert_eq!(world.status("/admin/1").await, 403, "a scope is missing");
    let anonymous = Request::get("/orders/1").header("host", "api.test").body(()).unwrap().into_parts().0;
    assert!(matches!(world.gate.judge(&anonymous).await, Judgement::Refused(reply) if reply.status() == 401));
    assert_eq!(world.count(), before, "neither asks");
    let results = world.gate.0.running.decisions.results.counted();
    let words: Vec<_> = results.iter().map(|(point, word, count)| (&**point, *word, *count)).collect();
    assert_eq!(words, [("pdp", "deny", 1), ("pdp", "permit", 1), ("pdp", "step_up", 1), ("pdp", "unavailable", 1)]);
}

#[tokio::test]
async fn k27_k31_a_pause_that_the_decision_point_asks_for_is_for_all_callers_or_for_one() {
    for (of_asker, others) in [(false, (503, Some("20".to_owned()))), (true, (200, None))] {
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let builder = Gate::builder().keys(Keyring::ephemeral().unwrap()).time(Arc::<ManualTime>::clone(&time));
        let mut world = World::with(0, builder).await;
        world.answers(busy(30, of_asker));
        assert_eq!(world.get("/orders/1").await.1.as_deref(), Some("30"));
        world.answers(Ok(PolicyDecision::Permit));
        time.advance(Duration::from_secs(10));
        let (status, retry, _) = world.get("/orders/2").await;
        assert_eq!((status, retry.as_deref(), world.count()), (503, Some("20"), 1), "another question of the caller");
        let ada = world.token.clone();
        let session = NewSession::new("bob", "web").scope("read").unwrap();
        world.token = world.gate.sessions().start(session).await.unwrap().access_token.expose().to_owned();
        let (status, retry, _) = world.get("/orders/1").await;
        assert_eq!((status, retry), others);
        world.token = ada;
        time.advance(Duration::from_secs(20));
        assert_eq!(world.status("/orders/2").await, 200);
    }
}

#[tokio::test]
async fn k28_an_answer_is_kept_for_the_exact_request_and_is_forgotten_by_an_event_and_by_a_reload() {
    let world = World::new(60).await;
    for _ in 0..3 {
        assert_eq!(world.status("/orders/1").await, 200);
    }
    assert_eq!(world.count(), 1);
    assert_eq!((world.status("/orders/2").await, world.count()), (200, 2));
    assert_eq!((world.status("/orders/1").await, world.count()), (200, 2));
    world.told().await.unwrap();
    world.answers(Ok(PolicyDecision::Deny));
    assert_eq!((world.status("/orders/1").await, world.count()), (403, 3));
    world.answers(Ok(PolicyDecision::StepUp("gold".into())));
    assert_eq!((world.status("/orders/1").await, world.count()), (403, 3), "a refusal is kept");
    assert_eq!((world.status("/orders/2").await, world.count()), (401, 4));
    let (status, _, challenge) = world.get("/orders/2").await;
    assert_eq!((status, world.count(), challenge.contains("gold")), (401, 4, true), "with its challenge");
    let builder = Gate::builder().client(Client::public("web")).decision_point(rules(&world.point, 60)).route(route());
    let gate = world.gate.use_rules(world.gate.prepare_rules(builder).unwrap());
    world.answers(Ok(PolicyDecision::Permit));
    let world = World { gate, ..world };
    assert_eq!((world.status("/orders/1").await, world.count()), (200, 5));
    // A fault is no answer.
    let world = World::new(60).await;
    world.answers(unclear());
    assert_eq!([world.status("/orders/1").await, world.status("/orders/1").await], [503, 503]);
    assert_eq!(world.count(), 2);
}

#[tokio::test]
async fn k28_the_answers_of_each_gate_are_forgotten_by_an_event_also_if_the_store_fails() {
    let folder = tempfile::tempdir().unwrap();
    drop(Keyring::create(folder.path(), Algorithm::EdDsa).unwrap());
    let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
    let source = || Arc::clone(&time) as Arc<dyn TimeSource>;
    let first = Arc::new(MemoryNode::first("https://api.test", Gate::DEFAULT_LEEWAY, source()));
    let builder = |store: &Arc<MemoryNode>| {
        let keys = Keyring::load(folder.path()).unwrap();
        Gate::builder().keys(keys).time(source()).shared_store(Arc::<MemoryNode>::clone(store))
    };
    let told = World::with(60, builder(&first)).await;
    let gate = World::gate(builder(&Arc::new(first.another())), &told.point, 60).await;
    let other = World { gate, point: told.point.clone(), token: told.token.clone() };
    assert_eq!((told.status("/orders/1").await, other.status("/orders/1").await, told.count()), (200, 200, 2));
    told.answers(Ok(PolicyDecision::Deny));
    assert_eq!((told.status("/orders/1").await, other.status("/orders/1").await, told.count()), (200, 200, 2));
    told.told().await.unwrap();
    assert_eq!(told.status("/orders/1").await, 403);
    let asks_again = async {
        while other.status("/orders/1").await != 403 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asks_again).await.expect("the other gate forgets its answer");
    // The event is delivered again later, but its effect begins now.
    told.answers(Ok(PolicyDecision::Permit));
    assert_eq!(told.status("/orders/2").await, 200);
    told.answers(Ok(PolicyDecision::Deny));
    first.set_way(Way::Cut);
    assert!(told.told().await.is_err());
    assert_eq!(told.status("/orders/2").await, 403);
}

#[tokio::test]
async fn k28_requests_alike_ask_once_and_what_is_forgotten_meanwhile_is_not_kept() {
    let world = World::new(60).await;
    world.point.0.holds.store(true, Ordering::SeqCst);
    let both = async {
        let all = futures_util::future::join_all((0..8).map(|_| world.status("/orders/1")));
        let release = async {
            while world.count() == 0 {
                tokio::task::yield_now().await;
            }
            world.gate.0.running.decisions.forget_all();
            world.point.0.released.add_permits(1);
        };
        tokio::join!(all, release).0
    };
    assert_eq!(both.await, [200; 8]);
    assert_eq!(world.count(), 1);
    world.point.0.holds.store(false, Ordering::SeqCst);
    assert_eq!((world.status("/orders/1").await, world.count()), (200, 2), "the answer is from before");
}

#[tokio::test]
async fn k28_a_request_after_answers_were_forgotten_joins_no_earlier_question() {
    let world = World::new(60).await;
    world.point.0.holds.store(true, Ordering::SeqCst);
    let asked = async |count| {
        while world.count() < count {
            tokio::task::yield_now().await;
        }
    };
    let later = async {
        asked(1).await;
        world.gate.0.running.decisions.forget_all();
        let second = async {
            asked(2).await;
            // The first question ends first, and takes no other flight with it.
            world.point.0.released.add_permits(1);
        };
        let third = async {
            asked(2).await;
            while world.gate.0.running.decisions.results.counted().is_empty() {
                tokio::task::yield_now().await;
            }
            world.answers(Ok(PolicyDecision::Deny));
            tokio::join!(world.status("/orders/1"), async { world.point.0.released.add_permits(1) }).0
        };
        let (second_status, (), third_status) = tokio::join!(world.status("/orders/1"), second, third);
        (second_status, third_status)
    };
    let (first, (second, third)) = tokio::join!(world.status("/orders/1"), later);
    assert_eq!((first, second, third, world.count()), (200, 403, 403, 2));
}

#[test]
fn k28_a_full_memory_keeps_no_more_answers_and_is_swept_once_a_second() {
    let decisions = Decisions::default();
    let at = |millis: u64| Timestamp::from_millis(1_800_000_000_000 + millis);
    let key = |n: usize| {
        let mut key = QuestionKey::default();
        key[..8].copy_from_slice(&n.to_be_bytes());
        key
    };
    let keep = |n, until, now| {
        let kept = KeptDecision { decision: PolicyDecision::Permit, until: at(until) };
        decisions.keep(key(n), kept, 0, at(now));
        decisions.find(&key(n), at(now)).is_some()
    };
    assert!((0..MAX_KEPT).all(|n| keep(n, if n == 0 { 500 } else { 5000 }, 0)));
    assert!(!keep(MAX_KEPT, 5000, 0), "all others still count");
    assert!(!keep(MAX_KEPT, 5000, 999), "the sweep was less than a second ago");
    assert!(keep(MAX_KEPT, 5000, 1000));
    assert_eq!(decisions.state.lock().kept.len(), MAX_KEPT);
}

#[tokio::test]
async fn k28_two_users_on_one_path_at_once_have_an_answer_each() {
    let world = World::new(60).await;
    let session = NewSession::new("bob", "web").scope("read").unwrap().claim("org_id", "42").unwrap();
    let token = world.gate.sessions().start(session).await.unwrap().access_token.expose().to_owned();
    let bob = World { gate: world.gate.clone(), point: world.point.clone(), token };
    world.point.0.holds.store(true, Ordering::SeqCst);
    let asked = async |count| {
        while world.count() < count {
            tokio::task::yield_now().await;
        }
    };
    let later = async {
        asked(1).await;
        let answers = async {
            asked(2).await;
            world.point.0.released.add_permits(1);
            while world.gate.0.running.decisions.results.counted().is_empty() {
                tokio::task::yield_now().await;
            }
            world.answers(Ok(PolicyDecision::Deny));
            world.point.0.released.add_permits(1);
        };
        tokio::join!(bob.status("/orders/1"), answers).0
    };
    let both = async { tokio::join!(world.status("/orders/1"), later) };
    let both = tokio::time::timeout(Duration::from_secs(20), both).await.expect("each user's question is asked");
    assert_eq!((both, world.count()), ((200, 403), 2));
    let subjects: Vec<_> = world.point.0.asked.lock().iter().map(|asked| asked["subject"]["id"].clone()).collect();
    assert_eq!(subjects, ["ada", "bob"]);
}

#[tokio::test]
async fn k29_a_revocation_wins_over_a_kept_permit_and_over_one_in_flight() {
    let world = World::new(60).await;
    assert_eq!(world.status("/orders/1").await, 200);
    world.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!((world.status("/orders/1").await, world.count()), (401, 1));

    let world = World::new(60).await;
    world.point.0.holds.store(true, Ordering::SeqCst);
    let revoke = async {
        while world.count() == 0 {
            tokio::task::yield_now().await;
        }
        world.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
        world.point.0.released.add_permits(1);
    };
    let (status, ()) = tokio::join!(world.status("/orders/1"), revoke);
    assert_eq!(status, 401);
}

#[tokio::test(start_paused = true)]
async fn k30_a_stream_ends_with_a_refusal_and_after_three_faults() {
    for (answer, reason) in [(Ok(PolicyDecision::Deny), "revoked"), (unclear(), "undecided")] {
        let world = World::new(0).await;
        let begun = tokio::time::Instant::now();
        let Judgement::Permitted(mut permitted) = world.gate.judge(&world.head("/orders/1")).await else { panic!() };
        world.answers(answer.clone());
        assert_eq!(permitted.ended().await, reason);
        let asked = if answer.is_ok() { 1 } else { 3 };
        assert_eq!(world.count(), 1 + asked);
        let lasted = begun.elapsed().as_secs();
        assert!((5 * asked as u64..=5 * asked as u64 + 2).contains(&lasted), "{lasted}");
    }
    // A stream that is over asks no more.
    let world = World::new(0).await;
    let Judgement::Permitted(permitted) = world.gate.judge(&world.head("/orders/1")).await else { panic!() };
    drop(permitted);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a11_a12_a_reply_that_is_over_leaves_no_task() {
    let world = World::new(60).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..10 {
        let Judgement::Permitted(mut permitted) = world.gate.judge(&world.head("/orders/1")).await else { panic!() };
        let goes_on = tokio::time::timeout(Duration::from_millis(1), permitted.ended()).await;
        assert!(goes_on.is_err());
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(tasks() <= before, "{} {before}", tasks());
}

#[tokio::test]
async fn k31_a_slow_decision_point_fills_its_own_bulkhead_alone() {
    let world = World::new(60).await;
    world.point.0.holds.store(true, Ordering::SeqCst);
    let paths: Vec<_> = (0..100).map(|n| format!("/orders/{n}")).collect();
    let all = futures_util::future::join_all(paths.iter().map(|path| world.status(path)));
    let others = async {
        while world.count() < 2 {
            tokio::task::yield_now().await;
        }
        for _ in 0..200 {
            assert_eq!(world.status("/free/x").await, 200);
        }
        world.point.0.released.add_permits(100);
    };
    let (statuses, ()) = tokio::join!(all, others);
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..=64).contains(&passed), "{passed}");
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 100 - passed);
    assert_eq!(world.count(), passed, "nothing else was asked");
}

//! API keys through the layer, in a store in memory.

use std::convert::Infallible;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{COOKIE, HOST};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use ipnet::IpNet;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tower::{Layer, ServiceExt};
use uuid::Uuid;

use super::*;
use crate::dialect::my_keys::MyKeys;
use crate::gate::authorizer::tests::question;
use crate::gate::{Authorizer, Browser, Endpoint, GateBody, Identity, Neighbour, NewSession, Peer, Whose};
use rotogate_core::api_key::ApiKeySettings;
use rotogate_core::claim::OwnClaims;
use rotogate_core::client::Client;
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::directory::{Directory, DirectoryError, User};
use rotogate_core::engine::api_keys::API_KEYS;
use rotogate_core::engine::{ApplicationLogin, Origin};
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::route::{Credentials, LimitPer, RateLimit, Route, RoutePolicy};
use rotogate_core::session::step_up::StepUp;
use rotogate_core::session::{RevokedBecause, VouchedBy};
use rotogate_core::store::rows::{Row, RowInserted, RowKey, RowStore, RowSwapped, RowVersion, Space};
use rotogate_core::store::{MemoryStore, Store, StoreError};
use rotogate_core::token::Algorithm;
use rotogate_core::token::keyring::{Keyring, RefreshKeys, RefreshSecret, SigningKey};

mod ends;

const ISSUER: &str = "https://gate.test";
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
struct Users(Mutex<Option<User>>);

#[async_trait]
impl Directory for Users {
    async fn authenticate(
        &self,
        _: Option<&str>,
        _: &str,
        _: &crate::SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        Ok(None)
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(self.0.lock().clone().filter(|user| *user.subject == *subject))
    }
}

struct World {
    gate: Gate,
    time: Arc<ManualTime>,
    store: Arc<MemoryStore>,
    users: Arc<Users>,
    secrets: [String; 2],
}

#[derive(Clone)]
struct Received {
    headers: HeaderMap,
    caller: Option<Identity>,
}

type Reply = Response<GateBody<Full<Bytes>>>;

fn keyring(current: u8, secrets: &[(u8, &str)], signer: SigningKey) -> Keyring {
    let secrets: Vec<_> =
        secrets.iter().map(|(id, text)| (*id, RefreshSecret::from_text(text.as_bytes()).unwrap())).collect();
    Keyring::from_parts(Uuid::nil(), signer, Vec::new(), RefreshKeys::new(current, &secrets).unwrap()).unwrap()
}

impl World {
    async fn new() -> Self {
        let time = ManualTime::at(Timestamp::from_secs(1_800_000_000));
        let store = Arc::new(MemoryStore::new(ISSUER, crate::gate::Gate::DEFAULT_LEEWAY));
        let takes = || RoutePolicy::default().api_key();
        let only = Credentials { token: false, session: false, key: true };
        let routes = [
            ("/keys", takes()),
            ("/sessions", takes().session()),
            ("/token", RoutePolicy::default()),
            ("/only", RoutePolicy { credentials: only, ..RoutePolicy::default() }),
            ("/write", RoutePolicy { scopes: Scope::parse("write").unwrap(), ..takes() }),
            ("/admins", takes().role("admin")),
            ("/bound", RoutePolicy { dpop_required: true, ..takes() }),
            ("/step-up", RoutePolicy { step_up: Some(StepUp { acr: vec!["gold".into()], max_age: None }), ..takes() }),
            ("/by-key", takes().limit(RateLimit::new(LimitPer::Key, 4, MINUTE))),
            ("/by-client", takes().limit(RateLimit::new(LimitPer::Client, 4, MINUTE))),
            ("/elsewhere", RoutePolicy { audiences: vec!["https://other.test".into()], ..takes() }),
            ("/forwards", RoutePolicy { forward_token: true, ..takes() }),
            ("/public", RoutePolicy::public()),
        ];
        let secrets = [(); 2].map(|()| RefreshSecret::generate().unwrap().to_text().to_string());
        let mut claims = OwnClaims::new();
        claims.insert(OwnClaims::ROLES, ["admin"]).unwrap();
        claims.insert("acr", "gold").ok();
        let user = User::new("ada").scopes(Scope::parse("read write").unwrap()).claims(claims);
        let users = Arc::new(Users(Mutex::new(Some(user))));
        let mut batch = Client::public("batch");
        batch.secret_hash = Some(rotogate_core::password::unmatched_secret_hash().unwrap());
        batch.scopes = Some(Scope::parse("read").unwrap());
        let mut gate = Gate::builder()
            .issuer(ISSUER)
            .keys(keyring(1, &[(1, &secrets[0])], SigningKey::generate(Algorithm::EdDsa).unwrap()))
            .client(Client::public("web"))
            .client(batch)
            .directory(Arc::<Users>::clone(&users))
            .shared_store(Arc::<MemoryStore>::clone(&store))
            .row_store(Arc::<MemoryStore>::clone(&store))
            .api_keys(ApiKeySettings::new("acme").unwrap())
            .browser(Browser::own("/auth"))
            .endpoint(Endpoint::new(MyKeys { max_age: MINUTE, ..MyKeys::default() }).path("/my/keys"))
            .endpoint(Endpoint::new(MyKeys { needs_scope: true, ..MyKeys::default() }).path("/scoped/keys"))
            .time(Arc::<ManualTime>::clone(&time));
        for (path, policy) in routes {
            gate = gate.route(Route::new(path, policy));
        }
        let gate = gate.build().await.unwrap();
        Self { gate, time, store, users, secrets }
    }

    fn keys(&self) -> GateApiKeys {
        self.gate.api_keys().unwrap()
    }

    fn new_key(&self) -> NewApiKey {
        NewApiKey { name: "nightly".into(), subject: "ada".into(), ..NewApiKey::default() }
    }

    async fn made(&self, new: NewApiKey) -> (String, ApiKey) {
        let (text, key) = self.keys().create(new).await.unwrap().unwrap();
        (text.expose_secret().to_owned(), key)
    }

    async fn send(&self, target: &str, pairs: &[(&str, &str)]) -> Reply {
        self.ask(&format!("GET {target}"), pairs, "").await
    }

    async fn ask(&self, line: &str, pairs: &[(&str, &str)], body: &str) -> Reply {
        let (method, target) = line.split_once(' ').unwrap();
        let body = Full::from(body.to_owned());
        let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let caller = Identity::from_extensions(request.extensions());
            let mut response = Response::new(Full::default());
            response.extensions_mut().insert(Received { headers: request.into_parts().0.headers, caller });
            async move { Ok::<_, Infallible>(response) }
        });
        let peer = Peer::new([192, 0, 2, 7].into(), true);
        let mut request = Request::builder().method(method).uri(target).header(HOST, "gate.test").extension(peer);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        self.gate.layer().layer(service).oneshot(request.body(body).unwrap()).await.unwrap()
    }

    async fn status(&self, target: &str, key: &str) -> u16 {
        self.send(target, &[("x-api-key", key)]).await.status().as_u16()
    }

    fn change(&self, change: impl FnOnce(&mut User)) {
        change(self.users.0.lock().as_mut().unwrap());
    }

    async fn write_uses(&self) {
        self.gate.0.running.api_keys.as_ref().unwrap().write_uses(&self.gate.0.engine).await.unwrap();
    }
}

fn received(reply: &Reply) -> Received {
    reply.extensions().get::<Received>().expect("the service answered").clone()
}

#[tokio::test]
async fn k1_k12_a_key_is_a_caller_in_either_place_and_no_upstream_gets_it() {
    let world = World::new().await;
    let (text, key) = world.made(world.new_key()).await;
    let bearer = format!("bearer {text}");
    for (target, pair) in [
        ("/keys", ("x-api-key", &*text)),
        ("/only", ("authorization", &bearer)),
        ("/forwards", ("authorization", &bearer)),
    ] {
        for _ in 0..2 {
            let reply = world.send(target, &[pair]).await;
            let Received { headers, caller } = received(&reply);
            assert!(
                !headers.values().any(|value| value.to_str().unwrap().contains("acme_k1_")),
                "{target} {headers:?}"
            );
            let caller = caller.unwrap();
            assert_eq!((caller.subject(), caller.uses_api_key()), ("ada", true));
            assert_eq!(headers["x-auth-client"], format!("key:{}", key.id).as_str());
            assert_eq!(headers["x-auth-scope"], "read write");
            assert!(!headers.contains_key("x-auth-session"));
        }
    }
    // K12: a key has the roles that its owner has.
    assert_eq!(world.status("/admins", &text).await, 200);
    world.change(|user| user.claims = OwnClaims::new());
    world.time.advance(MINUTE * 6);
    assert_eq!(world.status("/admins", &text).await, 403);
    let reply = world.send("/public", &[("x-api-key", &text), ("authorization", &bearer)]).await;
    assert!(
        !received(&reply).headers.contains_key("x-api-key") && !received(&reply).headers.contains_key("authorization")
    );
    let reply = world.send("/public", &[("x-api-key", "of another server")]).await;
    assert!(received(&reply).headers.contains_key("x-api-key"), "it is none of ours");
}

#[tokio::test]
async fn k6_a_key_is_refused_wherever_it_is_not_meant() {
    let world = World::new().await;
    let (text, _) = world.made(world.new_key()).await;
    let bearer = format!("Bearer {text}");
    let begun = world.gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    let token = format!("Bearer {}", begun.access_token.expose());
    assert_eq!(world.status("/keys", &text).await, 200);
    for (target, pairs, status) in [
        ("/token", vec![("x-api-key", &*text)], 401),
        ("/token", vec![("authorization", &*bearer)], 401),
        ("/keys", vec![("x-api-key", &*text), ("authorization", &*token)], 400),
        ("/keys", vec![("x-api-key", &*text), ("authorization", &*bearer)], 400),
        ("/keys", vec![("x-api-key", &*text), ("x-api-key", &*text)], 400),
        ("/only", vec![("authorization", &*token)], 401),
        ("/bound", vec![("x-api-key", &*text)], 401),
        ("/step-up", vec![("x-api-key", &*text)], 401),
        ("/elsewhere", vec![("x-api-key", &*text)], 401),
        ("/write", vec![("x-api-key", &*text)], 200),
        // The key takes precedence over a session cookie.
        ("/sessions", vec![("x-api-key", &*text), (COOKIE.as_str(), "__Host-Http-rg=whatever")], 200),
    ] {
        let reply = world.send(target, &pairs).await;
        assert_eq!(reply.status().as_u16(), status, "{target} {pairs:?}");
    }
    for target in [format!("/keys?api_key={text}"), format!("/keys?access_token={text}")] {
        assert_ne!(world.send(&target, &[]).await.status(), StatusCode::OK, "{target}");
    }
    let token = rotogate_core::credential::Credential::new(&text);
    let cheap = world.gate.0.checker.check(token, || world.gate.0.shown(None::<std::net::IpAddr>), &mut ());
    assert_eq!(cheap.err(), Some(Denial::UnusableCredential), "our own endpoints take tokens");
    assert!(world.gate.0.checker.at_hand::<()>(text.as_bytes()).is_none());
    // A rule for calls that does not name keys, on a route that does.
    let keys = world.gate.0.running.api_keys.as_ref().unwrap();
    let known =
        keys.load_verified(&world.gate.0.engine, &world.gate.0.checker, &Arc::from(&*text), &|_| None).await.unwrap();
    let call = |policy: RoutePolicy| {
        let rule = Route::new("/call", policy);
        rotogate_core::policy::judge_call(&rule, &known, || world.gate.0.engine.clock().wall(), &mut ())
    };
    assert_eq!(call(RoutePolicy::default()), Err(Denial::UnusableCredential));
    assert_eq!(call(RoutePolicy::default().api_key()), Ok(()));
}

#[tokio::test]
async fn k6_a_bad_key_is_refused_beside_a_good_session() {
    let world = World::new().await;
    let start = ApplicationLogin {
        subject: "ada",
        account: None,
        client: "web",
        scope: Scope::default(),
        claims: OwnClaims::default(),
        vouched_by: None,
        profile: world.gate.0.endpoints.browser_profile().unwrap(),
        origin: &Origin::default(),
    };
    let begun = world.gate.0.engine.start_browser(start, None).await.unwrap();
    let cookie = format!("__Host-Http-rg={}", *begun.cookie.value());
    let alone = world.send("/sessions", &[(COOKIE.as_str(), &*cookie)]).await;
    assert_eq!(alone.status(), StatusCode::OK);
    let (revoked, key) = world.made(world.new_key()).await;
    world.keys().revoke(&key.id).await.unwrap();
    let (unknown, _) = World::new().await.made(world.new_key()).await;
    for bad in [&*revoked, &unknown, "of another server"] {
        let reply = world.send("/sessions", &[("x-api-key", bad), (COOKIE.as_str(), &*cookie)]).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "{bad}");
    }
}

#[tokio::test]
async fn k6_a_key_in_a_header_that_the_asking_proxy_would_forward_is_refused() {
    let world = World::new().await;
    let (text, _) = world.made(world.new_key()).await;
    let bearer = format!("Bearer {text}");
    let trusted: Vec<IpNet> = vec!["127.0.0.1/32".parse().unwrap()];
    for neighbour in Neighbour::ALL {
        let authorizer = Authorizer::new(&world.gate, neighbour).trusting(trusted.clone());
        let ask = async |path: &str, name: &str, value: &str| {
            let mut asked = question(neighbour, &[("x-forwarded-uri", path), (name, value)]);
            if neighbour == Neighbour::Envoy {
                asked.uri = path.parse().unwrap();
            }
            authorizer.decide(authorizer.head(&mut asked)).await
        };
        let removes = neighbour == Neighbour::Envoy;
        assert_eq!(ask("/keys", "authorization", &bearer).await.status(), StatusCode::OK, "{neighbour:?}");
        for path in ["/keys", "/public"] {
            let reply = ask(path, "x-api-key", &text).await;
            let removed = reply
                .headers()
                .get("x-envoy-auth-headers-to-remove")
                .is_some_and(|names| names.to_str().unwrap().split(", ").any(|name| name == "x-api-key"));
            let detail = reply.headers().contains_key("x-auth-detail");
            let seen = (reply.status().as_u16(), removed, detail);
            assert_eq!(seen, if removes { (200, true, false) } else { (401, false, true) }, "{neighbour:?} {path}");
        }
        assert_eq!(
            ask("/public", "x-api-key", "of another server").await.status(),
            StatusCode::OK,
            "it is none of ours"
        );
    }
}

#[tokio::test]
async fn k4_what_ends_a_key_refuses_it_at_the_next_request() {
    let world = World::new().await;
    let (text, key) = world.made(world.new_key()).await;
    let (other, other_key) = world.made(NewApiKey { name: "hourly".into(), ..world.new_key() }).await;
    for text in [&text, &other] {
        assert_eq!(world.status("/keys", text).await, 200);
    }
    let mut before = None;
    for id in world.store.row_keys(API_KEYS, None, usize::MAX).await.unwrap() {
        let row = world.store.load_row(API_KEYS, id).await.unwrap().unwrap();
        if String::from_utf8_lossy(&row.bytes).contains("hourly") {
            before = Some((id, row));
        }
    }
    let (at, before) = before.unwrap();
    world.gate.0.engine.revoke_subject("ada", RevokedBecause::Logout).await.unwrap();
    assert_eq!(world.status("/keys", &text).await, 200, "a logout everywhere ends no key");
    for key in [&key, &other_key] {
        assert!(world.keys().revoke(&key.id).await.unwrap().is_some_and(|key| key.revoked.is_some()));
    }
    assert_eq!(world.status("/keys", &text).await, 401);
    assert!(world.keys().of_owner("ada").await.unwrap().is_empty());
    world.time.advance(DAY);
    world.gate.0.engine.revocations().sweep(world.gate.0.engine.clock().now());
    assert_eq!(world.status("/keys", &text).await, 401);
    let keys = world.gate.0.running.api_keys.as_ref().unwrap();
    let read = keys.read(&world.gate.0.engine, &text, &|_| None).await;
    assert!(
        matches!(read, Err(Error::Denied(Denial::ApiKeyRefused("it was revoked")))),
        "the end is in the record, too"
    );
    assert!(world.store.remove_row(API_KEYS, at, None).await.unwrap());
    world.store.insert_row(API_KEYS, at, before, key.created).await.unwrap();
    // This gate has not refused the key yet, and reads the record again.
    assert_eq!(world.status("/keys", &other).await, 401, "the record of before, written back by somebody else");
    assert!(world.keys().revoke("unknown").await.unwrap().is_none());
    for whose in [Whose::Subject("ada"), Whose::Everyone] {
        let (text, _) = world.made(world.new_key()).await;
        assert_eq!(world.status("/keys", &text).await, 200);
        world.gate.sessions().revoke_all(whose).await.unwrap();
        assert_eq!(world.status("/keys", &text).await, 401);
        world.time.advance(DAY * 60);
        assert_eq!(world.status("/keys", &text).await, 401, "as long as the key would live");
    }
    let (text, key) = world.made(NewApiKey { lifetime: Some(DAY), ..world.new_key() }).await;
    assert_eq!(key.expires, key.created.plus(DAY));
    assert_eq!(world.status("/keys", &text).await, 200, "one made since is good");
    world.time.advance(DAY);
    assert_eq!(world.status("/keys", &text).await, 401);
}

#[tokio::test]
async fn k5_a_key_has_at_most_what_its_owner_has() {
    let world = World::new().await;
    let asks = |scopes: &str| Some(Scope::parse(scopes).unwrap());
    let more = NewApiKey { scopes: asks("read admin"), ..world.new_key() };
    assert_eq!(world.keys().create(more).await.unwrap().unwrap_err(), KeyRefusal::Scope);
    let (text, _) = world.made(NewApiKey { scopes: asks("write"), ..world.new_key() }).await;
    assert_eq!(world.status("/write", &text).await, 200);
    world.change(|user| user.scopes = Scope::parse("read").unwrap());
    world.time.advance(MINUTE * 6);
    assert_eq!(world.status("/write", &text).await, 403, "its owner was demoted");
    world.change(|user| user.active = false);
    world.time.advance(MINUTE * 6);
    assert_eq!(world.status("/keys", &text).await, 401);
    world.change(|user| user.active = true);
    assert_eq!(world.status("/keys", &text).await, 200);
    world.change(|user| user.sessions_valid_from = Timestamp::from_secs(1_900_000_000));
    world.time.advance(MINUTE * 6);
    assert_eq!(world.status("/keys", &text).await, 401, "the password was changed");
    *world.users.0.lock() = None;
    assert_eq!(world.keys().create(world.new_key()).await.unwrap().unwrap_err(), KeyRefusal::Owner);
    let of = |subject: &str| NewApiKey { subject: subject.into(), ..world.new_key() };
    assert_eq!(
        world.keys().create(of("client:web")).await.unwrap().unwrap_err(),
        KeyRefusal::Owner,
        "it has no secret"
    );
    let (text, key) = world.made(of("client:batch")).await;
    assert_eq!((world.status("/keys", &text).await, key.scopes.as_str()), (200, "read"));
    world.gate.sessions().revoke_all(Whose::Client("batch")).await.unwrap();
    assert_eq!(world.status("/keys", &text).await, 401);
    let far = NewApiKey { networks: vec!["198.51.100.0/24".parse().unwrap()], ..of("client:batch") };
    let (text, _) = world.made(far).await;
    assert_eq!(world.status("/keys", &text).await, 401, "from another network");
    for (bad, why) in [
        (NewApiKey { name: String::new(), ..of("client:batch") }, KeyRefusal::Name),
        (NewApiKey { lifetime: Some(DAY * 400), ..of("client:batch") }, KeyRefusal::Lifetime),
        (NewApiKey { audience: Some(String::new()), ..of("client:batch") }, KeyRefusal::Bounds),
    ] {
        assert_eq!(world.keys().create(bad).await.unwrap().unwrap_err(), why);
    }
    // The key that ended with all keys of its owner takes no place.
    for _ in 0..49 {
        world.made(of("client:batch")).await;
    }
    assert_eq!(world.keys().create(of("client:batch")).await.unwrap().unwrap_err(), KeyRefusal::TooMany);
}

#[tokio::test]
async fn k7_k9_a_rotated_key_lives_for_its_overlap_and_its_late_use_is_counted() {
    let world = World::new().await;
    let (old, key) = world.made(world.new_key()).await;
    let (new, next) = world.keys().rotate(&key.id, Some(DAY)).await.unwrap().unwrap().unwrap();
    let new = new.expose_secret().to_owned();
    assert_eq!((&next.scopes, &next.subject, next.predecessor.as_deref()), (&key.scopes, &key.subject, Some(&*key.id)));
    let again = world.keys().rotate(&key.id, None).await.unwrap().unwrap();
    assert_eq!(again.unwrap_err(), KeyRefusal::Over, "a key has one successor");
    assert_eq!((world.status("/keys", &old).await, world.status("/keys", &new).await), (200, 200));
    let late = |world: &World| world.keys().counts().iter().find(|(name, _)| *name == "used_after_rotation").unwrap().1;
    assert_eq!(late(&world), 0);
    // K9: one write for each key.
    world.write_uses().await;
    assert_eq!(world.keys().get(&next.id).await.unwrap().unwrap().last_used, Some(world.gate.0.engine.clock().now()));
    world.time.advance(MINUTE * 6);
    assert_eq!((world.status("/keys", &old).await, late(&world)), (200, 1));
    world.write_uses().await;
    let noted = world.keys().get(&key.id).await.unwrap().unwrap().last_used.unwrap();
    assert_eq!(noted, key.created, "within an hour it is not written again");
    // Another gate, whose copy of the record has no use.
    let (keys, written) = (world.gate.0.running.api_keys.as_ref().unwrap(), next.created);
    keys.note(&world.gate.0.engine, &next, &new).unwrap();
    world.write_uses().await;
    assert_eq!(world.keys().get(&next.id).await.unwrap().unwrap().last_used, Some(written));
    world.time.advance(DAY);
    assert_eq!((world.status("/keys", &old).await, world.status("/keys", &new).await), (401, 200));
    let (last, _) = world.keys().rotate(&next.id, Some(Duration::ZERO)).await.unwrap().unwrap().unwrap();
    assert_eq!((world.status("/keys", &new).await, world.status("/keys", last.expose_secret()).await), (401, 200));
}

#[tokio::test]
async fn k7_a_cached_key_ends_with_its_overlap_however_short() {
    let world = World::new().await;
    let second = Duration::from_secs(1);
    let (old, key) = world.made(world.new_key()).await;
    assert_eq!(world.status("/keys", &old).await, 200);
    world.keys().rotate(&key.id, Some(second * 3)).await.unwrap().unwrap().unwrap();
    world.time.advance(second * 2);
    assert_eq!(world.status("/keys", &old).await, 200, "the overlap lasts");
    world.time.advance(second * 2);
    assert_eq!(world.status("/keys", &old).await, 401, "and no longer");
    // A replaced key can be revoked.
    let (old, key) = world.made(world.new_key()).await;
    world.keys().rotate(&key.id, Some(DAY)).await.unwrap().unwrap().unwrap();
    assert_eq!(world.status("/keys", &old).await, 200);
    world.keys().revoke(&key.id).await.unwrap();
    assert_eq!(world.status("/keys", &old).await, 401);
}

#[tokio::test]
async fn k2_k14_the_store_has_no_key_and_who_writes_to_it_makes_none() {
    let world = World::new().await;
    let (text, key) = world.made(NewApiKey { scopes: Some(Scope::parse("read").unwrap()), ..world.new_key() }).await;
    let mut of_key = None;
    for id in world.store.row_keys(API_KEYS, None, usize::MAX).await.unwrap() {
        let row = world.store.load_row(API_KEYS, id).await.unwrap().unwrap();
        let content = String::from_utf8_lossy(&row.bytes).into_owned();
        assert!(!content.contains(&text[20..]), "{content}");
        of_key = content.contains("nightly").then_some((id, row)).or(of_key);
    }
    let (id, row) = of_key.unwrap();
    // K14: a report of a leak ends a key, and says no more than how many.
    let other = text.replace(&text[20..24], "0000");
    let said = [other, "junk".to_owned()].map(SecretString::from);
    assert_eq!(world.keys().leaked(&said).await.0, 0);
    assert_eq!(world.status("/write", &text).await, 403);
    let wider = String::from_utf8_lossy(&row.bytes[33..]).replace("\"read\"", "\"read write\"");
    let forged = [&row.bytes[..33], wider.as_bytes()].concat();
    let changed = Row { version: RowVersion([1; 16]), bytes: forged, ..row.clone() };
    world.store.swap_row(API_KEYS, id, row.version, changed.clone(), key.created).await.unwrap();
    world.time.advance(MINUTE * 6);
    assert_eq!(world.status("/write", &text).await, 503, "never a decision");
    world.store.swap_row(API_KEYS, id, changed.version, row, key.created).await.unwrap();
    assert_eq!(world.status("/keys", &text).await, 200);
    assert_eq!(world.keys().leaked(&[SecretString::from(&*text)]).await.0, 1);
    assert_eq!(world.status("/keys", &text).await, 401);
    assert_eq!(world.keys().leaked(&[SecretString::from(&*text)]).await.0, 0);
    assert_eq!(world.keys().list(None, 10).await.unwrap().keys[0].id, key.id);
}

#[tokio::test]
async fn k4_a_key_goes_through_a_roll_of_the_secrets_by_its_next_use() {
    let world = World::new().await;
    let (used, _) = world.made(world.new_key()).await;
    let (unused, idle) = world.made(world.new_key()).await;
    let [first, second] = &world.secrets;
    let signer = || SigningKey::generate(Algorithm::EdDsa).unwrap();
    world.gate.set_keys(keyring(2, &[(1, first), (2, second)], signer()), Vec::new()).unwrap();
    assert_eq!(world.status("/keys", &used).await, 200);
    world.write_uses().await;
    let left = world.keys().by_secret().await.unwrap();
    assert_eq!(left, [(1, 1), (2, 1)].into(), "one is left under the old secret");
    world.gate.set_keys(keyring(2, &[(2, second)], signer()), Vec::new()).unwrap();
    assert_eq!((world.status("/keys", &used).await, world.status("/keys", &unused).await), (200, 503));
    assert!(world.keys().revoke(&idle.id).await.is_err());
    let (text, key) = world.made(world.new_key()).await;
    assert_eq!(world.status("/keys", &text).await, 200, "and its owner makes further ones");
    world.keys().revoke(&key.id).await.unwrap();
    assert_eq!(world.status("/keys", &text).await, 401);
}

/// The status of an answer of the endpoint for one's own keys, and its JSON.
async fn mine(world: &World, token: &str, line: &str, body: &str) -> (u16, serde_json::Value) {
    let bearer = format!("Bearer {token}");
    let pairs = [("authorization", &*bearer), ("content-type", "application/json")];
    let reply = world.ask(line, &pairs, body).await;
    assert!(reply.status() != StatusCode::CREATED || reply.headers()["cache-control"] == "no-store");
    let (parts, body) = reply.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn token_of(world: &World, subject: &str, scope: &str) -> String {
    let begun = world.gate.sessions().start(NewSession::new(subject, "web").scope(scope).unwrap()).await.unwrap();
    begun.access_token.expose().to_owned()
}

const CREATE: &str = "POST /my/keys";
const NAMED: &str = "{\"name\": \"mine\"}";

#[tokio::test]
async fn k5_a_user_makes_keys_that_do_no_more_than_the_token_that_made_them() {
    let world = World::new().await;
    let token = token_of(&world, "ada", "read").await;
    let (status, made) = mine(&world, &token, CREATE, NAMED).await;
    assert_eq!((status, &made["scopes"]), (201, &"read".into()), "{made}");
    let (text, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert_eq!((world.status("/keys", text).await, world.status("/write", text).await), (200, 403));
    assert_eq!(mine(&world, &token, CREATE, "{\"name\": \"x\", \"scopes\": \"read write\"}").await.0, 403);
    assert_eq!(mine(&world, &token, CREATE, "{\"name\": \"x\", \"audience\": \"https://other.test\"}").await.0, 401);
    for (body, why) in [
        ("{\"name\": \"\"}", "the name of an API key"),
        ("{\"name\": \"x\", \"lifetime\": 99999999}", "the lifetime is longer"),
        ("{\"name\": \"x\", \"networks\": [\"here\"]}", "`networks`"),
        ("{\"name\": \"x\", \"name\": \"y\"}", "the body"),
        ("{\"name\": \"x\", \"subject\": \"eve\"}", "the body"),
        ("name=x", "the body"),
    ] {
        let (status, problem) = mine(&world, &token, CREATE, body).await;
        assert!(status == 400 && problem["detail"].as_str().unwrap().starts_with(why), "{body} {problem}");
    }
    // A wider key is none of a narrow token's to replace, for the answer has its text.
    world.time.advance(Duration::from_secs(1));
    let (_, wide) = world.made(world.new_key()).await;
    assert_eq!(mine(&world, &token, &format!("POST /my/keys/{}/rotate", wide.id), "").await.0, 403);
    let wider = token_of(&world, "ada", "read write").await;
    let (status, next) = mine(&world, &wider, &format!("POST /my/keys/{}/rotate", wide.id), "{\"overlap\": 60}").await;
    assert_eq!((status, &next["scopes"]), (201, &"read write".into()), "{next}");
    let (_, list) = mine(&world, &token, "GET /my/keys", "").await;
    let ids: Vec<_> = list["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), ids[2]), (3, id), "the newest first: {list}");
    assert!(!list.to_string().contains("acme_k1_"));
    // Another user's, one that never was, and one that has ended: one answer.
    let (other, of_batch) = world.made(NewApiKey { subject: "client:batch".into(), ..world.new_key() }).await;
    assert_eq!(mine(&world, &token, &format!("DELETE /my/keys/{id}"), "").await.1["ended"], 1);
    assert_eq!(world.status("/keys", text).await, 401);
    for unknown in [&*of_batch.id, id, "nobody"] {
        for line in [format!("DELETE /my/keys/{unknown}"), format!("POST /my/keys/{unknown}/rotate")] {
            let (status, problem) = mine(&world, &token, &line, "").await;
            assert_eq!((status, &problem["detail"]), (404, &"you have no API key with this id".into()), "{line}");
        }
    }
    assert_eq!(world.status("/keys", &other).await, 200);
}

#[tokio::test]
async fn k5_neither_a_key_nor_a_token_that_is_old_or_has_no_scope_for_it_makes_a_key() {
    let world = World::new().await;
    let token = token_of(&world, "ada", "read").await;
    let (key, record) = world.made(world.new_key()).await;
    let bearer = format!("Bearer {key}");
    for pairs in [[("authorization", &*bearer)], [("x-api-key", &*key)]] {
        for line in ["GET /my/keys", CREATE] {
            let reply = world.ask(line, &[&pairs[..], &[("content-type", "application/json")]].concat(), NAMED).await;
            assert_eq!(reply.status().as_u16(), 401, "{line} {pairs:?}");
        }
    }
    assert_eq!(mine(&world, &token, "GET /scoped/keys", "").await.0, 403);
    let (changes, list) =
        ([format!("POST /my/keys/{}/rotate", record.id), format!("DELETE /my/keys/{}", record.id)], "GET /my/keys");
    world.time.advance(MINUTE + Duration::from_secs(1));
    for (line, body) in [(CREATE, NAMED), (&*changes[0], ""), (&*changes[1], "")] {
        let (status, problem) = mine(&world, &token, line, body).await;
        assert!(status == 401 && problem.to_string().contains("too old"), "{line} {problem}");
    }
    let (status, all) = mine(&world, &token, list, "").await;
    assert_eq!((status, all["keys"].as_array().unwrap().len()), (200, 1), "{all}");
    assert_eq!(world.status("/keys", &key).await, 200, "nothing was revoked");
    let client = token_of(&world, "ada", "read").await;
    for _ in 1..50 {
        // The bound counts keys of each origin.
        world.made(world.new_key()).await;
    }
    let (status, problem) = mine(&world, &client, CREATE, NAMED).await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("50 live API keys"), "{problem}");
}

#[tokio::test]
async fn k5_a_key_ends_by_each_end_of_its_user_since_the_session_that_made_it_began() {
    let world = World::new().await;
    let second = Duration::from_secs(1);
    let token = token_of(&world, "ada", "read").await;
    world.time.advance(second);
    let ended = world.gate.0.engine.clock().now();
    world.time.advance(second);
    let (_, first) = mine(&world, &token, CREATE, NAMED).await;
    let line = format!("POST /my/keys/{}/rotate", first["id"].as_str().unwrap());
    let (_, next) = mine(&world, &token, &line, "").await;
    let (_, of_operator) = world.made(world.new_key()).await;
    let rotate = format!("POST /my/keys/{}/rotate", of_operator.id);
    let (_, narrow) = world.made(NewApiKey { scopes: Some(Scope::parse("read").unwrap()), ..world.new_key() }).await;
    assert_eq!(mine(&world, &token, &rotate, "").await.0, 403);
    let (_, third) = mine(&world, &token, &format!("POST /my/keys/{}/rotate", narrow.id), "").await;
    let texts = [&first, &next, &third].map(|made| made["key"].as_str().unwrap().to_owned());
    for text in &texts {
        assert_eq!(world.status("/keys", text).await, 200);
    }
    // Another gate ended everything of the user before the keys were made, and this gate hears of the end only now.
    let entry = world.gate.0.engine.subject_before("ada", ended);
    world.gate.0.engine.revocations().apply(&entry);
    for text in &texts {
        assert_eq!(world.status("/keys", text).await, 401);
    }
}

#[tokio::test]
async fn k5_a_session_that_another_gate_has_ended_makes_no_key() {
    let world = World::new().await;
    let until = world.gate.0.engine.clock().now().plus(DAY);
    let of_client =
        |moment| (Target::Client { issuer: ISSUER.into(), client: "web".into() }, Effect::NotBefore(moment));
    for is_of_session in [true, false] {
        let (_, key) = world.made(NewApiKey { scopes: Some(Scope::default()), ..world.new_key() }).await;
        let begun = world.gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
        let (token, session) = (begun.access_token.expose(), begun.session.unwrap());
        let (target, effect) = match is_of_session {
            true => (Target::Session(session), Effect::SESSION_REVOKED),
            false => of_client(session.created()),
        };
        // The store has the end, and this gate has not heard of it.
        world.store.revoke(Revocation { target, effect, until }, RevokedBecause::Operator).await.unwrap();
        assert_eq!(mine(&world, token, "GET /my/keys", "").await.0, 200);
        let before = world.keys().of_owner("ada").await.unwrap().len();
        for line in [CREATE, &format!("POST /my/keys/{}/rotate", key.id)] {
            let (status, problem) = mine(&world, token, line, if line == CREATE { NAMED } else { "" }).await;
            assert_eq!(status, 401, "{line} {problem}");
        }
        assert_eq!(world.keys().of_owner("ada").await.unwrap().len(), before);
    }
}

#[tokio::test]
async fn k4_a_key_of_a_user_of_another_issuer_ends_with_everything_of_the_user_there() {
    let world = World::new().await;
    let engine = &world.gate.0.engine;
    let made = async || {
        let by = VouchedBy::new("https://idp.test", "u-1").session("s-1");
        let new = NewSession::new("ada", "web").scope("read").unwrap().vouched_by(by);
        let begun = world.gate.sessions().start(new).await.unwrap();
        let (status, made) = mine(&world, begun.access_token.expose(), CREATE, NAMED).await;
        assert_eq!(status, 201, "{made}");
        let (next, _) = world.keys().rotate(made["id"].as_str().unwrap(), None).await.unwrap().unwrap().unwrap();
        [made["key"].as_str().unwrap().to_owned(), next.expose_secret().to_owned()]
    };
    let texts = made().await;
    let status =
        async |texts: &[String; 2]| (world.status("/keys", &texts[0]).await, world.status("/keys", &texts[1]).await);
    let now = engine.clock().now();
    let end = |subject: &str, with_keys| {
        let target = Target::Subject { issuer: "https://idp.test".into(), subject: subject.into() };
        engine.revocations().apply(&Revocation {
            target,
            effect: Effect::not_before(now, with_keys),
            until: now.plus(DAY),
        });
    };
    end("u-1", false);
    end("u-2", true);
    assert_eq!(status(&texts).await, (200, 200), "a logout there, and the end of another user");
    end("u-1", true);
    assert_eq!(status(&texts).await, (401, 401));
    world.time.advance(Duration::from_secs(1));
    assert_eq!(status(&made().await).await, (200, 200), "keys of a later login");
}

#[tokio::test]
async fn k33_a_key_that_is_replaced_in_a_session_ends_with_each_user_at_an_issuer_who_made_it_or_one_before_it() {
    for (ended, wanted) in [("u-1", [200, 401, 401]), ("u-2", [200, 200, 401]), ("u-3", [200; 3])] {
        let world = World::new().await;
        let start = async |subject: &str| {
            let by = VouchedBy::new("https://idp.test", subject).session("s-1");
            let new = NewSession::new("ada", "web").scope("read").unwrap().vouched_by(by);
            world.gate.sessions().start(new).await.unwrap().access_token.expose().to_owned()
        };
        let (text, key) =
            world.made(NewApiKey { scopes: Some(Scope::parse("read").unwrap()), ..world.new_key() }).await;
        let (mut texts, mut id) = (vec![text], key.id.to_string());
        for user in ["u-1", "u-2"] {
            let (status, made) = mine(&world, &start(user).await, &format!("POST /my/keys/{id}/rotate"), "").await;
            assert_eq!(status, 201, "{made}");
            id = made["id"].as_str().unwrap().to_owned();
            texts.push(made["key"].as_str().unwrap().to_owned());
        }
        let status = async || {
            let [first, second, third] = [0, 1, 2].map(|n| world.status("/keys", &texts[n]));
            [first.await, second.await, third.await]
        };
        assert_eq!(status().await, [200; 3]);
        let now = world.gate.0.engine.clock().now();
        world.gate.0.engine.revocations().apply(&Revocation {
            target: Target::Subject { issuer: "https://idp.test".into(), subject: ended.into() },
            effect: Effect::not_before(now, true),
            until: now.plus(DAY),
        });
        assert_eq!(status().await, wanted, "{ended}");
    }
}

#[tokio::test]
async fn k33_a_key_has_at_most_eight_users_at_issuers_who_made_it_or_one_before_it() {
    let world = World::new().await;
    let (_, key) = world.made(NewApiKey { scopes: Some(Scope::parse("read").unwrap()), ..world.new_key() }).await;
    let mut id = key.id.to_string();
    for n in 0..10 {
        // The last but one is known already.
        let by = VouchedBy::new("https://idp.test", format!("u-{}", if n == 8 { 3 } else { n }));
        let new = NewSession::new("ada", "web").scope("read").unwrap().vouched_by(by);
        let token = world.gate.sessions().start(new).await.unwrap().access_token.expose().to_owned();
        let (status, made) = mine(&world, &token, &format!("POST /my/keys/{id}/rotate"), "").await;
        assert_eq!(status, if n == 9 { 400 } else { 201 }, "{n}: {made}");
        id = made["id"].as_str().unwrap_or_default().to_owned();
    }
}

#[tokio::test]
async fn k34_a_rotation_brings_no_new_quota_and_another_key_has_its_own() {
    for path in ["/by-key", "/by-client"] {
        let world = World::new().await;
        let (first, key) = world.made(world.new_key()).await;
        let (other, _) = world.made(world.new_key()).await;
        let (mut texts, mut id) = (vec![first], key.id);
        for _ in 0..2 {
            let (text, key) = world.keys().rotate(&id, None).await.unwrap().unwrap().unwrap();
            texts.push(text.expose_secret().to_owned());
            id = key.id;
        }
        let mut met = Vec::new();
        for n in [0, 1, 2, 1, 0, 1, 2] {
            met.push(world.status(path, &texts[n]).await);
        }
        assert_eq!(met, [200, 200, 200, 200, 429, 429, 429], "{path}");
        assert_eq!(world.status(path, &other).await, 200, "{path}");
        assert_eq!(world.status("/keys", &texts[2]).await, 200);
    }
}

/// A store that counts what is read.
#[derive(Debug)]
struct Counted(Arc<MemoryStore>, std::sync::atomic::AtomicU64);

#[async_trait]
impl RowStore for Counted {
    async fn load_row(&self, space: Space, key: RowKey) -> Result<Option<Row>, StoreError> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.load_row(space, key).await
    }

    async fn insert_row(&self, space: Space, key: RowKey, row: Row, now: Timestamp) -> Result<RowInserted, StoreError> {
        self.0.insert_row(space, key, row, now).await
    }

    async fn swap_row(
        &self,
        space: Space,
        key: RowKey,
        expected: RowVersion,
        row: Row,
        now: Timestamp,
    ) -> Result<RowSwapped, StoreError> {
        self.0.swap_row(space, key, expected, row, now).await
    }

    async fn remove_row(&self, space: Space, key: RowKey, expected: Option<RowVersion>) -> Result<bool, StoreError> {
        self.0.remove_row(space, key, expected).await
    }

    async fn row_keys(&self, space: Space, after: Option<RowKey>, limit: usize) -> Result<Vec<RowKey>, StoreError> {
        assert!(limit < 1_000_000, "all of a million rows were asked for");
        self.0.row_keys(space, after, limit).await
    }

    async fn sweep_rows(&self, space: Space, now: Timestamp) -> Result<u64, StoreError> {
        self.0.sweep_rows(space, now).await
    }
}

#[tokio::test]
async fn k13_among_a_million_keys_an_unknown_one_costs_one_read_and_a_page_is_bounded() {
    let world = World::new().await;
    let (text, key) = world.made(world.new_key()).await;
    let rows = world.store.row_keys(API_KEYS, None, usize::MAX).await.unwrap();
    let row = world.store.load_row(API_KEYS, rows[0]).await.unwrap().unwrap();
    for n in 0..1_000_000_u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
        world.store.insert_row(API_KEYS, RowKey(id), row.clone(), key.created).await.unwrap();
    }
    let store = Arc::new(Counted(Arc::clone(&world.store), Default::default()));
    let settings = ApiKeySettings::new("acme").unwrap();
    let (_, unknown) = settings.prefix.generate().unwrap();
    let keys = ApiKeys::new(settings, Arc::<Counted>::clone(&store));
    let engine = &world.gate.0.engine;
    let reads = || store.1.swap(0, std::sync::atomic::Ordering::Relaxed);
    assert!(keys.read(engine, unknown.expose_secret(), &|_| None).await.is_err());
    assert_eq!(reads(), 1);
    assert!(keys.read(engine, &text, &|_| None).await.is_ok());
    assert_eq!(reads(), 1);
    // The million rows are of another place, so no page has a key of them.
    let (mut after, mut found) = (None, Vec::new());
    for _ in 0..3 {
        let page = keys.list(engine, after.as_deref(), 100).await.unwrap();
        assert_eq!(reads(), 5000);
        found.extend(page.keys);
        after = page.next;
    }
    assert!(found.len() <= 1 && keys.list(engine, Some("no cursor"), 1).await.is_err());
}

//! API keys through the layer, in a store in memory.

use std::convert::Infallible;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{COOKIE, HOST};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tower::{Layer, ServiceExt};
use uuid::Uuid;

use super::*;
use crate::gate::{Browser, CredentialKind, GateBody, Identity, NewSession, Peer, Whose};
use rotogate_core::api_key::ApiKeySettings;
use rotogate_core::claim::{OwnClaims, ROLES};
use rotogate_core::client::Client;
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::directory::{Directory, DirectoryError, User};
use rotogate_core::engine::api_keys::keys_by_secret;
use rotogate_core::route::{Credentials, Role, Route, RoutePolicy, StepUp};
use rotogate_core::session::RevokedBecause;
use rotogate_core::store::MemoryStore;
use rotogate_core::store::relay::{KEY_OWNER, RelayStore};
use rotogate_core::token::Algorithm;
use rotogate_core::token::keyring::{Keyring, RefreshKeys, RefreshSecret, SigningKey};

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
        let store = Arc::new(MemoryStore::new(ISSUER, crate::gate::DEFAULT_LEEWAY));
        let takes = || RoutePolicy::default().api_key();
        let only = Credentials { token: false, session: false, key: true };
        let routes = [
            ("/keys", takes()),
            ("/sessions", takes().session()),
            ("/token", RoutePolicy::default()),
            ("/only", RoutePolicy { credentials: only, ..RoutePolicy::default() }),
            ("/write", RoutePolicy { scopes: Scope::parse("write").unwrap(), ..takes() }),
            ("/admins", RoutePolicy { roles: vec![Role { issuer: None, name: "admin".into() }], ..takes() }),
            ("/bound", RoutePolicy { dpop_required: true, ..takes() }),
            ("/step-up", RoutePolicy { step_up: Some(StepUp { acr: vec!["gold".into()], max_age: None }), ..takes() }),
            ("/elsewhere", RoutePolicy { audiences: vec!["https://other.test".into()], ..takes() }),
            ("/forwards", RoutePolicy { forward_token: true, ..takes() }),
            ("/public", RoutePolicy::public()),
        ];
        let secrets = [(); 2].map(|()| RefreshSecret::generate().unwrap().to_text().to_string());
        let mut claims = OwnClaims::new();
        claims.insert(ROLES, ["admin"]).unwrap();
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
            .relay_store(Arc::<MemoryStore>::clone(&store))
            .api_keys(ApiKeySettings::new("acme").unwrap())
            .browser(Browser::own("/auth"))
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
        let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let caller = Identity::from_extensions(request.extensions());
            let mut response = Response::new(Full::default());
            response.extensions_mut().insert(Received { headers: request.into_parts().0.headers, caller });
            async move { Ok::<_, Infallible>(response) }
        });
        let peer = Peer::new([192, 0, 2, 7].into(), true);
        let mut request = Request::get(target).header(HOST, "gate.test").extension(peer);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        self.gate.layer().layer(service).oneshot(request.body(Full::default()).unwrap()).await.unwrap()
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
            assert_eq!((caller.subject(), caller.credential()), ("ada", CredentialKind::ApiKey));
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
        // It decides alone beside a session cookie.
        ("/sessions", vec![("x-api-key", &*text), (COOKIE.as_str(), "__Host-Http-rg=whatever")], 200),
    ] {
        let reply = world.send(target, &pairs).await;
        assert_eq!(reply.status().as_u16(), status, "{target} {pairs:?}");
    }
    for target in [format!("/keys?api_key={text}"), format!("/keys?access_token={text}")] {
        assert_ne!(world.send(&target, &[]).await.status(), StatusCode::OK, "{target}");
    }
    let cheap = world
        .gate
        .0
        .checker
        .check(rotogate_core::credential::Credential::new(&text), || world.gate.0.shown(None::<std::net::IpAddr>));
    assert_eq!(cheap.err(), Some(Denial::UnusableCredential), "our own endpoints take tokens");
    assert!(world.gate.0.checker.at_hand::<()>(text.as_bytes()).is_none());
}

#[tokio::test]
async fn k4_what_ends_a_key_refuses_it_at_the_next_request() {
    let world = World::new().await;
    let (text, key) = world.made(world.new_key()).await;
    assert_eq!(world.status("/keys", &text).await, 200);
    world.gate.0.engine.revoke_subject("ada", RevokedBecause::Logout).await.unwrap();
    assert_eq!(world.status("/keys", &text).await, 200, "a logout everywhere ends no key");
    assert!(world.keys().revoke(&key.id).await.unwrap().is_some_and(|key| key.revoked.is_some()));
    assert_eq!(world.status("/keys", &text).await, 401);
    assert!(world.keys().of_owner("ada").await.unwrap().is_empty());
    world.time.advance(DAY);
    world.gate.0.engine.revocations().sweep(world.gate.0.engine.clock().now());
    assert_eq!(world.status("/keys", &text).await, 401, "the mark in the record outlives the list's");
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
    for _ in 0..48 {
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
    world.time.advance(DAY);
    assert_eq!((world.status("/keys", &old).await, world.status("/keys", &new).await), (401, 200));
    let (last, _) = world.keys().rotate(&next.id, Some(Duration::ZERO)).await.unwrap().unwrap().unwrap();
    assert_eq!((world.status("/keys", &new).await, world.status("/keys", last.expose_secret()).await), (401, 200));
}

#[tokio::test]
async fn k2_k14_the_store_has_no_key_and_who_writes_to_it_makes_none() {
    let world = World::new().await;
    let (text, key) = world.made(NewApiKey { scopes: Some(Scope::parse("read").unwrap()), ..world.new_key() }).await;
    let mut of_key = None;
    for id in world.store.relay_ids().await.unwrap() {
        let row = world.store.load_relay(id).await.unwrap().unwrap();
        let content = String::from_utf8_lossy(&row.sealed).into_owned();
        assert!(row.owner == KEY_OWNER && !content.contains(&text[20..]), "{content}");
        of_key = content.contains("nightly").then_some((id, row)).or(of_key);
    }
    let (id, row) = of_key.unwrap();
    // K14: a report of a leak ends a key, and says no more than how many.
    let other = text.replace(&text[20..24], "0000");
    let said = [other, "junk".to_owned()].map(SecretString::from);
    assert_eq!(world.keys().leaked(&said).await.unwrap(), 0);
    assert_eq!(world.status("/write", &text).await, 403);
    let wider = String::from_utf8_lossy(&row.sealed[33..]).replace("\"read\"", "\"read write\"");
    let forged = [&row.sealed[..33], wider.as_bytes()].concat();
    let mut changed = row.clone();
    (changed.sealed, changed.attempt) = (forged, row.attempt + 1);
    world.store.swap_relay(id, row.version(), changed.clone()).await.unwrap();
    world.time.advance(MINUTE * 6);
    assert_eq!(world.status("/write", &text).await, 503, "never a decision");
    let mut whole = row.clone();
    whole.attempt = changed.attempt + 1;
    world.store.swap_relay(id, changed.version(), whole).await.unwrap();
    assert_eq!(world.status("/keys", &text).await, 200);
    assert_eq!(world.keys().leaked(&[SecretString::from(&*text)]).await.unwrap(), 1);
    assert_eq!(world.status("/keys", &text).await, 401);
    assert_eq!(world.keys().leaked(&[SecretString::from(&*text)]).await.unwrap(), 0);
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
    let now = world.gate.0.engine.clock().now();
    let left = keys_by_secret(&*world.store, now).await.unwrap();
    assert_eq!(left, [(1, 1), (2, 1)].into(), "one is left under the old secret");
    world.gate.set_keys(keyring(2, &[(2, second)], signer()), Vec::new()).unwrap();
    assert_eq!((world.status("/keys", &used).await, world.status("/keys", &unused).await), (200, 503));
    assert!(world.keys().revoke(&idle.id).await.is_err());
    let (text, key) = world.made(world.new_key()).await;
    assert_eq!(world.status("/keys", &text).await, 200, "and its owner makes further ones");
    world.keys().revoke(&key.id).await.unwrap();
    assert_eq!(world.status("/keys", &text).await, 401);
}

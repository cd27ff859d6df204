//! API keys: what their refusals cost, and what a store that fails or lacks records leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use secrecy::{ExposeSecret, SecretString};

use super::support::{HOUR, Kind, Mode, World, denied, failed, secs};
use crate::api_key::{ApiKey, ApiKeySettings, NewApiKey};
use crate::engine::api_keys::{API_KEYS, ApiKeys, KeyRefusal};
use crate::fault::Fault;
use crate::session::RevokedBecause;
use crate::store::MemoryStore;
use crate::store::rows::{Row, RowKey, RowStore, RowVersion};
use crate::token::keyring::refresh_keys::tags;

/// The keys of a world, in a store of their own.
struct Scene {
    world: World,
    keys: ApiKeys,
    store: Arc<MemoryStore>,
}

impl Scene {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new("https://gate.test", HOUR));
        let keys = ApiKeys::new(ApiKeySettings::new("acme").unwrap(), Arc::<MemoryStore>::clone(&store));
        Self { world: World::on(Kind::Alone).await, keys, store }
    }

    async fn create(&self) -> Result<(SecretString, ApiKey), KeyRefusal> {
        let new = NewApiKey { name: "a job of the night".into(), subject: "ada".into(), ..NewApiKey::default() };
        self.keys.create(&self.world.engine, new, &|_| None).await.unwrap()
    }

    /// The rows that contain this text.
    async fn rows(&self, text: &str) -> Vec<(RowKey, Row)> {
        let mut found = Vec::new();
        for id in self.store.row_keys(API_KEYS, None, usize::MAX).await.unwrap() {
            let row = self.store.load_row(API_KEYS, id).await.unwrap().unwrap();
            if String::from_utf8_lossy(&row.bytes).contains(text) {
                found.push((id, row));
            }
        }
        found
    }

    fn count(&self, event: &str) -> u64 {
        self.keys.counts().find(|(name, _)| *name == event).unwrap().1
    }
}

#[tokio::test]
async fn k3_an_unknown_key_costs_the_same_hashes_as_a_wrong_secret_also_after_a_roll() {
    let scene = Scene::new().await;
    let (text, key) = scene.create().await.unwrap();
    let Scene { world, keys, .. } = scene;
    let (_, unknown) = keys.settings().prefix.generate().unwrap();
    let wrong = keys.settings().prefix.guessed(&key.id);
    let work = async |text: &str| {
        tags::taken();
        let refusal = denied(keys.read(&world.engine, text, &|_| None).await);
        (refusal, tags::taken())
    };
    // A roll keeps the secret of the record's seal. The record for unknown keys is made once for each secret.
    for secrets in [&[1][..], &[2, 1]] {
        world.set_keys(world.keys.ring(&["a"], secrets));
        assert_eq!(work(unknown.expose_secret()).await.0, work(&wrong).await.0);
        let (refusal, hashes) = work(unknown.expose_secret()).await;
        assert_eq!((refusal, &hashes), (work(&wrong).await.0, &work(&wrong).await.1));
        assert_eq!(hashes, ["row", "key"], "the record is opened, and the text is compared");
    }
    assert!(keys.read(&world.engine, text.expose_secret(), &|_| None).await.is_ok());
}

#[tokio::test]
async fn p42_a_gate_that_issues_nothing_makes_and_replaces_no_key_but_ends_keys() {
    let scene = Scene::new().await;
    let (_, key) = scene.create().await.unwrap();
    let suspended = Arc::new(AtomicBool::new(true));
    scene.world.engine.suspend_grants_while(Arc::clone(&suspended));
    let new = NewApiKey { name: "a job".into(), subject: "ada".into(), ..NewApiKey::default() };
    let made = scene.keys.create(&scene.world.engine, new, &|_| None).await;
    assert!(matches!(failed(made), Fault::Suspended));
    assert!(matches!(failed(scene.keys.rotate(&scene.world.engine, &key.id, None).await), Fault::Suspended));
    assert_eq!(scene.keys.of_owner(&scene.world.engine, "ada").await.unwrap().len(), 1, "no key was made");
    assert!(scene.keys.revoke(&scene.world.engine, &key.id).await.unwrap().is_some());
    suspended.store(false, Ordering::SeqCst);
    assert!(scene.create().await.is_ok());
}

#[tokio::test]
async fn k7_a_rotation_gives_the_text_of_the_new_key_although_the_store_takes_no_revocation() {
    let scene = Scene::new().await;
    let (_, old) = scene.create().await.unwrap();
    scene.world.store.set(Mode::WritesFail);
    let rotated = scene.keys.rotate(&scene.world.engine, &old.id, None).await.unwrap().unwrap();
    let (text, new) = rotated.unwrap();
    assert!(scene.keys.read(&scene.world.engine, text.expose_secret(), &|_| None).await.is_ok());
    let old = scene.keys.get(&scene.world.engine, &old.id).await.unwrap().unwrap();
    assert_eq!((old.successor.as_deref(), scene.count("rotated")), (Some(&*new.id), 1));
    scene.world.store.set(Mode::Good);
    assert_eq!(scene.world.engine.pay().await.unwrap(), 1, "the mark of the old key was owed");
}

#[tokio::test]
async fn k14_a_key_whose_record_is_bad_ends_and_hinders_no_report_of_others() {
    let scene = Scene::new().await;
    let ((bad, spoilt), (good, other)) = (scene.create().await.unwrap(), scene.create().await.unwrap());
    let engine = &scene.world.engine;
    let [(at, row)] = &scene.rows(&format!("\"id\":\"{}\",\"name\"", spoilt.id)).await[..] else { panic!("one row") };
    let now = engine.clock().now();
    let mut changed = Row { version: RowVersion([1; 16]), ..row.clone() };
    changed.bytes[40] ^= 1;
    scene.store.swap_row(API_KEYS, *at, row.version, changed.clone(), now).await.unwrap();
    let report = [bad, good];
    let (revoked, done) = scene.keys.leaked(engine, &report).await;
    assert!(revoked == 1 && done.is_err(), "{revoked} {done:?}");
    assert!(scene.keys.get(engine, &other.id).await.unwrap().unwrap().revoked.is_some());
    scene.store.swap_row(API_KEYS, *at, changed.version, row.clone(), now).await.unwrap();
    assert!(!ApiKeys::is_in_force(engine, &spoilt), "the list refuses the key, whose text could not be judged");
    // The sender repeats the report.
    let (revoked, done) = scene.keys.leaked(engine, &report).await;
    assert!(revoked == 1 && done.is_ok(), "{revoked} {done:?}");
}

#[tokio::test]
async fn k4_keys_that_ended_with_all_of_their_owner_are_not_live_and_take_no_place() {
    let scene = Scene::new().await;
    let engine = &scene.world.engine;
    let mut keys = Vec::new();
    for _ in 0..50 {
        keys.push(scene.create().await.unwrap().1);
    }
    assert_eq!(scene.create().await.unwrap_err(), KeyRefusal::TooMany);
    assert_eq!(scene.keys.by_secret(engine).await.unwrap(), [(1, 50)].into());
    engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    assert_eq!(scene.keys.of_owner(engine, "ada").await.unwrap(), []);
    assert_eq!(scene.keys.by_secret(engine).await.unwrap(), [].into());
    let rotated = scene.keys.rotate(engine, &keys[0].id, None).await.unwrap().unwrap();
    assert_eq!(rotated.unwrap_err(), KeyRefusal::Over, "an ended key gives no good one");
    let (_, key) = scene.create().await.unwrap();
    assert_eq!(scene.keys.of_owner(engine, "ada").await.unwrap(), [key]);
}

#[tokio::test]
async fn k5_ids_of_keys_that_were_never_made_take_no_place_after_a_minute() {
    let scene = Scene::new().await;
    for _ in 0..50 {
        scene.create().await.unwrap();
    }
    // As if each process had stopped between the id and the record.
    for (id, _) in scene.rows("\"name\"").await {
        assert!(scene.store.remove_row(API_KEYS, id, None).await.unwrap());
    }
    assert_eq!(scene.create().await.unwrap_err(), KeyRefusal::TooMany, "other requests may still write the records");
    scene.world.advance(secs(61));
    let (_, key) = scene.create().await.unwrap();
    assert_eq!(scene.keys.of_owner(&scene.world.engine, "ada").await.unwrap(), [key]);
}

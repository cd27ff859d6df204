//! API keys: what their refusals cost.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::support::{HOUR, Kind, World, denied};
use crate::api_key::{ApiKeySettings, NewApiKey};
use crate::engine::api_keys::ApiKeys;
use crate::store::MemoryStore;
use crate::token::keyring::tags;

#[tokio::test]
async fn k3_an_unknown_key_costs_the_same_hashes_as_a_wrong_secret_also_after_a_roll() {
    let world = World::on(Kind::Alone).await;
    let settings = ApiKeySettings::new("acme").unwrap();
    let keys = ApiKeys::new(settings.clone(), Arc::new(MemoryStore::new("https://gate.test", HOUR)));
    let new = NewApiKey { name: "a job of the night".into(), subject: "ada".into(), ..NewApiKey::default() };
    let (text, key) = keys.create(&world.engine, new, &|_| None).await.unwrap().unwrap();
    let (_, unknown) = settings.prefix.generate().unwrap();
    let wrong = settings.prefix.guessed(&key.id);
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

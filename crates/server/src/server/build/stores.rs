//! Opens keys and stores.

use std::io::ErrorKind;
use std::sync::Arc;

use uuid::Uuid;

#[cfg(any(feature = "postgres", feature = "redis"))]
use super::shared;
#[cfg(any(feature = "postgres", feature = "redis"))]
use super::start_wait::once_it_is_there;
use crate::log;
use crate::server::error::{KeyFault, ServerError};
use rotogate::gate::GateBuilder;
#[cfg(feature = "postgres")]
use rotogate::store::PostgresStore;
#[cfg(feature = "redis")]
use rotogate::store::RedisStore;
use rotogate::store::redb::{Options, RedbStore, check_mark};
use rotogate_config::{Config, RedbSettings, StoreConfig};
use rotogate_core::store::rows::RowStore;
use rotogate_core::store::{MemoryStore, Store, StoreError};
use rotogate_core::token::keyring::{Keyring, OpenedKeyring};

#[derive(Debug)]
pub(crate) struct Stores {
    pub(crate) sessions: Arc<dyn Store>,
    pub(crate) rows: Arc<dyn RowStore>,
}

impl Stores {
    pub(super) fn given_to(self, builder: GateBuilder) -> GateBuilder {
        builder.shared_store(self.sessions).row_store(self.rows)
    }
}

impl From<MemoryStore> for Stores {
    fn from(store: MemoryStore) -> Self {
        let store = Arc::new(store);
        Self { rows: Arc::clone(&store) as _, sessions: store }
    }
}

pub(super) type OpenedStores = (Option<RedbStore>, Stores);

/// Opens the keys and their store. All gates of a store share keys, so keys are created only with a new store.
pub(super) async fn keys_and_stores(config: &Config) -> Result<(Keyring, OpenedStores), ServerError> {
    if let Some(keys) = &config.api_keys {
        log::hide_keys(&keys.prefix);
    }
    let (keys, algorithm) = (&config.issuer.keys, config.issuer.algorithm);
    if !config.store.is_shared() {
        refuse_lost_keys(config)?;
        let keyring = Keyring::load_or_create(keys, algorithm).map_err(ServerError::part)?;
        let stores = stores(config, &keyring).await?;
        return Ok((keyring, stores));
    }
    match Keyring::load_or_begin(keys, algorithm).map_err(ServerError::part)? {
        OpenedKeyring::Loaded(keyring) => {
            let stores = stores(config, &keyring).await?;
            Ok((*keyring, stores))
        }
        OpenedKeyring::New(new) => match stores(config, new.keyring()).await {
            Ok(stores) => Ok((new.publish().map_err(ServerError::part)?, stores)),
            Err(ServerError::Part(error)) if is_of_another_keyring(&*error) => {
                new.remove();
                Err(ServerError::NoKeys { error: Box::new(ServerError::Part(error)), folder: keys.clone() })
            }
            // The store may already use the new keyring, so the keyring is kept.
            Err(error) => Err(error),
        },
    }
}

fn is_of_another_keyring(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(StoreError::is_of_another_keyring)
}

/// Fails if the keys of an embedded store are lost. New keys could not verify the tokens of the store's sessions.
pub(crate) fn refuse_lost_keys(config: &Config) -> Result<(), ServerError> {
    // At its first start, a gate creates the keys before the store. This function must therefore look for the store
    // first.
    let refused = refuse_new_keys(config);
    let there = Keyring::load_if_there(&config.issuer.keys).map_err(ServerError::part)?;
    if there.is_some() { Ok(()) } else { refused.map_err(|fault| ServerError::at(config, fault)) }
}

/// Fails if the embedded store exists, or if its mark file shows that it should exist.
pub(super) fn refuse_new_keys(config: &Config) -> Result<(), KeyFault> {
    let StoreConfig::Redb(RedbSettings { path, mark, .. }) = &config.store else {
        return Ok(());
    };
    if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return check_mark(mark, path, false).map_err(|error| KeyFault::new("store.path", error.to_string()));
    }
    let (folder, store, mark) = (config.issuer.keys.display(), path.display(), mark.display());
    Err(KeyFault::new(
        "issuer.keys",
        format!(
            "there are no keys in {folder}, but the store {store} exists, and only its own keys can verify its \
             sessions. Copy the key folder from the back-up, or name the folder that contains the keys. To start over \
             without the previous keys and sessions, move {store} and {mark} away"
        ),
    ))
}

pub(crate) async fn open_stores(config: &Config, keyring: &Keyring) -> Result<Stores, ServerError> {
    Ok(stores(config, keyring).await?.1)
}

/// Returns the store if several gates can share it.
pub(crate) async fn shared_store(config: &Config, keyring: &Keyring) -> Result<Option<Arc<dyn Store>>, ServerError> {
    if !config.store.is_shared() {
        return Ok(None);
    }
    Ok(Some(stores(config, keyring).await?.1.sessions))
}

async fn stores(config: &Config, keyring: &Keyring) -> Result<OpenedStores, ServerError> {
    match &config.store {
        StoreConfig::Memory => {
            tracing::warn!("`store.kind` is \"memory\": all sessions are lost when the gate stops");
            Ok((None, MemoryStore::new(config.issuer.url.as_str(), config.issuer.leeway).into()))
        }
        StoreConfig::Redb(RedbSettings { path, .. }) => {
            let store = RedbStore::open(path, redb_options(config, keyring.id())).map_err(ServerError::part)?;
            let stores = Stores { sessions: Arc::new(store.clone()), rows: Arc::new(store.clone()) };
            Ok((Some(store), stores))
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            let options = shared::of_postgres(config, settings, keyring.id())?;
            let connect = || PostgresStore::connect(options.clone());
            let store = Arc::new(once_it_is_there(connect).await.map_err(ServerError::part)?);
            let stores = Stores { rows: Arc::clone(&store) as _, sessions: store };
            Ok((None, stores))
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => {
            let options = shared::of_redis(config, settings, keyring.id())?;
            let connect = || RedisStore::connect(options.clone());
            let store = Arc::new(once_it_is_there(connect).await.map_err(ServerError::part)?);
            let stores = Stores { rows: Arc::clone(&store) as _, sessions: store };
            Ok((None, stores))
        }
    }
}

pub(crate) fn redb_options(config: &Config, keyring: Uuid) -> Options {
    let mut options = Options::new(config.issuer.url.as_str(), keyring, config.issuer.leeway);
    if let StoreConfig::Redb(RedbSettings { path: _, mark, cache_size }) = &config.store {
        options.high_water = Some(mark.clone());
        options.cache_size = *cache_size;
    }
    options
}

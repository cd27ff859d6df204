//! Which of `[store]` and `[store.next]` is in charge, and how both are opened. See `rotogate::store::moving`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use super::ServerError;
use super::assemble::{from, redb_options};
#[cfg(any(feature = "postgres", feature = "redis"))]
use super::shared;
use crate::config::{Config, StoreConfig};
#[cfg(feature = "postgres")]
use rotogate::store::PostgresStore;
#[cfg(feature = "redis")]
use rotogate::store::RedisStore;
use rotogate::store::copy::{CopyTarget, Destination, Standing, mark_names};
use rotogate::store::moving::{self, Opening};
use rotogate::store::redb::RedbStore;
use rotogate::store::{StoreError, WriteOutcome};

/// The store to open.
pub(crate) struct InCharge {
    /// Its `[store]` is the store in charge.
    pub(crate) config: Config,
    /// The store to move to, if `[store]` is in charge and there is one: its `[store]` is that one.
    pub(crate) next: Option<Config>,
}

/// Finds the store in charge. A switch that was cut short is brought to its end.
///
/// # Errors
/// The stores are not those of one move, or the one that is in charge cannot be told or reached.
pub(crate) async fn in_charge(config: &Config, keyring: Uuid) -> Result<InCharge, ServerError> {
    let own = Config { next_store: None, ..config.clone() };
    let Some(store) = &config.next_store else { return Ok(InCharge { config: own, next: None }) };
    let next = Config { store: store.clone(), ..own.clone() };
    let mut stands = match standing(&next, keyring).await {
        Ok(stands) => stands,
        // If `[store]` was moved, it says so when it is opened.
        Err(error) => {
            tracing::warn!(%error, "[store.next] does not answer");
            return Ok(InCharge { config: own, next: Some(next) });
        }
    };
    if let Standing::Copying { .. } | Standing::Missing = stands
        && let Ok(Standing::Moved { to, .. }) = standing(&own, keyring).await
    {
        if stands.store() != Some(to.store) {
            return Err(ServerError::new(to.refusal("[store]")));
        }
        let files = Stores::new(own.clone(), next.clone(), keyring, None);
        let old = open_moved(&own, keyring).await.map_err(from)?;
        moving::finish(&*old, &files).await.map_err(from)?;
        files.close().await;
        stands = standing(&next, keyring).await.map_err(from)?;
    }
    match stands {
        Standing::Missing | Standing::Copying { .. } => Ok(InCharge { config: own, next: Some(next) }),
        Standing::Serving { store, of: Some(of) } if of.parse::<Uuid>().is_ok() => {
            let of = of.parse().map_err(|error: uuid::Error| from(error))?;
            left(&own, (of, store, name(&next.store)), keyring).await?;
            publish(&next.store)?;
            // The mark is of the store that this one is a copy of.
            if let Some(mark) = next.store.mark()
                && mark_names(mark, of)
            {
                std::fs::remove_file(mark)
                    .map_err(|error| ServerError::new(format!("{} cannot be removed: {error}", mark.display())))?;
            }
            tracing::info!(store = name(&next.store), "the store was moved: [store.next] is in charge");
            Ok(InCharge { config: next, next: None })
        }
        Standing::Serving { .. } => Err(ServerError::new(format!(
            "[store.next]: {} has data of its own: move to an empty one, or remove [store.next]",
            name(&next.store)
        ))),
        Standing::Moved { to, .. } => Err(ServerError::new(to.refusal(format!("[store.next]: {}", name(&next.store))))),
    }
}

/// The store in charge as it seems, without a change of any; and how the one to move to stands.
///
/// # Errors
/// That one does not answer.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(super) async fn on_line(config: &Config, keyring: Uuid) -> Result<(Config, Option<String>), StoreError> {
    let own = Config { next_store: None, ..config.clone() };
    let Some(store) = &config.next_store else { return Ok((own, None)) };
    let next = Config { store: store.clone(), ..own.clone() };
    let place = name(&next.store);
    Ok(match standing(&next, keyring).await? {
        Standing::Missing => (own, Some(format!("[store.next]: {place}: there is no store yet"))),
        Standing::Copying { .. } => (own, Some(format!("[store.next]: {place} is becoming a copy"))),
        Standing::Serving { .. } => (next, Some(format!("[store.next]: {place} is in charge"))),
        Standing::Moved { to, .. } => {
            return Err(StoreError::new(to.refusal(place)));
        }
    })
}

/// The old store must be the one that was moved. If a failover made it forget that, it is fenced again.
async fn left(old: &Config, (of, store, place): (Uuid, Uuid, String), keyring: Uuid) -> Result<(), ServerError> {
    match standing(old, keyring).await {
        Ok(stands) if stands.store().is_some_and(|known| known != of) => Err(ServerError::new(format!(
            "[store.next] is a copy of another store than {}, which is [store]",
            name(&old.store)
        ))),
        Ok(Standing::Serving { .. }) => {
            tracing::error!(store = name(&old.store), "old store has forgotten that it was moved: fenced again");
            let fenced = async { open_moved(old, keyring).await?.move_to(&Destination { store, place }).await };
            fenced.await.map_err(from)
        }
        Ok(Standing::Missing | Standing::Copying { .. } | Standing::Moved { .. }) | Err(_) => Ok(()),
    }
}

/// Kind and address of a store, for people.
pub(crate) fn name(store: &StoreConfig) -> String {
    match store {
        StoreConfig::Memory => "memory".to_owned(),
        StoreConfig::Redb { path, .. } => format!("redb {}", path.display()),
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => format!("postgres {} {}", settings.url, settings.schema),
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => format!("redis {} {}", settings.urls.join(" "), settings.prefix),
    }
}

/// A copy in a file has another name until it is whole.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".copying");
    PathBuf::from(part)
}

#[cfg(any(feature = "postgres", feature = "redis"))]
fn wrong(error: &shared::Wrong) -> StoreError {
    StoreError::new(error.to_string()).with_outcome(WriteOutcome::Refused)
}

fn memory() -> StoreError {
    StoreError::new("a memory store is neither copied nor moved").with_outcome(WriteOutcome::Refused)
}

/// How a store stands, without a change of it. An unfinished copy in a file has no other name.
async fn standing(config: &Config, keyring: Uuid) -> Result<Standing, StoreError> {
    // Not all kinds need it.
    let _ = keyring;
    match &config.store {
        StoreConfig::Memory => Err(memory()),
        StoreConfig::Redb { path, .. } => {
            let part = unfinished(path);
            RedbStore::standing_at(if path.exists() || !part.exists() { path } else { &part })
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            let options = shared::of_postgres(config, settings, keyring).map_err(|error| wrong(&error))?;
            PostgresStore::standing_at(options).await
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => {
            let options = shared::of_redis(config, settings, keyring).map_err(|error| wrong(&error))?;
            RedisStore::standing_at(options).await
        }
    }
}

/// Opens a store although it was moved.
async fn open_moved(config: &Config, keyring: Uuid) -> Result<Arc<dyn CopyTarget>, StoreError> {
    Ok(match &config.store {
        StoreConfig::Memory => return Err(memory()),
        StoreConfig::Redb { path, .. } => {
            let mut options = redb_options(config, keyring);
            (options.high_water, options.read_moved) = (None, true);
            Arc::new(RedbStore::open(path, options)?)
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => {
            let options = shared::of_postgres(config, settings, keyring).map_err(|error| wrong(&error))?;
            Arc::new(PostgresStore::connect(options.without_mark().reading_moved()).await?)
        }
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => {
            let options = shared::of_redis(config, settings, keyring).map_err(|error| wrong(&error))?;
            Arc::new(RedisStore::connect(options.without_mark().reading_moved()).await?)
        }
    })
}

/// Gives a whole copy in a file its name.
fn publish(store: &StoreConfig) -> Result<(), ServerError> {
    let StoreConfig::Redb { path, .. } = store else { return Ok(()) };
    let part = unfinished(path);
    if path.exists() || !part.exists() {
        return Ok(());
    }
    std::fs::rename(&part, path)
        .map_err(|error| ServerError::new(format!("{} cannot be renamed: {error}", part.display())))
}

/// How a gate opens the two stores of a move.
#[derive(Debug)]
pub(crate) struct Stores {
    old: Config,
    next: Config,
    keyring: Uuid,
    /// The old store, if it is embedded and open.
    old_file: Option<RedbStore>,
    /// The next store, once it is open, if it is embedded.
    next_file: Mutex<Option<RedbStore>>,
}

impl Stores {
    pub(crate) fn new(old: Config, next: Config, keyring: Uuid, old_file: Option<RedbStore>) -> Self {
        Self { old, next, keyring, old_file, next_file: Mutex::default() }
    }

    fn next_file(&self) -> Option<RedbStore> {
        self.next_file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the next store, if it is embedded.
    pub(crate) async fn close(&self) {
        if let Some(store) = self.next_file()
            && let Err(error) = store.close().await
        {
            tracing::error!(%error, "next store not closed cleanly");
        }
    }
}

#[async_trait]
impl Opening for Stores {
    async fn next(&self, of: Uuid) -> Result<Arc<dyn CopyTarget>, StoreError> {
        let (config, of) = (&self.next, of.to_string());
        Ok(match &config.store {
            StoreConfig::Memory => return Err(memory()),
            StoreConfig::Redb { path, .. } => {
                if let Some(open) = self.next_file() {
                    return Ok(Arc::new(open));
                }
                if path.exists() {
                    let why = format!("{} exists already: move to a new file", path.display());
                    return Err(StoreError::new(why).with_outcome(WriteOutcome::Refused));
                }
                let mut options = redb_options(config, self.keyring);
                (options.high_water, options.copying) = (None, Some(of));
                let store = RedbStore::open(unfinished(path), options)?;
                *self.next_file.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
                Arc::new(store)
            }
            #[cfg(feature = "postgres")]
            StoreConfig::Postgres(settings) => {
                let options = shared::of_postgres(config, settings, self.keyring).map_err(|error| wrong(&error))?;
                Arc::new(PostgresStore::connect(options.without_mark().copying(of)).await?)
            }
            #[cfg(feature = "redis")]
            StoreConfig::Redis(settings) => {
                let options = shared::of_redis(config, settings, self.keyring).map_err(|error| wrong(&error))?;
                Arc::new(RedisStore::connect(options.without_mark().copying(of)).await?)
            }
        })
    }

    async fn moved(&self) -> Result<Arc<dyn CopyTarget>, StoreError> {
        match &self.old_file {
            Some(open) => Ok(Arc::new(open.clone())),
            None => open_moved(&self.old, self.keyring).await,
        }
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        match self.next_file() {
            Some(open) => open.standing().await,
            None => standing(&self.next, self.keyring).await,
        }
    }

    async fn publish(&self) -> Result<(), StoreError> {
        self.close().await;
        publish(&self.next.store).map_err(|error| StoreError::new(error.to_string()))
    }

    fn place(&self) -> String {
        name(&self.next.store)
    }

    fn is_shared(&self) -> bool {
        self.next.store.is_shared()
    }
}

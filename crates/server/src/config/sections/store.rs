//! `[store]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::super::print::{self, number, put, put_some, time};
use super::super::raw::Section;
use super::super::value;
use super::{DAY, SECOND, path_in};
use rotogate::store::redb::DEFAULT_CACHE_SIZE;
#[cfg(any(feature = "postgres", feature = "redis"))]
use rotogate_core::store::Staleness;

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod shared;

#[cfg(feature = "postgres")]
pub use postgres::PostgresSettings;
#[cfg(feature = "redis")]
pub use redis::{RedisSettings, SentinelSettings};

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// Sessions are lost at a restart.
    Memory,
    /// The embedded store.
    Redb {
        /// Its file.
        path: PathBuf,
        /// The file of its high-water mark (requirement O5).
        mark: PathBuf,
        /// Whether the operator allows a restored backup (requirement O5).
        accept_restored_store: bool,
        /// The memory for pages, in bytes.
        cache_size: usize,
        /// How long the store may be unwritable before the gate stops.
        give_up: Option<Duration>,
    },
    /// A database that several gates share.
    #[cfg(feature = "postgres")]
    Postgres(PostgresSettings),
    /// A server that several gates share.
    #[cfg(feature = "redis")]
    Redis(Box<RedisSettings>),
}

#[derive(Clone, Copy)]
enum StoreKind {
    Redb,
    Memory,
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "redis")]
    Redis,
}

const KINDS: &[(&str, StoreKind)] = &[
    ("redb", StoreKind::Redb),
    ("memory", StoreKind::Memory),
    #[cfg(feature = "postgres")]
    ("postgres", StoreKind::Postgres),
    #[cfg(feature = "redis")]
    ("redis", StoreKind::Redis),
];

/// The features of the kinds that not every build has.
const FEATURES: &[(&str, &str)] = &[("postgres", "postgres"), ("redis", "redis")];

/// The defaults of the section. That of `cache_size` is [`DEFAULT_CACHE_SIZE`].
impl StoreConfig {
    const PATH: &str = "data/rotogate.redb";
    const MARK: &str = "data/store.mark";
    /// Where the mark was before it had a key of its own.
    const FORMER_MARK: &str = "store.mark";

    /// The file of the high-water mark.
    pub(crate) fn mark(&self) -> Option<&Path> {
        match self {
            Self::Memory => None,
            Self::Redb { mark, .. } => Some(mark),
            #[cfg(feature = "postgres")]
            Self::Postgres(settings) => Some(&settings.mark),
            #[cfg(feature = "redis")]
            Self::Redis(settings) => Some(&settings.mark),
        }
    }

    /// Whether other gates write to it, too.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::Memory | Self::Redb { .. } => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => true,
            #[cfg(feature = "redis")]
            Self::Redis(_) => true,
        }
    }

    /// How long the gate goes on without news of a store that it shares. `None`: it shares none.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn staleness(&self) -> Option<Staleness> {
        match self {
            Self::Memory | Self::Redb { .. } => None,
            #[cfg(feature = "postgres")]
            Self::Postgres(settings) => Some(settings.staleness),
            #[cfg(feature = "redis")]
            Self::Redis(settings) => Some(settings.staleness),
        }
    }
}

pub(super) fn read(section: &Section<'_>, dir: &Path, keys: &Path) -> StoreConfig {
    let kind = section.kind("kind", value::word_of_build(KINDS, FEATURES)).unwrap_or(StoreKind::Redb);
    let store = match kind {
        StoreKind::Redb | StoreKind::Memory => read_redb(section, dir, keys, matches!(kind, StoreKind::Memory)),
        #[cfg(feature = "postgres")]
        StoreKind::Postgres => postgres::read(section, dir, keys).map_or(StoreConfig::Memory, StoreConfig::Postgres),
        #[cfg(feature = "redis")]
        StoreKind::Redis => redis::read(section, dir, keys)
            .map_or(StoreConfig::Memory, |settings| StoreConfig::Redis(Box::new(settings))),
    };
    section.finish();
    store
}

fn read_mark(section: &Section<'_>, dir: &Path, keys: &Path) -> PathBuf {
    let chosen = section.get("mark", path_in(dir));
    chosen.unwrap_or_else(|| {
        let former = keys.join(StoreConfig::FORMER_MARK);
        // A mark that is forgotten says nothing.
        if former.exists() { former } else { dir.join(StoreConfig::MARK) }
    })
}

fn read_redb(section: &Section<'_>, dir: &Path, keys: &Path, is_memory: bool) -> StoreConfig {
    let path = section.get("path", path_in(dir)).unwrap_or_else(|| dir.join(StoreConfig::PATH));
    let mark = read_mark(section, dir, keys);
    let accept_restored_store = section.get("accept_restored_store", value::boolean).unwrap_or(false);
    let cache_size = section.get_or("cache_size", value::size(1 << 20, 1 << 40), DEFAULT_CACHE_SIZE);
    let give_up = section.get("give_up", value::duration_within(SECOND, 366 * DAY));
    if is_memory {
        StoreConfig::Memory
    } else {
        StoreConfig::Redb { path, mark, accept_restored_store, cache_size, give_up }
    }
}

pub(super) fn print(store: &StoreConfig) -> Value {
    let mut table = Table::new();
    match store {
        StoreConfig::Memory => put(&mut table, "kind", "memory"),
        StoreConfig::Redb { path, mark, accept_restored_store, cache_size, give_up } => {
            put(&mut table, "kind", "redb");
            put(&mut table, "path", print::path(path));
            put(&mut table, "mark", print::path(mark));
            put(&mut table, "accept_restored_store", *accept_restored_store);
            put(&mut table, "cache_size", number(*cache_size));
            put_some(&mut table, "give_up", give_up.map(time));
        }
        #[cfg(feature = "postgres")]
        StoreConfig::Postgres(settings) => postgres::print(settings, &mut table),
        #[cfg(feature = "redis")]
        StoreConfig::Redis(settings) => redis::print(settings, &mut table),
    }
    table.into()
}

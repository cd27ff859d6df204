//! `[store]`.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::{Print, Put};
use super::super::value;
use super::path_in;
use rotogate::store::redb::DEFAULT_CACHE_SIZE;
#[cfg(any(feature = "postgres", feature = "redis"))]
use rotogate_core::store::Staleness;
use rotogate_kit::config::Section;

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
#[cfg(any(feature = "postgres", feature = "redis"))]
pub use shared::SharedSettings;

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// A store in memory, which loses its sessions at a restart.
    Memory,
    /// The embedded store.
    Redb(RedbSettings),
    /// A database that several gates share.
    #[cfg(feature = "postgres")]
    Postgres(PostgresSettings),
    /// A Redis server that several gates share.
    #[cfg(feature = "redis")]
    Redis(Box<RedisSettings>),
}

section! {
    /// `[store]` with `kind = "redb"`: the embedded store.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RedbSettings, read by read_redb(section, dir: &Path, keys: &Path) {
        /// Database file of the store. Set it if the data are on another disk.
        restart path: PathBuf = get_or(path_in(dir), dir.join("data/rotogate.redb")),
        /// File by which the gate detects, when it starts, that an older copy of the store was restored. Do not back up
        /// this file together with the store. Set it if the gate must not write below the folder of the configuration.
        // Requirement O5.
        restart mark: PathBuf = by { read_mark(section, dir, keys) },
        /// Size of the gate's own cache for the store's file, in addition to the operating system's cache.
        fixed cache_size: usize = get_or(value::size(1 << 20, 1 << 40), DEFAULT_CACHE_SIZE),
    }
    with {
        /// Kind of store. `"redb"`: the embedded store, for one gate; `"memory"`: a store that loses everything at a
        /// restart; `"redis"` (docs/redis.md) or `"postgres"` (docs/postgres.md): a store that several gates share.
        restart kind: text,
    }
}

type ReadStore = fn(&Section<'_>, &Path, &Path) -> StoreConfig;

const REDB: ReadStore = |section, dir, keys| StoreConfig::Redb(read_redb(section, dir, keys));
/// The values of `kind`.
const KINDS: &[(&str, ReadStore)] = &[
    ("redb", REDB),
    ("memory", |section, dir, keys| {
        // Otherwise the keys of `redb` would be reported as unknown.
        read_redb(section, dir, keys);
        StoreConfig::Memory
    }),
    #[cfg(feature = "postgres")]
    ("postgres", |section, dir, keys| StoreConfig::Postgres(postgres::read(section, dir, keys))),
    #[cfg(feature = "redis")]
    ("redis", |section, dir, keys| StoreConfig::Redis(Box::new(redis::read(section, dir, keys)))),
];

const FEATURES: &[(&str, &str)] = &[("postgres", "postgres"), ("redis", "redis")];

impl StoreConfig {
    /// The default of `mark`.
    const MARK: &str = "data/store.mark";
    /// The former file name of the mark. Before the configuration key `mark` existed, the mark was in the folder of the
    /// signing keys.
    const FORMER_MARK: &str = "store.mark";

    /// The file with the high-water mark. With this mark, the gate detects that an older copy of the store was
    /// restored.
    pub fn mark(&self) -> Option<&Path> {
        match self {
            Self::Memory => None,
            Self::Redb(settings) => Some(&settings.mark),
            #[cfg(any(feature = "postgres", feature = "redis"))]
            _ => self.shared().map(|shared| shared.mark.as_path()),
        }
    }

    /// The settings common to all shared stores.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub fn shared(&self) -> Option<&SharedSettings> {
        match self {
            Self::Memory | Self::Redb(_) => None,
            #[cfg(feature = "postgres")]
            Self::Postgres(settings) => Some(&settings.shared),
            #[cfg(feature = "redis")]
            Self::Redis(settings) => Some(&settings.shared),
        }
    }

    /// Whether other gates also write to the store.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory | Self::Redb(_))
    }

    /// How long the gate works without receiving changes from a shared store. `None` if the store is not shared.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub fn staleness(&self) -> Option<Staleness> {
        self.shared().map(|shared| shared.staleness)
    }
}

pub(super) fn read(section: &Section<'_>, dir: &Path, keys: &Path) -> StoreConfig {
    let kind = section.kind("kind", value::word_of_build(KINDS, FEATURES));
    kind.unwrap_or(REDB)(section, dir, keys)
}

fn read_mark(section: &Section<'_>, dir: &Path, keys: &Path) -> PathBuf {
    let chosen = section.get("mark", path_in(dir));
    chosen.unwrap_or_else(|| {
        let former = keys.join(StoreConfig::FORMER_MARK);
        // A new mark would not detect earlier data loss.
        if former.exists() { former } else { dir.join(StoreConfig::MARK) }
    })
}

impl Print for StoreConfig {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = <RedbSettings as Print>::KEYS;

    fn print(&self) -> Value {
        let mut table = Table::new();
        let kind = match self {
            Self::Memory => "memory",
            Self::Redb(settings) => {
                settings.put(&mut table, "..");
                "redb"
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(settings) => {
                settings.put(&mut table, "..");
                "postgres"
            }
            #[cfg(feature = "redis")]
            Self::Redis(settings) => {
                settings.put(&mut table, "..");
                "redis"
            }
        };
        kind.put(&mut table, "kind");
        table.into()
    }
}

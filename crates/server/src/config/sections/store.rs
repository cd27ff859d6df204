//! `[store]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::super::print::{self, number, put, put_some, time};
use super::super::raw::Section;
use super::super::value;
use super::{DAY, SECOND, path_in, usize_or};
use rotogate::store::redb::DEFAULT_CACHE_SIZE;

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// Sessions are lost at a restart.
    Memory,
    /// The embedded store.
    Redb {
        /// Its file.
        path: PathBuf,
        /// Whether the operator allows a restored backup (requirement O5).
        accept_restored_store: bool,
        /// The memory for pages, in bytes.
        cache_size: usize,
        /// How long the store may be unwritable before the gate stops.
        give_up: Option<Duration>,
    },
}

/// The defaults of the section. That of `cache_size` is [`DEFAULT_CACHE_SIZE`].
impl StoreConfig {
    const PATH: &str = "data/rotogate.redb";
}

pub(super) fn read(section: &Section<'_>, dir: &Path) -> StoreConfig {
    section.later(&["url", "wait_replicas", "when_stale", "max_stale", "staleness"]);
    let is_memory = section.get("kind", value::word(&[("redb", false), ("memory", true)], &["redis"])).unwrap_or(false);
    let path = section.get("path", path_in(dir)).unwrap_or_else(|| dir.join(StoreConfig::PATH));
    let accept_restored_store = section.get("accept_restored_store", value::boolean).unwrap_or(false);
    let cache_size = usize_or(section.get("cache_size", value::size(1 << 20, 1 << 40)), DEFAULT_CACHE_SIZE);
    let give_up = section.get("give_up", value::duration_within(SECOND, 366 * DAY));
    section.finish();
    if is_memory { StoreConfig::Memory } else { StoreConfig::Redb { path, accept_restored_store, cache_size, give_up } }
}

pub(super) fn print(store: &StoreConfig) -> Value {
    let mut table = Table::new();
    match store {
        StoreConfig::Memory => put(&mut table, "kind", "memory"),
        StoreConfig::Redb { path, accept_restored_store, cache_size, give_up } => {
            put(&mut table, "kind", "redb");
            put(&mut table, "path", print::path(path));
            put(&mut table, "accept_restored_store", *accept_restored_store);
            put(&mut table, "cache_size", number(*cache_size));
            put_some(&mut table, "give_up", give_up.map(time));
        }
    }
    table.into()
}

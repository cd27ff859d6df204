//! A cache of clients' proof keys, because parsing a key is slow.

use std::sync::Arc;

use foldhash::quality::RandomState;
use moka::sync::Cache;

use super::proof::ProofKey;

/// The memory limit in bytes.
const MAX_BYTES: u64 = 8 << 20;
/// The approximate size of a key in bytes.
const KEY_BYTES: usize = 3 << 10;

type EncodedHeader = Box<str>;

pub(super) struct KnownKeys(Cache<EncodedHeader, Arc<ProofKey>, RandomState>);

impl Default for KnownKeys {
    fn default() -> Self {
        let weigh =
            |header: &EncodedHeader, _: &Arc<ProofKey>| u32::try_from(header.len() + KEY_BYTES).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(MAX_BYTES).weigher(weigh).build_with_hasher(RandomState::default()))
    }
}

impl KnownKeys {
    /// `header` must be exactly as the client sent it.
    pub(super) fn get(&self, header: &str) -> Option<Arc<ProofKey>> {
        self.0.get(header)
    }

    /// Call this only for the key of a valid token, so that strangers cannot fill the cache.
    pub(super) fn insert(&self, header: &str, key: Arc<ProofKey>) {
        self.0.insert(header.into(), key);
    }
}

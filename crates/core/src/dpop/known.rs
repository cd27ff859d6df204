//! A cache of the keys of clients whose proofs were valid.
//!
//! All proofs of a client have the same header as long as the client keeps its key. Parsing the header and its key
//! again would cost a fifth of the request.

use std::sync::Arc;

use foldhash::quality::RandomState;
use moka::sync::Cache;

use super::proof::ProofKey;

/// The memory limit for the keys of all clients, in bytes. An evicted key is parsed again at its next use.
const MAX_BYTES: u64 = 8 << 20;
/// The memory that a key takes in addition to its header: the key in the library's form, the JWK, and the cache's own
/// record.
const KEY_BYTES: usize = 3 << 10;

/// The header as it was sent.
type EncodedHeader = Box<str>;

/// The parsed keys, by their headers.
pub(super) struct KnownKeys(Cache<EncodedHeader, Arc<ProofKey>, RandomState>);

impl Default for KnownKeys {
    fn default() -> Self {
        let weigh =
            |header: &EncodedHeader, _: &Arc<ProofKey>| u32::try_from(header.len() + KEY_BYTES).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(MAX_BYTES).weigher(weigh).build_with_hasher(RandomState::default()))
    }
}

impl KnownKeys {
    /// The cached key for this header. The header must be passed exactly as the client sent it.
    pub(super) fn get(&self, header: &str) -> Option<Arc<ProofKey>> {
        self.0.get(header)
    }

    /// Adds a key. Call this only after a token bound to the key was presented, so that strangers cannot fill the
    /// cache.
    pub(super) fn insert(&self, header: &str, key: Arc<ProofKey>) {
        self.0.insert(header.into(), key);
    }
}

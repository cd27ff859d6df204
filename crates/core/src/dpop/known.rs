//! The keys of clients whose proofs were good.
//!
//! All proofs of a client have the same header as long as it has the same key. To read it again, and to make a key of it,
//! would cost a fifth of the request.

use std::sync::Arc;

use foldhash::quality::RandomState;
use moka::sync::Cache;

use super::proof::ProofKey;

/// What the keys of all clients may take, in bytes. A key that was forgotten is read again.
const MAX_BYTES: u64 = 8 << 20;
/// What a key takes besides the text of its header: the key as the library holds it, as a JWK, and the cache's own record.
const KEY_BYTES: usize = 3 << 10;

/// As it was sent.
type EncodedHeader = Box<str>;

/// Keys by the headers that have them.
pub(super) struct KnownKeys(Cache<EncodedHeader, Arc<ProofKey>, RandomState>);

impl Default for KnownKeys {
    fn default() -> Self {
        let weigh =
            |header: &EncodedHeader, _: &Arc<ProofKey>| u32::try_from(header.len() + KEY_BYTES).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(MAX_BYTES).weigher(weigh).build_with_hasher(RandomState::default()))
    }
}

impl KnownKeys {
    /// The key in this header, as the header was sent.
    pub(super) fn get(&self, header: &str) -> Option<Arc<ProofKey>> {
        self.0.get(header)
    }

    /// To be called once a token was presented that is bound to the key: a stranger adds none.
    pub(super) fn insert(&self, header: &str, key: Arc<ProofKey>) {
        self.0.insert(header.into(), key);
    }
}

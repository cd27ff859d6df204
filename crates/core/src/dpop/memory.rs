//! The bounded memory of used proofs. The memory keeps every proof until the proof expires. When the memory is full,
//! further proofs are refused. A proof is stored as 128 bits of a hash. The shard depends on the proof's key, and the
//! bucket on its `iat`.
//!
//! A bucket is dropped when all of its proofs have expired. Gates with a shared store also count each proof there (see
//! [`once_in_store`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::denial::ProofFlaw;
use crate::fault::Error;
use crate::store::{CounterUse, SharedCounter, SharedStore};
use crate::thumbprint::KeyThumbprint;

const SHARDS: usize = 64;
const BUCKET: Duration = Duration::from_secs(30);
/// The proofs of a single key may use at most 1/`SHARE` of the memory.
pub(crate) const SHARE: u64 = 50;

/// Why a proof was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRecorded {
    /// The proof was recorded before.
    Seen,
    /// The proof's key has used up its share of the memory.
    KeyIsFull,
    /// The memory is full.
    Full,
}

/// The memory of used proofs.
pub struct ProofMemory {
    shards: Box<[Mutex<Shard>]>,
    /// Part of each proof's hash, to separate purposes.
    kind: &'static str,
    of_keys: RandomState,
    most: u64,
    held: AtomicU64,
    /// How long a proof is valid after its `iat`.
    passes_for: Duration,
}

#[derive(Default)]
struct Shard(VecDeque<ProofBucket>);

#[derive(Default)]
struct ProofBucket {
    number: u64,
    /// The hash table needs a secret key because clients choose the hashed values.
    proofs: HashSet<u128>,
    by_key: HashMap<u32, u32, BuildHasherDefault<Prehashed>>,
}

/// A hasher that returns its input.
#[derive(Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, number: u32) {
        // A hash table uses both the low and the high bits of a hash.
        self.0 = u64::from(number) | u64::from(number) << 32;
    }
}

/// The name of a proof, which is the same at all gates.
pub type ProofName = [u8; 16];

/// The name of a proof in a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofId {
    proof: u128,
    key: u32,
    shard: usize,
    issued_at: Timestamp,
}

impl ProofId {
    /// The name of the proof in a store. The name is the same at all gates, even if their keyrings differ.
    pub const fn name(&self) -> ProofName {
        self.proof.to_be_bytes()
    }
}

/// Records a proof in the shared store. `kept` is how long the store remembers the proof.
///
/// # Errors
/// The proof was already counted. After a fault, the proof may have been recorded.
pub async fn once_in_store(store: &dyn SharedStore, name: ProofName, kept: Duration) -> Result<(), Error> {
    // Permits a single use within `kept`.
    let counter = SharedCounter { name, every: kept, burst: 1 };
    match store.count(counter, CounterUse::Take).await? {
        None => Ok(()),
        Some(_) => Err(Error::Denied(ProofFlaw::Replayed.into())),
    }
}

impl ProofMemory {
    /// Creates a memory for up to `most` proofs. A proof is valid for `passes_for` after its `iat`.
    pub fn new(kind: &'static str, most: u64, passes_for: Duration) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { shards, kind, of_keys: RandomState::new(), most, held: AtomicU64::new(0), passes_for }
    }

    /// Returns the id of a proof.
    pub fn name(&self, key: &KeyThumbprint, id: &str, issued_at: Timestamp) -> ProofId {
        let of_key = self.of_keys.hash_one(key.as_bytes());
        let proof = hash(&[self.kind.as_bytes(), key.as_bytes(), id.as_bytes()]);
        let shard = usize::try_from(of_key >> 32).unwrap_or_default() % SHARDS;
        ProofId { proof, key: of_key as u32, shard, issued_at }
    }

    /// Returns whether the proof was recorded.
    pub fn has(&self, proof: &ProofId) -> bool {
        self.shard(proof).is_some_and(|shard| shard.has(proof.proof))
    }

    /// Records a proof. Check and insertion are atomic.
    ///
    /// # Errors
    /// [`NotRecorded`] if the proof was recorded before or the memory is full.
    pub fn record(&self, proof: &ProofId, now: Timestamp) -> Result<(), NotRecorded> {
        match self.record_once(proof, now) {
            Err(NotRecorded::Full) => {
                self.forget(now);
                self.record_once(proof, now)
            }
            done => done,
        }
    }

    fn record_once(&self, proof: &ProofId, now: Timestamp) -> Result<(), NotRecorded> {
        let Some(mut shard) = self.shard(proof) else { return Err(NotRecorded::Full) };
        self.free(shard.drop_past(now, self.passes_for));
        if shard.has(proof.proof) {
            return Err(NotRecorded::Seen);
        }
        if shard.of_key(proof.key) >= (self.most / SHARE).max(1) {
            return Err(NotRecorded::KeyIsFull);
        }
        let room = |held: u64| (held < self.most).then(|| held + 1);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).map_err(|_| NotRecorded::Full)?;
        shard.insert(proof);
        Ok(())
    }

    pub(crate) fn forget(&self, now: Timestamp) {
        for shard in &self.shards {
            self.free(shard.lock().drop_past(now, self.passes_for));
        }
    }

    fn free(&self, dropped: usize) {
        if dropped > 0 {
            self.held.fetch_sub(dropped as u64, Ordering::Relaxed);
        }
    }

    fn shard(&self, proof: &ProofId) -> Option<parking_lot::MutexGuard<'_, Shard>> {
        Some(self.shards.get(proof.shard)?.lock())
    }
}

impl Shard {
    /// Search every bucket, because a replayed `jti` may have another `iat`.
    fn has(&self, proof: u128) -> bool {
        self.0.iter().any(|bucket| bucket.proofs.contains(&proof))
    }

    fn of_key(&self, key: u32) -> u64 {
        self.0.iter().filter_map(|bucket| bucket.by_key.get(&key)).map(|count| u64::from(*count)).sum()
    }

    fn insert(&mut self, proof: &ProofId) {
        let number = number_of(proof.issued_at);
        let at = match self.0.iter().position(|bucket| bucket.number == number) {
            Some(at) => at,
            None => {
                self.0.push_back(ProofBucket { number, ..ProofBucket::default() });
                self.0.len() - 1
            }
        };
        if let Some(bucket) = self.0.get_mut(at) {
            bucket.proofs.insert(proof.proof);
            *bucket.by_key.entry(proof.key).or_default() += 1;
        }
    }

    fn drop_past(&mut self, now: Timestamp, passes_for: Duration) -> usize {
        let mut dropped = 0;
        self.0.retain(|bucket| {
            let end = Timestamp::from_secs((bucket.number + 1).saturating_mul(BUCKET.as_secs()));
            let passes = end.plus(passes_for) >= now;
            if !passes {
                dropped += bucket.proofs.len();
            }
            passes
        });
        dropped
    }
}

fn number_of(issued_at: Timestamp) -> u64 {
    issued_at.as_secs() / BUCKET.as_secs()
}

fn hash(parts: &[&[u8]]) -> u128 {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let hash = context.finish();
    hash.as_ref().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
}

#[cfg(any(test, feature = "test-util"))]
mod for_tests {
    use super::*;

    impl ProofMemory {
        /// The number of proofs in the memory.
        pub fn held(&self) -> u64 {
            self.held.load(Ordering::Relaxed)
        }
    }
}

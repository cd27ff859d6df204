//! Allows a request to check with one atomic load that no revocation has been added since its token was last checked.
//!
//! A writer first puts its entry into the list, **then** increments the counter of the entry's shard. A checker first
//! loads the counter, **then** reads the list, and remembers the loaded counter value in a [`RevocationEpoch`]. While
//! the counter has that value, no entry was added since the check. Any other value requires a new check. In the worst
//! case, an entry that is added during a check is read twice.
//!
//! The counters are sharded so that rotations of one session do not slow down the cache hits of all other sessions.
//!
//! **Many entries at once** are a [`Batch`]: all are put into the list, and then each affected counter is incremented
//! once. A second writer may find that its entry is already in the list, although the batch has not yet incremented the
//! counter. While another writer's batch is open, the second writer therefore increments the counter itself.

use super::atomic::{AtomicU64, Ordering};
use crate::clock::Timestamp;

/// The default number of counters.
pub const SHARDS: usize = 64;

/// A counter with two cache lines of its own, because processors fetch lines in pairs. Incrementing one counter
/// therefore does not evict other counters from their readers' caches.
#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// The counters, which only increase.
#[derive(Debug)]
pub struct Epochs<const N: usize = SHARDS> {
    counters: [Counter; N],
    /// The number of open batches.
    batches: Counter,
}

impl<const N: usize> Epochs<N> {
    /// Creates the counters, all at zero.
    pub fn new() -> Self {
        const { assert!(N > 0, "at least one counter is required, or nothing is checked again") };
        const { assert!(N <= 64, "a batch remembers one bit for each counter") };
        let counter = || Counter(AtomicU64::new(0));
        Self { counters: std::array::from_fn(|_| counter()), batches: counter() }
    }

    /// Must be called after adding an entry that may match tokens of this shard. `shard` is taken modulo the number of
    /// shards.
    pub fn bump(&self, shard: usize) {
        self.counters[shard % N].0.fetch_add(1, Ordering::Release);
    }

    /// Must be called after adding an entry that may match any token.
    pub fn bump_all(&self) {
        for counter in &self.counters {
            counter.0.fetch_add(1, Ordering::Release);
        }
    }

    /// The counter of a shard. A reader that gets a value sees every entry that was added before the counter reached
    /// it.
    pub fn read(&self, shard: usize) -> u64 {
        self.counters[shard % N].0.load(Ordering::Acquire)
    }
}

impl<const N: usize> Epochs<N> {
    /// Must be called before the first of many entries is added. Drop the result after the last entry.
    pub fn batch(&self) -> Batch<'_, N> {
        self.batches.0.fetch_add(1, Ordering::Relaxed);
        Batch { epochs: self, concerned: 0 }
    }

    /// Returns whether a batch is open, so that the counter of an existing entry may still have to be incremented. Must
    /// be called after the entry was found.
    pub fn is_batch_open(&self) -> bool {
        self.batches.0.load(Ordering::Acquire) > 0
    }
}

/// A batch of entries. Their counters are incremented together when this is dropped.
#[derive(Debug)]
pub struct Batch<'a, const N: usize = SHARDS> {
    epochs: &'a Epochs<N>,
    /// A bit for each shard.
    concerned: u64,
}

impl<const N: usize> Batch<'_, N> {
    /// Notes that an added entry may match tokens of this shard.
    pub fn concerns(&mut self, shard: usize) {
        self.concerned |= 1 << (shard % N);
    }

    /// Returns whether another batch is open, so that the counter of an existing entry may still have to be
    /// incremented. Must be called after the entry was found.
    pub fn is_another_open(&self) -> bool {
        self.epochs.batches.0.load(Ordering::Acquire) > 1
    }

    /// Notes that an added entry may match any token.
    pub fn concerns_all(&mut self) {
        self.concerned = u64::MAX;
    }
}

impl<const N: usize> Drop for Batch<'_, N> {
    fn drop(&mut self) {
        (0..N).filter(|shard| self.concerned >> shard & 1 == 1).for_each(|shard| self.epochs.bump(shard));
        self.epochs.batches.0.fetch_sub(1, Ordering::Release);
    }
}

impl<const N: usize> Default for Epochs<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The result of the last check of a cached token.
///
/// Any number of threads may check and [update](Self::update) at the same time. Two rules make this safe:
/// - `refuse_from` only moves to earlier times, because revocations are never undone. A slow checker with older data
///   therefore cannot undo the result of a faster one.
/// - `seen` is written last. A reader that finds the current counter in it therefore also finds the result of that
///   check or an earlier time. If a slow checker writes an old value, this costs another check but is otherwise
///   harmless, because an old value differs from the current counter.
#[derive(Debug)]
pub struct RevocationEpoch {
    seen: AtomicU64,
    refuse_from: AtomicU64,
}

impl RevocationEpoch {
    /// Stores the first check: the counter as it was read **before** the check, and the result of the check.
    pub fn new(epoch_read_before_the_check: u64, refuse_from: Timestamp) -> Self {
        Self { seen: AtomicU64::new(epoch_read_before_the_check), refuse_from: AtomicU64::new(refuse_from.as_millis()) }
    }

    /// Returns whether no entry was added since the last check, given the current counter. Otherwise the token must be
    /// checked again, because [`refuse_from`](Self::refuse_from) may be too late.
    pub fn is_current(&self, epoch: u64) -> bool {
        self.seen.load(Ordering::Acquire) == epoch
    }

    /// The known time from which the token is refused. Must be read after [`is_current`](Self::is_current).
    pub fn refuse_from(&self) -> Timestamp {
        Timestamp::from_millis(self.refuse_from.load(Ordering::Relaxed))
    }

    /// Stores another check: the counter as it was read **before** the check, and the result of the check.
    pub fn update(&self, epoch_read_before_the_check: u64, refuse_from: Timestamp) {
        self.refuse_from.fetch_min(refuse_from.as_millis(), Ordering::Relaxed);
        self.seen.store(epoch_read_before_the_check, Ordering::Release);
    }
}

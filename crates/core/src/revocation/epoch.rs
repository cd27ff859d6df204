//! With one atomic load, a request checks that no revocation was added since the last check of its token.
//!
//! A writer adds its entry, **then** increments the counter of the entry's shard. A checker loads the counter, **then**
//! reads the list, and remembers the counter in a [`RevocationEpoch`]. While the counter stays the same, the check is
//! current.
//!
//! The counters are sharded, so that one session's rotations do not slow down all checks.
//!
//! A writer adds **many entries at once** as a [`Batch`], and then increments each affected counter once. If another
//! writer finds its entry in the list during an open batch, it must increment the counter itself.

use super::atomic::{AtomicU64, Ordering};
use crate::clock::Timestamp;

/// The default number of counters.
pub const SHARDS: usize = 64;

/// A counter has two cache lines, because processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// Counters that only increase.
#[derive(Debug)]
pub struct Epochs<const N: usize = SHARDS> {
    counters: [Counter; N],
    batches: Counter,
}

impl<const N: usize> Epochs<N> {
    /// Creates the counters, all at zero.
    pub fn new() -> Self {
        const { assert!(N > 0, "at least one counter is required; without one, nothing would be checked again") };
        const { assert!(N <= 64, "at most 64 counters are allowed, because a batch has one bit for each counter") };
        let counter = || Counter(AtomicU64::new(0));
        Self { counters: std::array::from_fn(|_| counter()), batches: counter() }
    }

    /// Call this after adding an entry that may match tokens of this shard. `shard` is taken modulo the number of
    /// shards.
    pub fn bump(&self, shard: usize) {
        self.counters[shard % N].0.fetch_add(1, Ordering::Release);
    }

    /// Call this after adding an entry that may match any token.
    pub fn bump_all(&self) {
        for counter in &self.counters {
            counter.0.fetch_add(1, Ordering::Release);
        }
    }

    /// The counter of a shard. A reader that loads a value sees every entry that was added before that value.
    pub fn read(&self, shard: usize) -> u64 {
        self.counters[shard % N].0.load(Ordering::Acquire)
    }
}

impl<const N: usize> Epochs<N> {
    /// Call this before adding many entries, and drop the result afterwards.
    pub fn batch(&self) -> Batch<'_, N> {
        self.batches.0.fetch_add(1, Ordering::Relaxed);
        Batch { epochs: self, concerned: 0 }
    }

    /// Returns whether a batch is open. An open batch may not have incremented its counters yet. A writer must call
    /// this after it has found its entry in the list.
    pub fn is_batch_open(&self) -> bool {
        self.batches.0.load(Ordering::Acquire) > 0
    }
}

/// A batch of entries, whose counters are incremented on drop.
#[derive(Debug)]
pub struct Batch<'a, const N: usize = SHARDS> {
    epochs: &'a Epochs<N>,
    concerned: u64,
}

impl<const N: usize> Batch<'_, N> {
    /// Records that an entry was added that may match tokens of this shard.
    pub fn concerns(&mut self, shard: usize) {
        self.concerned |= 1 << (shard % N);
    }

    /// Returns whether another batch is open. An open batch may not have incremented its counters yet. A writer must
    /// call this after it has found its entry in the list.
    pub fn is_another_open(&self) -> bool {
        self.epochs.batches.0.load(Ordering::Acquire) > 1
    }

    /// Records that an entry was added that may match any token.
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
/// Threads may check and [update](Self::update) at the same time. This is safe because of two rules:
/// - `refuse_from` only becomes earlier, so a slow checker cannot undo a newer result.
/// - `seen` is written last, so a reader that finds the current counter also finds its result. With an old value in
///   `seen`, the token is checked again.
#[derive(Debug)]
pub struct RevocationEpoch {
    seen: AtomicU64,
    refuse_from: AtomicU64,
}

impl RevocationEpoch {
    /// Stores the result of the first check, with the counter from **before** the check.
    pub fn new(epoch_read_before_the_check: u64, refuse_from: Timestamp) -> Self {
        Self { seen: AtomicU64::new(epoch_read_before_the_check), refuse_from: AtomicU64::new(refuse_from.as_millis()) }
    }

    /// Returns whether the last check is still current. Otherwise, check the token again.
    pub fn is_current(&self, epoch: u64) -> bool {
        self.seen.load(Ordering::Acquire) == epoch
    }

    /// The time from which the token is refused. Call [`is_current`](Self::is_current) before this.
    pub fn refuse_from(&self) -> Timestamp {
        Timestamp::from_millis(self.refuse_from.load(Ordering::Relaxed))
    }

    /// Stores the result of another check, with the counter from **before** the check.
    pub fn update(&self, epoch_read_before_the_check: u64, refuse_from: Timestamp) {
        self.refuse_from.fetch_min(refuse_from.as_millis(), Ordering::Relaxed);
        self.seen.store(epoch_read_before_the_check, Ordering::Release);
    }
}

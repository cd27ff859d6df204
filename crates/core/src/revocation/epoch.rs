//! Lets a request check with one atomic load that no revocation was added since its token was last checked.
//!
//! A writer puts its entry into the list, **then** raises the counter of the entry's shard. A checker loads the
//! counter, **then** reads the list, and remembers the value that it loaded *before*: a [`RevocationEpoch`]. While the
//! counter has that value, nothing was added after the check; any other value requires a new check. An entry that is
//! added during a check is at worst read twice.
//!
//! The counters are sharded so that the rotations of one session do not slow down the hits of all others.
//!
//! **Many entries at once** are a [`Batch`]: all are put into the list, then each affected counter rises once. A writer
//! that finds its entry already in the list could return before the counter rises. It therefore raises the counter
//! itself while another writer's batch is open.

use super::atomic::{AtomicU64, Ordering};
use crate::clock::Timestamp;

/// The default number of counters.
pub const SHARDS: usize = 64;

/// A counter in a cache line of its own (two, because processors fetch them in pairs), so that raising it does not
/// evict other counters from their readers' caches.
#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// The counters. They only rise.
#[derive(Debug)]
pub struct Epochs<const N: usize = SHARDS> {
    counters: [Counter; N],
    /// How many batches are open.
    batches: Counter,
}

impl<const N: usize> Epochs<N> {
    /// All counters at zero.
    pub fn new() -> Self {
        const { assert!(N > 0, "without a counter nothing would ever be checked again") };
        const { assert!(N <= 64, "a batch remembers one bit for each counter") };
        let counter = || Counter(AtomicU64::new(0));
        Self { counters: std::array::from_fn(|_| counter()), batches: counter() }
    }

    /// Call this after adding an entry that may match tokens of this shard (taken modulo the number of shards).
    pub fn bump(&self, shard: usize) {
        self.counters[shard % N].0.fetch_add(1, Ordering::Release);
    }

    /// Call this after adding an entry that may match any token.
    pub fn bump_all(&self) {
        for counter in &self.counters {
            counter.0.fetch_add(1, Ordering::Release);
        }
    }

    /// The counter of a shard. A reader of a value sees every entry that was added before the counter reached it.
    pub fn read(&self, shard: usize) -> u64 {
        self.counters[shard % N].0.load(Ordering::Acquire)
    }
}

impl<const N: usize> Epochs<N> {
    /// Call this before the first entry of many is added, and drop it after the last.
    pub fn batch(&self) -> Batch<'_, N> {
        self.batches.0.fetch_add(1, Ordering::Relaxed);
        Batch { epochs: self, concerned: 0 }
    }

    /// Is a batch open, so that the counter of an existing entry may be about to rise? Call this after the entry was
    /// found.
    pub fn is_batch_open(&self) -> bool {
        self.batches.0.load(Ordering::Acquire) > 0
    }
}

/// Many entries. Their counters rise together when this is dropped.
#[derive(Debug)]
pub struct Batch<'a, const N: usize = SHARDS> {
    epochs: &'a Epochs<N>,
    /// A bit for each shard.
    concerned: u64,
}

impl<const N: usize> Batch<'_, N> {
    /// Records that an added entry may match tokens of this shard.
    pub fn concerns(&mut self, shard: usize) {
        self.concerned |= 1 << (shard % N);
    }

    /// Is another batch open, so that the counter of an existing entry may be about to rise? Call this after the entry
    /// was found.
    pub fn is_another_open(&self) -> bool {
        self.epochs.batches.0.load(Ordering::Acquire) > 1
    }

    /// Records that an added entry may match any token.
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

/// The last check of a cached token.
///
/// Any number of threads may check and [update](Self::update) at once. Two rules make that safe:
/// - `refuse_from` only moves to earlier times, because revocations only tighten: a slow checker with older data cannot
///   undo the result of a fast one.
/// - `seen` is written last, so a reader that finds the current counter in it also finds the result of that check, or
///   an earlier time. A slow checker may write an old value; that costs another check but hides nothing, because an old
///   value is not the current counter.
#[derive(Debug)]
pub struct RevocationEpoch {
    seen: AtomicU64,
    refuse_from: AtomicU64,
}

impl RevocationEpoch {
    /// The first check: the counter as it was read **before** the check, and the result of the check.
    pub fn new(epoch_read_before_the_check: u64, refuse_from: Timestamp) -> Self {
        Self { seen: AtomicU64::new(epoch_read_before_the_check), refuse_from: AtomicU64::new(refuse_from.as_millis()) }
    }

    /// Was nothing added since the last check, given the current counter? Otherwise the token must be checked again,
    /// and [`refuse_from`](Self::refuse_from) may be too late.
    pub fn is_current(&self, epoch: u64) -> bool {
        self.seen.load(Ordering::Acquire) == epoch
    }

    /// The known time from which the token is refused. Read it after [`is_current`](Self::is_current).
    pub fn refuse_from(&self) -> Timestamp {
        Timestamp::from_millis(self.refuse_from.load(Ordering::Relaxed))
    }

    /// Records a further check: the counter as it was read **before** the check, and the result of the check.
    pub fn update(&self, epoch_read_before_the_check: u64, refuse_from: Timestamp) {
        self.refuse_from.fetch_min(refuse_from.as_millis(), Ordering::Relaxed);
        self.seen.store(epoch_read_before_the_check, Ordering::Release);
    }
}

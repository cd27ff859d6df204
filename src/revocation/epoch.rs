//! How a request learns in one atomic load that no revocation has come since its token was last checked.
//!
//! A writer puts its entry into the list, **then** raises the counter of the entry's shard. A checker loads the counter,
//! **then** looks at the list, and remembers the value that it loaded *before*: a [`RevocationEpoch`]. As long as the counter still
//! has that value, nothing was added after the check; any other value asks for a check anew. An entry that comes in the
//! middle of a check is at worst looked at twice.
//!
//! Shards exist so that the rotations of one session do not slow down the hits of all others.

use super::atomic::{AtomicU64, Ordering};
use crate::clock::Timestamp;

/// How many counters there are, unless a caller says otherwise.
pub const SHARDS: usize = 64;

/// A counter alone in its cache line (two, since processors fetch them in pairs), so that raising one does not take
/// away the others from their readers.
#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// The counters. They only ever go up.
#[derive(Debug)]
pub struct Epochs<const N: usize = SHARDS>([Counter; N]);

impl<const N: usize> Epochs<N> {
    /// All at zero.
    pub fn new() -> Self {
        const { assert!(N > 0, "without a counter nothing would ever be checked again") };
        Self(std::array::from_fn(|_| Counter(AtomicU64::new(0))))
    }

    /// To be called after an entry was added that concerns tokens of this shard (taken modulo the number of shards).
    pub fn bump(&self, shard: usize) {
        self.0[shard % N].0.fetch_add(1, Ordering::Release);
    }

    /// To be called after an entry was added that may concern any token.
    pub fn bump_all(&self) {
        for counter in &self.0 {
            counter.0.fetch_add(1, Ordering::Release);
        }
    }

    /// The counter of a shard. Whoever reads a value sees every entry that was added before it was reached.
    pub fn read(&self, shard: usize) -> u64 {
        self.0[shard % N].0.load(Ordering::Acquire)
    }
}

impl<const N: usize> Default for Epochs<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a cached token remembers of its last check.
///
/// Any number of threads may check and [update](Self::update) at once. Two rules make that safe:
/// - `refuse_from` only ever comes nearer, because revocations only tighten: a slow checker that saw less cannot undo
///   what a quick one found.
/// - `seen` is written last, so whoever finds the present counter in it finds what that check found, or less time. A
///   slow checker may put an old value there; that costs another check and hides nothing, since it is not the present
///   counter.
#[derive(Debug)]
pub struct RevocationEpoch {
    seen: AtomicU64,
    refuse_from: AtomicU64,
}

impl RevocationEpoch {
    /// The first check: the counter as it was read **before** the check, and what the check found.
    pub fn new(epoch_read_before_the_check: u64, refuse_from: Timestamp) -> Self {
        Self { seen: AtomicU64::new(epoch_read_before_the_check), refuse_from: AtomicU64::new(refuse_from.as_millis()) }
    }

    /// Has nothing been added since the last check, given the counter as it is now? If not, the token must be checked
    /// again, and [`refuse_from`](Self::refuse_from) may say too much time.
    pub fn is_current(&self, epoch: u64) -> bool {
        self.seen.load(Ordering::Acquire) == epoch
    }

    /// From when on the token is refused, as far as known. To be asked after [`is_current`](Self::is_current).
    pub fn refuse_from(&self) -> Timestamp {
        Timestamp::from_millis(self.refuse_from.load(Ordering::Relaxed))
    }

    /// A further check: the counter as it was read **before** the check, and what the check found.
    pub fn update(&self, epoch_read_before_the_check: u64, refuse_from: Timestamp) {
        self.refuse_from.fetch_min(refuse_from.as_millis(), Ordering::Relaxed);
        self.seen.store(epoch_read_before_the_check, Ordering::Release);
    }
}

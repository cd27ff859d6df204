//! Token buckets (GCRA) in a table of fixed size. Keys are hashed with a random seed, so that a client cannot choose
//! keys that share a bucket.
//!
//! Keys in the same bucket share its rate. A page of the table is allocated at its first use.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use super::Rate;
use super::bucket::{Bucket, nanos};
use crate::clock::TimeSource;

const BUCKETS_PER_PAGE: usize = 512;

type BucketPage = Box<[Bucket]>;

/// The remaining tokens of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The number of remaining tokens.
    pub requests: u32,
    /// The time until the bucket is full.
    pub reset: Duration,
}

/// The table of buckets.
pub struct Buckets {
    pages: Box<[OnceLock<BucketPage>]>,
    /// The time for one token, in ns.
    every: AtomicU64,
    /// The time for the whole burst, in ns.
    depth: AtomicU64,
    hasher: RandomState,
    time: Arc<dyn TimeSource>,
}

impl Buckets {
    /// Creates 2^`bits` buckets.
    pub fn new(bits: u32, rate: Rate, time: Arc<dyn TimeSource>) -> Self {
        let pages = (1_usize << bits).div_ceil(BUCKETS_PER_PAGE);
        let buckets = Self {
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            every: AtomicU64::default(),
            depth: AtomicU64::default(),
            hasher: RandomState::new(),
            time,
        };
        buckets.set_rate(rate);
        buckets
    }

    /// Does not change the time at which a bucket is full.
    pub(super) fn set_rate(&self, rate: Rate) {
        let every = nanos(rate.every).max(1);
        self.every.store(every, Ordering::Relaxed);
        self.depth.store(every.saturating_mul(u64::from(rate.burst.get())), Ordering::Relaxed);
    }

    fn depth(&self) -> u64 {
        self.depth.load(Ordering::Relaxed)
    }

    /// Takes one token, or returns the time until a token is available.
    pub fn take(&self, key: impl Hash) -> Result<(), Duration> {
        self.take_share(key, NonZeroU32::MIN)
    }

    pub(crate) fn take_leaving(&self, key: impl Hash, left: u32) -> Result<(), Duration> {
        self.take_of(key, self.price(NonZeroU32::MIN), self.depth_above(left))
    }

    fn depth_above(&self, left: u32) -> u64 {
        self.depth().saturating_sub(self.every.load(Ordering::Relaxed).saturating_mul(left.into()))
    }

    pub(crate) fn look(&self, key: impl Hash) -> Result<(), Duration> {
        self.look_leaving(key, 0)
    }

    pub(crate) fn look_leaving(&self, key: impl Hash, left: u32) -> Result<(), Duration> {
        // The buckets of an unallocated page are full.
        let (page, place) = self.place(key);
        let used = self.pages.get(page).and_then(OnceLock::get).and_then(|page| page.get(place));
        let (now, full_at) = (self.now(), used.map_or(0, Bucket::full_at));
        let wait = full_at
            .max(now)
            .saturating_add(self.price(NonZeroU32::MIN))
            .saturating_sub(now)
            .saturating_sub(self.depth_above(left));
        if wait == 0 { Ok(()) } else { Err(Duration::from_nanos(wait)) }
    }

    /// Takes one token. The rate and the burst are divided by `share`, but the burst is at least one token.
    pub(super) fn take_share(&self, key: impl Hash, share: NonZeroU32) -> Result<(), Duration> {
        let price = self.price(share);
        self.take_of(key, price, self.depth().max(price))
    }

    fn take_of(&self, key: impl Hash, price: u64, depth: u64) -> Result<(), Duration> {
        self.bucket(key).take_of(self.now(), price, depth).map(drop)
    }

    pub(super) fn take_left(&self, key: impl Hash) -> Result<Left, Duration> {
        let (now, price) = (self.now(), self.price(NonZeroU32::MIN));
        let reset = self.bucket(key).take_of(now, price, self.depth())?.saturating_sub(now);
        let left = self.depth().saturating_sub(reset) / price;
        Ok(Left { requests: u32::try_from(left).unwrap_or(u32::MAX), reset: Duration::from_nanos(reset) })
    }

    pub(super) fn rate(&self) -> Rate {
        let every = self.every.load(Ordering::Relaxed);
        let burst = u32::try_from(self.depth() / every.max(1)).unwrap_or(u32::MAX);
        Rate::new(burst, Duration::from_nanos(every))
    }

    pub(super) fn give_back(&self, key: impl Hash, share: NonZeroU32) {
        self.bucket(key).give_back(self.price(share));
    }

    /// Counts an attempt that has already happened. An attempt beyond the burst puts the bucket into debt, by at most
    /// one attempt.
    pub(super) fn charge_share(&self, key: impl Hash, share: NonZeroU32) {
        self.bucket(key).charge(self.now(), self.price(share), self.depth());
    }

    fn price(&self, share: NonZeroU32) -> u64 {
        self.every.load(Ordering::Relaxed).saturating_mul(share.get().into())
    }

    pub(super) fn debt(&self, key: impl Hash) -> Option<Duration> {
        // The buckets of an unallocated page are full.
        let (page, place) = self.place(key);
        let full_at = self.pages.get(page)?.get()?.get(place)?.full_at();
        let left = full_at.saturating_sub(self.depth()).checked_sub(self.now())?;
        (left > 0).then_some(Duration::from_nanos(left))
    }

    fn now(&self) -> u64 {
        nanos(self.time.monotonic())
    }

    fn place(&self, key: impl Hash) -> (usize, usize) {
        let hash = self.hasher.hash_one(key);
        let page = usize::try_from(hash >> 32).unwrap_or_default() % self.pages.len().max(1);
        (page, usize::try_from(hash & 0xffff_ffff).unwrap_or_default() % BUCKETS_PER_PAGE)
    }

    fn bucket(&self, key: impl Hash) -> &Bucket {
        /// An unused fallback, because every index is within the table.
        static NONE: LazyLock<Bucket> = LazyLock::new(Bucket::default);
        let (page, place) = self.place(key);
        let made = || (0..BUCKETS_PER_PAGE).map(|_| Bucket::default()).collect();
        self.pages.get(page).map(|page| page.get_or_init(made)).and_then(|page| page.get(place)).unwrap_or(&NONE)
    }
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl Buckets {
        pub(crate) fn memory(&self) -> usize {
            self.pages.iter().filter(|page| page.get().is_some()).count() * BUCKETS_PER_PAGE * size_of::<Bucket>()
        }
    }
}

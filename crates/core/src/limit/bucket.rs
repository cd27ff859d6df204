//! One token bucket (GCRA), stored as one number that all threads change.

use std::time::Duration;

use super::Rate;
use super::atomic::{AtomicU64, Ordering};

/// One bucket. The number is the time, in ns of a monotonic clock, at which the bucket is full again.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one token from a bucket with this rate. `now` is the current time of a monotonic clock.
    ///
    /// # Errors
    /// No token is left. The error is the time until the next token is available.
    pub fn take(&self, rate: Rate, now: Duration) -> Result<(), Duration> {
        let price = nanos(rate.every).max(1);
        self.take_of(nanos(now), price, price.saturating_mul(u64::from(rate.burst.get()))).map(drop)
    }

    /// Takes as many tokens as are refilled within the time `price`. Returns the time at which the bucket is full
    /// again, or the time to wait.
    pub(super) fn take_of(&self, now: u64, price: u64, depth: u64) -> Result<u64, Duration> {
        let mut full_again = 0;
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            full_again = full_at.max(now).saturating_add(price);
            (full_again.saturating_sub(now) <= depth).then_some(full_again)
        });
        match taken {
            Ok(_) => Ok(full_again),
            Err(_) => Err(Duration::from_nanos(full_again.saturating_sub(now).saturating_sub(depth))),
        }
    }

    /// Gives back as many tokens as are refilled within the time `price`.
    pub(super) fn give_back(&self, price: u64) {
        let back = |full_at: u64| Some(full_at.saturating_sub(price));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }

    /// Counts an attempt that has already happened, unless the bucket is in debt.
    pub(super) fn charge(&self, now: u64, price: u64, depth: u64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now);
            (full_at.saturating_sub(now) <= depth).then(|| full_at.saturating_add(price))
        });
    }

    /// The time at which the bucket is full again.
    pub(super) fn full_at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! A token bucket (GCRA), stored as one number.

use std::time::Duration;

use super::Rate;
use super::atomic::{AtomicU64, Ordering};

/// A token bucket. The value is the monotonic time, in ns, at which the bucket is full again.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token. `now` is monotonic.
    ///
    /// # Errors
    /// The time until the next token is available.
    pub fn take(&self, rate: Rate, now: Duration) -> Result<(), Duration> {
        let price = nanos(rate.every).max(1);
        self.take_of(nanos(now), price, price.saturating_mul(u64::from(rate.burst.get()))).map(drop)
    }

    /// Takes the tokens that the bucket regains in the time `price`. Returns when the bucket is full again. Returns the
    /// time to wait if the bucket has too few tokens.
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

    pub(super) fn give_back(&self, price: u64) {
        let back = |full_at: u64| Some(full_at.saturating_sub(price));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }

    /// Charges the bucket, unless it is already in debt.
    pub(super) fn charge(&self, now: u64, price: u64, depth: u64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now);
            (full_at.saturating_sub(now) <= depth).then(|| full_at.saturating_add(price))
        });
    }

    pub(super) fn full_at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

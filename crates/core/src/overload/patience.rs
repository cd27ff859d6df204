//! Delays immediate retries. Without a delay, rejecting retries would become the main load. After a rejection, the
//! connection's next request waits until `Retry-After` (one second) has passed. Delayed requests have the same bound as
//! requests in flight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Bound, Holder, Pool, TRY_AGAIN};

/// When a request of this connection was last rejected, or 0.
#[derive(Debug, Default)]
pub struct LastRejection(AtomicU64);

impl LastRejection {
    /// Records a rejection at this monotonic time.
    pub fn record(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    fn remaining(&self, now: Duration) -> Option<Duration> {
        let told = Some(self.0.load(Ordering::Relaxed)).filter(|millis| *millis > 0)?;
        (Duration::from_millis(told) + TRY_AGAIN).checked_sub(now).filter(|rest| !rest.is_zero())
    }
}

/// The delayed requests.
#[derive(Debug)]
pub struct DelayedRetries(Pool);

impl DelayedRetries {
    pub(super) fn new(bound: Bound) -> Self {
        Self(Pool::new(bound))
    }

    /// Changes the bound.
    pub fn set(&self, bound: Bound) {
        self.0.set(bound);
    }

    /// Waits until `Retry-After` has passed, and returns true. Returns false at once if there was no recent rejection
    /// or too many requests are delayed.
    pub async fn wait_out(&self, told: &LastRejection, now: Duration, holder: Option<Holder>) -> bool {
        let Some(rest) = told.remaining(now) else { return false };
        let Ok(waiting) = self.0.enter(holder) else { return false };
        tokio::time::sleep(rest).await;
        drop(waiting);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bounds, Overload, Refusal};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a4_who_asks_again_at_once_waits_and_others_are_told_at_once() {
        let bounds = Bounds { requests: Bound { all: 1, each: 1 }, ..Bounds::default() };
        let (overload, told) = (Overload::new(&bounds), LastRejection::default());
        let begun = tokio::time::Instant::now();
        let place = overload.request(None).unwrap();
        assert_eq!(overload.request(None).unwrap_err(), Refusal::Requests);
        let now = Duration::from_secs(9);
        assert!(!overload.delayed_retries.wait_out(&told, now, None).await);
        assert_eq!(begun.elapsed(), Duration::ZERO, "the first time");
        told.record(now);
        let waits = async {
            overload.delayed_retries.wait_out(&told, now, None).await.then(|| overload.request(None).unwrap())
        };
        let (waited, other) = tokio::join!(waits, async {
            let other = overload.delayed_retries.wait_out(&told, now, None).await;
            assert_eq!(begun.elapsed(), Duration::ZERO, "a retry must not wait if too many requests already wait");
            drop(place);
            other
        });
        assert!(waited.is_some() && !other);
        assert!(begun.elapsed() >= TRY_AGAIN);
        assert!(!overload.delayed_retries.wait_out(&told, now + TRY_AGAIN, None).await, "its time was over");
    }
}

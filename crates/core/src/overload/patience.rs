//! Delayed retries. A rejection is cheap but not free. If clients retried immediately, rejecting them would become the
//! main load. If a request of a connection was rejected less than `Retry-After` (one second) ago, the next request on
//! this connection is delayed. It is accepted after the second has passed, if there is room. The number of delayed
//! requests has the same bounds as requests in flight, in total and for each address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Bound, Holder, Pool, TRY_AGAIN};

/// When a request of this connection was last rejected, as a monotonic time in ms. 0 if no request was rejected.
#[derive(Debug, Default)]
pub struct LastRejection(AtomicU64);

impl LastRejection {
    /// Records that a request of the connection was rejected at this monotonic time.
    pub fn record(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// The time that is left until `Retry-After` has passed. `None` if it has passed.
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

    /// Waits until `Retry-After` has passed, and then returns true. Returns false at once if no request of the
    /// connection was rejected recently, or if too many requests are already delayed.
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
            assert_eq!(begun.elapsed(), Duration::ZERO, "no more wait than may be under way");
            drop(place);
            other
        });
        assert!(waited.is_some() && !other);
        assert!(begun.elapsed() >= TRY_AGAIN);
        assert!(!overload.delayed_retries.wait_out(&told, now + TRY_AGAIN, None).await, "its time was over");
    }
}

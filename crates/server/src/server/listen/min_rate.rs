//! The minimum rate at which a client must send or receive (requirement A4: slow clients).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use rotogate_config::ServerConfig;

#[derive(Clone, Copy, Debug)]
pub(crate) struct MinRate {
    /// With zero, any progress is enough.
    pub(super) bytes_per_second: u64,
    pub(super) max_lag: Duration,
}

impl MinRate {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self { bytes_per_second: config.min_body_rate, max_lag: config.idle_timeout }
    }
}

/// The time budget of one client in one direction. Waiting for the client uses up the budget. Transferred bytes refill
/// the budget at the minimum rate, up to `max_lag`.
#[derive(Debug)]
pub(crate) struct RateBudget {
    min_rate: MinRate,
    remaining: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RateBudget {
    pub(crate) fn new(min_rate: MinRate) -> Self {
        Self { min_rate, remaining: min_rate.max_lag, waiting_since: None, timer: None }
    }

    /// Resolves when the budget is used up.
    pub(crate) fn poll_exhausted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            let end = now + self.remaining;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(end))),
            }
        }
        match &mut self.timer {
            Some(timer) => ready!(timer.as_mut().poll(cx)),
            None => return Poll::Pending,
        }
        self.remaining = Duration::ZERO;
        Poll::Ready(())
    }

    /// Ends the wait, and refills the budget according to the transferred bytes.
    pub(crate) fn record(&mut self, bytes: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.remaining = self.remaining.saturating_sub(since.elapsed());
        }
        let earned = match (bytes, self.min_rate.bytes_per_second) {
            (0, _) => Duration::ZERO,
            (_, 0) => self.min_rate.max_lag,
            (bytes, rate) => Duration::from_millis(bytes.saturating_mul(1000) / rate),
        };
        self.remaining = self.remaining.saturating_add(earned).min(self.min_rate.max_lag);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const MIN_RATE: MinRate = MinRate { bytes_per_second: 100, max_lag: Duration::from_secs(60) };

    /// Sends `bytes` at each interval, for up to an hour. Returns the time until the budget is used up.
    async fn endured(min_rate: MinRate, bytes: u64, every: Duration) -> Duration {
        let mut budget = RateBudget::new(min_rate);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3600) {
            if tokio::time::timeout(every, poll_fn(|cx| budget.poll_exhausted(cx))).await.is_ok() {
                break;
            }
            budget.record(bytes);
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a4_who_is_slower_than_the_slowest_rate_is_not_waited_for_long() {
        let second = Duration::from_secs(1);
        let hour = 3600 * second;
        assert!(endured(MIN_RATE, 0, second).await <= 61 * second);
        // An idle timeout alone would never disconnect slow clients.
        assert!(endured(MIN_RATE, 1, second).await <= 62 * second);
        assert!(endured(MIN_RATE, 1, 59 * second).await <= 61 * second);
        // At half of the rate, the budget lasts twice as long.
        let half = endured(MIN_RATE, 50, second).await;
        assert!(half > 110 * second && half < 130 * second, "{half:?}");
        assert!(endured(MIN_RATE, 100, second).await >= hour);
        assert!(endured(MIN_RATE, 5000, 50 * second).await >= hour);
        // Without a minimum rate, only stalled clients are rejected.
        let any = MinRate { bytes_per_second: 0, ..MIN_RATE };
        assert!(endured(any, 1, 59 * second).await >= hour);
        assert!(endured(any, 1, 61 * second).await <= 60 * second);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_moved_at_once_is_no_credit_for_hours() {
        let mut budget = RateBudget::new(MIN_RATE);
        budget.record(1 << 40);
        let waited = tokio::time::timeout(Duration::from_secs(61), poll_fn(|cx| budget.poll_exhausted(cx))).await;
        assert!(waited.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_costs_nothing() {
        let mut budget = RateBudget::new(MIN_RATE);
        tokio::time::sleep(Duration::from_secs(600)).await;
        let waited = tokio::time::timeout(Duration::from_secs(59), poll_fn(|cx| budget.poll_exhausted(cx))).await;
        assert!(waited.is_err());
    }
}

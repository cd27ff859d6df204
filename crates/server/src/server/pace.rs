//! How long somebody may be waited for: requirement A4's slow clients, in either direction.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::ServerConfig;

/// How slow a client may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slowest {
    /// Bytes a second; zero: any movement will do.
    pub(super) rate: u64,
    /// How far behind that rate it may fall.
    pub(super) patience: Duration,
}

impl Slowest {
    pub(super) fn of(config: &ServerConfig) -> Self {
        Self { rate: config.min_body_rate, patience: config.idle_timeout }
    }
}

/// One client's account. What was waited for it is taken from its patience, and what it moved is added at the slowest
/// rate, up to all of it. So a client that stands still has all of the patience, and one that moves a byte now and then
/// only a little more. Time in which nobody waits for it costs nothing.
#[derive(Debug)]
pub(super) struct Pace {
    slowest: Slowest,
    left: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) fn new(slowest: Slowest) -> Self {
        Self { slowest, left: slowest.patience, since: None, timer: None }
    }

    /// Somebody waits for the client. Ready once the patience is at its end.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            let end = now + self.left;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(end))),
            }
        }
        match &mut self.timer {
            Some(timer) => ready!(timer.as_mut().poll(cx)),
            None => return Poll::Pending,
        }
        self.left = Duration::ZERO;
        Poll::Ready(())
    }

    /// Nobody waits for it any more, and this many bytes were moved.
    pub(super) fn moved(&mut self, bytes: u64) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let earned = match (bytes, self.slowest.rate) {
            (0, _) => Duration::ZERO,
            (_, 0) => self.slowest.patience,
            (bytes, rate) => Duration::from_millis(bytes.saturating_mul(1000) / rate),
        };
        self.left = self.left.saturating_add(earned).min(self.slowest.patience);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SLOWEST: Slowest = Slowest { rate: 100, patience: Duration::from_secs(60) };

    /// How long a client that moves so many bytes every so often is put up with, for an hour at most.
    async fn endured(slowest: Slowest, bytes: u64, every: Duration) -> Duration {
        let mut pace = Pace::new(slowest);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3600) {
            if tokio::time::timeout(every, poll_fn(|cx| pace.poll_waiting(cx))).await.is_ok() {
                break;
            }
            pace.moved(bytes);
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a4_who_is_slower_than_the_slowest_rate_is_not_waited_for_long() {
        let second = Duration::from_secs(1);
        let hour = 3600 * second;
        assert!(endured(SLOWEST, 0, second).await <= 61 * second);
        // One byte a second, and one a minute, which an idle timeout alone would put up with for ever.
        assert!(endured(SLOWEST, 1, second).await <= 62 * second);
        assert!(endured(SLOWEST, 1, 59 * second).await <= 61 * second);
        // Half of the rate: twice the patience.
        let half = endured(SLOWEST, 50, second).await;
        assert!(half > 110 * second && half < 130 * second, "{half:?}");
        assert!(endured(SLOWEST, 100, second).await >= hour);
        assert!(endured(SLOWEST, 5000, 50 * second).await >= hour);
        // Without a rate only standing still counts.
        let any = Slowest { rate: 0, ..SLOWEST };
        assert!(endured(any, 1, 59 * second).await >= hour);
        assert!(endured(any, 1, 61 * second).await <= 60 * second);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_moved_at_once_is_no_credit_for_hours() {
        let mut pace = Pace::new(SLOWEST);
        pace.moved(1 << 40);
        let waited = tokio::time::timeout(Duration::from_secs(61), poll_fn(|cx| pace.poll_waiting(cx))).await;
        assert!(waited.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_costs_nothing() {
        let mut pace = Pace::new(SLOWEST);
        tokio::time::sleep(Duration::from_secs(600)).await;
        let waited = tokio::time::timeout(Duration::from_secs(59), poll_fn(|cx| pace.poll_waiting(cx))).await;
        assert!(waited.is_err());
    }
}

//! HTTP/1.1 clients that close their sending side before the response arrives (RFC 9112 §9.6).
//!
//! When a client closes its sending side, hyper would drop the request in flight. This module hides the EOF from hyper
//! while a response is pending. A disconnected client is still detected, because a write causes a reset.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a response may stall after its client has closed the sending side.
pub(crate) const HALF_CLOSED: Duration = Duration::from_secs(10);
/// The limit that replaces [`HALF_CLOSED`] if the request's body may be incomplete.
const UNFINISHED: Duration = Duration::from_secs(1);

const NOTHING: u8 = 0;
const BEGUN: u8 = 1;
const WHOLE: u8 = 2;

#[derive(Debug, Default)]
pub(crate) struct OwedAnswer(AtomicU8);

impl OwedAnswer {
    pub(super) fn begin(&self, is_whole: bool) {
        self.0.store(if is_whole { WHOLE } else { BEGUN }, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) {
        let _ = self.0.compare_exchange(BEGUN, WHOLE, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.0.store(NOTHING, Ordering::Relaxed);
    }

    fn patience(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            NOTHING => Duration::ZERO,
            BEGUN => UNFINISHED,
            _ => HALF_CLOSED,
        }
    }
}

/// The timer that starts at EOF. After its deadline, the client counts as disconnected.
#[derive(Debug, Default)]
pub(super) struct HalfClosed(Option<(Instant, Pin<Box<Sleep>>)>);

impl HalfClosed {
    /// Resolves when the client counts as disconnected. Call this only after the client has sent EOF.
    // Requirement T48.
    pub(super) fn poll_gone(&mut self, owed: &OwedAnswer, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let patience = owed.patience();
            if patience.is_zero() {
                return Poll::Ready(());
            }
            let (since, timer) = self.0.get_or_insert_with(|| {
                let now = Instant::now();
                (now, Box::pin(sleep_until(now + patience)))
            });
            let until = *since + patience;
            if timer.deadline() < until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
            if owed.patience() == patience {
                return Poll::Ready(());
            }
        }
    }

    pub(super) fn progress(&mut self) {
        if let Some((since, _)) = &mut self.0 {
            *since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn gone(owed: &OwedAnswer, halves: &mut HalfClosed) -> Duration {
        let began = Instant::now();
        poll_fn(|cx| halves.poll_gone(owed, cx)).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn t48_a_half_closed_client_is_waited_for_only_while_an_answer_is_owed() {
        let owed = OwedAnswer::default();
        assert_eq!(gone(&owed, &mut HalfClosed::default()).await, Duration::ZERO, "an idle connection");
        owed.begin(true);
        let waited = gone(&owed, &mut HalfClosed::default()).await;
        assert!((HALF_CLOSED..HALF_CLOSED * 2).contains(&waited), "{waited:?}");
        owed.begin(false);
        let waited = gone(&owed, &mut HalfClosed::default()).await;
        assert!((UNFINISHED..UNFINISHED * 2).contains(&waited), "a body that was cut: {waited:?}");
        owed.read();
        assert!(gone(&owed, &mut HalfClosed::default()).await >= HALF_CLOSED);
        owed.end();
        owed.read();
        assert_eq!(gone(&owed, &mut HalfClosed::default()).await, Duration::ZERO);
        // A response that makes progress has no time limit.
        owed.begin(true);
        let mut halves = HalfClosed::default();
        let began = Instant::now();
        for _ in 0..5 {
            let _ = tokio::time::timeout(HALF_CLOSED / 2, gone(&owed, &mut halves)).await;
            halves.progress();
        }
        gone(&owed, &mut halves).await;
        assert!(began.elapsed() >= HALF_CLOSED * 3, "{:?}", began.elapsed());
    }
}

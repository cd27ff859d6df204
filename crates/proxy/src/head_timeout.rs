//! The timeout for response heads.

use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::body::Progress;
use rotogate_kit::lazy_sleep::LazySleep;

/// The timeout for a response head. The timeout restarts while the request body progresses, or while the upstream waits
/// for the client.
#[derive(Clone, Copy)]
pub(super) struct HeadTimeout<'a> {
    pub(super) limit: Duration,
    pub(super) progress: &'a Progress,
}

impl HeadTimeout<'_> {
    /// Waits for the future. Returns `None` if there was no progress for the time `limit`.
    pub(super) async fn within<F: Future>(self, future: F) -> Option<F::Output> {
        self.within_on(&mut None, pin!(future)).await
    }

    pub(super) async fn within_on<F: Future>(
        self,
        timer: &mut Option<LazySleep>,
        mut future: Pin<&mut F>,
    ) -> Option<F::Output> {
        let mut seen = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            loop {
                let now = self.progress.count();
                if seen != Some(now) {
                    seen = Some(now);
                    let until = Instant::now() + self.limit;
                    match timer {
                        Some(timer) => timer.set(until),
                        None => *timer = Some(LazySleep::until(until)),
                    }
                }
                let over = timer.as_mut().is_none_or(|timer| timer.poll_over(cx).is_ready());
                if !over {
                    return Poll::Pending;
                }
                if self.progress.count() == now && !self.progress.awaits_client() {
                    return Poll::Ready(None);
                }
                seen = None;
            }
        })
        .await
    }
}

//! The requests of one HTTP/2 connection: whether a client takes its replies, how often it asks and then resets, and
//! when it was last heard of (requirements A4, T15).
//!
//! In HTTP/1.1 a client that does not read stops the socket. Here each reply has a window of its own, so one that is
//! not read stands still while pings are answered. hyper gives each request a task by way of the executor, so that is
//! the place to end one of them and leave the others.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::sync::Notify;

use super::pace::{Pace, Slowest};

/// How many requests a client may reset before their reply at once, and then a second. Far above what a person's
/// clicking or a failing deadline brings on, far below a flood (CVE-2023-44487). What was reset before we saw the
/// request is counted by the library.
const RESETS_AT_ONCE: NonZeroU32 = NonZeroU32::new(200).unwrap();
const RESETS_A_SECOND: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// A client that is told to go may still reset so many more, which it had begun.
const MORE: u64 = 100;

tokio::task_local! {
    static DELIVERY: Arc<Delivery>;
}

/// What is known of one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    shared: Arc<Shared>,
    slowest: Slowest,
}

#[derive(Debug)]
struct Shared {
    running: AtomicUsize,
    begun: AtomicU64,
    resets: DefaultDirectRateLimiter,
    /// Resets beyond the rate.
    excess: AtomicU64,
    flooded: Notify,
}

impl Streams {
    pub(super) fn new(slowest: Slowest) -> Self {
        let shared = Shared {
            running: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            resets: RateLimiter::direct(Quota::per_second(RESETS_A_SECOND).allow_burst(RESETS_AT_ONCE)),
            excess: AtomicU64::new(0),
            flooded: Notify::new(),
        };
        Self { shared: Arc::new(shared), slowest }
    }

    /// How many requests began so far, and whether any runs.
    pub(super) fn seen(&self) -> (u64, bool) {
        (self.shared.begun.load(Ordering::Relaxed), self.shared.running.load(Ordering::Relaxed) > 0)
    }

    /// Ends when the client resets too much, and again if it goes on all the same.
    pub(super) async fn flooded(&self) {
        self.shared.flooded.notified().await;
    }

    /// To be held until there is a reply.
    pub(super) fn unanswered(&self) -> Unanswered {
        Unanswered(Some(Arc::clone(&self.shared)))
    }
}

/// A request without a reply. Dropped so, it was reset.
#[derive(Debug)]
pub(super) struct Unanswered(Option<Arc<Shared>>);

impl Unanswered {
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        if shared.resets.check().is_err() {
            // It may still reset what it had begun.
            if shared.excess.fetch_add(1, Ordering::Relaxed) % MORE == 0 {
                shared.flooded.notify_one();
            }
        }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.shared.begun.fetch_add(1, Ordering::Relaxed);
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.shared));
        let delivery = Arc::<Delivery>::default();
        let taken = Taken { request, delivery: Arc::clone(&delivery), seen: 0, pace: Pace::new(self.slowest) };
        tokio::spawn(async move {
            DELIVERY.scope(delivery, taken).await;
            drop(running);
        });
    }
}

struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a reply is. Written and read by the task of its request only.
#[derive(Debug, Default)]
struct Delivery {
    /// Is there something that the client has not taken yet?
    waits: AtomicBool,
    /// How much was handed over.
    bytes: AtomicU64,
}

pin_project! {
    /// A request that ends where its client does not take the reply.
    struct Taken<F> {
        #[pin]
        request: F,
        delivery: Arc<Delivery>,
        seen: u64,
        pace: Pace,
    }
}

impl<F: Future<Output = ()>> Future for Taken<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.request.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let bytes = this.delivery.bytes.load(Ordering::Relaxed);
        let waits = this.delivery.waits.load(Ordering::Relaxed);
        if bytes != *this.seen || !waits {
            this.pace.moved(bytes - *this.seen);
            *this.seen = bytes;
        }
        if !waits {
            return Poll::Pending;
        }
        // Dropping the request resets its stream.
        this.pace.poll_waiting(cx).map(|()| tracing::debug!("a client did not take its reply, which was reset"))
    }
}

pin_project! {
    /// The body of a reply, which says how far it is.
    #[derive(Debug)]
    pub(super) struct Delivered<B> {
        #[pin]
        body: B,
        delivery: Option<Arc<Delivery>>,
    }
}

impl<B> Delivered<B> {
    /// To be called where the request runs: there it is known which one it is.
    pub(super) fn new(body: B) -> Self {
        Self { body, delivery: DELIVERY.try_with(Arc::clone).ok() }
    }
}

impl<B: Body> Body for Delivered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        use bytes::Buf;
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if let Some(delivery) = this.delivery {
            delivery.waits.store(frame.is_ready(), Ordering::Relaxed);
            if let Poll::Ready(Some(Ok(frame))) = &frame {
                let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                delivery.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn t15_resets_beyond_the_rate_are_a_flood_and_answered_requests_are_none() {
        let streams = Streams::new(Slowest { rate: 0, patience: Duration::from_secs(60) });
        (0..10_000).for_each(|_| streams.unanswered().answered());
        (0..RESETS_AT_ONCE.get()).for_each(|_| drop(streams.unanswered()));
        assert!(streams.flooded().now_or_never().is_none());
        // Once to be told to go, and once more for who does not.
        for _ in 0..2 {
            (0..2000).for_each(|_| drop(streams.unanswered()));
            assert!(streams.flooded().now_or_never().is_some());
        }
    }
}

//! The requests of one HTTP/2 connection: whether the client reads its responses, how often it resets requests, and
//! when it was last active (requirements A4, T15).
//!
//! In HTTP/1.1, a client that does not read blocks its socket. In HTTP/2, each response has its own flow-control
//! window, so an unread response stalls while the client still responds to pings. hyper spawns each request through the
//! executor, so the executor can end a single request and leave the others running.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use rotogate_core::limit::{Bucket, Rate};
use tokio::sync::Notify;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

use super::half_close::OwedAnswer;
use super::min_rate::{MinRate, RateBudget};

/// How many requests a client may reset before the response: 200 at once, and then 100 per second. This is far above
/// the resets that clicks or expired deadlines cause, and far below a flood (CVE-2023-44487). hyper itself counts the
/// resets that arrive before the request was read.
const RESETS: Rate = Rate::new(200, Duration::from_millis(10));
/// The number of requests that a client may still reset after `GOAWAY`, because it had sent them already.
const EXCESS_RESETS_PER_NOTICE: u64 = 100;

tokio::task_local! {
    static DELIVERY: Arc<Delivery>;
}

/// The state of one connection. Clones are cheap and share the state.
#[derive(Clone, Debug)]
pub(crate) struct H2Streams {
    shared: Arc<Shared>,
    min_rate: MinRate,
}

#[derive(Debug)]
struct Shared {
    running: AtomicUsize,
    begun: AtomicU64,
    began: Instant,
    resets: Bucket,
    /// The number of resets beyond the rate.
    excess: AtomicU64,
    /// Whether bytes wait for the next poll of the connection.
    has_delayed_flush: AtomicBool,
    flooded: Notify,
}

impl H2Streams {
    pub(crate) fn new(min_rate: MinRate) -> Self {
        let shared = Shared {
            running: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            began: Instant::now(),
            resets: Bucket::default(),
            excess: AtomicU64::new(0),
            has_delayed_flush: AtomicBool::new(false),
            flooded: Notify::new(),
        };
        Self { shared: Arc::new(shared), min_rate }
    }

    /// Returns how many requests have begun, and whether a request is in flight.
    pub(super) fn activity(&self) -> (u64, bool) {
        (self.shared.begun.load(Ordering::Relaxed), self.shared.running.load(Ordering::Relaxed) > 0)
    }

    /// Returns how many requests have ended. hyper has received all of their responses.
    pub(super) fn complete(&self) -> u64 {
        self.shared.begun.load(Ordering::Relaxed).saturating_sub(self.shared.running.load(Ordering::Relaxed) as u64)
    }

    pub(super) fn delay_flush(&self) {
        self.shared.has_delayed_flush.store(true, Ordering::Relaxed);
    }

    /// Returns whether a flush was delayed since the last call.
    pub(super) fn take_delayed_flush(&self) -> bool {
        self.shared.has_delayed_flush.load(Ordering::Relaxed)
            && self.shared.has_delayed_flush.swap(false, Ordering::Relaxed)
    }

    /// Resolves when the client exceeds the reset rate, and again if the client continues.
    pub(super) async fn reset_flood(&self) {
        self.shared.flooded.notified().await;
    }

    /// Returns a guard to keep until the response is made.
    pub(super) fn pending_reply(&self) -> PendingReply {
        PendingReply(Some(Arc::clone(&self.shared)))
    }
}

/// A request that has no response yet. Dropping it counts as a reset by the client.
#[derive(Debug)]
pub(crate) struct PendingReply(Option<Arc<Shared>>);

impl PendingReply {
    pub(crate) fn complete(mut self) {
        self.0 = None;
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        if shared.resets.take(RESETS, shared.began.elapsed()).is_err() {
            // The client may reset requests that it had already sent before it received `GOAWAY`.
            if shared.excess.fetch_add(1, Ordering::Relaxed) % EXCESS_RESETS_PER_NOTICE == 0 {
                shared.flooded.notify_one();
            }
        }
    }
}

impl<F> Executor<F> for H2Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.shared.begun.fetch_add(1, Ordering::Relaxed);
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let running = RunningGuard(Arc::clone(&self.shared));
        let delivery = Arc::<Delivery>::default();
        let request = DELIVERY.scope(Arc::clone(&delivery), request);
        let budget = RateBudget::new(self.min_rate);
        // The task is a struct, because an `async` block would contain the request twice. The task is boxed, because
        // tokio copies a whole task when the task begins and when it ends.
        tokio::spawn(Box::pin(StreamTask { request, delivery, seen: 0, budget, _running: running }));
    }
}

struct RunningGuard(Arc<Shared>);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The progress of a response. Only the task of the request reads and writes this value.
#[derive(Debug, Default)]
struct Delivery {
    /// Whether a frame waits until the client accepts more data.
    waits: AtomicBool,
    /// The number of bytes passed to hyper so far.
    bytes: AtomicU64,
}

pin_project! {
    /// A request that ends if its client does not read the response.
    struct StreamTask<F> {
        #[pin]
        request: TaskLocalFuture<Arc<Delivery>, F>,
        delivery: Arc<Delivery>,
        seen: u64,
        budget: RateBudget,
        _running: RunningGuard,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.request.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let bytes = this.delivery.bytes.load(Ordering::Relaxed);
        let waits = this.delivery.waits.load(Ordering::Relaxed);
        if bytes != *this.seen || !waits {
            this.budget.record(bytes - *this.seen);
            *this.seen = bytes;
        }
        if !waits {
            return Poll::Pending;
        }
        // If the request is dropped, its stream is reset.
        this.budget.poll_exhausted(cx).map(|()| tracing::debug!("response not read by the client; stream reset"))
    }
}

pin_project! {
    /// A response body that records its progress.
    #[derive(Debug)]
    pub(crate) struct TrackedBody<B> {
        #[pin]
        body: B,
        delivery: Option<Arc<Delivery>>,
        // The pending response that ends with this body. It is used only for HTTP/1.1.
        owed: Option<Arc<OwedAnswer>>,
        // Whether the request is a `HEAD`. If so, the response gets no body here, because hyper would send one
        // (requirement T47).
        is_bare: bool,
    }

    impl<B> PinnedDrop for TrackedBody<B> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(owed) = this.project().owed {
                owed.end();
            }
        }
    }
}

impl<B> TrackedBody<B> {
    /// Creates the body. Must be called in the task of the request, because the progress record is local to that task.
    pub(crate) fn new(body: B, owed: Option<Arc<OwedAnswer>>, is_bare: bool) -> Self {
        Self { body, delivery: DELIVERY.try_with(Arc::clone).ok(), owed, is_bare }
    }
}

impl<B: Body> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        use bytes::Buf;
        let this = self.project();
        if *this.is_bare {
            return Poll::Ready(None);
        }
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
        self.is_bare || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn t15_resets_beyond_the_rate_are_a_flood_and_answered_requests_are_none() {
        let streams = H2Streams::new(MinRate { bytes_per_second: 0, max_lag: Duration::from_secs(60) });
        (0..10_000).for_each(|_| streams.pending_reply().complete());
        (0..RESETS.burst.get()).for_each(|_| drop(streams.pending_reply()));
        assert!(streams.reset_flood().now_or_never().is_none());
        // Once for GOAWAY, and once more because the client continues.
        for _ in 0..2 {
            (0..2000).for_each(|_| drop(streams.pending_reply()));
            assert!(streams.reset_flood().now_or_never().is_some());
        }
    }
}

//! Limits on HTTP/2 connections: unread responses and resets by the client (requirements A4, T15).
//!
//! Each HTTP/2 response has its own flow-control window. An unread response can therefore stall while the client still
//! answers pings. hyper spawns each request through the executor, so the executor can end a single request.

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

/// The client may reset 200 requests at once, then 100 per second. Normal clients stay far below this rate, and floods
/// exceed it by far (CVE-2023-44487).
const RESETS: Rate = Rate::new(200, Duration::from_millis(10));
const EXCESS_RESETS_PER_NOTICE: u64 = 100;

tokio::task_local! {
    static DELIVERY: Arc<Delivery>;
}

/// The state of one connection. Clones share the state.
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
    excess: AtomicU64,
    /// Whether buffered bytes must be flushed at the next poll of the connection.
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

    pub(super) fn activity(&self) -> (u64, bool) {
        (self.shared.begun.load(Ordering::Relaxed), self.shared.running.load(Ordering::Relaxed) > 0)
    }

    pub(super) fn complete(&self) -> u64 {
        self.shared.begun.load(Ordering::Relaxed).saturating_sub(self.shared.running.load(Ordering::Relaxed) as u64)
    }

    pub(super) fn delay_flush(&self) {
        self.shared.has_delayed_flush.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_delayed_flush(&self) -> bool {
        self.shared.has_delayed_flush.load(Ordering::Relaxed)
            && self.shared.has_delayed_flush.swap(false, Ordering::Relaxed)
    }

    /// Resolves when the client exceeds the reset rate, and again if the client does not stop.
    pub(super) async fn reset_flood(&self) {
        self.shared.flooded.notified().await;
    }

    /// Returns a guard that must be kept until the response is made.
    pub(super) fn pending_reply(&self) -> PendingReply {
        PendingReply(Some(Arc::clone(&self.shared)))
    }
}

/// A request without a response. Dropping this value means that the client has reset the request.
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
            // The client may have sent these resets before it received `GOAWAY`.
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
        // The task is a struct, because an `async` block would contain the request twice. The struct is boxed, because
        // tokio copies a task when the task starts and ends.
        tokio::spawn(Box::pin(StreamTask { request, delivery, seen: 0, budget, _running: running }));
    }
}

struct RunningGuard(Arc<Shared>);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The progress of a response. Only the request's task uses this record.
#[derive(Debug, Default)]
struct Delivery {
    waits: AtomicBool,
    bytes: AtomicU64,
}

pin_project! {
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
        // Dropping the request resets its stream.
        this.budget.poll_exhausted(cx).map(|()| tracing::debug!("response not read by the client; stream reset"))
    }
}

pin_project! {
    #[derive(Debug)]
    pub(crate) struct TrackedBody<B> {
        #[pin]
        body: B,
        delivery: Option<Arc<Delivery>>,
        // The pending HTTP/1.1 response, which is complete at the end of this body.
        owed: Option<Arc<OwedAnswer>>,
        // Whether the request is a `HEAD`. hyper would send the body of a response to `HEAD` (requirement T47).
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
    /// Call this function in the request's task, because the progress record is local to that task.
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
        for _ in 0..2 {
            (0..2000).for_each(|_| drop(streams.pending_reply()));
            assert!(streams.reset_flood().now_or_never().is_some());
        }
    }
}

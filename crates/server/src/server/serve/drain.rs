//! Ends streams early during an in-place upgrade (requirement P4). Otherwise new requests would wait for endless
//! responses until `drain_timeout`.
//!
//! Event streams end as if the upstream had ended them. gRPC calls end with the status `UNAVAILABLE`. The clients
//! reconnect automatically.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use http::HeaderMap;
use rotogate_core::reply::{GrpcCode, grpc_trailers};
use tokio::sync::watch;

#[derive(Clone, Debug, Default)]
pub(crate) struct StreamDrain(Arc<watch::Sender<bool>>);

impl StreamDrain {
    pub(crate) fn end_streams(&self) {
        self.0.send_replace(true);
    }

    async fn ended(self) {
        // `self` keeps the sender alive, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|ended| *ended).await;
    }
}

/// The kinds of endless responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Events,
    Grpc,
}

pub(crate) struct DrainedStream {
    kind: StreamKind,
    drain: StreamDrain,
    /// The future is created at the first wait, because most gRPC responses never wait.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_over: bool,
}

rotogate_core::debug_with!(DrainedStream { kind });

impl DrainedStream {
    pub(crate) fn new(kind: StreamKind, drain: StreamDrain) -> Self {
        Self { kind, drain, end: None, is_over: false }
    }

    /// Resolves when the response must end, to the trailers of a gRPC response, and to `None` for other responses. Poll
    /// it only while waiting for a frame.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        let end = self.end.get_or_insert_with(|| Box::pin(self.drain.clone().ended()));
        if end.poll_unpin(cx).is_pending() {
            return Poll::Pending;
        }
        self.is_over = true;
        let is_grpc = self.kind == StreamKind::Grpc;
        Poll::Ready(is_grpc.then(|| grpc_trailers(GrpcCode::Unavailable, "the gate is being upgraded; try again")))
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn p4_a_stream_ends_once_it_waits_after_the_order_and_as_its_protocol_ends() {
        let drain = StreamDrain::default();
        let cx = &mut Context::from_waker(Waker::noop());
        let mut kinds = [StreamKind::Events, StreamKind::Grpc].map(|kind| DrainedStream::new(kind, drain.clone()));
        for stream in &mut kinds {
            assert!(stream.poll_end(cx).is_pending() && !stream.is_over());
        }
        drain.end_streams();
        let [events, grpc] = &mut kinds;
        assert_eq!(events.poll_end(cx), Poll::Ready(None));
        let Poll::Ready(Some(trailers)) = grpc.poll_end(cx) else { panic!("it goes on") };
        assert_eq!(trailers["grpc-status"], "14", "UNAVAILABLE: the client tries again");
        assert!(events.is_over() && grpc.is_over());
        let mut late = DrainedStream::new(StreamKind::Events, drain);
        assert!(late.poll_end(cx).is_ready(), "it began after the order");
    }
}

//! The deadline for a request body that is processed while it arrives.
//!
//! tower-http's `TimeoutBody` restarts with each frame, so a slow client would never reach the timeout. `DeadlineBody`
//! would be another dependency, and rejects data that arrived in time but is read later.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::dialect::StreamedBody;

#[derive(Debug, thiserror::Error)]
#[error("the request body did not arrive in time")]
struct Stalled;

/// A body that fails if the reader has to wait for a frame after the deadline.
pub(super) struct StallTimeout {
    body: StreamedBody,
    end: Pin<Box<Sleep>>,
}

impl StallTimeout {
    pub(super) fn new(body: StreamedBody, limit: Duration) -> Self {
        Self { body, end: Box::pin(tokio::time::sleep(limit)) }
    }
}

impl Body for StallTimeout {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        this.end.as_mut().poll(cx).map(|()| Some(Err(Stalled.into())))
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
    use futures_util::StreamExt;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a10_a_body_ends_in_its_time_however_it_moves() {
        let limit = Duration::from_secs(60);
        let moving = stream::iter(0..5).then(|_| async {
            tokio::time::sleep(Duration::from_secs(11)).await;
            Ok(Frame::data(Bytes::from_static(b"x")))
        });
        let mut body = StallTimeout::new(StreamBody::new(moving.chain(stream::pending())).boxed_unsync(), limit);
        for _ in 0..5 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.unwrap().unwrap_err().is::<Stalled>());
    }
}

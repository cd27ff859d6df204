//! The body of a request: as it comes in, or one that an endpoint read and passes on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pace::{Pace, Slowest};
use crate::proxy::{BoxError, TooSlow};

/// See the module.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// From the connection.
    Incoming(Incoming),
    /// From the connection, and it must keep coming (requirement A4).
    Paced(Box<Paced>),
    /// There already. Empty once it was taken.
    Read(Bytes),
}

/// A body that is waited for, until the answer begins: from then on the two sides may be in conversation, in which a
/// client that listens says nothing.
#[derive(Debug)]
pub(super) struct Paced {
    body: Incoming,
    pace: Pace,
    answered: Answered,
}

/// Has the answer to a request begun?
#[derive(Clone, Debug, Default)]
pub(super) struct Answered(Arc<AtomicBool>);

impl Answered {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl RequestBody {
    pub(super) fn paced(body: Incoming, slowest: Slowest, answered: Answered) -> Self {
        Self::Paced(Box::new(Paced { body, pace: Pace::new(slowest), answered }))
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self::Read(bytes)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Paced(paced) => paced.poll_frame(cx),
            Self::Read(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(body) => body.is_end_stream(),
            Self::Paced(paced) => paced.body.is_end_stream(),
            Self::Read(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(body) => body.size_hint(),
            Self::Paced(paced) => paced.body.size_hint(),
            Self::Read(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl Paced {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                self.pace.moved(data.map_or(0, |data| data.len() as u64));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if self.answered.0.load(Ordering::Relaxed) => Poll::Pending,
            Poll::Pending => self.pace.poll_waiting(cx).map(|()| Some(Err(TooSlow.into()))),
        }
    }
}

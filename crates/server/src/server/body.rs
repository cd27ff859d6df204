//! The body of a request: as it comes in, or one that an endpoint read and passes on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;

use super::pace::{Pace, Slowest};
use crate::log::Answered;
use crate::proxy::{BoxError, TooSlow};
use rotogate::gate::Gate;
use rotogate::linger::drop_rest;

/// See the module.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// From the connection.
    Incoming(Guarded),
    /// From the connection, and it must keep coming (requirement A4).
    Paced(Box<Paced>),
    /// There already. Empty once it was taken.
    Read(Bytes),
}

/// A body whose trailers say nothing that only the gate may say (requirement T3).
#[derive(Debug)]
pub(super) struct Guarded {
    /// None once it is somebody else's.
    body: Option<Incoming>,
    /// Says what may stand in trailers; a body that has ended already has none.
    gate: Option<Gate>,
    /// Where its bytes are counted.
    counted: Option<Answered>,
}

/// A body that is waited for, until the answer begins: from then on the two sides may be in conversation, in which a
/// client that listens says nothing.
#[derive(Debug)]
pub(super) struct Paced {
    body: Guarded,
    pace: Pace,
    answered: Answered,
    /// What is left when nobody wants it any more is read all the same.
    lingers: bool,
}

impl RequestBody {
    pub(super) fn incoming(body: Incoming, gate: &Gate, answered: Option<Answered>) -> Self {
        Self::Incoming(Guarded::new(body, gate, answered))
    }

    pub(super) fn paced(
        request: Request<Incoming>,
        gate: &Gate,
        slowest: Slowest,
        answered: Answered,
    ) -> Request<Self> {
        // Over HTTP/1.1 reading would ask a client for what it holds back until it is asked.
        let lingers = request.version() == Version::HTTP_2 || !request.headers().contains_key(EXPECT);
        let pace = Pace::new(slowest);
        request.map(|body| {
            let body = Guarded::new(body, gate, Some(answered.clone()));
            Self::Paced(Box::new(Paced { body, pace, answered, lingers }))
        })
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
            Self::Incoming(body) => body.poll_frame(cx).map_err(Into::into),
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

impl Guarded {
    fn new(body: Incoming, gate: &Gate, counted: Option<Answered>) -> Self {
        let gate = (!body.is_end_stream()).then(|| gate.clone());
        Self { body: Some(body), gate, counted }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        loop {
            let mut next = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
            let trailers = match &mut next {
                Some(Ok(frame)) => {
                    if let (Some(data), Some(counted)) = (frame.data_ref(), &self.counted) {
                        counted.add(data.len() as u64);
                    }
                    frame.trailers_mut()
                }
                Some(Err(_)) | None => None,
            };
            if let (Some(trailers), Some(gate)) = (trailers, &self.gate) {
                gate.strip_trailers(trailers);
                if trailers.is_empty() {
                    continue;
                }
            }
            return Poll::Ready(next);
        }
    }
}

impl Paced {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.body.poll_frame(cx) {
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                self.pace.moved(data.map_or(0, |data| data.len() as u64));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if self.answered.is_set() => Poll::Pending,
            Poll::Pending => self.pace.poll_waiting(cx).map(|()| Some(Err(TooSlow.into()))),
        }
    }
}

impl Drop for Paced {
    /// A client that is answered before it has sent all is to hear of the answer, not of a reset.
    fn drop(&mut self) {
        if self.lingers
            && !self.body.is_end_stream()
            && let (Some(body), Ok(runtime)) = (self.body.body.take(), Handle::try_current())
        {
            runtime.spawn(drop_rest(body));
        }
    }
}

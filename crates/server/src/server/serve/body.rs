//! Request bodies from the connection, or from memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;

use crate::server::listen::half_close::OwedAnswer;
use crate::server::listen::min_rate::RateBudget;
use crate::server::listen::origin::Origin;
use rotogate::Gate;
use rotogate_core::linger::drop_rest;
use rotogate_kit::exchange::ExchangeProgress;
use rotogate_proxy::{BoxError, TooSlow};

#[derive(Debug)]
pub(crate) enum RequestBody {
    Incoming(FilteredBody),
    MinRateBody(Box<MinRateBody>),
    /// Empty after the first poll.
    Read(Bytes),
}

/// A body from the connection, without the trailers that only the gate may set (requirement T3).
#[derive(Debug)]
pub(crate) struct FilteredBody {
    /// `None` after [`drop_rest`].
    body: Option<Incoming>,
    /// The trailer filter. `None` if the body is empty.
    gate: Option<Gate>,
    progress: Option<ExchangeProgress>,
    /// Records that the body was read completely. `None` if the body is empty.
    owed: Option<Arc<OwedAnswer>>,
}

/// A body that must arrive at a minimum rate until the response begins (requirement A4).
#[derive(Debug)]
pub(crate) struct MinRateBody {
    body: FilteredBody,
    budget: RateBudget,
    progress: ExchangeProgress,
    lingers: bool,
}

impl RequestBody {
    pub(super) fn incoming(body: Incoming, gate: &Gate, origin: &Origin, progress: Option<ExchangeProgress>) -> Self {
        Self::Incoming(FilteredBody::new(body, gate, origin, progress))
    }

    pub(super) fn with_min_rate(
        request: Request<Incoming>,
        gate: &Gate,
        origin: &Origin,
        progress: ExchangeProgress,
    ) -> Request<Self> {
        // In HTTP/1.1, reading would send `100 Continue`, and the client would then send an unneeded body.
        let lingers = request.version() == Version::HTTP_2 || !request.headers().contains_key(EXPECT);
        let budget = RateBudget::new(origin.min_rate);
        request.map(|body| {
            let body = FilteredBody::new(body, gate, origin, Some(progress.clone()));
            Self::MinRateBody(Box::new(MinRateBody { body, budget, progress, lingers }))
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
            Self::MinRateBody(body) => body.poll_frame(cx),
            Self::Read(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(body) => body.is_end_stream(),
            Self::MinRateBody(body) => body.body.is_end_stream(),
            Self::Read(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(body) => body.size_hint(),
            Self::MinRateBody(body) => body.body.size_hint(),
            Self::Read(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl FilteredBody {
    fn new(body: Incoming, gate: &Gate, origin: &Origin, progress: Option<ExchangeProgress>) -> Self {
        let (gate, owed) = (!body.is_end_stream()).then(|| (gate.clone(), Arc::clone(&origin.owed))).unzip();
        Self { body: Some(body), gate, progress, owed }
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
            if let Some(owed) = self.owed.as_ref().filter(|_| next.is_none() || body.is_end_stream()) {
                owed.read();
            }
            let trailers = match &mut next {
                Some(Ok(frame)) => {
                    if let (Some(data), Some(progress)) = (frame.data_ref(), &self.progress) {
                        progress.add_received(data.len() as u64);
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

impl MinRateBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.body.poll_frame(cx) {
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                self.budget.record(data.map_or(0, |data| data.len() as u64));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if self.progress.is_response_started() => Poll::Pending,
            Poll::Pending => self.budget.poll_exhausted(cx).map(|()| Some(Err(TooSlow.into()))),
        }
    }
}

impl Drop for MinRateBody {
    /// Reads the rest of the body in the background. Otherwise the client could get a reset instead of the response.
    fn drop(&mut self) {
        if self.lingers
            && !self.body.is_end_stream()
            && let (Some(body), Ok(runtime)) = (self.body.body.take(), Handle::try_current())
        {
            runtime.spawn(drop_rest(body));
        }
    }
}

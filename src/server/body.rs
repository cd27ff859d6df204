//! The body of a request: as it comes in, or one that an endpoint read and passes on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::gate::Gate;

/// See the module.
#[derive(Debug)]
pub(super) struct RequestBody(Kind);

#[derive(Debug)]
enum Kind {
    /// From the connection. The gate says what may stand in its trailers; where it has ended already there are none.
    Incoming(Incoming, Option<Gate>),
    /// There already. Empty once it was taken.
    Read(Bytes),
}

impl RequestBody {
    pub(super) fn incoming(body: Incoming, gate: &Gate) -> Self {
        let guard = (!body.is_end_stream()).then(|| gate.clone());
        Self(Kind::Incoming(body, guard))
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Read(bytes))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().0 {
            Kind::Incoming(body, gate) => loop {
                let mut next = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
                let trailers = match &mut next {
                    Some(Ok(frame)) => frame.trailers_mut(),
                    Some(Err(_)) | None => None,
                };
                if let (Some(trailers), Some(gate)) = (trailers, &*gate) {
                    gate.0.protected.strip_trailers(trailers);
                    if trailers.is_empty() {
                        continue;
                    }
                }
                return Poll::Ready(next);
            },
            Kind::Read(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Incoming(body, _) => body.is_end_stream(),
            Kind::Read(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Incoming(body, _) => body.size_hint(),
            Kind::Read(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

//! The body of a reply: the service's body, or a body that the gate makes.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use pin_project_lite::pin_project;

use super::in_flight::InFlightSlot;
use super::reply_guard::{Cut, ReplyGuard};
use crate::dialect::ReplyBody;

type BoxError = Box<dyn Error + Send + Sync>;

pin_project! {
    /// The body of a reply that went through the gate.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, Full};
    /// use rotogate::dialect::ReplyBody;
    /// use rotogate::gate::GateBody;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// // A layer around the gate reads the replies of the service and of the gate in the same way.
    /// let body = GateBody::<Full<Bytes>>::own(ReplyBody::from(b"refused".to_vec()));
    /// assert!(body.inner_ref().is_none(), "it does not come from the service");
    /// assert_eq!(body.collect().await?.to_bytes(), "refused");
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
    /// ```
    #[derive(Debug)]
    pub struct GateBody<B> {
        #[pin]
        kind: BodyKind<B>,
    }
}

pin_project! {
    #[project = BodyKindProjection]
    #[derive(Debug)]
    enum BodyKind<B> {
        Inner { #[pin] body: B, guard: Option<Box<ReplyGuard>>, counted: Option<InFlightSlot> },
        Own { bytes: Option<Bytes>, trailers: Option<Box<HeaderMap>> },
        Stream { stream: UnsyncBoxBody<Bytes, Infallible> },
    }
}

impl<B> GateBody<B> {
    /// The inner service's body.
    pub fn inner_ref(&self) -> Option<&B> {
        match &self.kind {
            BodyKind::Inner { body, .. } => Some(body),
            BodyKind::Own { .. } | BodyKind::Stream { .. } => None,
        }
    }

    /// Returns why the gate cut the reply off.
    pub fn cut(&self) -> Option<&'static str> {
        match &self.kind {
            BodyKind::Inner { guard, .. } => guard.as_ref()?.cut(),
            BodyKind::Own { .. } | BodyKind::Stream { .. } => None,
        }
    }

    /// Returns the whole body, if it is in memory. `of_inner` returns the bytes of a body from the inner service.
    pub fn own_bytes(&mut self, of_inner: impl FnOnce(&mut B) -> Option<&mut Bytes>) -> Option<&mut Bytes> {
        match &mut self.kind {
            BodyKind::Inner { body, .. } => of_inner(body),
            BodyKind::Own { bytes, .. } => bytes.as_mut(),
            BodyKind::Stream { .. } => None,
        }
    }

    pub(super) fn into_inner(self) -> Option<(B, Option<Box<ReplyGuard>>, Option<InFlightSlot>)> {
        match self.kind {
            BodyKind::Inner { body, guard, counted } => Some((body, guard, counted)),
            BodyKind::Own { .. } | BodyKind::Stream { .. } => None,
        }
    }

    pub(super) fn inner(body: B, guard: Option<Box<ReplyGuard>>, counted: Option<InFlightSlot>) -> Self {
        Self { kind: BodyKind::Inner { body, guard, counted } }
    }

    /// Makes the body of the gate's own reply.
    pub fn own(body: ReplyBody) -> Self {
        if let Some(stream) = body.stream {
            return Self { kind: BodyKind::Stream { stream } };
        }
        let bytes = Some(body.data).filter(|bytes| !bytes.is_empty());
        Self { kind: BodyKind::Own { bytes, trailers: body.trailers } }
    }
}

/// An empty body.
impl<B> Default for GateBody<B> {
    fn default() -> Self {
        Self::own(ReplyBody::default())
    }
}

impl<B: Body> Body for GateBody<B>
where
    B::Data: From<Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        match self.project().kind.project() {
            BodyKindProjection::Inner { body, guard, .. } => {
                let frame = body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)));
                match guard.as_mut().and_then(|guard| guard.poll_expired(cx, frame.is_pending())) {
                    None => frame,
                    Some(Cut::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    Some(Cut::Broken(error)) => Poll::Ready(Some(Err(error))),
                    Some(Cut::Silence) => Poll::Ready(None),
                }
            }
            BodyKindProjection::Own { bytes, trailers } => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes.into()))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))),
            }),
            BodyKindProjection::Stream { stream } => Pin::new(stream).poll_frame(cx).map(|frame| {
                frame.map(|frame| match frame {
                    Ok(frame) => Ok(frame.map_data(Into::into)),
                    Err(never) => match never {},
                })
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Inner { body, .. } => body.is_end_stream(),
            BodyKind::Own { bytes, trailers } => bytes.is_none() && trailers.is_none(),
            BodyKind::Stream { stream } => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Inner { body, .. } => body.size_hint(),
            BodyKind::Own { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            BodyKind::Stream { stream } => stream.size_hint(),
        }
    }
}

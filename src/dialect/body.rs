//! The body of a reply of ours.

use std::convert::Infallible;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use crate::overload::{Held, Place};

/// The body of a request that is answered while it still comes ([`Dialect::stream`](super::Dialect::stream)).
pub type StreamedBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes that are there at once, and trailers where a protocol has them (gRPC); or a stream.
#[derive(Debug, Default)]
pub struct ReplyBody {
    pub(crate) data: Bytes,
    /// Boxed, for most replies have none.
    pub(crate) trailers: Option<Box<HeaderMap>>,
    pub(crate) stream: Option<UnsyncBoxBody<Bytes, Infallible>>,
}

impl ReplyBody {
    /// With trailers behind the bytes.
    pub fn with_trailers(data: Bytes, trailers: HeaderMap) -> Self {
        Self { data, trailers: Some(Box::new(trailers)), stream: None }
    }

    /// One that comes bit by bit.
    pub fn streamed(stream: UnsyncBoxBody<Bytes, Infallible>) -> Self {
        Self { stream: Some(stream), ..Self::default() }
    }

    /// A stream that keeps a place to its end.
    pub(crate) fn holding(mut self, place: Place) -> Self {
        self.stream = self.stream.map(|stream| Held::new(stream, Some(place)).boxed_unsync());
        self
    }

    /// The bytes; of a stream, none.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

impl From<Bytes> for ReplyBody {
    fn from(data: Bytes) -> Self {
        Self { data, trailers: None, stream: None }
    }
}

impl From<Vec<u8>> for ReplyBody {
    fn from(data: Vec<u8>) -> Self {
        Bytes::from(data).into()
    }
}

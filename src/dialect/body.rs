//! The body of a reply of ours.

use bytes::Bytes;
use http::HeaderMap;

/// Bytes that are there at once, and trailers where a protocol has them (gRPC).
#[derive(Clone, Debug, Default)]
pub struct ReplyBody {
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl ReplyBody {
    /// With trailers behind the bytes.
    pub fn with_trailers(data: Bytes, trailers: HeaderMap) -> Self {
        Self { data, trailers: Some(trailers) }
    }

    /// The bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

impl From<Bytes> for ReplyBody {
    fn from(data: Bytes) -> Self {
        Self { data, trailers: None }
    }
}

impl From<Vec<u8>> for ReplyBody {
    fn from(data: Vec<u8>) -> Self {
        Bytes::from(data).into()
    }
}

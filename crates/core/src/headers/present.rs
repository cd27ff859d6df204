//! Finds certain headers in one pass over the names, which costs less than a look-up for each header.

use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName};

use crate::context::trace::TRACEPARENT;

static TRACE: HeaderName = TRACEPARENT;

/// Shows which of these headers a message has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Whether `Content-Type` is present.
    pub content_type: bool,
    /// Whether `traceparent` is present.
    pub traceparent: bool,
    /// Whether `Upgrade` is present.
    pub upgrade: bool,
}

impl Present {
    /// Checks the headers of a message.
    pub fn in_headers(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            present.content_type |= *name == CONTENT_TYPE;
            present.traceparent |= *name == TRACE;
            present.upgrade |= *name == UPGRADE;
        }
        present
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn each_header_is_found_by_itself() {
        let value = HeaderValue::from_static("x");
        let found = |names: &[HeaderName]| {
            Present::in_headers(&names.iter().map(|name| (name.clone(), value.clone())).collect())
        };
        assert_eq!(found(&[http::header::HOST, HeaderName::from_static("tracestate")]), Present::default());
        assert_eq!(found(&[http::header::HOST, UPGRADE]), Present { upgrade: true, ..Present::default() });
        assert_eq!(found(&[CONTENT_TYPE]), Present { content_type: true, ..Present::default() });
        assert_eq!(found(&[TRACEPARENT]), Present { traceparent: true, ..Present::default() });
    }
}

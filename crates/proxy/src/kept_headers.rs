//! A copy of request headers for a retry.
//!
//! Retries are rare, so the copy must be cheap. The copy is one block of memory. A cloned map would need more
//! allocations and atomic writes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The initial capacity, which is enough for most requests.
const USUAL_HEAD_BYTES: usize = 1024;
/// Marks a sensitive value, which HTTP/2 must not index.
const SENSITIVE: u32 = 1 << 31;

/// For each header: the lengths of its name and value, then the name, then the value.
pub(super) struct KeptHeaders(Vec<u8>);

impl KeptHeaders {
    pub(super) fn new(headers: &HeaderMap) -> Self {
        let mut kept = Vec::with_capacity(USUAL_HEAD_BYTES);
        for (name, value) in headers {
            let (name, text) = (name.as_str().as_bytes(), value.as_bytes());
            let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
            // A head is shorter than 2 GiB, so the lengths fit.
            let lengths = (name.len() as u64) << 32 | u64::from(text.len() as u32 | flag);
            kept.extend_from_slice(&lengths.to_be_bytes());
            kept.extend_from_slice(name);
            kept.extend_from_slice(text);
        }
        Self(kept)
    }

    /// Returns `Some` for all bytes that [`Self::new`] wrote.
    pub(super) fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut rest = &*self.0;
        while let Some((lengths, after)) = rest.split_first_chunk() {
            let lengths = u64::from_be_bytes(*lengths);
            let (name, after) = after.split_at_checked((lengths >> 32) as usize)?;
            let (text, after) = after.split_at_checked((lengths as u32 & !SENSITIVE) as usize)?;
            let mut value = HeaderValue::from_bytes(text).ok()?;
            value.set_sensitive(lengths as u32 & SENSITIVE != 0);
            headers.append(HeaderName::from_bytes(name).ok()?, value);
            rest = after;
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_headers_are_the_same() {
        let mut headers = HeaderMap::new();
        let long = "x".repeat(2 * USUAL_HEAD_BYTES);
        for (name, value) in [
            ("accept", &b"*/*"[..]),
            ("x-a", b""),
            ("cookie", b"a=1"),
            ("x-a", b"caf\xe9\t!"),
            ("x-long", long.as_bytes()),
            ("cookie", b"b=2"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        headers.get_mut("accept").unwrap().set_sensitive(true);
        let again = KeptHeaders::new(&headers).headers().unwrap();
        assert!(again.iter().eq(&headers));
        assert!(again.iter().all(|(name, value)| value.is_sensitive() == (name == "accept")));
        assert!(KeptHeaders::new(&HeaderMap::new()).headers().unwrap().is_empty());
    }
}

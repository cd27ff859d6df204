//! The framing of request bodies (T7). The HTTP library refuses most ambiguous framing.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

/// Returns whether there is at most one `Content-Length`, and no transfer coding except `chunked`. In HTTP/1.1 the HTTP
/// library accepts other codings before `chunked`, which RFC 9112 §6.1 forbids.
///
/// In HTTP/2 the HTTP library reads only the first `Content-Length` (RFC 9113 §8.1.1).
pub fn is_framed_once(headers: &HeaderMap) -> bool {
    // One scan of all names costs less than two look-ups.
    if !headers.keys().any(|name| *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH) {
        return true;
    }
    let coding = |value: &[u8]| value.eq_ignore_ascii_case(b"chunked");
    let length = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    at_most_one(headers, &TRANSFER_ENCODING, coding) && at_most_one(headers, &CONTENT_LENGTH, length)
}

fn at_most_one(headers: &HeaderMap, name: &http::HeaderName, is_good: impl Fn(&[u8]) -> bool) -> bool {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => is_good(value.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn framed(name: &HeaderName, values: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        is_framed_once(&headers)
    }

    #[test]
    fn t7_only_chunked_alone_is_a_transfer_coding() {
        for good in [&[][..], &["chunked"], &["Chunked"]] {
            assert!(framed(&TRANSFER_ENCODING, good), "{good:?}");
        }
        for bad in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity", "chunked"],
            &["identity"],
            &["chunked,"],
            &["\"chunked\""],
            &["chunked;x=1"],
            &[""],
        ] {
            assert!(!framed(&TRANSFER_ENCODING, bad), "{bad:?}");
        }
    }

    #[test]
    fn t7_a_length_is_digits_once() {
        for good in [&[][..], &["0"], &["5"], &["00005"]] {
            assert!(framed(&CONTENT_LENGTH, good), "{good:?}");
        }
        for bad in [&["5", "5"][..], &["5", "6"], &["5, 5"], &["+5"], &["-5"], &["5 "], &["0x5"], &[""]] {
            assert!(!framed(&CONTENT_LENGTH, bad), "{bad:?}");
        }
    }
}

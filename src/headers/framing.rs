//! How the body of a request is framed (T7). The HTTP library refuses most of what is ambiguous; this is the rest that it
//! lets us see.

use http::HeaderMap;
use http::header::TRANSFER_ENCODING;

/// Is there no transfer coding, or the one that everybody knows, once?
///
/// The library takes any list that ends in `chunked`, and the proxy frames the body anew: a coding before `chunked`
/// would be lost on the way, and the upstream would get bytes that are not what it is told they are. RFC 9112 §6.1 has
/// such a coding refused.
pub fn is_framed_once(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn t7_only_chunked_alone_is_taken() {
        let framed = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            is_framed_once(&headers)
        };
        assert!(framed(&[]) && framed(&["chunked"]) && framed(&["Chunked"]));
        for codings in [
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
            assert!(!framed(codings), "{codings:?}");
        }
    }
}

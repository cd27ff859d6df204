//! Requests that hyper rejects before the gate sees them.

use http::StatusCode;

/// The start of hyper's error message, the status of hyper's response, and a description.
const KNOWN: [(&str, StatusCode, &str); 9] = [
    (
        "message head is too large",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "more than 100 header fields, or a head longer than `max_head`",
    ),
    ("URI too long", StatusCode::URI_TOO_LONG, "the request target is longer than 64 KiB"),
    (
        "invalid URI",
        StatusCode::BAD_REQUEST,
        "the request target has a byte that must be percent-encoded, such as a quotation mark (RFC 3986 section 2.1)",
    ),
    (
        "invalid HTTP method",
        StatusCode::BAD_REQUEST,
        "not an HTTP method; the client may have used TLS on a clear-text port",
    ),
    ("invalid HTTP version", StatusCode::BAD_REQUEST, "not an HTTP version that this port serves"),
    ("invalid content-length", StatusCode::BAD_REQUEST, "`Content-Length` is not a number, or its values differ"),
    ("invalid transfer-encoding", StatusCode::BAD_REQUEST, "`Transfer-Encoding` is not exactly `chunked`"),
    ("unexpected transfer-encoding", StatusCode::BAD_REQUEST, "HTTP/1.0 does not allow `Transfer-Encoding`"),
    ("invalid HTTP header", StatusCode::BAD_REQUEST, "a header field is malformed"),
];

/// Returns the status of hyper's response, and a description. `None` if the connection ended for another reason.
pub(super) fn what_is_wrong(error: &hyper::Error) -> Option<(StatusCode, &'static str)> {
    let text = error.is_parse().then(|| error.to_string())?;
    let known = KNOWN.iter().find(|(begins, ..)| text.starts_with(begins));
    Some(known.map_or((StatusCode::BAD_REQUEST, "the head is not HTTP/1.1"), |(_, status, what)| (*status, *what)))
}

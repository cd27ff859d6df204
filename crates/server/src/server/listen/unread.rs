//! Requests whose head hyper refuses before any code of ours sees it.

use http::StatusCode;

/// What hyper's message begins with, the status that hyper answers with, and what is wrong in words.
const KNOWN: [(&str, StatusCode, &str); 9] = [
    (
        "message head is too large",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "more than 100 header fields, or a head longer than max_head",
    ),
    ("URI too long", StatusCode::URI_TOO_LONG, "the request target is longer than 64 KiB"),
    (
        "invalid URI",
        StatusCode::BAD_REQUEST,
        "the request target has a byte that must be percent-encoded, such as a quotation mark (RFC 3986 section 2.1)",
    ),
    ("invalid HTTP method", StatusCode::BAD_REQUEST, "no HTTP method; perhaps TLS at a port for clear text"),
    ("invalid HTTP version", StatusCode::BAD_REQUEST, "no version of HTTP that is served here"),
    ("invalid content-length", StatusCode::BAD_REQUEST, "Content-Length is no number, or not the same everywhere"),
    ("invalid transfer-encoding", StatusCode::BAD_REQUEST, "Transfer-Encoding is not chunked alone"),
    ("unexpected transfer-encoding", StatusCode::BAD_REQUEST, "Transfer-Encoding in HTTP/1.0"),
    ("invalid HTTP header", StatusCode::BAD_REQUEST, "a header field is malformed"),
];

/// The status that hyper answered with, and what was wrong; `None` if the connection ended for another reason.
pub(super) fn what_is_wrong(error: &hyper::Error) -> Option<(StatusCode, &'static str)> {
    let text = error.is_parse().then(|| error.to_string())?;
    let known = KNOWN.iter().find(|(begins, ..)| text.starts_with(begins));
    Some(known.map_or((StatusCode::BAD_REQUEST, "the head is not HTTP/1.1"), |(_, status, what)| (*status, *what)))
}

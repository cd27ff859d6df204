//! The gate's own responses, with problem documents (RFC 9457), gRPC statuses and `Retry-After`.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use serde::Serialize;

use crate::overload::{PermitBody, PoolPermit};

/// A response from the gate itself.
///
/// ```
/// use http::HeaderValue;
/// use rotogate_core::reply::{Reply, ReplyBody};
///
/// let mut reply = Reply::new(ReplyBody::from(b"{}".to_vec()));
/// reply.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
/// assert_eq!(reply.body().data(), "{}");
/// ```
pub type Reply = Response<ReplyBody>;

/// A request body that is still arriving while the gate responds (`Dialect::stream`).
pub type StreamedBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A body that is complete, possibly with gRPC trailers, or a stream.
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderMap, HeaderValue};
/// use rotogate::dialect::ReplyBody;
///
/// // A gRPC message, and its status.
/// let mut trailers = HeaderMap::new();
/// trailers.insert("grpc-status", HeaderValue::from_static("0"));
/// let body = ReplyBody::with_trailers(Bytes::from_static(&[0; 5]), trailers);
/// assert_eq!(body.data().len(), 5);
/// ```
#[derive(Debug, Default)]
pub struct ReplyBody {
    /// The whole body, or the first part of a streamed body.
    pub data: Bytes,
    /// The trailers, boxed because most responses have none.
    pub trailers: Option<Box<HeaderMap>>,
    /// The rest of the body, after `data`.
    pub stream: Option<UnsyncBoxBody<Bytes, Infallible>>,
}

impl ReplyBody {
    /// Creates a body from bytes and trailers.
    pub fn with_trailers(data: Bytes, trailers: HeaderMap) -> Self {
        Self { data, trailers: Some(Box::new(trailers)), stream: None }
    }

    /// A streamed body.
    pub fn streamed(stream: UnsyncBoxBody<Bytes, Infallible>) -> Self {
        Self { stream: Some(stream), ..Self::default() }
    }

    /// The bytes of the body, which are empty for a stream.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

/// Keeps the permit until the streamed body ends.
pub fn with_permit(mut body: ReplyBody, permit: PoolPermit) -> ReplyBody {
    body.stream = body.stream.map(|stream| PermitBody::new(stream, Some(permit)).boxed_unsync());
    body
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

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated: Option<[&'a str; 1]>,
}

/// A response with a problem document (RFC 9457).
pub fn problem(status: StatusCode, detail: Option<&str>) -> Reply {
    let title = status.canonical_reason().unwrap_or("Error");
    problem_of(status, &Problem { kind: "about:blank", title, status: status.as_u16(), detail, violated: None })
}

/// See draft-ietf-httpapi-ratelimit-headers.
pub(crate) fn quota_exceeded(limit: &str) -> Reply {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let body = Problem {
        kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
        title: "Request cannot be satisfied as assigned quota has been exceeded",
        status: status.as_u16(),
        detail: None,
        violated: Some([limit]),
    };
    problem_of(status, &body)
}

fn problem_of(status: StatusCode, body: &Problem<'_>) -> Reply {
    let mut reply = Response::new(serde_json::to_vec(body).unwrap_or_default().into());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// A 405 response with the methods that the route serves (RFC 9110 §15.5.6).
pub fn method_not_allowed(allowed: &[Method]) -> Reply {
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, None);
    let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(list) {
        reply.headers_mut().insert(ALLOW, value);
    }
    reply
}

/// Sets `Retry-After` to whole seconds, rounded up.
pub fn retry_after(reply: &mut Reply, wait: Duration) {
    if let Ok(value) = HeaderValue::try_from(seconds(wait).to_string()) {
        reply.headers_mut().insert(RETRY_AFTER, value);
    }
}

/// The duration in whole seconds, rounded up to at least one.
pub const fn seconds(wait: Duration) -> u128 {
    let seconds = wait.as_millis().div_ceil(1000);
    if seconds == 0 { 1 } else { seconds }
}

/// Returns whether the request is gRPC, by its content type. A gRPC client does not understand a plain 401 (requirement
/// T17).
///
/// gRPC-Web, which browsers use, is a different protocol.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const MEDIA: &[u8] = b"application/grpc";
    let Some((begin, rest)) =
        headers.get(CONTENT_TYPE).and_then(|media| media.as_bytes().split_at_checked(MEDIA.len()))
    else {
        return false;
    };
    begin.eq_ignore_ascii_case(MEDIA) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The gRPC status codes that the gate itself sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcCode {
    /// Status 1: the caller disconnected.
    Cancelled,
    /// Status 3: the message is malformed.
    InvalidArgument,
    /// Status 4: there was no response in time.
    DeadlineExceeded,
    /// Status 7: the caller is not permitted.
    PermissionDenied,
    /// Status 8: a limit was reached.
    ResourceExhausted,
    /// Status 12: the method does not exist.
    Unimplemented,
    /// Status 13: a fault of the gate.
    Internal,
    /// Status 14: the call can be retried later.
    Unavailable,
    /// Status 16: the token is missing or invalid.
    Unauthenticated,
}

impl GrpcCode {
    pub(crate) const fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Cancelled => "1",
            Self::InvalidArgument => "3",
            Self::DeadlineExceeded => "4",
            Self::PermissionDenied => "7",
            Self::ResourceExhausted => "8",
            Self::Unimplemented => "12",
            Self::Internal => "13",
            Self::Unavailable => "14",
            Self::Unauthenticated => "16",
        })
    }
}

/// The trailers of a gRPC response. `message` must be visible ASCII without `%`.
pub fn grpc_trailers(code: GrpcCode, message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.value());
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers
}

/// A gRPC response that consists of a status. `message` must be visible ASCII without `%`.
pub fn grpc_status(code: GrpcCode, message: &'static str) -> Reply {
    let mut reply = Response::new(ReplyBody::default());
    *reply.headers_mut() = grpc_trailers(code, message);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    reply
}

//! The one place where a refusal or a fault of a data route becomes a reply: RFC 6750 §3 challenges, RFC 9457 problem
//! details. Endpoints answer in the words of their dialect instead.

use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use crate::denial::Denial;
use crate::dialect::{Dialect, Reply, ReplyBody};
use crate::session::Scope;

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// A problem, told as RFC 9457 says.
pub(crate) fn problem(status: StatusCode, detail: Option<&str>) -> Reply {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = Problem { kind: "about:blank", title, status: status.as_u16(), detail };
    let mut reply = Response::new(serde_json::to_vec(&body).unwrap_or_default().into());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// What a caller is told of a refusal: never more than the RFC's error code says.
pub(crate) fn denied(denial: Denial, asked: &Scope) -> Reply {
    match denial {
        Denial::BadPath(error) => problem(StatusCode::BAD_REQUEST, Some(error.what())),
        Denial::BadHost => {
            problem(StatusCode::BAD_REQUEST, Some("Host is missing, repeated, malformed or contradictory"))
        }
        Denial::BadTarget => problem(StatusCode::BAD_REQUEST, Some("the request target must be in origin form")),
        Denial::BadFraming => {
            let mut reply = problem(StatusCode::BAD_REQUEST, Some("a body has a length, or comes in chunks, once"));
            // Where such a request ends is anybody's guess (RFC 9112 §6.3).
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            reply
        }
        Denial::Tunnel => problem(StatusCode::NOT_IMPLEMENTED, None),
        Denial::TargetTooLong => problem(StatusCode::URI_TOO_LONG, None),
        Denial::TwoCredentials => problem(StatusCode::BAD_REQUEST, Some("send exactly one credential")),
        Denial::MalformedRequest(what) => problem(StatusCode::BAD_REQUEST, Some(what)),
        Denial::UnknownHost => {
            problem(StatusCode::MISDIRECTED_REQUEST, Some("this gate does not serve the host that the request names"))
        }
        Denial::NoRoute | Denial::NearMiss => problem(StatusCode::NOT_FOUND, None),
        Denial::AmbiguousPath => {
            problem(StatusCode::NOT_FOUND, Some("ambiguous_path: the path can be read in two ways"))
        }
        Denial::MethodNotAllowed => problem(StatusCode::METHOD_NOT_ALLOWED, None),
        Denial::BodyTooLarge => problem(StatusCode::PAYLOAD_TOO_LARGE, None),
        // RFC 6750 §3.1: no error code for a request without usable authentication.
        Denial::NoCredential | Denial::UnusableCredential => {
            challenge(StatusCode::UNAUTHORIZED, "Bearer".to_owned(), None)
        }
        // No challenge: a token would not help.
        Denial::CrossOrigin => problem(StatusCode::FORBIDDEN, Some("the request came from another site")),
        Denial::TokenExpired => invalid_token("the access token expired"),
        Denial::MalformedToken(_)
        | Denial::UnknownIssuer
        | Denial::UnknownKey
        | Denial::WrongAlgorithm
        | Denial::WrongType
        | Denial::BadSignature
        | Denial::BadClaim(_)
        | Denial::UnprovedBinding
        | Denial::TokenNotYetValid
        | Denial::TokenRevoked
        | Denial::WrongAudience
        | Denial::WrongIssuer => invalid_token("the access token is invalid"),
        Denial::InsufficientScope => {
            // A scope's grammar (RFC 6749 §3.3) has neither quotes nor backslashes.
            let value = format!("Bearer error=\"insufficient_scope\", scope=\"{asked}\"");
            challenge(StatusCode::FORBIDDEN, value, Some("the access token lacks a scope"))
        }
        Denial::TooManyRequests(wait) => {
            let mut reply = problem(StatusCode::TOO_MANY_REQUESTS, None);
            retry_after(&mut reply, wait);
            reply
        }
        // These are said of refresh credentials, logins and clients: a data route has no such reply.
        Denial::UnknownRefreshToken
        | Denial::OtherClient
        | Denial::OtherAccount
        | Denial::OtherDialect
        | Denial::SessionRevoked(_)
        | Denial::SessionExpired(_)
        | Denial::Ahead
        | Denial::Reuse(_)
        | Denial::MismatchedPair
        | Denial::TtlExceeded
        | Denial::InvalidScope
        | Denial::WrongPassword
        | Denial::InvalidClient
        | Denial::UnauthorizedClient
        | Denial::UnsupportedGrantType
        | Denial::TooManySessions => problem(StatusCode::BAD_REQUEST, None),
    }
}

/// Does the client speak gRPC: «`application/grpc`, optionally followed by `+` or `;`» (gRPC over HTTP/2, «Requests»)?
/// Then it knows no bare 401 (requirement T17). gRPC-Web, which a browser speaks, is another protocol.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const MEDIA: &[u8] = b"application/grpc";
    let Some((begin, rest)) =
        headers.get(CONTENT_TYPE).and_then(|media| media.as_bytes().split_at_checked(MEDIA.len()))
    else {
        return false;
    };
    begin.eq_ignore_ascii_case(MEDIA) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The same refusal as a gRPC status in a reply of trailers alone (gRPC over HTTP/2, «Responses»).
pub(crate) fn denied_grpc(denial: Denial) -> Reply {
    let plain = denied(denial, &Scope::default());
    let (code, message) = match plain.status() {
        StatusCode::UNAUTHORIZED => ("16", "the access token is missing or invalid"),
        StatusCode::FORBIDDEN => ("7", "the access token lacks a scope"),
        StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::NOT_IMPLEMENTED => ("12", "no such method"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => ("8", "too much, or too often"),
        StatusCode::SERVICE_UNAVAILABLE => ("14", "try again later"),
        _ => ("3", "the request is malformed"),
    };
    grpc_status(code, message)
}

/// A gRPC reply that is nothing but its status. `message` is visible ASCII without `%`.
pub(crate) fn grpc_status(code: &'static str, message: &'static str) -> Reply {
    let mut reply = Response::new(ReplyBody::default());
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    reply
}

/// 405 with what the route serves (RFC 9110 §15.5.6).
pub(crate) fn method_not_allowed(allowed: &[Method]) -> Reply {
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, None);
    let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(list) {
        reply.headers_mut().insert(ALLOW, value);
    }
    reply
}

/// A plain reply in the words of a dialect, where it has words of its own for the refusal.
pub(crate) fn worded(dialect: Option<&dyn Dialect>, headers: &HeaderMap, denial: Denial, plain: Reply) -> Reply {
    let Some(mut reply) = dialect.and_then(|dialect| dialect.refuse(headers, denial)) else { return plain };
    if let Some(allow) = plain.headers().get(ALLOW) {
        reply.headers_mut().insert(ALLOW, allow.clone());
    }
    reply
}

/// Says when to try again, in whole seconds, rounded up.
pub(crate) fn retry_after(reply: &mut Reply, wait: std::time::Duration) {
    if let Ok(value) = HeaderValue::try_from(seconds(wait).to_string()) {
        reply.headers_mut().insert(RETRY_AFTER, value);
    }
}

/// Whole seconds, rounded up; at least one.
pub(crate) const fn seconds(wait: std::time::Duration) -> u128 {
    let seconds = wait.as_millis().div_ceil(1000);
    if seconds == 0 { 1 } else { seconds }
}

fn invalid_token(description: &str) -> Reply {
    let value = format!("Bearer error=\"invalid_token\", error_description=\"{description}\"");
    challenge(StatusCode::UNAUTHORIZED, value, Some(description))
}

fn challenge(status: StatusCode, value: String, detail: Option<&str>) -> Reply {
    let mut reply = problem(status, detail);
    if let Ok(value) = HeaderValue::try_from(value) {
        reply.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    reply
}

//! The one place where a refusal or a fault of a data route becomes a reply: RFC 6750 §3 challenges, RFC 9457 problem
//! details. Endpoints answer in the words of their dialect instead.

use http::header::{ALLOW, CONNECTION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::denial::Denial;
use crate::dialect::Dialect;
use crate::reply::{GrpcCode, Reply, grpc_status, problem, retry_after};
use crate::session::Scope;

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

/// The same refusal as a gRPC status in a reply of trailers alone (gRPC over HTTP/2, «Responses»).
pub(crate) fn denied_grpc(denial: Denial) -> Reply {
    let plain = denied(denial, &Scope::default());
    let (code, message) = match plain.status() {
        StatusCode::UNAUTHORIZED => (GrpcCode::Unauthenticated, "the access token is missing or invalid"),
        StatusCode::FORBIDDEN => (GrpcCode::PermissionDenied, "the access token lacks a scope"),
        StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::NOT_IMPLEMENTED => (GrpcCode::Unimplemented, "no such method"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => {
            (GrpcCode::ResourceExhausted, "too much, or too often")
        }
        StatusCode::SERVICE_UNAVAILABLE => (GrpcCode::Unavailable, "try again later"),
        _ => (GrpcCode::InvalidArgument, "the request is malformed"),
    };
    grpc_status(code, message)
}

/// A plain reply in the words of a dialect, where it has words of its own for the refusal.
pub(crate) fn worded(dialect: Option<&dyn Dialect>, headers: &HeaderMap, denial: Denial, plain: Reply) -> Reply {
    let Some(mut reply) = dialect.and_then(|dialect| dialect.refuse(headers, denial)) else { return plain };
    if let Some(allow) = plain.headers().get(ALLOW) {
        reply.headers_mut().insert(ALLOW, allow.clone());
    }
    reply
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

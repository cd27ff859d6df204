//! The one place that renders refusals on data routes: RFC 6750 §3 challenges and RFC 9457 problem documents.

use http::header::{CONNECTION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::credential::Scheme;
use crate::denial::{Class, Denial, TokenFlaw};
use crate::dpop::algorithms;
use crate::reply::{GrpcCode, Reply, grpc_status, problem, retry_after};
use crate::session::Scope;

/// What challenges say of the place that refuses: the scopes that it asks for, and the schemes that it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The scopes.
    pub(crate) scopes: &'a Scope,
    /// The schemes.
    pub(crate) schemes: Schemes,
    /// The scheme that the client used; [`Scheme::Bearer`] if it used none.
    pub(crate) used: Scheme,
}

impl<'a> Asked<'a> {
    /// A place for bearer tokens alone.
    pub(crate) const fn bearer(scopes: &'a Scope) -> Self {
        Self { scopes, schemes: Schemes::Bearer, used: Scheme::Bearer }
    }
}

/// The schemes that a place takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schemes {
    /// RFC 6750.
    Bearer,
    /// RFC 9449 as well.
    Both,
    /// RFC 9449 alone.
    Dpop,
}

/// The plain reply to a refused request. It says no more than the RFC's error code.
pub(crate) fn denied(denial: Denial, asked: &Asked<'_>) -> Reply {
    match denial.class() {
        Class::Head(head) => {
            let mut reply = problem(head.status, head.detail);
            if head.closes {
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            reply
        }
        Class::Tunnel => problem(StatusCode::NOT_IMPLEMENTED, None),
        Class::TwoCredentials => problem(StatusCode::BAD_REQUEST, Some("send exactly one credential")),
        Class::Request(what) => problem(StatusCode::BAD_REQUEST, Some(what)),
        Class::UnknownHost => {
            problem(StatusCode::MISDIRECTED_REQUEST, Some("this gate does not serve the host that the request names"))
        }
        Class::NotFound(detail) => problem(StatusCode::NOT_FOUND, detail),
        Class::WrongMethod => problem(StatusCode::METHOD_NOT_ALLOWED, None),
        Class::TooLarge => problem(StatusCode::PAYLOAD_TOO_LARGE, None),
        // RFC 6750 §3.1: no error code for a request without usable authentication.
        Class::NoCredential | Class::UnusableCredential => challenge(StatusCode::UNAUTHORIZED, asked, "", None),
        // No challenge: a token would not help.
        Class::CrossOrigin => problem(StatusCode::FORBIDDEN, Some("the request came from another site")),
        Class::BadToken(TokenFlaw::Expired) if denial == Denial::TokenTooOld => {
            invalid_token(asked, "the access token is too old for this; refresh it")
        }
        Class::BadToken(TokenFlaw::Expired) => invalid_token(asked, "the access token expired"),
        Class::BadToken(TokenFlaw::Malformed | TokenFlaw::Unproved | TokenFlaw::Proved) => {
            invalid_token(asked, "the access token is invalid")
        }
        Class::BadProof { needs_nonce } => {
            let error = if needs_nonce { "use_dpop_nonce" } else { "invalid_dpop_proof" };
            let asked = Asked { schemes: Schemes::Dpop, ..*asked };
            challenge(
                StatusCode::UNAUTHORIZED,
                &asked,
                &format!("error=\"{error}\""),
                Some("the DPoP proof is missing or not good"),
            )
        }
        Class::InsufficientScope => {
            // A scope's grammar (RFC 6749 §3.3) has neither quotes nor backslashes.
            let what = format!("error=\"insufficient_scope\", scope=\"{}\"", asked.scopes);
            challenge(StatusCode::FORBIDDEN, asked, &what, Some("the access token lacks a scope"))
        }
        // No scope would help, so none is named.
        Class::Forbidden => challenge(
            StatusCode::FORBIDDEN,
            asked,
            "error=\"insufficient_scope\"",
            Some("the access token does not permit this"),
        ),
        Class::Limited(wait) => {
            let mut reply = problem(StatusCode::TOO_MANY_REQUESTS, None);
            retry_after(&mut reply, wait);
            reply
        }
        Class::Unavailable(wait) => {
            let mut reply = problem(StatusCode::SERVICE_UNAVAILABLE, Some("nothing was decided; try the same again"));
            retry_after(&mut reply, wait);
            reply
        }
        // These concern refresh credentials, logins and clients; a data route never refuses for them.
        Class::BadGrant { .. }
        | Class::Lifetime
        | Class::Scope
        | Class::Login
        | Class::Client
        | Class::ClientNotAllowed
        | Class::GrantType
        | Class::TooManySessions => problem(StatusCode::BAD_REQUEST, None),
    }
}

/// The same refusal as a gRPC status in a reply of trailers alone (gRPC over HTTP/2, «Responses»).
pub(crate) fn denied_grpc(denial: Denial) -> Reply {
    let (code, message) = match denial.class() {
        Class::NoCredential | Class::UnusableCredential | Class::BadToken(_) | Class::BadProof { .. } => {
            (GrpcCode::Unauthenticated, "the access token is missing or invalid")
        }
        Class::CrossOrigin | Class::InsufficientScope => (GrpcCode::PermissionDenied, "the access token lacks a scope"),
        Class::Forbidden => (GrpcCode::PermissionDenied, "the access token does not permit this"),
        Class::NotFound(_) | Class::WrongMethod | Class::UnknownHost | Class::Tunnel => {
            (GrpcCode::Unimplemented, "no such method")
        }
        Class::Limited(_) | Class::TooLarge => (GrpcCode::ResourceExhausted, "too much, or too often"),
        Class::Unavailable(_) => (GrpcCode::Unavailable, "nothing was decided; try the same again"),
        Class::Head(_)
        | Class::Request(_)
        | Class::TwoCredentials
        | Class::BadGrant { .. }
        | Class::Lifetime
        | Class::Scope
        | Class::Login
        | Class::Client
        | Class::ClientNotAllowed
        | Class::GrantType
        | Class::TooManySessions => (GrpcCode::InvalidArgument, "the request is malformed"),
    };
    grpc_status(code, message)
}

fn invalid_token(asked: &Asked<'_>, description: &str) -> Reply {
    let what = format!("error=\"invalid_token\", error_description=\"{description}\"");
    challenge(StatusCode::UNAUTHORIZED, asked, &what, Some(description))
}

/// The one place that makes challenges: one line for each scheme, that of the scheme that the client used first, because
/// some proxies hand on the first line only. `what` is said in that one.
fn challenge(status: StatusCode, asked: &Asked<'_>, what: &str, detail: Option<&str>) -> Reply {
    let mut reply = problem(status, detail);
    let order: &[Scheme] = match (asked.schemes, asked.used) {
        (Schemes::Bearer, _) => &[Scheme::Bearer],
        (Schemes::Dpop, _) => &[Scheme::Dpop],
        (Schemes::Both, Scheme::Bearer) => &[Scheme::Bearer, Scheme::Dpop],
        (Schemes::Both, Scheme::Dpop) => &[Scheme::Dpop, Scheme::Bearer],
    };
    let mut what = what;
    for scheme in order {
        let said = std::mem::take(&mut what);
        let value = match scheme {
            Scheme::Bearer if said.is_empty() => "Bearer".to_owned(),
            Scheme::Bearer => format!("Bearer {said}"),
            Scheme::Dpop if said.is_empty() => format!("DPoP algs=\"{}\"", algorithms()),
            Scheme::Dpop => format!("DPoP {said}, algs=\"{}\"", algorithms()),
        };
        if let Ok(value) = HeaderValue::try_from(value) {
            reply.headers_mut().append(WWW_AUTHENTICATE, value);
        }
    }
    reply
}

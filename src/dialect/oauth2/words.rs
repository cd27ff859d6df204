//! The replies of RFC 6749 §5.

use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::super::{CheckedToken, Reply};
use super::exchange::ACCESS_TOKEN;
use rotogate_core::denial::{Class, Denial};
use rotogate_core::engine::{IssueKind, IssuedTokens, kind_of_issue};
use rotogate_core::fault::Fault;
use rotogate_core::reply::retry_after;
use rotogate_core::thumbprint::KeyThumbprint;
use rotogate_core::token::claims::Confirmation;

/// A successful reply (RFC 6749 §5.1). It contains the session's refresh token, because clients overwrite their stored
/// token.
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
    /// See RFC 8693 §2.2.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

pub(super) fn issued(issued: &IssuedTokens) -> Reply {
    json(
        StatusCode::OK,
        &TokenResponse {
            access_token: issued.access_token.expose(),
            token_type: token_type(issued.bound_to),
            expires_in: issued.expires_in,
            refresh_token: issued.refresh_token.as_ref().map(|token| token.expose()),
            scope: issued.scope.as_str(),
            issued_token_type: (kind_of_issue(issued) == IssueKind::Exchanged).then_some(ACCESS_TOKEN),
        },
    )
}

/// See RFC 9449 §5.
const fn token_type(bound_to: Option<KeyThumbprint>) -> &'static str {
    if bound_to.is_some() { "DPoP" } else { "Bearer" }
}

/// A revoked and an unknown token get the same reply (RFC 7009 §2.2).
pub(super) fn revoked() -> Reply {
    let mut reply = Reply::default();
    no_store(&mut reply);
    reply
}

/// See RFC 7662 §2.2.
#[derive(Default, Serialize)]
struct Introspection<'a> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<Audience<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<&'a serde_json::Value>,
}

/// The audience is one string or a list, as in a token.
#[derive(Serialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(&'a str),
    Several(&'a [Box<str>]),
}

pub(super) fn active(checked: &CheckedToken) -> Reply {
    json(
        StatusCode::OK,
        &Introspection {
            active: true,
            sub: Some(checked.subject.as_ref()),
            client_id: Some(checked.client.as_ref()),
            scope: Some(checked.scope.as_str()),
            exp: Some(checked.expires.as_secs()),
            iat: checked.issued_at.map(|at| at.as_secs()),
            nbf: checked.not_before.map(|at| at.as_secs()),
            iss: Some(checked.issuer.as_ref()),
            aud: Some(match &*checked.audience {
                [one] => Audience::One(one),
                several => Audience::Several(several),
            }),
            jti: checked.jti.as_deref(),
            token_type: Some(token_type(checked.bound_to)),
            cnf: Confirmation::new(checked.bound_to.as_ref(), checked.certificate.as_ref()),
            sid: checked.session.map(|sid| sid.to_string()),
            account: checked.account.as_deref(),
            act: checked.act.as_ref(),
        },
    )
}

/// The reply does not reveal why the token is not valid.
pub(super) fn inactive() -> Reply {
    json(StatusCode::OK, &Introspection::default())
}

/// See RFC 6749 §5.2.
#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    error_description: &'a str,
}

/// Every invalid refresh token gets the same reply (requirement R7). MeshyDB documents five cases, but the reply
/// distinguishes only the cases with an error code in the RFC.
///
/// `asks_for_basic` adds a challenge for Basic if the client is not authenticated.
pub(in crate::dialect) fn denied(denial: Denial, asks_for_basic: bool) -> Reply {
    let class = denial.class();
    let (status, error, description) = match class {
        Class::Request(what) => (StatusCode::BAD_REQUEST, "invalid_request", what),
        Class::TwoCredentials => {
            (StatusCode::BAD_REQUEST, "invalid_request", "more than one Authorization header was sent")
        }
        Class::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the body is too large"),
        Class::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "send the request with POST"),
        Class::Client => {
            let status = if asks_for_basic { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            (status, "invalid_client", "the client is unknown, or did not authenticate")
        }
        Class::ClientNotAllowed => (
            StatusCode::BAD_REQUEST,
            "unauthorized_client",
            "the client may not use this grant type, or may not use it with this token",
        ),
        Class::GrantType => {
            (StatusCode::BAD_REQUEST, "unsupported_grant_type", "this endpoint does not serve the grant type")
        }
        Class::Lifetime => (StatusCode::BAD_REQUEST, "invalid_request", "the requested lifetime is too long"),
        Class::Scope => {
            (StatusCode::BAD_REQUEST, "invalid_scope", "the scope is malformed, or exceeds what may be granted")
        }
        // RFC 8707 §2.
        Class::Target => (
            StatusCode::BAD_REQUEST,
            "invalid_target",
            "the resource is unknown, or differs from the resource of the login",
        ),
        Class::Login => (StatusCode::BAD_REQUEST, "invalid_grant", "the username or the password is wrong"),
        // RFC 6749 §5.2 has no code for this case, and `invalid_grant` would make clients ask for the password again.
        // The device grant also uses `access_denied` for a final refusal (RFC 8628 §3.5).
        Class::TooManySessions => {
            (StatusCode::BAD_REQUEST, "access_denied", "the user has too many sessions; end one, and log in again")
        }
        Class::Limited(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "try again later"),
        Class::Unavailable(wait) => return unavailable(wait),
        Class::BadProof { needs_nonce: true } => (
            StatusCode::BAD_REQUEST,
            "use_dpop_nonce",
            "the DPoP proof must contain the nonce from the DPoP-Nonce header",
        ),
        // RFC 9449 §5.
        Class::BadProof { needs_nonce: false } => (
            StatusCode::BAD_REQUEST,
            "invalid_dpop_proof",
            "the DPoP proof is missing, was used before, or was made for another request",
        ),
        Class::BadGrant { .. } => (
            StatusCode::BAD_REQUEST,
            "invalid_grant",
            "the refresh token or the assertion is invalid, expired or revoked",
        ),
        // These classes occur only on data routes, never at a token endpoint.
        Class::Head { .. }
        | Class::Tunnel
        | Class::NotFound(_)
        | Class::UnknownHost
        | Class::NoCredential
        | Class::UnusableCredential
        | Class::CrossOrigin
        | Class::BadToken { .. }
        | Class::InsufficientScope
        | Class::Forbidden => (StatusCode::BAD_REQUEST, "invalid_request", "this request is not supported here"),
    };
    let mut reply = json(status, &Refusal { error, error_description: description });
    if status == StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"rotogate\""));
    }
    if let Class::Limited(wait) = class {
        retry_after(&mut reply, wait);
    }
    reply
}

/// The client keeps its token and tries again.
pub(super) fn failed(fault: &Fault) -> Reply {
    unavailable(fault.retry_after())
}

fn unavailable(wait: Duration) -> Reply {
    let mut reply = json(
        StatusCode::SERVICE_UNAVAILABLE,
        &Refusal { error: "temporarily_unavailable", error_description: "the result is unknown; repeat the request" },
    );
    retry_after(&mut reply, wait);
    reply
}

/// Makes an error reply (RFC 6749 §5.2).
pub(in crate::dialect) fn refusal(status: StatusCode, error: &str, error_description: &str) -> Reply {
    json(status, &Refusal { error, error_description })
}

fn json<T: Serialize>(status: StatusCode, body: &T) -> Reply {
    let mut reply = super::super::json(status, body);
    no_store(&mut reply);
    reply
}

/// RFC 6749 §5.1 demands these headers, also in error replies.
fn no_store(reply: &mut Reply) {
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
}

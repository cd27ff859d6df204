//! Renders denials on data routes as RFC 6750 §3 challenges and RFC 9457 problem documents.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONNECTION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::credential::Scheme;
use crate::denial::{Class, Denial};
use crate::dpop::algorithms;
use crate::fault::Error;
#[cfg(feature = "axum")]
use crate::reason::Reason;
use crate::reply::{GrpcCode, Reply, grpc_status, problem, quota_exceeded, retry_after};
use crate::session::Scope;
use crate::session::step_up::StepUp;

/// The detail for a request from another origin's page. With a wrong `public_url`, the gate's own pages seem to be from
/// another origin.
pub const CROSS_ORIGIN: &str = "the request does not show that it came from an allowed page: send `Origin` with the gate's public URL, or with an \
     origin in `cors.origins`";

/// The detail for a request with a wrong origin.
pub fn cross_origin(denial: Denial) -> &'static str {
    match denial {
        Denial::NoCsrfHeader => "the request lacks the header that the site's own scripts must send (csrf_header)",
        _ => CROSS_ORIGIN,
    }
}

/// The requirements in a challenge.
#[derive(Clone, Debug)]
pub struct ChallengeParams<'a> {
    /// The required scopes.
    pub scopes: Cow<'a, Scope>,
    /// The URL of the resource's metadata document, and the scopes that clients may request.
    pub resource: Option<(&'a str, &'a Scope)>,
    /// The required login.
    pub step_up: Option<&'a StepUp>,
    /// The accepted schemes.
    pub schemes: Schemes,
    /// The scheme that the client used, or [`Scheme::Bearer`].
    pub used: Scheme,
}

impl Default for ChallengeParams<'_> {
    fn default() -> Self {
        Self { scopes: Cow::default(), resource: None, step_up: None, schemes: Schemes::Bearer, used: Scheme::Bearer }
    }
}

/// The accepted schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// Only the scheme `Bearer` (RFC 6750).
    Bearer,
    /// Both `Bearer` and `DPoP` (RFC 9449).
    Both,
    /// Only the scheme `DPoP` (RFC 9449).
    Dpop,
}

impl ChallengeParams<'_> {
    /// Each scheme has its own header line. The client's scheme comes first, because some proxies forward only the
    /// first line.
    ///
    /// The first line has the error and the scope (RFC 6750 §3, RFC 9449 §7.1). Each line has the URL of the resource
    /// metadata (RFC 9728 §5.1).
    fn challenge(
        &self,
        status: StatusCode,
        error: &[(&str, &str)],
        scope: Option<&Scope>,
        detail: Option<&str>,
    ) -> Reply {
        let mut reply = problem(status, detail);
        let order: &[Scheme] = match (self.schemes, self.used) {
            (Schemes::Bearer, _) => &[Scheme::Bearer],
            (Schemes::Dpop, _) => &[Scheme::Dpop],
            (Schemes::Both, Scheme::Bearer) => &[Scheme::Bearer, Scheme::Dpop],
            (Schemes::Both, Scheme::Dpop) => &[Scheme::Dpop, Scheme::Bearer],
        };
        let document = self.resource.map(|(document, _)| ("resource_metadata", document));
        let (scope, algorithms) = (scope.map(ToString::to_string), algorithms());
        for (index, scheme) in order.iter().enumerate() {
            let said = if index == 0 { error } else { &[] };
            let scope = scope.as_deref().filter(|_| index == 0).map(|scope| ("scope", scope));
            let (name, algs) = match scheme {
                Scheme::Bearer => ("Bearer", None),
                Scheme::Dpop => ("DPoP", Some(("algs", &*algorithms))),
            };
            let all = said.iter().copied().chain(document).chain(scope).chain(algs);
            let quoted = |(name, value): (&str, &str)| {
                format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
            };
            let parameters = all.map(quoted).collect::<Vec<_>>().join(", ");
            let value = if parameters.is_empty() { name.to_owned() } else { format!("{name} {parameters}") };
            if let Ok(value) = HeaderValue::try_from(value) {
                reply.headers_mut().append(WWW_AUTHENTICATE, value);
            }
        }
        reply
    }

    /// The scope that a client should request. `None` for a resource without a metadata document.
    fn scope_to_ask(&self) -> Option<&Scope> {
        let (_, supported) = self.resource?;
        Some(if self.scopes.is_empty() { supported } else { &*self.scopes }).filter(|scope| !scope.is_empty())
    }

    fn no_token(&self) -> Reply {
        self.challenge(StatusCode::UNAUTHORIZED, &[], self.scope_to_ask(), None)
    }

    fn two_credentials(&self, description: &str) -> Reply {
        let error = [("error", "invalid_request"), ("error_description", description)];
        self.challenge(StatusCode::BAD_REQUEST, &error, None, Some(description))
    }

    fn invalid_token(&self, description: &str) -> Reply {
        let error = [("error", "invalid_token"), ("error_description", description)];
        self.challenge(StatusCode::UNAUTHORIZED, &error, self.scope_to_ask(), Some(description))
    }

    /// See RFC 9449 §7.1 and §9.
    fn bad_proof(&self, needs_nonce: bool) -> Reply {
        let error = if needs_nonce { "use_dpop_nonce" } else { "invalid_dpop_proof" };
        let asked = Self { schemes: Schemes::Dpop, ..self.clone() };
        asked.challenge(
            StatusCode::UNAUTHORIZED,
            &[("error", error)],
            self.scope_to_ask(),
            Some("the DPoP proof is missing or invalid"),
        )
    }

    /// See RFC 9470 §3.
    fn another_login(&self) -> Reply {
        let description = "another login is needed";
        let acr = self.step_up.map(|step_up| step_up.acr.join(" ")).filter(|acr| !acr.is_empty());
        let max_age = self.step_up.and_then(|step_up| step_up.max_age).map(|age| age.as_secs().to_string());
        let mut error = vec![("error", "insufficient_user_authentication"), ("error_description", description)];
        error.extend(acr.as_deref().map(|acr| ("acr_values", acr)));
        error.extend(max_age.as_deref().map(|age| ("max_age", age)));
        self.challenge(StatusCode::UNAUTHORIZED, &error, self.scope_to_ask(), Some(description))
    }

    fn insufficient_scope(&self, detail: &str) -> Reply {
        self.challenge(StatusCode::FORBIDDEN, &[("error", "insufficient_scope")], Some(&self.scopes), Some(detail))
    }

    /// Avoids the error `insufficient_scope` (RFC 6750 §3.1), because it would make clients request another scope at
    /// each call.
    fn access_denied(&self, detail: &str) -> Reply {
        self.challenge(StatusCode::FORBIDDEN, &[("error", "access_denied")], None, Some(detail))
    }
}

const UNKNOWN_HOST: &str = "this gate does not serve the host that the request names";

/// The detail for a malformed head, which does not reveal anything about a credential.
pub fn fault_of_head(denial: &Denial) -> Option<&'static str> {
    match denial.class() {
        Class::Head { detail, .. } => detail,
        Class::UnknownHost => Some(UNKNOWN_HOST),
        _ => None,
    }
}

/// The response to a refused request. The only reason in the response is the RFC's error code.
pub fn denied(denial: Denial, asked: &ChallengeParams<'_>) -> Reply {
    match denial.class() {
        Class::Head { status, detail, closes, .. } => {
            let mut reply = problem(status, detail);
            if closes {
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            reply
        }
        Class::Tunnel => problem(StatusCode::NOT_IMPLEMENTED, None),
        // See RFC 6750 §3.1.
        Class::TwoCredentials => asked.two_credentials("send exactly one credential"),
        Class::Request(what) => problem(StatusCode::BAD_REQUEST, Some(what)),
        Class::UnknownHost => problem(StatusCode::MISDIRECTED_REQUEST, Some(UNKNOWN_HOST)),
        Class::NotFound(detail) => problem(StatusCode::NOT_FOUND, detail),
        Class::WrongMethod => problem(StatusCode::METHOD_NOT_ALLOWED, None),
        Class::TooLarge => problem(StatusCode::PAYLOAD_TOO_LARGE, None),
        // A request without authentication does not get an error code (RFC 6750 §3.1).
        Class::NoCredential | Class::UnusableCredential => asked.no_token(),
        // There is no challenge, because a token would not help.
        Class::CrossOrigin => problem(StatusCode::FORBIDDEN, Some(cross_origin(denial))),
        Class::BadToken { .. } if denial == Denial::InsufficientAuthentication => asked.another_login(),
        Class::BadToken { expired: true, .. } if denial == Denial::TokenTooOld => {
            asked.invalid_token("the access token is too old for this request; refresh it")
        }
        Class::BadToken { expired: true, .. } => asked.invalid_token("the access token expired"),
        Class::BadToken { expired: false, .. } => asked.invalid_token("the access token is invalid"),
        Class::BadProof { needs_nonce } => asked.bad_proof(needs_nonce),
        Class::InsufficientScope => asked.insufficient_scope("the access token lacks a scope"),
        Class::Forbidden => asked.access_denied("the access token does not permit this"),
        Class::Limited(wait) => {
            let mut reply = match denial {
                Denial::QuotaExceeded(limit, _) => quota_exceeded(limit),
                _ => problem(StatusCode::TOO_MANY_REQUESTS, None),
            };
            retry_after(&mut reply, wait);
            reply
        }
        Class::Unavailable(wait) => {
            let mut reply = problem(StatusCode::SERVICE_UNAVAILABLE, Some("the gate could not decide; try again"));
            retry_after(&mut reply, wait);
            reply
        }
        Class::BadGrant { .. }
        | Class::Lifetime
        | Class::Scope
        | Class::Target
        | Class::Login
        | Class::Client
        | Class::ClientNotAllowed
        | Class::GrantType
        | Class::TooManySessions => problem(StatusCode::BAD_REQUEST, None),
    }
}

impl Error {
    /// The response status, for an application that serves logins, refreshes or logouts itself. A status of 401 means
    /// that the user must log in again.
    ///
    /// With any other status, the caller's tokens remain valid. Send 429 and 503 with [`Self::retry_after`].
    pub fn status(&self) -> StatusCode {
        let Self::Denied(denial) = self else { return StatusCode::SERVICE_UNAVAILABLE };
        match denial.class() {
            Class::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            _ if denial.is_undecided() => StatusCode::SERVICE_UNAVAILABLE,
            Class::BadGrant { .. } | Class::Login | Class::Client => StatusCode::UNAUTHORIZED,
            Class::ClientNotAllowed | Class::TooManySessions => StatusCode::FORBIDDEN,
            _ => denied(*denial, &ChallengeParams::default()).status(),
        }
    }

    /// Returns the delay before a retry, or `None` if the decision is final.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(fault) => Some(fault.retry_after()),
            Self::Denied(denial) => match denial.class() {
                Class::Limited(wait) | Class::Unavailable(wait) => Some(wait),
                _ => None,
            },
        }
    }
}

/// Responds with a problem document (RFC 9457) and [`Error::status`].
#[cfg(feature = "axum")]
impl axum_core::response::IntoResponse for Error {
    fn into_response(self) -> axum_core::response::Response {
        let mut reply = problem(self.status(), None);
        if reply.status() == StatusCode::UNAUTHORIZED {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after() {
            retry_after(&mut reply, wait);
        }
        // The gate's layer reports this reason.
        reply.extensions_mut().insert(Reason::from(&self));
        reply.map(|body| body.data.into())
    }
}

/// The denial as a gRPC status in a trailers-only response (gRPC over HTTP/2, "Responses").
pub fn denied_grpc(denial: Denial) -> Reply {
    let (code, message) = match denial.class() {
        Class::NoCredential | Class::UnusableCredential | Class::BadToken { .. } | Class::BadProof { .. } => {
            (GrpcCode::Unauthenticated, "the access token is missing or invalid")
        }
        Class::CrossOrigin | Class::InsufficientScope => (GrpcCode::PermissionDenied, "the access token lacks a scope"),
        Class::Forbidden => (GrpcCode::PermissionDenied, "the access token does not permit this"),
        Class::NotFound(_) | Class::WrongMethod | Class::UnknownHost | Class::Tunnel => {
            (GrpcCode::Unimplemented, "no such method")
        }
        Class::Limited(_) | Class::TooLarge => (GrpcCode::ResourceExhausted, "a limit was exceeded"),
        Class::Unavailable(_) => (GrpcCode::Unavailable, "the gate could not decide; try again"),
        Class::Head { .. }
        | Class::Request(_)
        | Class::TwoCredentials
        | Class::BadGrant { .. }
        | Class::Lifetime
        | Class::Scope
        | Class::Target
        | Class::Login
        | Class::Client
        | Class::ClientNotAllowed
        | Class::GrantType
        | Class::TooManySessions => (GrpcCode::InvalidArgument, "the request is malformed"),
    };
    grpc_status(code, message)
}

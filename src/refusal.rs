//! The one place that renders refusals on data routes: RFC 6750 §3 challenges and RFC 9457 problem documents.

use std::borrow::Cow;

use http::header::{CONNECTION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::denial::{Class, Denial, TokenFlaw};
use crate::reply::{GrpcCode, Reply, grpc_status, problem, retry_after};
use crate::route::StepUp;
use crate::session::Scope;

/// What a route asks of its callers, as far as its challenges say it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// The scopes that the route asks for.
    pub(crate) scopes: Cow<'a, Scope>,
    /// Where the document of its protected resource is, and the scopes that clients may ask for there.
    pub(crate) resource: Option<(&'a str, &'a Scope)>,
    /// How its callers must have logged in.
    pub(crate) step_up: Option<&'a StepUp>,
}

impl Asked<'_> {
    /// A Bearer challenge (RFC 6750 §3): these parameters, then the document of the resource, then a scope.
    fn challenge(&self, error: &[(&str, &str)], scope: Option<&Scope>) -> String {
        let document = self.resource.map(|(document, _)| ("resource_metadata", document));
        let scope = scope.map(ToString::to_string);
        let all = error.iter().copied().chain(document).chain(scope.as_deref().map(|scope| ("scope", scope)));
        let quoted =
            |(name, value): (&str, &str)| format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        let parameters: Vec<_> = all.map(quoted).collect();
        if parameters.is_empty() { "Bearer".to_owned() } else { format!("Bearer {}", parameters.join(", ")) }
    }

    /// The scope that a client without a good token should ask for. Only a resource that describes itself names one.
    fn scope_to_ask(&self) -> Option<&Scope> {
        let (_, supported) = self.resource?;
        Some(if self.scopes.is_empty() { supported } else { &*self.scopes }).filter(|scope| !scope.is_empty())
    }

    fn no_token(&self) -> Reply {
        challenge(StatusCode::UNAUTHORIZED, self.challenge(&[], self.scope_to_ask()), None)
    }

    fn invalid_token(&self, description: &str) -> Reply {
        let error = [("error", "invalid_token"), ("error_description", description)];
        challenge(StatusCode::UNAUTHORIZED, self.challenge(&error, self.scope_to_ask()), Some(description))
    }

    /// RFC 9470 §3.
    fn another_login(&self) -> Reply {
        let description = "another login is needed";
        let acr = self.step_up.map(|step_up| step_up.acr.join(" ")).filter(|acr| !acr.is_empty());
        let max_age = self.step_up.and_then(|step_up| step_up.max_age).map(|age| age.as_secs().to_string());
        let mut error = vec![("error", "insufficient_user_authentication"), ("error_description", description)];
        error.extend(acr.as_deref().map(|acr| ("acr_values", acr)));
        error.extend(max_age.as_deref().map(|age| ("max_age", age)));
        challenge(StatusCode::UNAUTHORIZED, self.challenge(&error, self.scope_to_ask()), Some(description))
    }

    fn insufficient_scope(&self, scope: Option<&Scope>, detail: &str) -> Reply {
        let value = self.challenge(&[("error", "insufficient_scope")], scope);
        challenge(StatusCode::FORBIDDEN, value, Some(detail))
    }
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
        Class::NoCredential | Class::UnusableCredential => asked.no_token(),
        // No challenge: a token would not help.
        Class::CrossOrigin => problem(StatusCode::FORBIDDEN, Some("the request came from another site")),
        Class::BadToken(_) if denial == Denial::InsufficientAuthentication => asked.another_login(),
        Class::BadToken(TokenFlaw::Expired) if denial == Denial::TokenTooOld => {
            asked.invalid_token("the access token is too old for this; refresh it")
        }
        Class::BadToken(TokenFlaw::Expired) => asked.invalid_token("the access token expired"),
        Class::BadToken(TokenFlaw::Malformed | TokenFlaw::Unproved | TokenFlaw::Proved) => {
            asked.invalid_token("the access token is invalid")
        }
        Class::InsufficientScope => asked.insufficient_scope(Some(&asked.scopes), "the access token lacks a scope"),
        // No scope would help, so none is named.
        Class::Forbidden => asked.insufficient_scope(None, "the access token does not permit this"),
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
        Class::NoCredential | Class::UnusableCredential | Class::BadToken(_) => {
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

fn challenge(status: StatusCode, value: String, detail: Option<&str>) -> Reply {
    let mut reply = problem(status, detail);
    if let Ok(value) = HeaderValue::try_from(value) {
        reply.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    reply
}

//! The replies and errors of the protocol.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::super::Reply;
use super::message::Message;
use rotogate_core::denial::{Class, Denial};
use rotogate_core::fault::Error;
use rotogate_core::reply::{retry_after, seconds};

const NODE: &str = "knode-rotogate";
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-kuzzle-request-id");
pub(super) const VOLATILE: HeaderName = HeaderName::from_static("x-kuzzle-volatile");

const TOKEN: u32 = 0x0701_0000;
const CREDENTIALS: u32 = 0x0702_0000;
const RIGHTS: u32 = 0x0703_0000;
const ASSERT: u32 = 0x0201_0000;
const PROCESS: u32 = 0x0202_0000;
const HTTP: u32 = 0x0301_0000;

#[derive(Debug)]
pub(super) struct Problem {
    id: Cow<'static, str>,
    code: u32,
    status: StatusCode,
    message: Cow<'static, str>,
    wait: Option<Duration>,
}

impl Problem {
    fn new(status: StatusCode, code: u32, id: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { id: id.into(), code, status, message: message.into(), wait: None }
    }

    /// Returns the error in a Kuzzle server's response, or `None` if the response has no complete error.
    pub(super) fn of_server(error: &Value) -> Option<Self> {
        let status = u16::try_from(error.get("status")?.as_u64()?).ok();
        Some(Self {
            id: error.get("id")?.as_str()?.to_owned().into(),
            code: error
                .get("code")
                .and_then(Value::as_u64)
                .and_then(|code| u32::try_from(code).ok())
                .unwrap_or_default(),
            status: status.and_then(|status| StatusCode::from_u16(status).ok()).filter(|it| it.is_client_error())?,
            message: error.get("message")?.as_str()?.to_owned().into(),
            wait: None,
        })
    }

    fn bad_request(code: u32, id: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, id, message)
    }

    /// Returns the message. `checkToken` also returns the message as the token's state.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn invalid_type(argument: &str, expected: &str) -> Self {
        let message = format!("Wrong type for argument \"{argument}\" (expected: {expected})");
        Self::bad_request(ASSERT + 1, "api.assert.invalid_type", message)
    }

    pub(super) fn invalid_argument(argument: &str, expected: &str) -> Self {
        let message = format!("Invalid argument \"{argument}\". Expected: {expected}");
        Self::bad_request(ASSERT + 2, "api.assert.invalid_argument", message)
    }

    pub(super) fn missing_argument(argument: &str) -> Self {
        Self::bad_request(ASSERT + 3, "api.assert.missing_argument", format!("Missing argument \"{argument}\"."))
    }

    pub(super) fn bad_volatile(why: &str) -> Self {
        let message = format!("Unable to convert the \"x-kuzzle-volatile\" HTTP header to JSON: {why}");
        Self::bad_request(HTTP + 11, "network.http.volatile_parse_failed", message)
    }

    pub(super) fn bad_body(why: &str) -> Self {
        let message = format!("Unable to convert the HTTP body to JSON: {why}");
        Self::bad_request(HTTP + 12, "network.http.body_parse_failed", message)
    }

    pub(super) fn unknown_strategy(strategy: &str) -> Self {
        let message = format!("Unknown authentication strategy \"{strategy}\"");
        Self::bad_request(CREDENTIALS + 1, "security.credentials.unknown_strategy", message)
    }

    pub(super) fn ttl_exceeded() -> Self {
        let message = "expiresIn value exceeds maximum allowed value";
        Self::bad_request(TOKEN + 4, "security.token.ttl_exceeded", message)
    }

    #[cfg(feature = "kuzzle")]
    pub(super) fn cookie_unsupported() -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, 0x0707_0002, "security.cookie.unsupported", "Cookie authentication not supported.")
    }

    /// The upstream is unreachable, or its queue is full.
    #[cfg(feature = "kuzzle")]
    pub(super) fn unreachable() -> Self {
        let message = "Request discarded: the server behind the gate does not accept requests at the moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, PROCESS + 2, "api.process.overloaded", message)
    }

    pub(super) fn invalid_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, TOKEN + 1, "security.token.invalid", "Invalid token.")
    }

    /// The SDK for the JVM reacts to the error id for expired tokens. The SDK for JavaScript reacts only to the error
    /// id for invalid tokens.
    fn expired_token(asked: &Message) -> Self {
        if asked.is_jvm() {
            Self::new(StatusCode::UNAUTHORIZED, TOKEN + 6, "security.token.expired", "Token expired")
        } else {
            Self::invalid_token()
        }
    }

    pub(super) fn unauthorized(asked: &Message) -> Self {
        let message = format!("Unauthorized: authentication required to execute the action \"{}\".", action(asked));
        Self::new(StatusCode::UNAUTHORIZED, RIGHTS + 1, "security.rights.unauthorized", message)
    }

    fn forbidden(asked: &Message) -> Self {
        let message = format!("Insufficient permissions to execute the action \"{}\".", action(asked));
        Self::new(StatusCode::FORBIDDEN, RIGHTS + 2, "security.rights.forbidden", message)
    }

    fn too_many(wait: Duration) -> Self {
        let message = "Rejected: requests rate limit exceeded for this user.";
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self { wait: Some(wait), ..Self::new(status, PROCESS + 8, "api.process.too_many_requests", message) }
    }

    pub(super) fn of_error(error: &Error, asked: &Message) -> Self {
        match error {
            Error::Denied(denial) => Self::of_denial(*denial, asked),
            Error::Failed(fault) => Self::unavailable(fault.retry_after()),
        }
    }

    /// The client keeps its token and tries again.
    fn unavailable(wait: Duration) -> Self {
        let message = "Temporarily overloaded: the result is unknown, try again.";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { wait: Some(wait), ..Self::new(status, PROCESS + 2, "api.process.overloaded", message) }
    }

    /// Every invalid token gets the same error.
    pub(super) fn of_denial(denial: Denial, asked: &Message) -> Self {
        match denial.class() {
            Class::NoCredential => Self::unauthorized(asked),
            Class::BadToken { expired: true, .. } | Class::BadGrant { expired: true } => Self::expired_token(asked),
            Class::BadToken { expired: false, .. }
            | Class::BadProof { .. }
            | Class::UnusableCredential
            | Class::BadGrant { expired: false } => Self::invalid_token(),
            Class::TwoCredentials => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                TOKEN + 7,
                "security.token.verification_error",
                "Error verifying token: more than one token was provided",
            ),
            Class::CrossOrigin
            | Class::InsufficientScope
            | Class::Forbidden
            | Class::Scope
            | Class::Target
            | Class::Client
            | Class::ClientNotAllowed
            | Class::GrantType => Self::forbidden(asked),
            Class::Lifetime => Self::ttl_exceeded(),
            Class::TooManySessions => Self::new(
                StatusCode::FORBIDDEN,
                RIGHTS + 2,
                "security.rights.forbidden",
                "Too many sessions: end one of them, and log in again.",
            ),
            Class::Login => Self::new(
                StatusCode::UNAUTHORIZED,
                0x0403_0014,
                "plugin.strategy.missing_user",
                "wrong username or password",
            ),
            Class::Limited(wait) => Self::too_many(wait),
            Class::Unavailable(wait) => Self::unavailable(wait),
            Class::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                HTTP + 1,
                "network.http.request_too_large",
                "Maximum HTTP request size exceeded.",
            ),
            Class::Request(what) => Self::unexpected(StatusCode::BAD_REQUEST, what),
            Class::Head { status, summary, .. } => Self::unexpected(status, summary),
            Class::Tunnel => Self::unexpected(StatusCode::NOT_IMPLEMENTED, "the gate does not open a tunnel here"),
            Class::WrongMethod => Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                HTTP + 6,
                "network.http.unsupported_verb",
                "Unsupported HTTP verb.",
            ),
            Class::UnknownHost => {
                Self::unexpected(StatusCode::MISDIRECTED_REQUEST, "the gate does not serve this host")
            }
            Class::NotFound(_) => {
                Self::new(StatusCode::NOT_FOUND, HTTP + 7, "network.http.url_not_found", "API URL not found.")
            }
        }
    }

    pub(super) fn unexpected(status: StatusCode, what: &str) -> Self {
        let message = format!("Caught an unexpected HTTP error: {what}");
        Self::new(status, HTTP + 2, "network.http.unexpected_error", message)
    }
}

/// Returns `controller:action`. A missing name is written as `*`.
fn action(asked: &Message) -> String {
    let known = |name: &Option<String>| name.clone().unwrap_or_else(|| "*".to_owned());
    format!("{}:{}", known(&asked.controller), known(&asked.action))
}

fn envelope(asked: &Message, came: &Result<Value, Problem>) -> Value {
    let problem = came.as_ref().err();
    let error = problem.map(|problem| {
        json!({
            "code": problem.code,
            "id": problem.id,
            "message": problem.message,
            "props": [],
            "status": problem.status.as_u16(),
        })
    });
    // The delay is in the body, because a WebSocket message does not have header fields.
    let wait = problem.and_then(|problem| problem.wait).map(|wait| seconds(wait).to_string());
    json!({
        "requestId": asked.request_id,
        "status": problem.map_or(StatusCode::OK, |problem| problem.status).as_u16(),
        "error": error,
        "controller": asked.controller,
        "action": asked.action,
        "collection": asked.collection,
        "index": asked.index,
        "volatile": asked.volatile,
        "deprecations": [],
        "headers": wait.map_or_else(|| json!({}), |wait| json!({ "Retry-After": wait })),
        "node": NODE,
        "result": came.as_ref().ok(),
    })
}

pub(super) fn reply(asked: &Message, came: &Result<Value, Problem>) -> Reply {
    let problem = came.as_ref().err();
    let status = problem.map_or(StatusCode::OK, |problem| problem.status);
    let mut reply = super::super::json(status, &envelope(asked, came));
    if let Ok(id) = HeaderValue::try_from(asked.request_id.as_str()) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    if let Some(wait) = problem.and_then(|problem| problem.wait) {
        retry_after(&mut reply, wait);
    }
    reply
}

/// The SDK uses `room` to match the reply to its request.
#[cfg(feature = "kuzzle")]
pub(super) fn frame(asked: &Message, came: &Result<Value, Problem>) -> String {
    let mut body = envelope(asked, came);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("room".to_owned(), asked.request_id.clone().into());
    }
    body.to_string()
}

/// Returns the notification that a connection's token is no longer valid. The gate sends it only once.
#[cfg(feature = "kuzzle")]
pub(super) fn token_expired() -> String {
    json!({
        "status": 200,
        "info": "This is an automated server notification",
        "message": "Authentication Token Expired",
        "type": "TokenExpired",
        "node": NODE,
        "room": "kuzzle:notification:server",
    })
    .to_string()
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl Problem {
        pub(crate) fn id(&self) -> &str {
            &self.id
        }
    }
}

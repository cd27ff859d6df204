//! `PUT /api/v2/auth/token` exchanges an access token and its refresh token. Every reply is an envelope of four fields.
//!
//! | request | operation |
//! |---|---|
//! | `POST` `{"username","password"}` | a login, which the protocol calls create-token |
//! | `PUT` `{"token","refreshToken"}` | a refresh; both tokens belong to the same session |
//!
//! On success, `errorCode` is empty and `content` is an array with one element. On failure, `content` and `pageable`
//! are empty strings. The protocol has one code for invalid tokens, `AUTH_1002`. The status is 401, or 200 for clients
//! that read only the code.
//!
//! ```
//! use rotogate::dialect::envelope::Envelope;
//! use rotogate::gate::Endpoint;
//!
//! let endpoint = Endpoint::new(Envelope::default()).path("/api/v2/auth/token");
//! # let _ = endpoint;
//! ```

use std::time::Duration;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::call::json_object;
use super::{Call, Command, Dialect, Outcome, RefreshCredential, Reply, ServedPath, json, said_json};
use rotogate_core::denial::{Class, Denial};
use rotogate_core::engine::IssuedTokens;
use rotogate_core::fault::Error;
use rotogate_core::reply::retry_after;

#[cfg(test)]
mod tests;

/// The name of this dialect.
pub(crate) const NAME: &str = "envelope";
const MALFORMED: &str = "AUTH_1000";
pub(super) const BAD_CREDENTIALS: &str = "AUTH_1001";
pub(super) const BAD_TOKEN: &str = "AUTH_1002";

/// The dialect `envelope`, with its options.
///
/// ```
/// use std::time::Duration;
/// use rotogate::dialect::envelope::Envelope;
/// use rotogate::gate::Endpoint;
///
/// // For clients that refresh with an expired access token.
/// let dialect = Envelope { expired_for_at_most: Duration::from_secs(3600), ..Envelope::default() };
/// let builder = rotogate::Gate::builder().endpoint(Endpoint::new(dialect));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The maximum time since the access token expired. With zero, which is the protocol's rule, expired tokens are
    /// rejected.
    pub expired_for_at_most: Duration,
    /// The HTTP status for rejected credentials and tokens.
    pub failure_status: StatusCode,
}

impl Default for Envelope {
    fn default() -> Self {
        Self { expired_for_at_most: Duration::ZERO, failure_status: StatusCode::UNAUTHORIZED }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Success<'a> {
    error_code: &'static str,
    error_message: &'static str,
    content: [Content<'a>; 1],
    pageable: Pageable,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Content<'a> {
    token: &'a str,
    refresh_token: &'a str,
    validity_time: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pageable {
    page: u32,
    size: u32,
    total_pages: u32,
    total_elements: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    error_code: &'static str,
    error_message: &'static str,
    content: &'static str,
    pageable: &'static str,
}

pub(super) fn members(call: &Call<'_>) -> Result<Map<String, Value>, Denial> {
    // This dialect uses no cookies, so a missing `Content-Type` does no harm (requirement T25).
    if said_json(call.headers) == Some(false) {
        return Err(Denial::MalformedRequest("the body must be application/json"));
    }
    json_object(call)
}

pub(super) fn mandatory(body: &mut Map<String, Value>, name: &str) -> Result<String, Denial> {
    match body.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(Denial::MalformedRequest("a mandatory member is missing, empty or not a string")),
    }
}

impl Dialect for Envelope {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_path(&self) -> &'static str {
        "/api/v2/auth/token"
    }

    fn client(&self) -> Option<&'static str> {
        Some(NAME)
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        vec![ServedPath::new("token", base.to_owned(), &[Method::POST, Method::PUT])]
    }

    fn read(&self, call: &Call<'_>) -> Result<Command, Denial> {
        let mut body = members(call)?;
        let mut mandatory = |name| mandatory(&mut body, name);
        if *call.method == Method::POST {
            return Ok(Command::login(mandatory("username")?, mandatory("password")?.into()));
        }
        let (access, refresh) = (mandatory("token")?.into(), mandatory("refreshToken")?.into());
        let credential = RefreshCredential::Pair { access, refresh, expired_for_at_most: self.expired_for_at_most };
        Ok(Command::refresh(credential))
    }

    fn write(&self, call: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        match outcome {
            Ok(Outcome::Issued(issued)) => issued_reply(&issued),
            // The commands of this dialect never have these outcomes.
            Ok(Outcome::Revoked | Outcome::Checked(_)) => {
                failure(StatusCode::INTERNAL_SERVER_ERROR, MALFORMED, "Unexpected")
            }
            Err(error) => self.refusal(call, &error),
        }
    }
}

impl Envelope {
    pub(super) fn refusal(&self, call: &Call<'_>, error: &Error) -> Reply {
        match error {
            Error::Denied(denial) => self.denied(call, *denial),
            Error::Failed(fault) => unavailable(fault.retry_after()),
        }
    }

    fn denied(&self, call: &Call<'_>, denial: Denial) -> Reply {
        match denial.class() {
            Class::Request(_) | Class::Lifetime | Class::Scope | Class::Target => {
                failure(StatusCode::BAD_REQUEST, MALFORMED, "Malformed request")
            }
            Class::TooLarge => failure(StatusCode::PAYLOAD_TOO_LARGE, MALFORMED, "Request too large"),
            Class::Limited(wait) => {
                let mut reply = failure(StatusCode::TOO_MANY_REQUESTS, MALFORMED, "Too many requests");
                retry_after(&mut reply, wait);
                reply
            }
            Class::Unavailable(wait) => unavailable(wait),
            // The password was correct. The reply "bad credentials" would make the client ask for the password again.
            Class::TooManySessions => self.refused(BAD_CREDENTIALS, "Too many sessions"),
            // All failed logins get the same reply. All invalid tokens get the same reply (requirements A2, R7).
            Class::Head { .. }
            | Class::Tunnel
            | Class::UnknownHost
            | Class::NotFound(_)
            | Class::WrongMethod
            | Class::TwoCredentials
            | Class::NoCredential
            | Class::UnusableCredential
            | Class::CrossOrigin
            | Class::BadToken { .. }
            | Class::BadProof { .. }
            | Class::InsufficientScope
            | Class::Forbidden
            | Class::BadGrant { .. }
            | Class::Login
            | Class::Client
            | Class::ClientNotAllowed
            | Class::GrantType => {
                if *call.method == Method::POST {
                    self.refused(BAD_CREDENTIALS, "Invalid credentials")
                } else {
                    self.refused(BAD_TOKEN, "Invalid token")
                }
            }
        }
    }

    fn refused(&self, error_code: &'static str, error_message: &'static str) -> Reply {
        let mut reply = failure(self.failure_status, error_code, error_message);
        if self.failure_status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §15.5.2.
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        reply
    }
}

/// The gate could not decide. The client keeps its token and tries again.
fn unavailable(wait: Duration) -> Reply {
    let mut reply = failure(StatusCode::SERVICE_UNAVAILABLE, MALFORMED, "Try again later");
    retry_after(&mut reply, wait);
    reply
}

fn issued_reply(issued: &IssuedTokens) -> Reply {
    let content = Content {
        token: issued.access_token.expose(),
        refresh_token: issued.refresh_token.as_ref().map_or("", |token| token.expose()),
        validity_time: issued.expires_in,
    };
    let pageable = Pageable { page: 0, size: 10, total_pages: 1, total_elements: 1 };
    json(StatusCode::OK, &Success { error_code: "", error_message: "", content: [content], pageable })
}

fn failure(status: StatusCode, error_code: &'static str, error_message: &'static str) -> Reply {
    json(status, &Failure { error_code, error_message, content: "", pageable: "" })
}

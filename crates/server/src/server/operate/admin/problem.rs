//! Errors of the admin listener: problem documents (RFC 9457) with a fixed set of codes.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};
use rotogate_core::context::Context;
use rotogate_core::fault::{Chain, Error};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Body, full, reply};
use rotogate_config::ConfigError;

const PAGE: &str = "docs/admin.md";

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal, $status:ident;)*) => {
        /// The kind of the problem, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }
        }
    };
}

codes! {
    /// `Host` or the request target is missing or malformed.
    BadRequest = "bad_request", BAD_REQUEST;
    /// A query parameter is unknown or repeated, or its value is invalid.
    InvalidParameter = "invalid_parameter", BAD_REQUEST;
    /// The body is not the expected JSON.
    InvalidBody = "invalid_body", BAD_REQUEST;
    /// Several accounts have a user with this name.
    AmbiguousUser = "ambiguous_user", BAD_REQUEST;
    /// The request has no token, or an unknown token.
    Unauthorized = "unauthorized", UNAUTHORIZED;
    /// The token's role does not permit the operation.
    Forbidden = "forbidden", FORBIDDEN;
    /// A page of another origin requested a change.
    ForeignOrigin = "foreign_origin", FORBIDDEN;
    /// The path does not exist.
    NotFound = "not_found", NOT_FOUND;
    /// There is no session with this id.
    UnknownSession = "unknown_session", NOT_FOUND;
    /// The target is unknown to the users, the clients and the store.
    UnknownTarget = "unknown_target", NOT_FOUND;
    /// There is no key with this name.
    UnknownKey = "unknown_key", NOT_FOUND;
    /// There is no issuer with this name whose keys the gate fetches.
    UnknownIssuer = "unknown_issuer", NOT_FOUND;
    /// The path does not serve this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// The operation needs something that is not configured at this gate.
    NotConfigured = "not_configured", CONFLICT;
    /// The key may not sign yet, the key is still needed, or another key is waiting to sign.
    KeyInUse = "key_in_use", CONFLICT;
    /// The users file is invalid, so the users did not change.
    BrokenUsersFile = "broken_users_file", CONFLICT;
    /// The users file cannot be written, so the users did not change.
    ReadOnlyUsers = "read_only_users", CONFLICT;
    /// The configuration file changed since it was checked, so the gate did not reload it.
    StaleCheck = "stale_check", CONFLICT;
    /// The body is too long.
    BodyTooLong = "body_too_long", PAYLOAD_TOO_LARGE;
    /// The body is not `application/json`.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// `Host` is not a host name of this listener.
    ForeignHost = "foreign_host", MISDIRECTED_REQUEST;
    /// The configuration is invalid. `errors` lists the problems.
    InvalidConfiguration = "invalid_configuration", UNPROCESSABLE_ENTITY;
    /// Too many wrong tokens came from this address.
    TooManyFailures = "too_many_failures", TOO_MANY_REQUESTS;
    /// The gate failed. The log has the details.
    Internal = "internal", INTERNAL_SERVER_ERROR;
    /// The gate did not get usable keys from the issuer.
    IssuerFailed = "issuer_failed", BAD_GATEWAY;
    /// The store failed. The log has the details.
    StoreFailed = "store_failed", SERVICE_UNAVAILABLE;
    /// The audit log cannot be written, so changes are refused.
    AuditLogFailed = "audit_log_failed", SERVICE_UNAVAILABLE;
}

/// A position in the configuration, and what is wrong there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Finding {
    /// The file, or `environment NAME`.
    pub(super) file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) key: String,
    pub(super) detail: String,
}

impl Finding {
    pub(super) fn new(error: &ConfigError) -> Self {
        let ConfigError { source, position, key, message, unchecked: _ } = error;
        Self { file: source.clone(), line: position.map(|(line, _)| line), key: key.clone(), detail: message.clone() }
    }
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The link to the description of the code.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: &'static str,
    status: u16,
    /// What went wrong this time, and what to do.
    detail: String,
    code: Code,
    /// The id of the request, as in the log.
    request_id: String,
    /// The problems in the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Finding>,
}

#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) code: Code,
    pub(super) detail: String,
    pub(super) errors: Vec<Finding>,
    retry_after: Option<Duration>,
    allowed: Vec<Method>,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after: None, allowed: Vec::new() }
    }

    pub(super) fn with_errors(self, errors: Vec<Finding>) -> Self {
        Self { errors, ..self }
    }

    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    pub(super) fn method_not_allowed(allowed: Vec<Method>) -> Self {
        let list = list(&allowed);
        Self { allowed, ..Self::new(Code::MethodNotAllowed, format!("this path serves {list}")) }
    }

    /// The store failed, or must not be changed at present.
    pub(super) fn of_store(error: Error) -> Self {
        let detail = format!("{error}; see the log and try again");
        Self::failed(error, detail)
    }

    /// The store failed to save a revocation. This gate already enforces the revocation.
    pub(super) fn of_revocation(error: Error) -> Self {
        let what = "This gate already enforces the revocation, and writes it as soon as the store works. If the gate \
                    stops before that, the revocation is lost. See the log, and repeat the request until it succeeds";
        let detail = format!("{error}. {what}");
        Self::failed(error, detail)
    }

    fn failed(error: Error, detail: String) -> Self {
        let mut wait = Duration::from_secs(1);
        if let Error::Failed(fault) = error {
            tracing::error!(error = ?Chain(&fault), "admin request failed");
            wait = fault.retry_after();
        }
        Self::new(Code::StoreFailed, detail).retry_after(wait)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let Self { code, detail, errors, retry_after, allowed } = self;
        let status = code.status();
        let id = Context::current().map(|context| context.id().clone());
        let problem = Problem {
            kind: format!("{PAGE}#{}", code.word()),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail,
            code,
            request_id: id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned(),
            errors,
        };
        let mut response = reply("application/problem+json", full(serde_json::to_vec(&problem).unwrap_or_default()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1000).max(1) as u64));
        }
        if !allowed.is_empty()
            && let Ok(allowed) = HeaderValue::try_from(list(&allowed))
        {
            headers.insert(ALLOW, allowed);
        }
        response
    }
}

fn list(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn each_code_has_a_word_of_its_own_and_its_part_of_the_page() {
        let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.word());
        }
        let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE)).unwrap();
        for code in Code::ALL {
            let line = format!("| <a id=\"{0}\"></a>`{0}` | {1} |", code.word(), code.status().as_u16());
            assert!(page.contains(&line), "{line}");
        }
        assert_eq!(page.matches("<a id=\"").count(), Code::ALL.len(), "no code that there is not");
    }
}

//! Parsing of an issuer's responses: discovery documents and key sets.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};
use serde_json::{Map, Value};

use super::settings::FetchSettings;
use rotogate_core::http_client::{Allowed, FetchError, FetchTarget};
use rotogate_core::strict_json;
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::verify::{IssuerKeys, RulesError, beginning, host_of};

/// The maximum length of a quoted string, in bytes.
const MAX_SHOWN: usize = 200;
const OPENID: &str = "/.well-known/openid-configuration";
const RFC_8414: &str = "/.well-known/oauth-authorization-server";

/// Why fetching keys failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct FetchFailure {
    /// The cause: `dns`, `connect`, `tls`, `timeout`, `too_large`, `redirect`, `status`, `encoding`, `refused_address`,
    /// `http`, `not_json`, `no_usable_key`, `issuer_mismatch` or `files`.
    pub cause: &'static str,
    /// A description, without secrets.
    pub message: String,
}

pub(super) const CAUSES: [&str; 14] = [
    "dns",
    "connect",
    "tls",
    "timeout",
    "too_large",
    "redirect",
    "status",
    "encoding",
    REFUSED_ADDRESS,
    "http",
    "not_json",
    "no_usable_key",
    ISSUER_MISMATCH,
    FILES,
];
const REFUSED_ADDRESS: &str = "refused_address";
const ISSUER_MISMATCH: &str = "issuer_mismatch";
const FILES: &str = "files";

impl FetchFailure {
    fn new(cause: &'static str, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }

    pub(super) fn ended() -> Self {
        Self::new("http", "the keys of this issuer are no longer fetched")
    }

    pub(super) fn files(message: impl Into<String>) -> Self {
        Self::new(FILES, message)
    }

    pub(super) fn refused_address(message: impl Into<String>) -> Self {
        Self::new(REFUSED_ADDRESS, message)
    }

    /// Returns whether an operator must act. An unreachable issuer recovers by itself.
    pub(super) fn is_grave(&self) -> bool {
        [ISSUER_MISMATCH, REFUSED_ADDRESS, FILES].contains(&self.cause)
    }
}

impl From<FetchError> for FetchFailure {
    fn from(error: FetchError) -> Self {
        Self::new(error.word(), error.to_string())
    }
}

/// A discovery document (OpenID Connect Discovery §3, RFC 8414 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The URL of the issuer's keys.
    pub jwks_uri: String,
    /// The token endpoint.
    pub token_endpoint: Option<String>,
    /// The introspection endpoint (RFC 7662).
    pub introspection_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009).
    pub revocation_endpoint: Option<String>,
    /// The authorization endpoint.
    pub authorization_endpoint: Option<String>,
    /// The logout endpoint (OpenID Connect RP-Initiated Logout 1.0).
    pub end_session_endpoint: Option<String>,
    /// The endpoint for pushed authorization requests (RFC 9126).
    pub pushed_authorization_request_endpoint: Option<String>,
    /// The listed `acr` values.
    pub acr_values_supported: Vec<Box<str>>,
    /// The listed methods of client authentication.
    pub token_endpoint_auth_methods_supported: Vec<Box<str>>,
    /// Whether the issuer accepts only pushed authorization requests.
    pub requires_pushed_requests: bool,
    /// Whether authorization responses contain `iss` (RFC 9207).
    pub names_itself: bool,
    pub(super) allowed: Allowed,
}

impl Metadata {
    /// Parses the discovery document of `issuer`.
    ///
    /// # Errors
    /// The document is malformed, names another issuer, or lacks `jwks_uri`.
    pub fn parse(document: &[u8], issuer: &str) -> Result<Self, FetchFailure> {
        let not_json = |why| FetchFailure::new("not_json", format!("the discovery document is unusable: {why}"));
        let document = strict_json::object(document).map_err(not_json)?;
        match document.get("issuer").and_then(Value::as_str) {
            Some(named) if named == issuer => {}
            Some(named) => {
                let message = format!(
                    "the discovery document names issuer \"{}\", but \"{issuer}\" is expected: they must be equal, \
                     including a slash at the end",
                    shown(named)
                );
                return Err(FetchFailure::new(ISSUER_MISMATCH, message));
            }
            None => {
                let message = format!("the discovery document names no issuer, but \"{issuer}\" is expected");
                return Err(FetchFailure::new(ISSUER_MISMATCH, message));
            }
        }
        let Some(jwks_uri) = url(&document, "jwks_uri") else {
            return Err(FetchFailure::refused_address("the discovery document has no `jwks_uri`"));
        };
        Ok(Self {
            jwks_uri,
            token_endpoint: url(&document, "token_endpoint"),
            introspection_endpoint: url(&document, "introspection_endpoint"),
            revocation_endpoint: url(&document, "revocation_endpoint"),
            authorization_endpoint: url(&document, "authorization_endpoint"),
            end_session_endpoint: url(&document, "end_session_endpoint"),
            pushed_authorization_request_endpoint: url(&document, "pushed_authorization_request_endpoint"),
            acr_values_supported: texts(&document, "acr_values_supported"),
            token_endpoint_auth_methods_supported: texts(&document, "token_endpoint_auth_methods_supported"),
            requires_pushed_requests: is_set(&document, "require_pushed_authorization_requests"),
            names_itself: is_set(&document, "authorization_response_iss_parameter_supported"),
            allowed: Allowed::by_issuer(host_of(issuer), &[]),
        })
    }

    pub(crate) fn target(&self, url: &str) -> Option<FetchTarget> {
        FetchTarget::parse(url, self.allowed).ok()
    }
}

/// The token endpoint, if requests to it are allowed.
pub fn token_target(metadata: &Metadata) -> Option<FetchTarget> {
    metadata.target(metadata.token_endpoint.as_deref()?)
}

/// The revocation endpoint, if requests to it are allowed.
pub fn revocation_target(metadata: &Metadata) -> Option<FetchTarget> {
    metadata.target(metadata.revocation_endpoint.as_deref()?)
}

fn url(document: &Map<String, Value>, member: &str) -> Option<String> {
    let text = document.get(member).and_then(Value::as_str)?;
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

fn texts(document: &Map<String, Value>, member: &str) -> Vec<Box<str>> {
    let listed = document.get(member).and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(Value::as_str).map(Box::from).collect()
}

fn is_set(document: &Map<String, Value>, member: &str) -> bool {
    document.get(member) == Some(&Value::Bool(true))
}

pub(super) fn shown(text: &str) -> String {
    beginning(text, MAX_SHOWN).escape_debug().to_string()
}

/// The URLs of OpenID Connect Discovery and of RFC 8414.
pub(super) fn discovery_urls(issuer: &str) -> [String; 2] {
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    let path = base.find("://").and_then(|scheme| base.get(scheme + 3..)?.find('/').map(|at| scheme + 3 + at));
    let (host, path) = base.split_at(path.unwrap_or(base.len()));
    [format!("{base}{OPENID}"), format!("{host}{RFC_8414}{path}")]
}

pub(super) fn keys(body: &[u8], algorithms: &[Algorithm]) -> Result<IssuerKeys, FetchFailure> {
    IssuerKeys::from_published_jwks(body, algorithms).map_err(|error| {
        let cause = match &error {
            RulesError::TooManyKeys(_) => "too_large",
            RulesError::NoUsableKey(_) => "no_usable_key",
            _ => "not_json",
        };
        FetchFailure::new(cause, beginning(&error.to_string(), 4 * MAX_SHOWN))
    })
}

/// The freshness of a response (RFC 9111 §4.2.1), within the configured bounds. Only `max-age`, `no-store`, `no-cache`
/// and `Age` are considered.
pub(super) fn fresh_for(headers: &HeaderMap, settings: &FetchSettings) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut max_age: Option<u64> = None;
    for directive in values.flat_map(|value| value.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return settings.min;
        }
        if name.eq_ignore_ascii_case("max-age")
            && let Ok(seconds) = value.trim_matches('"').parse::<u64>()
        {
            max_age = Some(max_age.map_or(seconds, |known| known.min(seconds)));
        }
    }
    let Some(max_age) = max_age else { return settings.fresh };
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_secs(max_age.saturating_sub(age)).clamp(settings.min, settings.max)
}

#[cfg(test)]
mod tests;

//! Endpoint paths that a dialect serves, and requests to them.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use rotogate_core::denial::Denial;
use rotogate_core::strict_json;

/// One operation that a dialect serves at an endpoint.
///
/// ```
/// use http::Method;
/// use rotogate::dialect::ServedPath;
///
/// /// `Dialect::serves` of a protocol with one operation.
/// fn serves(base: &str) -> Vec<ServedPath> {
///     let template = format!("{base}/refresh");
///     vec![ServedPath { operation: "refresh", template, methods: &[Method::POST], spellings: &[] }]
/// }
/// assert_eq!(serves("/auth")[0].template, "/auth/refresh");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedPath {
    /// The dialect's own name for the operation.
    pub operation: &'static str,
    /// The path as a `matchit` template. The parameter `{account}` is the account.
    pub template: String,
    /// The allowed methods. Other methods get 405.
    pub methods: &'static [Method],
    /// Other raw spellings that existing clients send. Any further spelling of the path gets 404, and is never
    /// forwarded. The spellings can contain `{account}`.
    // Requirement R12.
    pub spellings: &'static [&'static str],
}

impl ServedPath {
    pub(crate) const fn new(operation: &'static str, template: String, methods: &'static [Method]) -> Self {
        Self { operation, template, methods, spellings: &[] }
    }
}

/// A request to an endpoint, with its complete body.
///
/// ```
/// use rotogate::denial::Denial;
/// use rotogate::dialect::Call;
///
/// /// The user of a login, in a `Dialect::read`.
/// fn user(call: &Call<'_>) -> Result<String, Denial> {
///     let body: serde_json::Value =
///         serde_json::from_slice(call.body).map_err(|_| Denial::MalformedRequest("the body is not JSON"))?;
///     body["user"].as_str().map(str::to_owned).ok_or(Denial::MalformedRequest("user is missing"))
/// }
/// # let (method, headers) = (http::Method::POST, http::HeaderMap::new());
/// # let body = bytes::Bytes::from_static(b"{\"user\":\"ada\"}");
/// # let call = Call {
/// #     operation: "login", params: &[], method: &method, headers: &headers, path: "/login", query: None, body: &body,
/// #     address: None, from_own_origin: false,
/// # };
/// # assert_eq!(user(&call), Ok("ada".to_owned()));
/// ```
pub struct Call<'a> {
    /// The operation.
    pub operation: &'static str,
    /// The template's parameters, by name.
    pub params: &'a [(String, String)],
    /// One of the operation's methods.
    pub method: &'a Method,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The canonical path.
    pub path: &'a str,
    /// The query, without its `?`.
    pub query: Option<&'a str>,
    /// The body.
    pub body: &'a Bytes,
    /// The client's address, if known.
    pub address: Option<IpAddr>,
    /// Whether the request provably comes from a page of the gate's own origin or of a listed origin. A reply that sets
    /// a cookie requires this proof.
    // Requirements T18, T25.
    pub from_own_origin: bool,
}

impl<'a> Call<'a> {
    /// The value of a parameter of the template.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The account that the path names.
    pub fn account(&self) -> Option<&'a str> {
        self.param("account")
    }
}

// Headers, query and body may contain credentials.
rotogate_core::debug_with!(Call<'_> { operation });

/// A call inside an envelope. The rules for the equivalent requests and for the envelope's path both apply.
// Requirement T22.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclosedCall {
    /// The call's name in rules.
    pub name: String,
    /// The equivalent requests without an envelope: method and canonical path. The list is empty if the call exists
    /// only in envelopes.
    pub requests: Vec<(Method, String)>,
}

/// Where clients put their access token, besides `Authorization`.
///
/// ```
/// use rotogate::dialect::Sources;
///
/// let sources = Sources { cookie: Some("authToken"), ..Sources::default() };
/// assert_eq!(sources.cookie, Some("authToken"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The query parameter with the token. `Authorization` takes precedence, and the parameter is never forwarded.
    pub query: Option<&'static str>,
    /// The cookie with the token, which is never forwarded. A request with this cookie and another token is rejected.
    pub cookie: Option<&'static str>,
    /// Whether a browser's session cookie is accepted. A token in `Authorization` takes precedence.
    pub session: bool,
}

/// The endpoint templates of an OAuth 2 server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthPaths {
    /// RFC 6749 §3.2.
    pub token: String,
    /// RFC 7009.
    pub revocation: String,
    /// RFC 7662.
    pub introspection: String,
}

/// Returns whether exactly one `Content-Type` declares this media type. Parameters are ignored.
pub(crate) fn said_media(headers: &HeaderMap, expected: &str) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let media = types.next().and_then(|media| media.to_str().ok()).and_then(|media| media.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case(expected)) && types.next().is_none()
}

/// Parses the body as a JSON object without repeated members (requirement R11).
pub(super) fn json_object(call: &Call<'_>) -> Result<Map<String, Value>, Denial> {
    let malformed = |_| Denial::MalformedRequest("the body is not a JSON object, or repeats a member");
    strict_json::object(call.body).map_err(malformed)
}

/// Returns whether `Content-Type` declares JSON in UTF-8. `None` if the header is missing. The upstream might decode by
/// `charset`, so only `utf-8` is accepted (RFC 8259 §11).
///
/// A browser sends this media type to another origin only after a preflight (Fetch §3.3.2).
pub(crate) fn said_json(headers: &HeaderMap) -> Option<bool> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let media = types.next()?.to_str().unwrap_or_default();
    let (essence, parameter) = media.split_once(';').unwrap_or((media, "charset=utf-8"));
    let is_utf8 =
        ["", "charset=utf-8", "charset=\"utf-8\""].iter().any(|one| parameter.trim().eq_ignore_ascii_case(one));
    Some(essence.trim().eq_ignore_ascii_case("application/json") && is_utf8 && types.next().is_none())
}

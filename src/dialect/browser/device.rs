//! Headers and bodies of Device Bound Session Credentials (W3C webappsec-dbsc).

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::super::{Reply, json};
use super::{BrowserDialect, CALLBACK, DEVICE, LOGIN, LOGOUT, words};
use rotogate_core::dpop::device::{ALGORITHMS, sent_text};
use rotogate_core::session::SessionId;
use rotogate_core::token::device_cookie;

/// The response header that asks a browser to bind its session to the device.
pub(crate) const REGISTRATION: HeaderName = HeaderName::from_static("secure-session-registration");
/// The response header with the next challenge.
pub(crate) const CHALLENGE: HeaderName = HeaderName::from_static("secure-session-challenge");
const RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
/// The request header that names the proof's session.
const ID: HeaderName = HeaderName::from_static("sec-secure-session-id");
/// States why a request has no device cookie.
pub(crate) const SKIPPED: HeaderName = HeaderName::from_static("secure-session-skipped");
pub(crate) const PREFIX: &str = "secure-session-";
/// The device cookie's attributes, which must equal those of the registration.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// What a request says about the browser's device.
pub(crate) struct ShownDevice<'a> {
    /// `None` for a registration.
    pub(crate) session: Option<&'a str>,
    pub(crate) proof: Option<&'a str>,
}

impl<'a> ShownDevice<'a> {
    /// Reads the headers. A repeated or malformed header counts as missing.
    pub(crate) fn read(headers: &'a HeaderMap) -> Self {
        let only = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (Some(value), None) => Some(sent_text(value.as_bytes()).unwrap_or_default()),
                (None, _) => None,
                (Some(_), Some(_)) => Some(""),
            }
        };
        Self { session: only(&ID), proof: only(&RESPONSE) }
    }
}

/// Returns the `Set-Cookie` value for a device cookie. An empty value with age 0 clears the cookie.
pub(crate) fn set_cookie(value: &str, seconds: u64) -> HeaderValue {
    let cookie = format!("{}={value}; {ATTRIBUTES}; Max-Age={seconds}", device_cookie::NAME);
    // The value is base64url, so the conversion cannot fail.
    let mut cookie = HeaderValue::try_from(cookie).unwrap_or_else(|_| HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

pub(crate) fn challenged(headers: &mut HeaderMap, challenge: Option<String>, session: SessionId) {
    let value = challenge.map(|challenge| format!("\"{challenge}\";id=\"{session}\""));
    headers.extend(value.and_then(|value| HeaderValue::try_from(value).ok()).map(|value| (CHALLENGE, value)));
}

impl BrowserDialect {
    /// Returns the header that asks a browser to bind its session. The parameter `authorization` is omitted, because
    /// the browser would copy it into `Authorization`.
    // Requirement B47.
    pub(crate) fn registration(&self, challenge: &str) -> Option<HeaderValue> {
        let path = self.path_of(DEVICE);
        HeaderValue::try_from(format!("({ALGORITHMS});path=\"{path}\";challenge=\"{challenge}\"")).ok()
    }

    /// The reply to a registration. The browser then refreshes a missing device cookie before a request in the
    /// session's scope.
    pub(crate) fn registered(&self, session: SessionId) -> Reply {
        // The endpoint's own operations do not need a device cookie.
        let excluded = [LOGIN, CALLBACK, LOGOUT, DEVICE]
            .map(|operation| json!({ "type": "exclude", "path": self.path_of(operation) }));
        words::hardened(json(
            StatusCode::OK,
            &json!({
                "session_identifier": session.to_string(),
                "refresh_url": self.path_of(DEVICE),
                "scope": { "include_site": false, "scope_specification": excluded },
                "credentials": [{ "type": "cookie", "name": device_cookie::NAME, "attributes": ATTRIBUTES }],
            }),
        ))
    }
}

pub(crate) fn refreshed() -> Reply {
    words::hardened(Reply::default())
}

/// Tells the browser that the session has ended, or that the session's cookie is missing.
pub(crate) fn over(session: &str) -> Reply {
    words::hardened(json(StatusCode::OK, &json!({ "session_identifier": session, "continue": false })))
}

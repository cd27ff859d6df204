//! Device Bound Session Credentials (W3C webappsec-dbsc): the headers and bodies that a browser sends and reads.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::super::{Reply, json};
use super::{BrowserDialect, CALLBACK, DEVICE, LOGIN, LOGOUT, words};
use rotogate_core::dpop::device::{ALGORITHMS, sent_text};
use rotogate_core::session::SessionId;
use rotogate_core::token::device_cookie;

/// Asks a browser to bind its session.
pub(crate) const REGISTRATION: HeaderName = HeaderName::from_static("secure-session-registration");
/// The next challenge.
pub(crate) const CHALLENGE: HeaderName = HeaderName::from_static("secure-session-challenge");
/// The proof.
const RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
/// The session whose device is proved.
const ID: HeaderName = HeaderName::from_static("sec-secure-session-id");
/// The header that states why a browser sends a request without its device cookie. The header grants nothing.
pub(crate) const SKIPPED: HeaderName = HeaderName::from_static("secure-session-skipped");
/// The prefix of the protocol's headers.
pub(crate) const PREFIX: &str = "secure-session-";
/// The attributes of the device cookie, which must equal those in the registration.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// The statements of a browser about its device.
pub(crate) struct ShownDevice<'a> {
    /// The session that the browser names; `None` at a registration.
    pub(crate) session: Option<&'a str>,
    /// The proof.
    pub(crate) proof: Option<&'a str>,
}

impl<'a> ShownDevice<'a> {
    /// Reads the headers. A header with two values or a malformed value counts as missing.
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

/// The `Set-Cookie` of a device cookie. An empty value with age 0 clears the cookie.
pub(crate) fn set_cookie(value: &str, seconds: u64) -> HeaderValue {
    let cookie = format!("{}={value}; {ATTRIBUTES}; Max-Age={seconds}", device_cookie::NAME);
    // The value is base64url, and everything else is fixed.
    let mut cookie = HeaderValue::try_from(cookie).unwrap_or_else(|_| HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

/// The header with the next challenge of a session.
pub(crate) fn challenged(headers: &mut HeaderMap, challenge: Option<String>, session: SessionId) {
    let value = challenge.map(|challenge| format!("\"{challenge}\";id=\"{session}\""));
    headers.extend(value.and_then(|value| HeaderValue::try_from(value).ok()).map(|value| (CHALLENGE, value)));
}

impl BrowserDialect {
    /// The header that asks a browser to bind its session. The parameter `authorization` is left out, because the
    /// browser would copy it into `Authorization`.
    // Requirement B47.
    pub(crate) fn registration(&self, challenge: &str) -> Option<HeaderValue> {
        let path = self.path_of(DEVICE);
        HeaderValue::try_from(format!("({ALGORITHMS});path=\"{path}\";challenge=\"{challenge}\"")).ok()
    }

    /// The answer to a registration. The browser then refreshes before each request of its scope that has no cookie of the
    /// device.
    pub(crate) fn registered(&self, session: SessionId) -> Reply {
        // A login, a logout and the refresh itself need no device.
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

/// The answer to a good proof.
pub(crate) fn refreshed() -> Reply {
    words::hardened(Reply::default())
}

/// The answer about a session that has ended, or whose cookie this browser no longer has.
pub(crate) fn over(session: &str) -> Reply {
    words::hardened(json(StatusCode::OK, &json!({ "session_identifier": session, "continue": false })))
}

//! Headers and bodies of Device Bound Session Credentials (W3C webappsec-dbsc), as exchanged with a browser.

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
/// The request header with the signed proof.
const RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
/// The request header that names the session for which the browser sends a proof.
const ID: HeaderName = HeaderName::from_static("sec-secure-session-id");
/// The request header in which a browser states why it sends a request without its device cookie. The header grants
/// no rights.
pub(crate) const SKIPPED: HeaderName = HeaderName::from_static("secure-session-skipped");
/// The prefix of the protocol's headers.
pub(crate) const PREFIX: &str = "secure-session-";
/// The attributes of the device cookie, which must equal those in the registration.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// What a request states about the browser's device.
pub(crate) struct ShownDevice<'a> {
    /// The session that the browser names, or `None` for a registration.
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
    // The value is base64url and the rest is fixed, so the conversion cannot fail.
    let mut cookie = HeaderValue::try_from(cookie).unwrap_or_else(|_| HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

/// Adds the header with the next challenge of a session.
pub(crate) fn challenged(headers: &mut HeaderMap, challenge: Option<String>, session: SessionId) {
    let value = challenge.map(|challenge| format!("\"{challenge}\";id=\"{session}\""));
    headers.extend(value.and_then(|value| HeaderValue::try_from(value).ok()).map(|value| (CHALLENGE, value)));
}

impl BrowserDialect {
    /// Returns the header that asks a browser to bind its session. It omits the parameter `authorization`, because
    /// the browser would copy that parameter into `Authorization`.
    // Requirement B47.
    pub(crate) fn registration(&self, challenge: &str) -> Option<HeaderValue> {
        let path = self.path_of(DEVICE);
        HeaderValue::try_from(format!("({ALGORITHMS});path=\"{path}\";challenge=\"{challenge}\"")).ok()
    }

    /// The reply to a registration. From then on, before a request in the session's scope, the browser refreshes the
    /// device cookie if it is missing.
    pub(crate) fn registered(&self, session: SessionId) -> Reply {
        // A login, a logout and the refresh itself do not need a device cookie.
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

/// The reply to a valid proof.
pub(crate) fn refreshed() -> Reply {
    words::hardened(Reply::default())
}

/// The reply that tells the browser that the session has ended, or that this browser no longer has the session's
/// cookie.
pub(crate) fn over(session: &str) -> Reply {
    words::hardened(json(StatusCode::OK, &json!({ "session_identifier": session, "continue": false })))
}

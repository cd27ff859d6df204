//! Cross-origin requests (requirements T18 and B20). A browser adds cookies to requests from any site, and states the
//! site in `Origin` (RFC 6454 §7) and `Sec-Fetch-Site` (W3C Fetch Metadata). If a request with a token cookie may
//! change something, it must come from the gate's own origin or a listed origin. A request with a browser's session
//! cookie must pass [`Origins::admit_session`], whatever its method.

use http::header::{ACCEPT, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Uri};

use rotogate_core::denial::Denial;
use rotogate_core::headers;
use rotogate_core::route::RoutePolicy;

static SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// In bytes.
const LONGEST_CSRF_VALUE: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRules {
    /// Scripts must send this header. Other origins cannot send it without a preflight.
    pub(crate) csrf_header: Option<HeaderName>,
    pub(crate) admits_listed: bool,
}

impl Default for SessionRules {
    fn default() -> Self {
        Self { csrf_header: None, admits_listed: true }
    }
}

#[derive(Debug)]
pub(crate) struct Origins {
    /// `None` if the public URL does not have an origin.
    own: Option<String>,
    allowed: Vec<Box<str>>,
    sessions: SessionRules,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StatedOrigin {
    None,
    /// `null`: a sandboxed frame, or a page with `Referrer-Policy: no-referrer`.
    Null,
    Own,
    Listed,
    Foreign,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StatedSite {
    SameOrigin,
    /// `none`: the user typed the address or opened a bookmark.
    User,
    Other,
}

#[derive(Clone, Copy)]
struct Stated {
    origin: StatedOrigin,
    /// `None` if the browser does not send the header.
    site: Option<StatedSite>,
}

impl Stated {
    /// Rules 2, 4 and 5: our own page or a listed origin sent the request. If `Origin` is missing or `null`,
    /// `Sec-Fetch-Site` decides.
    fn is_proof(self) -> bool {
        match self.origin {
            StatedOrigin::Own | StatedOrigin::Listed => true,
            StatedOrigin::None | StatedOrigin::Null => self.site == Some(StatedSite::SameOrigin),
            StatedOrigin::Foreign => false,
        }
    }
}

impl Origins {
    pub(super) fn new(public_url: &str, allowed: Vec<Box<str>>, sessions: SessionRules) -> Self {
        Self { own: origin_of(public_url), allowed, sessions }
    }

    pub(super) fn admit(&self, parts: &Parts, policy: &RoutePolicy) -> bool {
        self.stated(&parts.headers).is_some_and(|stated| is_safe(parts, policy) || stated.is_proof())
    }

    pub(super) fn asked(&self, headers: &HeaderMap) -> bool {
        self.stated(headers).is_some_and(Stated::is_proof)
    }

    /// Returns whether a page may call a resource. A request without `Origin` does not come from a page. With `null`,
    /// the page hides its origin.
    // Requirement M13.
    pub(super) fn admit_page(&self, headers: &HeaderMap, further: &[Box<str>]) -> bool {
        let Ok(Some(origin)) = only(headers, &ORIGIN) else { return !headers.contains_key(ORIGIN) };
        match self.stated_origin(origin) {
            StatedOrigin::None | StatedOrigin::Own | StatedOrigin::Listed => true,
            StatedOrigin::Foreign => further.iter().any(|known| known.as_bytes() == origin),
            StatedOrigin::Null => false,
        }
    }

    /// Checks a browser's login or logout. A listed origin that may not send credentials cannot begin or end a session.
    pub(super) fn asked_for_session(&self, headers: &HeaderMap) -> bool {
        self.stated(headers).is_some_and(|stated| {
            stated.is_proof() && (stated.origin != StatedOrigin::Listed || self.sessions.admits_listed)
        })
    }

    /// Applies the rules of `docs/browser.md` in their order, before the cookie is looked up.
    // Requirements B20 and B24.
    pub(super) fn admit_session(&self, parts: &Parts, policy: &RoutePolicy) -> bool {
        self.judge_session(parts, policy).is_ok()
    }

    pub(super) fn judge_session(&self, parts: &Parts, policy: &RoutePolicy) -> Result<(), Denial> {
        let is_admitted = self.admits(parts, policy)?;
        if is_admitted { Ok(()) } else { Err(Denial::CrossOrigin) }
    }

    fn admits(&self, parts: &Parts, policy: &RoutePolicy) -> Result<bool, Denial> {
        let headers = &parts.headers;
        // Rule 1: the header occurs twice, or is a list.
        let Some(stated) = self.stated(headers) else { return Ok(false) };
        let Stated { origin, site } = stated;
        // Rule 2: `null` counts as a missing origin.
        if origin == StatedOrigin::Null && site != Some(StatedSite::SameOrigin) {
            return Ok(false);
        }
        // Rule 3: the header that scripts must send.
        if let Some(name) = &self.sessions.csrf_header
            && needs_csrf_header(parts, policy)
            && !has_csrf_header(headers, name)
        {
            return if origin == StatedOrigin::Foreign { Ok(false) } else { Err(Denial::NoCsrfHeader) };
        }
        // Rule 4: our own page, or a listed origin.
        if origin == StatedOrigin::Own || (origin == StatedOrigin::Listed && self.sessions.admits_listed) {
            return Ok(true);
        }
        // Rule 5: a request that may change something, or opens a WebSocket.
        if !is_safe(parts, policy) {
            return Ok(origin != StatedOrigin::Listed && stated.is_proof());
        }
        Ok(match site {
            // Rule 6: our own page, or the user's own action.
            Some(StatedSite::SameOrigin | StatedSite::User) => true,
            // Rule 7: an old browser, in which `SameSite` protects the cookie.
            None if origin == StatedOrigin::None && !has_fetch_metadata(headers) => true,
            // Rules 8 and 9: other pages may only cause navigations of a whole tab.
            Some(StatedSite::Other) | None => {
                fetch_metadata(headers, &MODE) == Some(b"navigate")
                    && fetch_metadata(headers, &DEST) == Some(b"document")
            }
        })
    }

    /// Rule 1: returns `None` if the request states its origin or site twice, or as a list.
    fn stated(&self, headers: &HeaderMap) -> Option<Stated> {
        let origin = only(headers, &ORIGIN).ok()?.map_or(StatedOrigin::None, |origin| self.stated_origin(origin));
        let site = only(headers, &SITE).ok()?.map(|site| match site {
            b"same-origin" => StatedSite::SameOrigin,
            b"none" => StatedSite::User,
            _ => StatedSite::Other,
        });
        Some(Stated { origin, site })
    }

    fn stated_origin(&self, origin: &[u8]) -> StatedOrigin {
        let is = |known: &str| origin == known.as_bytes();
        if origin == b"null" {
            StatedOrigin::Null
        } else if self.own.as_deref().is_some_and(is) {
            StatedOrigin::Own
        } else if self.allowed.iter().any(|known| is(known)) {
            StatedOrigin::Listed
        } else {
            StatedOrigin::Foreign
        }
    }
}

struct NotOne;

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, NotOne> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if !value.as_bytes().iter().any(|byte| matches!(byte, b',' | b' ' | b'\t')) => {
            Ok(Some(value.as_bytes()))
        }
        (Some(_), _) => Err(NotOne),
    }
}

/// Returns `None` if the header is missing or has several values.
fn fetch_metadata<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    only(headers, name).ok().flatten()
}

fn has_fetch_metadata(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// Rule 3: returns whether a script may have sent the request. Only scripts can add headers, so navigations,
/// WebSockets, event streams, images and other subresources do not need the header.
fn needs_csrf_header(parts: &Parts, policy: &RoutePolicy) -> bool {
    let headers = &parts.headers;
    let mode = fetch_metadata(headers, &MODE);
    if !has_safe_method(parts, policy) {
        return mode != Some(b"navigate");
    }
    let is_fetch = matches!(mode, Some(b"cors" | b"same-origin"))
        && fetch_metadata(headers, &DEST).is_none_or(|dest| dest == b"empty");
    let is_event_stream = headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == b"text/event-stream");
    is_fetch && !is_event_stream
}

fn has_csrf_header(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut values = headers.get_all(name).iter();
    let is_usable = |value: &http::HeaderValue| (1..=LONGEST_CSRF_VALUE).contains(&value.len());
    values.next().is_some_and(is_usable) && values.next().is_none()
}

/// A request that opens a WebSocket is not safe, because any message may follow.
fn is_safe(parts: &Parts, policy: &RoutePolicy) -> bool {
    has_safe_method(parts, policy) && !parts.headers.contains_key(UPGRADE)
}

/// RFC 9110 §9.2.1. A method override header makes the method unsafe, if the upstream gets this header.
fn has_safe_method(parts: &Parts, policy: &RoutePolicy) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS)
        && !(policy.keep_override_headers && headers::has_override(&parts.headers))
}

/// Returns the origin as a browser writes it: in lower case, without a path or default port.
pub(super) fn origin_of(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let port = authority.port_u16().filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{}{port}", authority.host()).to_ascii_lowercase())
}

#[cfg(test)]
mod tests;

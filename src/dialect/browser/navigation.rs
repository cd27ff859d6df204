//! Decides which requests without a live session are redirected to the login. Fetch Metadata headers report whether a
//! user would see a login page.

use http::header::{ACCEPT, UPGRADE};
use http::{HeaderMap, Method};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignedOut {
    /// The tab opens a page, so the reply redirects to the login.
    Login,
    /// The tab sends a form. The reply is a page that says that the form was not sent.
    Page,
    /// A script's request gets 401 with the path of the login.
    Problem,
}

impl SignedOut {
    // Requirement B36.
    pub(crate) fn of_request(method: &Method, headers: &HeaderMap) -> Self {
        if is_prefetch(headers) || headers.contains_key(UPGRADE) || !is_navigation(headers) {
            return Self::Problem;
        }
        match *method {
            Method::GET => Self::Login,
            Method::HEAD | Method::OPTIONS => Self::Problem,
            _ => Self::Page,
        }
    }
}

/// Returns whether the request opens a page in a tab, not in a frame.
pub(crate) fn is_navigation(headers: &HeaderMap) -> bool {
    if headers.keys().any(|name| name.as_str().starts_with("sec-fetch-")) {
        let is = |name: &str, value: &[u8]| {
            let mut values = headers.get_all(name).iter();
            values.next().is_some_and(|said| said.as_bytes() == value) && values.next().is_none()
        };
        // A service worker forwards a navigation with the destination `empty`. Scripts cannot send this mode.
        let (document, by_worker) = (is("sec-fetch-dest", b"document"), is("sec-fetch-dest", b"empty"));
        return is("sec-fetch-mode", b"navigate") && (document || by_worker);
    }
    // Without Fetch Metadata: navigations accept HTML, and script libraries add `X-Requested-With`.
    !headers.contains_key("x-requested-with") && accepts_html(headers)
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let types =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    types.filter_map(|range| range.split(';').next()).any(|range| range.trim().eq_ignore_ascii_case("text/html"))
}

pub(crate) fn is_prefetch(headers: &HeaderMap) -> bool {
    let says = |name: &str| {
        let ahead = |value: &[u8]| value.windows(3).any(|window| window.eq_ignore_ascii_case(b"pre"));
        headers.get_all(name).iter().any(|value| ahead(value.as_bytes()))
    };
    says("sec-purpose") || says("purpose") || says("x-moz")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn said(method: &str, pairs: &[(&str, &str)]) -> SignedOut {
        let mut request = Request::builder().method(method).uri("/x");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        SignedOut::of_request(&parts.method, &parts.headers)
    }

    const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
    const DOCUMENT: (&str, &str) = ("sec-fetch-dest", "document");
    const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

    #[test]
    fn b36_b61_a_navigation_is_led_to_the_login_and_a_form_gets_a_page() {
        for site in ["none", "same-origin", "cross-site"] {
            assert_eq!(said("GET", &[NAVIGATE, DOCUMENT, ("sec-fetch-site", site)]), SignedOut::Login);
            assert_eq!(said("POST", &[NAVIGATE, DOCUMENT, ("sec-fetch-site", site)]), SignedOut::Page);
        }
        // A service worker forwards the navigation, as Chromium sends it.
        assert_eq!(said("GET", &[NAVIGATE, ("sec-fetch-dest", "empty"), ("accept", "*/*")]), SignedOut::Login);
        // Fetch Metadata takes precedence over `Accept`.
        assert_eq!(said("GET", &[NAVIGATE, DOCUMENT, ("accept", "*/*")]), SignedOut::Login);
    }

    #[test]
    fn b36_an_old_browser_is_known_by_what_it_accepts() {
        assert_eq!(said("GET", &[HTML]), SignedOut::Login);
        assert_eq!(said("GET", &[("accept", "Text/HTML;q=0.9")]), SignedOut::Login);
        assert_eq!(said("POST", &[HTML]), SignedOut::Page);
        for pairs in [
            &[HTML, ("x-requested-with", "XMLHttpRequest")][..],
            &[("accept", "*/*")],
            &[("accept", "application/json, text/plain")],
            &[("accept", "text/html-fragment")],
            &[],
        ] {
            assert_eq!(said("GET", pairs), SignedOut::Problem, "{pairs:?}");
        }
    }

    #[test]
    fn b36_scripts_frames_workers_streams_and_prefetches_get_a_problem() {
        for dest in ["iframe", "frame", "image", "script", "manifest", "serviceworker", "worker", "embed", "object"] {
            assert_eq!(said("GET", &[NAVIGATE, ("sec-fetch-dest", dest), HTML]), SignedOut::Problem, "{dest}");
        }
        for mode in ["cors", "no-cors", "same-origin", "websocket"] {
            assert_eq!(said("GET", &[("sec-fetch-mode", mode), DOCUMENT, HTML]), SignedOut::Problem, "{mode}");
        }
        assert_eq!(said("GET", &[NAVIGATE, HTML]), SignedOut::Problem, "without its destination");
        assert_eq!(said("GET", &[("sec-fetch-site", "none"), HTML]), SignedOut::Problem);
        for purpose in [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("purpose", "prefetch"),
            ("x-moz", "prefetch"),
        ] {
            assert_eq!(said("GET", &[NAVIGATE, DOCUMENT, purpose]), SignedOut::Problem, "{purpose:?}");
            assert_eq!(said("GET", &[HTML, purpose]), SignedOut::Problem);
        }
        for method in ["HEAD", "OPTIONS"] {
            assert_eq!(said(method, &[NAVIGATE, DOCUMENT]), SignedOut::Problem, "{method}");
        }
        assert_eq!(said("GET", &[HTML, ("upgrade", "websocket")]), SignedOut::Problem);
        assert_eq!(said("GET", &[NAVIGATE, NAVIGATE, DOCUMENT]), SignedOut::Problem, "no browser sends it twice");
    }
}

//! CSRF protection for tokens in cookies (requirement T18). A browser adds cookies to requests that any site causes,
//! and states the site in `Origin` (RFC 6454 §7) and `Sec-Fetch-Site` (W3C Fetch Metadata). A request with a token
//! cookie that may change something must come from the gate's own origin, or from one that the operator has listed.

use http::header::{ORIGIN, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};

use rotogate_core::headers;
use rotogate_core::route::RoutePolicy;

/// The origins from which a request with a token cookie is accepted.
#[derive(Debug)]
pub(crate) struct Origins {
    /// The gate's own origin; `None` if the public URL has none.
    own: Option<String>,
    allowed: Vec<Box<str>>,
}

impl Origins {
    pub(super) fn new(public_url: &str, allowed: Vec<Box<str>>) -> Self {
        Self { own: origin_of(public_url), allowed }
    }

    /// May this request use the token in its cookie?
    pub(super) fn admit(&self, parts: &Parts, policy: &RoutePolicy) -> bool {
        is_safe(parts, policy) || self.asked(&parts.headers)
    }

    /// Whether a request proves that a page of our own or of a listed origin sent it.
    pub(super) fn asked(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            // `Origin` decides, whatever `Sec-Fetch-Site` says. `null` is on no list.
            (Some(origin), None) => {
                let is = |known: &str| origin.as_bytes() == known.as_bytes();
                self.own.as_deref().is_some_and(is) || self.allowed.iter().any(|known| is(known))
            }
            (Some(_), Some(_)) => false,
            (None, _) => {
                let mut sites = headers.get_all("sec-fetch-site").iter();
                matches!((sites.next(), sites.next()), (Some(site), None) if site.as_bytes() == b"same-origin")
            }
        }
    }
}

/// Whether the method is safe (RFC 9110 §9.2.1). A request that opens a WebSocket is not safe, because any message may
/// follow, nor is one with a method override that the upstream obeys.
fn is_safe(parts: &Parts, policy: &RoutePolicy) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS)
        && !parts.headers.contains_key(UPGRADE)
        && !(policy.keep_override_headers && headers::has_override(&parts.headers))
}

/// The origin of a URL as a browser writes it: in lower case, without a default port and path.
pub(super) fn origin_of(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let port = authority.port_u16().filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{}{port}", authority.host()).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn admitted(method: &str, pairs: &[(&str, &str)]) -> bool {
        admitted_by(&RoutePolicy::default(), method, pairs)
    }

    fn admitted_by(policy: &RoutePolicy, method: &str, pairs: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/x");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Origins::new("https://Gate.example:443/", vec!["https://app.example".into()]).admit(&parts, policy)
    }

    #[test]
    fn t18_what_changes_something_needs_an_origin_of_ours_or_a_listed_one() {
        for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "PURGE", "get"] {
            for good in [
                &[("origin", "https://gate.example")][..],
                &[("origin", "https://app.example")],
                &[("sec-fetch-site", "same-origin")],
                &[("origin", "https://gate.example"), ("sec-fetch-site", "same-origin")],
                &[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")],
            ] {
                assert!(admitted(method, good), "{method} {good:?}");
            }
            for bad in [
                &[][..],
                &[("origin", "https://evil.example")],
                &[("origin", "null")],
                &[("origin", "")],
                &[("origin", "http://gate.example")],
                &[("origin", "https://gate.example:8443")],
                &[("origin", "https://gate.example.evil")],
                &[("origin", "https://gate.example/")],
                &[("origin", "https://gate.example, https://evil.example")],
                &[("origin", "https://gate.example"), ("origin", "https://evil.example")],
                &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
                &[("sec-fetch-site", "same-site")],
                &[("sec-fetch-site", "cross-site")],
                &[("sec-fetch-site", "none")],
                &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
                &[("referer", "https://gate.example/")],
            ] {
                assert!(!admitted(method, bad), "{method} {bad:?}");
            }
        }
    }

    #[test]
    fn t18_what_changes_nothing_needs_none() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert!(admitted(method, &[]), "{method}");
            assert!(admitted(method, &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]));
        }
    }

    #[test]
    fn t9_t18_a_get_that_may_become_something_else_needs_one() {
        let upgrade = ("upgrade", "websocket");
        assert!(!admitted("GET", &[upgrade]));
        assert!(!admitted("GET", &[upgrade, ("origin", "https://evil.example")]));
        assert!(admitted("GET", &[upgrade, ("origin", "https://app.example")]));
        let keep = RoutePolicy { keep_override_headers: true, ..RoutePolicy::default() };
        let overriding = ("x-http-method-override", "DELETE");
        assert!(!admitted_by(&keep, "GET", &[overriding]));
        assert!(admitted_by(&keep, "GET", &[]));
        assert!(admitted("GET", &[overriding]), "it is taken away");
    }

    #[test]
    fn our_origin_is_written_as_a_browser_writes_it() {
        assert_eq!(origin_of("HTTP://A.example:80/").as_deref(), Some("http://a.example"));
        assert_eq!(origin_of("http://127.0.0.1:8080").as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(origin_of("https://[::1]:443/x").as_deref(), Some("https://[::1]"));
        assert_eq!(origin_of("gate"), None);
    }
}

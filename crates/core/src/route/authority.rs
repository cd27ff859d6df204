//! The authority of a request, from its target and its `Host` (T11, RFC 9112 §3.2).
//!
//! A request must have exactly one authority, which selects the route and is sent to the upstream.

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, Method, Uri, Version};

use crate::bounds::MAX_TARGET;
use crate::denial::Denial;

/// A host with an optional port, as the client spelled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    text: &'a str,
    host: &'a str,
}

impl<'a> Authority<'a> {
    /// Parses `host[:port]`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let host = host_of(text);
        let port = text.get(host.len()..)?;
        let port_holds = match port.strip_prefix(':') {
            // Parsing as `u16` alone would accept `+80`.
            Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
            None => port.is_empty(),
        };
        (port_holds && is_host(host)).then_some(Self { text, host })
    }

    /// The host and the port.
    pub fn as_str(self) -> &'a str {
        self.text
    }

    /// The host without the port. An IPv6 address has brackets.
    pub fn host(self) -> &'a str {
        self.host
    }

    /// The port, or `None`.
    pub fn port(self) -> Option<u16> {
        self.text.get(self.host.len()..)?.strip_prefix(':')?.parse().ok()
    }

    fn is_same(self, other: Self, default_port: Option<u16>) -> bool {
        self.host().eq_ignore_ascii_case(other.host()) && self.port().or(default_port) == other.port().or(default_port)
    }
}

/// Checks the target and the `Host` of a request.
///
/// The target must be in origin form, or in absolute form with the authority of `Host`. `Host` must occur exactly once,
/// but is optional in HTTP/2 with an `:authority`.
///
/// # Errors
/// [`Denial::BadTarget`] for any other form of target, and [`Denial::TargetTooLong`] for more than 8 KiB.
/// [`Denial::BadQuery`] for invalid bytes in the query. [`Denial::BadHost`] for a missing, repeated, malformed or
/// contradicting host.
pub fn check(parts: &Parts) -> Result<Authority<'_>, Denial> {
    check_head(&parts.method, &parts.uri, parts.version, &parts.headers)
}

/// Like [`check`], for a caller that does not have the request's `Parts`.
///
/// # Errors
/// The errors of [`check`].
pub fn check_head<'a>(
    method: &Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
) -> Result<Authority<'a>, Denial> {
    // CONNECT has a target without a path. `*` is the asterisk form.
    let path = uri.path_and_query().ok_or(Denial::BadTarget)?;
    if *method == Method::CONNECT || !path.path().starts_with('/') {
        return Err(Denial::BadTarget);
    }
    if path.as_str().len() > MAX_TARGET {
        return Err(Denial::TargetTooLong);
    }
    if path.query().is_some_and(|q| !q.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(Denial::BadQuery);
    }
    let in_target = match (uri.scheme_str(), uri.authority()) {
        (None, None) => None,
        (Some(scheme), Some(authority)) => {
            let default_port = match scheme {
                "http" => 80,
                "https" => 443,
                _ => return Err(Denial::BadTarget),
            };
            Some((Authority::parse(authority.as_str()).ok_or(Denial::BadTarget)?, default_port))
        }
        (Some(_), None) | (None, Some(_)) => return Err(Denial::BadTarget),
    };
    let mut hosts = headers.get_all(HOST).iter();
    let in_header = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().ok().and_then(Authority::parse).ok_or(Denial::BadHost)?),
        (Some(_), Some(_)) => return Err(Denial::BadHost),
        (None, _) => None,
    };
    match (in_target, in_header) {
        (None, Some(host)) => Ok(host),
        (Some((target, default_port)), Some(host)) if target.is_same(host, Some(default_port)) => Ok(target),
        (Some((target, _)), None) if version >= Version::HTTP_2 => Ok(target),
        (Some(_), Some(_)) | (_, None) => Err(Denial::BadHost),
    }
}

/// Whether the string is a well-formed `host[:port]`.
pub fn is_authority(text: &str) -> bool {
    Authority::parse(text).is_some()
}

/// The host in `host[:port]`. An IPv6 address keeps its brackets.
pub fn host_of(authority: &str) -> &str {
    // A search for a byte is much faster than a search for a `char`.
    let find = |sought| authority.bytes().position(|byte| byte == sought);
    let end = if authority.starts_with('[') { find(b']').map(|at| at + 1) } else { find(b':') };
    end.and_then(|end| authority.get(..end)).unwrap_or(authority)
}

#[derive(Clone, Copy)]
enum Kind {
    OfLabel,
    Dot,
    Other,
}

static KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Other; 256];
    let mut byte = 0;
    while byte < kinds.len() {
        kinds[byte] = match byte as u8 {
            b'.' => Kind::Dot,
            b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => Kind::OfLabel,
            _ => Kind::Other,
        };
        byte += 1;
    }
    kinds
};

/// A host is an IPv4 address, an IPv6 address in brackets, or a name. A trailing dot is allowed.
pub(crate) fn is_host(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[') {
        return v6.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let mut after_dot = true;
    for byte in host.bytes() {
        match KINDS.get(usize::from(byte)) {
            Some(Kind::OfLabel) => after_dot = false,
            Some(Kind::Dot) if !after_dot => after_dot = true,
            Some(Kind::Dot | Kind::Other) | None => return false,
        }
    }
    host.len() <= 255 && !host.is_empty()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn parts(method: Method, target: &str, hosts: &[&[u8]], version: Version) -> Parts {
        let (mut parts, ()) =
            Request::builder().method(method).uri(target).version(version).body(()).unwrap().into_parts();
        for host in hosts {
            parts.headers.append(HOST, HeaderValue::from_bytes(host).unwrap());
        }
        parts
    }

    fn checked(target: &str, hosts: &[&str]) -> Result<String, Denial> {
        let hosts: Vec<&[u8]> = hosts.iter().map(|h| h.as_bytes()).collect();
        check(&parts(Method::GET, target, &hosts, Version::HTTP_11)).map(|a| a.as_str().to_owned())
    }

    #[test]
    fn t11_origin_form_with_one_well_formed_host_is_accepted() {
        for host in ["example.com", "Example.COM:8080", "my_app", "127.0.0.1:80", "[::1]", "[2001:db8::1]:443", "a.b."]
        {
            assert_eq!(checked("/x?y=1", &[host]).as_deref(), Ok(host));
        }
        let one = parts(Method::GET, "/", &[b"[::1]:8080"], Version::HTTP_11);
        let authority = check(&one).unwrap();
        assert_eq!((authority.host(), authority.port()), ("[::1]", Some(8080)));
    }

    #[test]
    fn t11_a_missing_repeated_or_malformed_host_is_refused() {
        assert_eq!(checked("/", &[]), Err(Denial::BadHost));
        assert_eq!(checked("/", &["a", "a"]), Err(Denial::BadHost));
        let bad = [
            "",
            " ",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "a:",
            "a:x",
            "a:+1",
            "a:65536",
            "a:80:80",
            ":80",
            "a..b",
            ".a",
            "..",
            ".",
            "[::1",
            "::1",
            "[::1]x",
            "[zz]",
            "[::1%25eth0]",
            "a%2eb",
            "http://a",
            "a\t",
            "*",
        ];
        for host in bad {
            assert_eq!(checked("/", &[host]), Err(Denial::BadHost), "{host:?}");
        }
        let raw = parts(Method::GET, "/", &[b"caf\xe9"], Version::HTTP_11);
        assert_eq!(check(&raw), Err(Denial::BadHost));
    }

    #[test]
    fn t11_absolute_form_must_name_the_host_of_host() {
        assert_eq!(checked("http://a.test/x", &["A.test"]).as_deref(), Ok("a.test"));
        assert_eq!(checked("http://a.test:80/x", &["a.test"]).as_deref(), Ok("a.test:80"));
        assert_eq!(checked("https://a.test/x", &["a.test:443"]).as_deref(), Ok("a.test"));
        for (target, host) in
            [("http://b.test/", "a.test"), ("http://a.test:81/", "a.test"), ("https://a.test/", "a.test:80")]
        {
            assert_eq!(checked(target, &[host]), Err(Denial::BadHost), "{target}");
        }
        assert_eq!(checked("http://a.test/x", &[]), Err(Denial::BadHost));
        assert_eq!(checked("ftp://a.test/", &["a.test"]), Err(Denial::BadTarget));
        assert_eq!(checked("http://user@a.test/", &["a.test"]), Err(Denial::BadTarget));
    }

    #[test]
    fn t11_asterisk_and_authority_form_are_refused() {
        for (method, target) in [
            (Method::OPTIONS, "*"),
            (Method::GET, "a.test"),
            (Method::GET, "a.test:80"),
            (Method::CONNECT, "a.test:80"),
            (Method::CONNECT, "/x"),
        ] {
            let parts = parts(method, target, &[b"a.test"], Version::HTTP_11);
            assert_eq!(check(&parts), Err(Denial::BadTarget), "{target}");
        }
    }

    #[test]
    fn t11_a_query_that_is_not_visible_ascii_is_refused() {
        assert_eq!(checked("/?a=\u{e9}", &["a"]), Err(Denial::BadQuery));
        assert_eq!(checked("/?a=%e9", &["a"]).as_deref(), Ok("a"));
    }

    #[test]
    fn t15_http_2_may_name_the_host_in_either_place_but_not_two_hosts() {
        let h2 = |target, hosts: &[&[u8]]| {
            check(&parts(Method::GET, target, hosts, Version::HTTP_2)).map(|a| a.as_str().to_owned())
        };
        assert_eq!(h2("https://a.test/", &[]).as_deref(), Ok("a.test"));
        assert_eq!(h2("https://a.test/", &[b"a.test"]).as_deref(), Ok("a.test"));
        assert_eq!(h2("https://a.test/", &[b"b.test"]), Err(Denial::BadHost));
    }
}

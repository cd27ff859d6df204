//! Upstream addresses from the configuration.

use std::net::IpAddr;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use rotogate_core::route::authority::is_authority;
use rotogate_core::route::path::CanonicalPath;

/// An upstream address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// `echo:`, a built-in upstream that returns the forwarded request.
    Echo,
    /// `http://host[:port][/prefix]`: HTTP/1.1 without TLS.
    Http(HttpUrl),
    /// `https://host[:port][/prefix]`: TLS. ALPN negotiates the HTTP version (RFC 7301).
    Https(HttpUrl),
    /// `h2c://host[:port][/prefix]`: HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3).
    H2c(HttpUrl),
}

impl UpstreamUrl {
    /// The network address, or `None` for `echo:`.
    pub const fn address(&self) -> Option<&HttpUrl> {
        match self {
            Self::Echo => None,
            Self::Http(url) | Self::Https(url) | Self::H2c(url) => Some(url),
        }
    }

    pub(super) const fn may_be_http2(&self) -> bool {
        matches!(self, Self::Https(_) | Self::H2c(_))
    }

    /// Returns the URI of a forwarded request. Only the path and the query come from the request.
    pub(super) fn uri(&self, target: &PathAndQuery) -> Option<Uri> {
        match self {
            Self::Echo => Some(Uri::from(target.clone())),
            // HTTP/1.1 uses the origin form (RFC 9112 §3.2.1).
            Self::Http(url) => Some(Uri::from(url.target(target)?)),
            Self::Https(url) | Self::H2c(url) => {
                let uri = Uri::builder().scheme(url.scheme.clone()).authority(url.authority.clone());
                uri.path_and_query(url.target(target)?).build().ok()
            }
        }
    }
}

impl std::fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, url) = match self {
            Self::Echo => return f.write_str("echo:"),
            Self::Http(url) => ("http", url),
            Self::Https(url) => ("https", url),
            Self::H2c(url) => ("h2c", url),
        };
        write!(f, "{scheme}://{}{}", url.authority, url.prefix)
    }
}

/// The network address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// The path prefix without a trailing slash, possibly empty.
    prefix: String,
}

/// The string is not an upstream address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an upstream: expected `echo:`, or `http://`, `https://` or `h2c://` with host[:port][/prefix]")]
pub struct BadUpstreamUrl(String);

impl std::str::FromStr for UpstreamUrl {
    type Err = BadUpstreamUrl;

    fn from_str(text: &str) -> Result<Self, BadUpstreamUrl> {
        if text == "echo:" {
            return Ok(Self::Echo);
        }
        let url = text.split_once("://").and_then(|(scheme, rest)| match scheme {
            "http" => HttpUrl::parse(Scheme::HTTP, rest).map(Self::Http),
            "https" => HttpUrl::parse(Scheme::HTTPS, rest).map(Self::Https),
            "h2c" => HttpUrl::parse(Scheme::HTTP, rest).map(Self::H2c),
            _ => None,
        });
        url.ok_or_else(|| BadUpstreamUrl(text.to_owned()))
    }
}

impl HttpUrl {
    fn parse(scheme: Scheme, rest: &str) -> Option<Self> {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !is_authority(authority) {
            return None;
        }
        let prefix = path.trim_end_matches('/');
        if !prefix.is_empty() && CanonicalPath::parse(prefix).ok()?.is_rewritten() {
            return None;
        }
        Some(Self {
            scheme,
            authority: authority.parse().ok()?,
            host: HeaderValue::from_str(authority).ok()?,
            prefix: prefix.to_owned(),
        })
    }

    /// The host, without brackets around an IPv6 address.
    pub fn name(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.name().parse().ok()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// Returns whether TLS is used.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    fn target(&self, target: &PathAndQuery) -> Option<PathAndQuery> {
        if self.prefix.is_empty() {
            return Some(target.clone());
        }
        PathAndQuery::try_from(format!("{}{target}", self.prefix)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_an_http_address_or_echo() {
        for good in [
            "echo:",
            "h2c://a:50051",
            "https://a",
            "https://[::1]:8443/v1",
            "http://a",
            "http://a:80",
            "http://a:80/",
            "http://[::1]:80/v1/",
            "http://127.0.0.1:1/a/b",
        ] {
            assert!(good.parse::<UpstreamUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "echo",
            "a:80",
            "https://",
            "HTTPS://a",
            "ftp://a",
            "h2c://",
            "h2c:a",
            "http://",
            "http://u@a",
            "http://a?b",
            "http://a/b?c",
            "http://a/../b",
            "http://a//b",
        ] {
            assert!(bad.parse::<UpstreamUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_goes_before_the_path() {
        let uri = |url: &str| url.parse::<UpstreamUrl>().unwrap().uri(&"/x%2Fy?z=1".parse().unwrap()).unwrap();
        assert_eq!(uri("https://b:81/v1/"), "https://b:81/v1/x%2Fy?z=1");
        assert_eq!(uri("h2c://b:81"), "http://b:81/x%2Fy?z=1");
        assert_eq!(uri("http://b:81/v1/"), "/v1/x%2Fy?z=1");
    }

    #[test]
    fn a_port_that_is_not_written_is_that_of_the_scheme() {
        let port = |url: &str| url.parse::<UpstreamUrl>().unwrap().address().unwrap().port();
        assert_eq!((port("http://a"), port("https://a"), port("h2c://a"), port("https://a:80")), (80, 443, 80, 80));
    }
}

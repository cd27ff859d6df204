//! Where requests go: upstreams and their addresses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use crate::route::authority::is_authority;
use crate::route::path::CanonicalPath;

/// One `[[upstreams]]` entry.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// What logs and metrics call it.
    pub name: String,
    /// Its addresses, taken in turn.
    pub urls: Vec<UpstreamUrl>,
    /// It is sent the client's `Host`, as it was checked; else the address from the configuration.
    pub preserve_host: bool,
    /// Its own [`Settings::head_timeout`](super::Settings::head_timeout).
    pub head_timeout: Option<Duration>,
    /// Its own [`Settings::idle_timeout`](super::Settings::idle_timeout).
    pub idle_timeout: Option<Duration>,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// `echo:`: the proxy itself answers with what an upstream would have received.
    Echo,
    /// `http://host[:port][/prefix]`, which is spoken to in HTTP/1.1.
    Http(HttpUrl),
    /// `h2c://host[:port][/prefix]`, which is spoken to in HTTP/2 in clear, with prior knowledge (RFC 9113 §3.3).
    H2c(HttpUrl),
}

impl UpstreamUrl {
    /// Whom to connect to; nobody for `echo:`.
    pub const fn address(&self) -> Option<&HttpUrl> {
        match self {
            Self::Echo => None,
            Self::Http(url) | Self::H2c(url) => Some(url),
        }
    }
}

/// The address of an upstream that is not ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    authority: Authority,
    host: HeaderValue,
    /// Without a slash at its end; empty for none.
    prefix: String,
}

/// What an address of an upstream must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an upstream: expected `echo:`, `http://host[:port][/prefix]` or `h2c://host[:port][/prefix]`")]
pub struct BadUpstreamUrl(String);

impl std::str::FromStr for UpstreamUrl {
    type Err = BadUpstreamUrl;

    fn from_str(text: &str) -> Result<Self, BadUpstreamUrl> {
        if text == "echo:" {
            return Ok(Self::Echo);
        }
        let url = match (text.strip_prefix("http://"), text.strip_prefix("h2c://")) {
            (Some(rest), _) => HttpUrl::parse(rest).map(Self::Http),
            (_, Some(rest)) => HttpUrl::parse(rest).map(Self::H2c),
            (None, None) => None,
        };
        url.ok_or_else(|| BadUpstreamUrl(text.to_owned()))
    }
}

impl HttpUrl {
    /// Reads what comes after `://`.
    fn parse(rest: &str) -> Option<Self> {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !is_authority(authority) {
            return None;
        }
        let prefix = path.trim_end_matches('/');
        if !prefix.is_empty() && CanonicalPath::parse(prefix).ok()?.is_rewritten() {
            return None;
        }
        Some(Self {
            authority: authority.parse().ok()?,
            host: HeaderValue::from_str(authority).ok()?,
            prefix: prefix.to_owned(),
        })
    }

    /// The host, an IPv6 address without its brackets.
    pub fn name(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(80)
    }

    /// Its `Host`.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Whom to connect to is fixed by the configuration alone; the request only says the path.
    pub(super) fn uri(&self, target: &PathAndQuery) -> Option<Uri> {
        let target = if self.prefix.is_empty() {
            target.clone()
        } else {
            PathAndQuery::try_from(format!("{}{target}", self.prefix)).ok()?
        };
        let builder = Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone());
        builder.path_and_query(target).build().ok()
    }
}

/// An upstream in use.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) upstream: Upstream,
    next: AtomicUsize,
}

impl Pool {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self { upstream, next: AtomicUsize::new(0) }
    }

    /// The next address, in turn.
    pub(super) fn pick(&self) -> Option<&UpstreamUrl> {
        let urls = &self.upstream.urls;
        let turn = if urls.len() > 1 { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        urls.get(turn.checked_rem(urls.len())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_plain_http_address_or_echo() {
        for good in [
            "echo:",
            "h2c://a:50051",
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
            "https://a",
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
        let Ok(UpstreamUrl::Http(url)) = "http://a:81/v1/".parse() else { panic!("not an address") };
        let uri = url.uri(&"/x%2Fy?z=1".parse().unwrap()).unwrap();
        assert_eq!(uri, "http://a:81/v1/x%2Fy?z=1");
    }
}

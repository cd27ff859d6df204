//! URLs that the gate may fetch.

use std::fmt;

use http::Uri;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Scheme};
use rustls::pki_types::ServerName;

use super::address::{Allowed, is_loopback, literal};

/// A URL that the gate may fetch, and the permitted addresses.
#[derive(Clone, Debug)]
pub struct FetchTarget {
    uri: Uri,
    shown: HeaderValue,
    path: PathAndQuery,
    allowed: Allowed,
}

/// Why the gate must not fetch a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTarget {
    /// The string is not a URL with scheme and host.
    #[error("expected a URL such as https://id.example.com/path")]
    Malformed,
    /// The scheme must be `https`, or `http` for this machine.
    #[error("expected https; http is only for localhost and loopback addresses")]
    Scheme,
    /// The URL contains a user, a password or a fragment.
    #[error("expected a URL without user, password and fragment")]
    Extra,
    /// The client must not connect to this IP address.
    #[error("the URL must not lead to this address")]
    Address,
}

impl FetchTarget {
    /// Parses an `https` URL, or an `http` URL for this machine.
    ///
    /// # Errors
    /// The gate must not fetch the URL.
    pub fn parse(text: &str, allowed: Allowed) -> Result<Self, BadTarget> {
        if text.contains('#') {
            return Err(BadTarget::Extra);
        }
        let uri: Uri = text.parse().map_err(|_| BadTarget::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(BadTarget::Malformed);
        };
        if authority.as_str().contains('@') {
            return Err(BadTarget::Extra);
        }
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        // Compare the length, because the parser ignores an invalid port.
        let port_is_read = authority.as_str().len() == host.len() || authority.port_u16().is_some_and(|port| port > 0);
        if !port_is_read || ServerName::try_from(bare).is_err() {
            return Err(BadTarget::Malformed);
        }
        let allowed = if *scheme == Scheme::HTTPS {
            allowed
        } else if *scheme == Scheme::HTTP && is_loopback(host) {
            // Without TLS, `localhost` must not resolve to another machine.
            if !allowed.permits(std::net::Ipv4Addr::LOCALHOST.into()) {
                return Err(BadTarget::Address);
            }
            Allowed::loopback()
        } else {
            return Err(BadTarget::Scheme);
        };
        if literal(host).is_some_and(|address| !allowed.permits(address)) {
            return Err(BadTarget::Address);
        }
        let shown = HeaderValue::from_str(authority.as_str()).map_err(|_| BadTarget::Malformed)?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { shown, path, allowed, uri })
    }

    /// The host without its port. An IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn authority(&self) -> &HeaderValue {
        &self.shown
    }

    pub(super) fn shown(&self) -> &str {
        self.shown.to_str().unwrap_or_default()
    }

    pub(super) fn path(&self) -> &PathAndQuery {
        &self.path
    }

    pub(super) const fn allowed(&self) -> Allowed {
        self.allowed
    }
}

/// Displays the URL without its query, which may contain a secret.
impl fmt::Display for FetchTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.uri.scheme_str().unwrap_or_default(), self.shown(), self.path.path())
    }
}

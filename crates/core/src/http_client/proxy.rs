//! Proxies that tunnel connections.

use std::fmt;

use http::Uri;
use http::uri::Scheme;
use rustls::pki_types::ServerName;

/// A proxy that tunnels connections (CONNECT, RFC 9110 §9.3.6). The connection to the proxy is not encrypted, but TLS
/// protects the tunnel end to end. The proxy resolves the servers' names, so the gate cannot check the servers'
/// addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy(Uri);

/// The error for an invalid proxy URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected http://host:port, without a user name or a path")]
pub struct BadProxy;

impl Proxy {
    /// Parses `http://host:port`.
    ///
    /// # Errors
    /// The string has another form.
    pub fn parse(text: &str) -> Result<Self, BadProxy> {
        let uri: Uri = text.parse().map_err(|_| BadProxy)?;
        let authority = uri.authority().ok_or(BadProxy)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_plain = uri.scheme() == Some(&Scheme::HTTP)
            && !authority.as_str().contains('@')
            && authority.port_u16().is_some_and(|port| port > 0)
            && ServerName::try_from(host).is_ok()
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !text.contains('#');
        if is_plain { Ok(Self(uri)) } else { Err(BadProxy) }
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0.authority().map_or("", http::uri::Authority::as_str))
    }
}

//! The client certificate of a connection.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::HeaderName;

use crate::thumbprint::CertificateThumbprint;

/// The header that tells an upstream the client certificate (RFC 9440 §2.2).
pub(super) static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The certificate that a client presented in the TLS handshake of its connection. The server that makes it has
/// verified that the client has its private key, and decided which certificates are accepted.
///
/// ```
/// use rotogate::gate::{ClientCertificate, Peer};
///
/// # let leaf: &[u8] = b"DER";
/// // A server of your own, after the handshake: `leaf` is the first of rustls' `peer_certificates()`.
/// let certificate = ClientCertificate::from_der(leaf);
/// let peer = Peer::new("192.0.2.7".parse()?, true).with_certificate(certificate);
/// assert!(peer.certificate().is_some());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    thumbprint: CertificateThumbprint,
    /// `Client-Cert`, if upstreams get it.
    header: Option<HeaderValue>,
}

impl ClientCertificate {
    /// Of the client's own certificate, not one of its issuers', in DER.
    pub fn from_der(der: &[u8]) -> Self {
        Self { thumbprint: CertificateThumbprint::from_der(der), header: None }
    }

    /// The same. The proxy sends it to upstreams in `Client-Cert` (RFC 9440).
    pub fn told_to_upstreams(der: &[u8]) -> Self {
        // A byte sequence of RFC 8941 §3.3.5.
        let header = HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok();
        Self { header, ..Self::from_der(der) }
    }

    /// Of a certificate that another program checked.
    pub const fn from_thumbprint(thumbprint: CertificateThumbprint) -> Self {
        Self { thumbprint, header: None }
    }

    /// What tokens are bound to (RFC 8705 §3.1).
    pub const fn thumbprint(&self) -> CertificateThumbprint {
        self.thumbprint
    }

    /// The value of `Client-Cert`, if upstreams get it.
    pub(super) const fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }
}

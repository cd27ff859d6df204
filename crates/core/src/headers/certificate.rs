//! The client certificate of a connection.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::HeaderName;

use crate::thumbprint::CertificateThumbprint;

/// The header that passes the client certificate to an upstream (RFC 9440 §2.2).
pub(super) static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The certificate that a client presented in the TLS handshake of its connection. The server that makes this value has
/// verified that the client has the private key, and decided which certificates are accepted.
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
    /// `Client-Cert`, if upstreams receive it.
    header: Option<HeaderValue>,
}

impl ClientCertificate {
    /// From the client's own certificate in DER, not from a certificate of its issuers.
    pub fn from_der(der: &[u8]) -> Self {
        Self { thumbprint: CertificateThumbprint::from_der(der), header: None }
    }

    /// Like [`Self::from_der`], for a certificate that the proxy sends to upstreams in `Client-Cert` (RFC 9440).
    pub fn told_to_upstreams(der: &[u8]) -> Self {
        // A byte sequence of RFC 8941 §3.3.5.
        let header = HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok();
        Self { header, ..Self::from_der(der) }
    }

    /// From the thumbprint of a certificate that another program has checked.
    pub const fn from_thumbprint(thumbprint: CertificateThumbprint) -> Self {
        Self { thumbprint, header: None }
    }

    /// The thumbprint, to which tokens are bound (RFC 8705 §3.1).
    pub const fn thumbprint(&self) -> CertificateThumbprint {
        self.thumbprint
    }

    /// The value of `Client-Cert`, if upstreams receive it.
    pub(super) const fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }
}

//! The client certificate of a connection.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::HeaderName;

use crate::thumbprint::CertificateThumbprint;

/// The header that passes the client certificate to an upstream (RFC 9440 §2.2).
pub(super) static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The certificate that a client presented in the TLS handshake of its connection. The server that creates this value
/// must have verified that the client has the private key, and decides which certificates are accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    thumbprint: CertificateThumbprint,
    /// `Client-Cert`, if upstreams receive it.
    header: Option<HeaderValue>,
}

impl ClientCertificate {
    /// Creates the value from the client's own certificate in DER, not from a certificate of its issuers.
    pub(super) fn from_der(der: &[u8]) -> Self {
        Self { thumbprint: CertificateThumbprint::from_der(der), header: None }
    }

    /// Does the same as [`Self::from_der`], for a certificate that the gate sends to upstreams in `Client-Cert` (RFC
    /// 9440).
    pub(super) fn told_to_upstreams(der: &[u8]) -> Self {
        // The format is a byte sequence of RFC 8941 §3.3.5.
        let header = HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok();
        Self { header, ..Self::from_der(der) }
    }

    /// Creates the value from the thumbprint of a certificate that another program has checked.
    pub(super) const fn from_thumbprint(thumbprint: CertificateThumbprint) -> Self {
        Self { thumbprint, header: None }
    }

    /// The thumbprint, to which tokens are bound (RFC 8705 §3.1).
    pub(super) const fn thumbprint(&self) -> CertificateThumbprint {
        self.thumbprint
    }

    /// The value of `Client-Cert`, if upstreams receive it.
    pub(super) const fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }
}

//! The client certificate of a connection.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::HeaderName;

use crate::thumbprint::CertificateThumbprint;

/// The header with the client certificate for an upstream (RFC 9440 §2.2).
pub(super) static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// A client certificate whose private key the server has verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    thumbprint: CertificateThumbprint,
    header: Option<HeaderValue>,
}

impl ClientCertificate {
    pub(super) fn from_der(der: &[u8]) -> Self {
        Self { thumbprint: CertificateThumbprint::from_der(der), header: None }
    }

    /// Makes the gate send this certificate to upstreams in `Client-Cert` (RFC 9440).
    pub(super) fn told_to_upstreams(der: &[u8]) -> Self {
        // A byte sequence of RFC 8941 §3.3.5.
        let header = HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok();
        Self { header, ..Self::from_der(der) }
    }

    pub(super) const fn from_thumbprint(thumbprint: CertificateThumbprint) -> Self {
        Self { thumbprint, header: None }
    }

    pub(super) const fn thumbprint(&self) -> CertificateThumbprint {
        self.thumbprint
    }

    pub(super) const fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }
}

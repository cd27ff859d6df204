//! The certificate of all gateways, and how clients check it.
//!
//! Everyone speaks TLS 1.3 with the same key exchange and cipher, which the clients ask for: X25519 and AES-128-GCM.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use crate::client::HOST;
use crate::keys::private;

/// The tickets that a client keeps.
const TICKETS: usize = 8;

pub fn certificate(folder: &Path) -> PathBuf {
    folder.join("tls.pem")
}

pub fn key(folder: &Path) -> PathBuf {
    folder.join("tls.key")
}

/// Certificate and key in one file, as HAProxy wants it.
pub fn both(folder: &Path) -> PathBuf {
    folder.join("tls-both.pem")
}

/// Makes the certificate, with an ECDSA key of P-256.
pub fn make(folder: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let (pem, secret) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(certificate(folder), &pem)?;
    private(&key(folder))?.write_all(secret.as_bytes())?;
    private(&both(folder))?.write_all((pem + &secret).as_bytes())?;
    Ok(())
}

/// What clients connect with.
#[derive(Clone)]
pub struct Client(ClientConfig);

impl Client {
    pub fn new(folder: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate(folder))?)?;
        let mut provider = default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![kx_group::X25519];
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(config))
    }

    /// For connections that are kept.
    pub fn connector(&self, http2: bool) -> TlsConnector {
        let mut config = self.0.clone();
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Arc::new(config).into()
    }

    /// For connections of one request, which resume the session of an earlier one, or never do.
    pub fn once(&self, resumed: bool) -> TlsConnector {
        let mut config = self.0.clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = if resumed { Resumption::in_memory_sessions(TICKETS) } else { Resumption::disabled() };
        Arc::new(config).into()
    }
}

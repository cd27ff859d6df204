//! TLS 1.2 and 1.3, always verified.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};

/// The trusted authorities, and the client certificate.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// The only trusted authorities, in PEM. `None`: those of the system.
    pub ca: Option<String>,
    /// A certificate with its chain, and its private key, in PEM.
    pub client_cert: Option<(String, SecretString)>,
}

/// Why the TLS settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
#[non_exhaustive]
pub struct BadTls {
    /// The setting at fault: `ca` or `client_cert`.
    pub key: &'static str,
    /// The problem, and what to do.
    pub message: String,
}

impl Tls {
    /// The TLS configuration of a client. Clients without files of their own share one: loading the system's
    /// authorities takes memory and time. They are loaded again after the last client has dropped them.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, BadTls> {
        static SHARED: Mutex<Weak<ClientConfig>> = Mutex::new(Weak::new());
        if self.ca.is_some() || self.client_cert.is_some() {
            return self.make();
        }
        let mut shared = SHARED.lock();
        if let Some(config) = shared.upgrade() {
            return Ok(config);
        }
        let config = self.make()?;
        *shared = Arc::downgrade(&config);
        Ok(config)
    }

    fn make(&self) -> Result<Arc<ClientConfig>, BadTls> {
        let roots = self.roots().map_err(|message| BadTls { key: "ca", message })?;
        let in_client_cert = |message: String| BadTls { key: "client_cert", message };
        // The provider is explicit, because an application may have installed several.
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| in_client_cert(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.client_cert {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).map_err(in_client_cert)?;
                let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
                    .map_err(|_| in_client_cert("the key file holds no private key in PEM".to_owned()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| in_client_cert(format!("certificate and key do not match: {error}")))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = &self.ca {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            return Ok(roots);
        }
        // Certificates of the system's store that cannot be parsed are skipped.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let what = "this system trusts no certificate authority; install the package of the system's authorities \
                        (ca-certificates), or name the server's own";
            return Err(what.to_owned());
        }
        Ok(roots)
    }
}

/// The certificates of a PEM text; at least one.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|error| format!("is not PEM: {error}"))?;
    if read.is_empty() {
        return Err("holds no certificate; expected -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(read)
}

//! TLS 1.2 and 1.3 for outgoing connections.

use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "http-client")]
use std::sync::Weak;

#[cfg(feature = "http-client")]
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};

use crate::private_file::{read_private, trusted};

const MAX_FILE_BYTES: u64 = 4 << 20;

/// The trusted certificate authorities, and the client certificate.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// The trusted authorities in PEM, or `None` for the system's authorities.
    pub ca: Option<String>,
    /// A certificate chain and its private key, in PEM.
    pub client_cert: Option<(String, SecretString)>,
    /// Whether missing system authorities are accepted.
    pub may_lack_authorities: bool,
    pub(crate) files: TlsFiles,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    ca: String,
    cert: String,
    key: String,
}

/// Why the TLS settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
#[non_exhaustive]
pub struct BadTls {
    /// The invalid setting: `ca` or `client_cert`.
    pub key: &'static str,
    /// The problem and its remedy.
    pub message: String,
}

impl BadTls {
    /// Creates an error for a setting.
    pub fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }
}

impl Tls {
    /// Reads the files with the authorities, the certificate and its key. Only the gate's user may read the key's file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(ca: Option<&Path>, client_cert: Option<(&Path, &Path)>) -> Result<Self, BadTls> {
        let mut tls = Self::default();
        let named = |file: &Path| format!("{}: ", file.display());
        if let Some(file) = ca {
            tls.ca = Some(pem(file).map_err(|message| BadTls::new("ca", message))?);
            tls.files.ca = named(file);
        }
        if let Some((cert, key)) = client_cert {
            let bad = |message: String| BadTls::new("client_cert", message);
            let chain = pem(cert).map_err(bad)?;
            let secret = read_private(key).map_err(bad)?;
            tls.client_cert = Some((chain, SecretString::from(secret.as_str())));
            (tls.files.cert, tls.files.key) = (named(cert), named(key));
        }
        Ok(tls)
    }

    /// Clients without their own files share one configuration, because loading the system's authorities is slow.
    #[cfg(feature = "http-client")]
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, BadTls> {
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

    #[cfg(feature = "http-client")]
    fn make(&self) -> Result<Arc<ClientConfig>, BadTls> {
        let mut config = self.client_config()?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The TLS configuration for outgoing connections.
    ///
    /// # Errors
    /// The invalid setting.
    pub fn client_config(&self) -> Result<ClientConfig, BadTls> {
        let TlsFiles { ca, cert, key: key_file } = &self.files;
        let roots = self.roots().map_err(|message| BadTls::new("ca", format!("{ca}{message}")))?;
        let in_client_cert = |file: &str, message: String| BadTls::new("client_cert", format!("{file}{message}"));
        // An application may link several crypto providers.
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| in_client_cert(cert, error.to_string()))?
            .with_root_certificates(roots);
        let Some((chain, key)) = &self.client_cert else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(chain).map_err(|message| in_client_cert(cert, message))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
            .map_err(|_| in_client_cert(key_file, "holds no private key in PEM".to_owned()))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| in_client_cert(cert, format!("certificate and key do not match: {error}")))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = &self.ca {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            return Ok(roots);
        }
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() && !self.may_lack_authorities {
            let what = "this system trusts no certificate authority. Install the system's package of authorities \
                        (ca-certificates), or configure the authority of the server: ca = \"ca.pem\"";
            return Err(what.to_owned());
        }
        Ok(roots)
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|error| format!("is not PEM: {error}"))?;
    if read.is_empty() {
        return Err("holds no certificate; expected -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(read)
}

fn pem(file: &Path) -> Result<String, String> {
    String::from_utf8(trusted::read(file, MAX_FILE_BYTES)?).map_err(|_| format!("{}: is not PEM", file.display()))
}

//! TLS to upstreams (requirement T16): TLS 1.2 and 1.3. The certificate is always verified, and no setting turns that
//! off. To trust a self-signed upstream, name its CA.
//!
//! Without a CA of its own, an upstream is verified against the system's store, not a compiled-in list. The store has
//! the operator's authorities, and an authority that loses its trust disappears with the next system update.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use rotogate_core::private_file::{read_private, trusted};

/// The longest certificate file, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// How an upstream is verified, and the gate's own certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// A PEM file of the only trusted authorities. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The name that its certificate must have, also sent as SNI. `None`: the host of its address.
    pub server_name: Option<String>,
    /// PEM files of the gate's certificate with its chain, and of its private key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// Why the TLS settings of an upstream cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct BadTls {
    /// The setting at fault: `ca`, `server_name` or `client_cert`.
    pub key: &'static str,
    /// The problem, and what to do.
    pub message: String,
}

impl UpstreamTls {
    /// The files that the settings name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let ours = self.client_cert.iter().flat_map(|(cert, key)| [cert.as_path(), key.as_path()]);
        self.ca.as_deref().into_iter().chain(ours)
    }

    /// Reads the files.
    pub fn load(&self) -> Result<ClientConfig, BadTls> {
        if let Some(name) = &self.server_name {
            server_name(name).map_err(|message| BadTls { key: "server_name", message })?;
        }
        let roots = self.roots().map_err(|message| BadTls { key: "ca", message })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let in_client_cert = |message: String| BadTls { key: "client_cert", message };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| in_client_cert(error.to_string()))?
            .with_root_certificates(roots);
        let Some((cert, key)) = &self.client_cert else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(cert).map_err(in_client_cert)?;
        let text = read_private(key).map_err(in_client_cert)?;
        let secret = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| in_client_cert(format!("{}: holds no private key in PEM", key.display())))?;
        builder
            .with_client_auth_cert(chain, secret)
            .map_err(|error| in_client_cert(format!("{} and {} do not match: {error}", cert.display(), key.display())))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            return Ok(roots);
        }
        // Certificates of the system's store that cannot be parsed are skipped.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let what = "this system trusts no certificate authority; install the package of the system's authorities (ca-certificates), \
                        or name the upstream's own: ca = \"ca.pem\"";
            return Err(what.to_owned());
        }
        Ok(roots)
    }
}

/// Parses a name that a certificate can have.
pub fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| format!("expected a host name or an address, found {name:?}"))
}

/// The certificates of a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let text = trusted::read(path, MAX_FILE_BYTES)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read = read.map_err(|error| format!("{shown}: is not PEM: {error}"))?;
    if read.is_empty() {
        return Err(format!("{shown}: holds no certificate; expected -----BEGIN CERTIFICATE-----"));
    }
    Ok(read)
}

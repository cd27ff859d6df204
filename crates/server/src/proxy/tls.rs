//! TLS towards upstreams (requirement T16): TLS 1.2 and 1.3, and a certificate that is verified, always. There is no
//! switch that turns verification off; an upstream with a certificate of its own making is trusted by naming its CA.
//!
//! Without a CA of its own an upstream is verified against the system's store and not a list that is compiled in: an
//! operator's authorities are there already, and one that loses its trust leaves with the system's next update.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use rotogate::private_file::{read_private, trusted};

/// The longest file of certificates that is read.
const MAX_LEN: u64 = 4 << 20;

/// How an upstream is verified, and who we are to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// A PEM file of the authorities that count, and then no others do. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The name that its certificate must have and that it is asked for (SNI). `None`: the host of its address.
    pub server_name: Option<String>,
    /// PEM files of our certificate, with the chain behind it, and of its key, which is for our eyes only.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// Why an upstream cannot be spoken to over TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct BadTls {
    /// Which setting is at fault: `ca`, `server_name` or `client_cert`.
    pub key: &'static str,
    /// What was found, and what to do.
    pub message: String,
}

impl UpstreamTls {
    /// The files that it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let ours = self.client_cert.iter().flat_map(|(cert, key)| [cert.as_path(), key.as_path()]);
        self.ca.as_deref().into_iter().chain(ours)
    }

    /// Reads the files.
    pub(crate) fn load(&self) -> Result<ClientConfig, BadTls> {
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
        builder.with_client_auth_cert(chain, secret).map_err(|error| {
            in_client_cert(format!("{} and {} do not go together: {error}", cert.display(), key.display()))
        })
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            return Ok(roots);
        }
        // A store may hold what cannot be used: the others count.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let what = "this system trusts no certificate authority; install its package of them (ca-certificates), \
                        or name the upstream's own: ca = \"ca.pem\"";
            return Err(what.to_owned());
        }
        Ok(roots)
    }
}

/// A name that a certificate can have.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| format!("expected a host name or an address, found {name:?}"))
}

/// The certificates of a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let text = trusted::read(path, MAX_LEN)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read = read.map_err(|error| format!("{shown}: is not PEM: {error}"))?;
    if read.is_empty() {
        return Err(format!("{shown}: holds no certificate; expected -----BEGIN CERTIFICATE-----"));
    }
    Ok(read)
}

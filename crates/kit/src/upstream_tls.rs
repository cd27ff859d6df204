//! TLS 1.2 and 1.3 to upstreams (requirement T16). The certificate is always verified, and no setting turns the
//! verification off. To trust an upstream with a self-signed certificate, configure this certificate as its CA.
//!
//! If an upstream has no configured CA, it is verified against the system's store, not a compiled-in list. The store
//! also contains the authorities that the operator added. A system update removes an authority that is no longer
//! trusted.

use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

pub use rotogate_core::http_client::BadTls;
use rotogate_core::http_client::Tls;

/// How the gate verifies an upstream, and which client certificate it presents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// A PEM file with the only trusted authorities. If `None`, the system's authorities are trusted.
    pub ca: Option<PathBuf>,
    /// The name that the upstream's certificate must have, and that is sent as SNI. If `None`, the host in the
    /// upstream's URL.
    pub server_name: Option<String>,
    /// PEM files of the gate's certificate with its chain, and of its private key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
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
            server_name(name).map_err(|message| BadTls::new("server_name", message))?;
        }
        let pair = self.client_cert.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
        Tls::read(self.ca.as_deref(), pair)?.client_config()
    }
}

/// Parses a name that a certificate can have.
pub fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| format!("expected a host name or an address, found {name:?}"))
}

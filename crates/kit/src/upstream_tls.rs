//! TLS 1.2 and 1.3 to upstreams (requirement T16). Certificates are always verified. A self-signed certificate can be
//! configured as CA.
//!
//! By default, the system's CA certificates are trusted, so that a system update can remove a CA.

use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

pub use rotogate_core::http_client::BadTls;
use rotogate_core::http_client::Tls;

/// TLS settings for an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// A PEM file with the only trusted authorities. `None` means the system's.
    pub ca: Option<PathBuf>,
    /// The name for SNI and the certificate check. `None` means the host name in the URL.
    pub server_name: Option<String>,
    /// PEM files of the client certificate chain and its private key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

impl UpstreamTls {
    /// The configured files.
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

/// Parses a server name.
pub fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| format!("expected a host name or an address, found {name:?}"))
}

//! `[directory]` with `kind = "http"`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::super::declare::section;
use super::super::super::value;
use super::super::path_in;
use rotogate_core::route::WarningKind;
use rotogate_directories::SourceSettings;
use rotogate_directories::http::{HttpSettings, target};
use rotogate_kit::config::{CertificateAndKey, Section};

/// The default of `timeout`.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

section! {
    impl HttpSettings, read by read_keys(section, dir: &Path) {
        /// URL of the hook: https, or http on this machine.
        reload url: String = required(URL, |v| {
            let url = value::text(v)?;
            target(&url, "lookup").map(|_| url)
        }),
        /// The gate's client certificate and its private key.
        reload client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// File with the secret that the gate sends as `Authorization: Bearer`.
        reload secret_file: Option<PathBuf> = get(path_in(dir)),
        /// Only trusted authorities, in PEM. Set it for a server with a certificate of an internal authority. Default:
        /// the system's.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// A refusal takes as long as the slowest login of the last hours.
        fixed pad_refusals: bool = get_or(value::boolean, true),
    }
}

const URL: &str = "the URL of the login hook, such as \"https://app.example.com/rotogate\"";

pub(super) fn read(section: &Section<'_>, dir: &Path) -> SourceSettings {
    let settings = read_keys(section, dir);
    if settings.url.starts_with("https://") && settings.secret_file.is_none() && settings.client_cert.is_none() {
        let message = "missing: without secret_file or client_cert, the hook cannot tell the gate from anyone else, and \
                       answers every client that reaches it";
        section.warn(WarningKind::NoAccess, "secret_file", message);
    }
    SourceSettings::Http(Box::new(settings))
}

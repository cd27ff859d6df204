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
        /// URL of the login hook, which checks passwords and looks up users: `https`, or `http` on this machine.
        reload url: String = required(URL, |v| {
            let url = value::text(v)?;
            target(&url, "lookup").map(|_| url)
        }),
        /// The gate's client certificate and its private key.
        reload client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// File with the secret that the gate sends to the login hook as `Authorization: Bearer`.
        reload secret_file: Option<PathBuf> = get(path_in(dir)),
        /// File (PEM) with the only certificate authorities that the gate trusts for this server. Set it if an internal
        /// authority issued the server's certificate. Default: the system's authorities.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// A failed login takes as long as the slowest login in the last hours, so that its duration does not show
        /// whether the user exists.
        fixed pad_refusals: bool = get_or(value::boolean, true),
    }
}

const URL: &str = "the URL of the login hook, such as \"https://app.example.com/rotogate\"";

pub(super) fn read(section: &Section<'_>, dir: &Path) -> SourceSettings {
    let settings = read_keys(section, dir);
    if settings.url.starts_with("https://") && settings.secret_file.is_none() && settings.client_cert.is_none() {
        let message = "missing: without `secret_file` or `client_cert`, the login hook cannot authenticate the gate, \
                       so anybody who can reach the hook can use it";
        section.warn(WarningKind::NoAccess, "secret_file", message);
    }
    SourceSettings::Http(Box::new(settings))
}

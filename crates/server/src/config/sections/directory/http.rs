//! `[directory]` with `kind = "http"`.

use std::path::Path;
use std::time::Duration;

use toml::Table;

use super::super::super::print::{path, put, put_some};
use super::super::super::raw::Section;
use super::super::super::value;
use super::super::path_in;
use rotogate_core::route::WarningKind;
use rotogate_directories::SourceSettings;
use rotogate_directories::http::{HttpSettings, target};

/// The default of `timeout`.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// `None` if a key that is needed is missing or refused.
pub(super) fn read(section: &Section<'_>, dir: &Path) -> Option<SourceSettings> {
    let url = section.require("url", "the URL of the login hook, such as \"https://app.example.com/rotogate\"", |v| {
        let url = value::text(v)?;
        target(&url, "lookup").map(|_| url)
    });
    let client_cert = section.has("client_cert").then(|| {
        let pair = section.section("client_cert");
        let file = |key| pair.require(key, "a PEM file", path_in(dir));
        let both = file("cert").zip(file("key"));
        pair.finish();
        both
    });
    let settings = HttpSettings {
        secret_file: section.get("secret_file", path_in(dir)),
        ca: section.get("ca", path_in(dir)),
        client_cert: client_cert.flatten(),
        pad_refusals: section.get("pad_refusals", value::boolean).unwrap_or(true),
        url: url?,
    };
    if settings.url.starts_with("https://") && settings.secret_file.is_none() && settings.client_cert.is_none() {
        let message = "missing: without secret_file or client_cert, the hook cannot tell the gate from anyone else, and \
                       answers every client that reaches it";
        section.warn(WarningKind::NoAccess, "secret_file", message);
    }
    Some(SourceSettings::Http(Box::new(settings)))
}

pub(super) fn print(settings: &HttpSettings, table: &mut Table) {
    let HttpSettings { url, secret_file, ca, client_cert, pad_refusals } = settings;
    put(table, "kind", "http");
    put(table, "url", url.as_str());
    put_some(table, "secret_file", secret_file.as_deref().map(path));
    put_some(table, "ca", ca.as_deref().map(path));
    if let Some((cert, key)) = client_cert {
        let mut pair = Table::new();
        put(&mut pair, "cert", path(cert));
        put(&mut pair, "key", path(key));
        put(table, "client_cert", pair);
    }
    put(table, "pad_refusals", *pad_refusals);
}

//! `[[providers]]`: token endpoints at which the gate requests tokens on behalf of callers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::declare::section;
use super::super::value;
use super::provider_client::{self, ProviderClientSettings};
use super::remote::RemoteSource;
use super::{SECOND, TrustedIssuer, check_known, path_in, unique};
use rotogate_core::http_client::SecretPlace;
use rotogate_kit::config::Section;

section! {
    /// An entry of `[[providers]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ProviderSettings, read by pub(super) read_keys(
        section,
        others: &[ProviderSettings],
        dir: &Path,
        issuers: &[TrustedIssuer],
    ) {
        /// Required: Name by which `exchange` of upstreams refers to the provider.
        reload name: String = by {
            unique(section, "name", "a name for upstreams to use", value::text, others.iter().map(|other| &*other.name))
        },
        /// Name of the entry of `[[issuers]]` whose tokens this provider exchanges. It may be absent if there is a
        /// `token_url`, for an `authorization_server` of an exchange.
        reload issuer: String = by { read_issuer(section, issuers) },
        /// URL of the token endpoint. Required, unless the issuer has `discovery`.
        reload token_url: Option<String> = by { read_token_url(section, &issuer, issuers) },
        /// Required: The gate's own client at the provider. It has an `id`, and authenticates with `secret_file` and
        /// `secret_in` (`"basic"` or `"form"`), with `key_file` and `assertion_audience`
        /// (docs/clients-without-secrets.md), or with `client_cert`.
        reload client: ProviderClientSettings = by { read_client(section, dir) },
        /// Time limit for the provider's whole response.
        fixed timeout: Duration = get_or(value::duration_within(SECOND / 10, 30 * SECOND), 5 * SECOND),
        /// File (PEM) with the only certificate authorities that the gate trusts for this server. Set it if an internal
        /// authority issued the server's certificate. Default: the system's authorities.
        reload ca: Option<PathBuf> = get(path_in(dir)),
    }
}

fn read_issuer(section: &Section<'_>, issuers: &[TrustedIssuer]) -> String {
    let name = match section.has("token_url") && !section.has("issuer") {
        true => String::new(),
        false => section.required("issuer", "the name of an `[[issuers]]` entry", value::text),
    };
    if !name.is_empty() {
        check_known(section, "issuer", "issuer", &name, issuers.iter().map(|issuer| issuer.name.as_str()));
    }
    name
}

fn read_token_url(section: &Section<'_>, issuer: &str, issuers: &[TrustedIssuer]) -> Option<String> {
    let is_discovered =
        |known: &TrustedIssuer| known.name == issuer && known.keys.remote().is_some_and(RemoteSource::is_discovered);
    if issuers.iter().any(is_discovered) {
        return section.get("token_url", value::asked_url);
    }
    let what = "the https URL of the provider's token endpoint, or an issuer with `discovery`";
    section.require("token_url", what, value::asked_url)
}

fn read_client(section: &Section<'_>, dir: &Path) -> ProviderClientSettings {
    let client = section.table("client", |section| {
        let mut client = provider_client::read_keys(section, dir);
        client.client_cert = section.get("client_cert", path_in(dir));
        let proves = client.secret_file.is_some() || client.key.is_some() || client.client_cert.is_some();
        if !proves && !section.is_bad() {
            section.blame("secret_file", "is missing, but a provider exchanges tokens only for a confidential client");
        }
        client
    });
    if client.is_none() {
        section.blame("client", "is missing; expected { id = \"gate\", secret_file = \"gate.secret\" }");
    }
    client.unwrap_or(ProviderClientSettings {
        id: String::new(),
        secret_file: None,
        key: None,
        secret_in: SecretPlace::default(),
        client_cert: None,
    })
}

//! The gate's client at a provider: that of a relay, and that of a login of browsers.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::print::{Print, Put, Words};
use super::super::value;
use super::path_in;
use rotogate_core::http_client::SecretPlace;
use rotogate_kit::config::Section;

/// The client that the gate is towards a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderClientSettings {
    /// Its id.
    pub id: String,
    /// The file with its secret.
    pub secret_file: Option<PathBuf>,
    /// Where the secret is sent.
    pub secret_in: SecretPlace,
}

impl Words for SecretPlace {
    const WORDS: &'static [(&'static str, Self)] = &[("basic", Self::Basic), ("form", Self::Form)];
}

/// Reads the table `client`.
pub(super) fn read_keys(section: &Section<'_>, dir: &Path) -> ProviderClientSettings {
    section.later(&["private_key_file"]);
    if section.has("secret") {
        section.blame("secret", "does not belong into this file; write it to a file, and name that as secret_file");
        let _: Option<()> = section.get("secret", |_| Ok(()));
    }
    let client = ProviderClientSettings {
        id: section.required("id", "the client_id at the provider", value::text),
        secret_file: section.get("secret_file", path_in(dir)),
        secret_in: section.get_or("secret_in", value::word_of, SecretPlace::default()),
    };
    if section.has("secret_in") && client.secret_file.is_none() && !section.is_bad() {
        section.blame("secret_in", "needs secret_file");
    }
    client
}

impl Print for ProviderClientSettings {
    fn print(&self) -> Value {
        let Self { id, secret_file, secret_in } = self;
        let mut table = Table::new();
        id.put(&mut table, "id");
        secret_file.put(&mut table, "secret_file");
        secret_file.as_ref().map(|_| *secret_in).put(&mut table, "secret_in");
        table.into()
    }
}

//! The gate's client at a provider, for a relay, a token exchange or browser logins.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::super::declare::section;
use super::super::print::{Print, Put, Words};
use super::super::value;
use super::issuer::algorithm;
use super::path_in;
use rotogate_core::http_client::SecretPlace;
use rotogate_core::token::Algorithm;
use rotogate_core::token::algorithm::Family;
use rotogate_kit::config::Section;

/// The gate's client at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderClientSettings {
    /// The client's id.
    pub id: String,
    /// The file with the client's secret.
    pub secret_file: Option<PathBuf>,
    /// Where the secret is sent.
    pub secret_in: SecretPlace,
    /// The client's private key, instead of a secret.
    pub key: Option<ClientKeySettings>,
    /// The certificate for mutual TLS, with its chain and its private key. Only for `[[providers]]`.
    pub client_cert: Option<PathBuf>,
}

section! {
    /// The private key with which the gate authenticates to another server (RFC 7523 §2.2).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ClientKeySettings, read by read_key_settings(section, dir: &Path) {
        /// Instead of `secret_file`: the gate's private key (PKCS #8 in PEM, 0600), which signs an assertion for each
        /// request (docs/clients-without-secrets.md).
        reload file as "key_file": PathBuf = by { section.get("key_file", path_in(dir)).unwrap_or_default() },
        /// Required with `key_file`: the `aud` of the assertions. It is the issuer URL of the other server, written
        /// exactly as that server writes it.
        reload audience as "assertion_audience": String = by {
            section.get("assertion_audience", value::text).unwrap_or_default()
        },
        /// Signature algorithm of `key_file`. Set it for an RSA key if the server accepts only PS256. Default:
        /// `"EdDSA"`, `"ES256"`, `"ES384"` or `"RS256"`, depending on the kind of key.
        reload algorithm as "key_algorithm": Option<Algorithm> = get(self::algorithm),
        /// `kid` of the assertions. Set it if the other server assigned a `kid` when you registered the key, as Okta
        /// does. Default: the thumbprint of the key (RFC 7638).
        reload kid as "key_id": Option<String> = get(value::text),
    }
}

const FURTHER: [&str; 3] = ["assertion_audience", "key_algorithm", "key_id"];

pub(super) fn read_key(section: &Section<'_>, dir: &Path, others: &[&'static str]) -> Option<ClientKeySettings> {
    let settings = read_key_settings(section, dir);
    if !section.has("key_file") {
        section.blame_present(
            &FURTHER,
            "only applies to assertions that the gate signs; set `key_file` in the same table",
        );
        return None;
    }
    section.blame_present(others, "conflicts with `key_file`; the gate authenticates in only one way");
    if settings.algorithm.is_some_and(|algorithm| algorithm.family() == Family::Hmac) {
        section.blame(
            "key_algorithm",
            "is an algorithm with a shared secret; expected an algorithm with a private key, such as \"ES256\"",
        );
    }
    if !section.has("assertion_audience") {
        let message = "missing; expected the issuer of the other server, exactly as that server writes it, because \
                       the gate has no other way to learn the audience of its assertions";
        section.blame("assertion_audience", message);
    }
    Some(settings)
}

impl Words for SecretPlace {
    const WORDS: &'static [(&'static str, Self)] = &[("basic", Self::Basic), ("form", Self::Form)];
}

/// Reads the table `client`.
pub(super) fn read_keys(section: &Section<'_>, dir: &Path) -> ProviderClientSettings {
    section.misplaced(&["private_key_file"], "is called `key_file` here");
    let key = read_key(section, dir, &["secret_file", "secret_in"]);
    section.misplaced(
        &["secret"],
        "must not be in this file; write the secret to a file of its own, and name that file in `secret_file`",
    );
    let client = ProviderClientSettings {
        id: section.required("id", "the client_id at the provider", value::text),
        secret_file: section.get("secret_file", path_in(dir)),
        secret_in: section.get_or("secret_in", value::word_of, SecretPlace::default()),
        key,
        client_cert: None,
    };
    if section.has("secret_in") && client.secret_file.is_none() && !section.is_bad() {
        section.blame("secret_in", "needs `secret_file`");
    }
    client
}

impl Print for ProviderClientSettings {
    fn print(&self) -> Value {
        let Self { id, secret_file, secret_in, key, client_cert } = self;
        let mut table = Table::new();
        id.put(&mut table, "id");
        secret_file.put(&mut table, "secret_file");
        secret_file.as_ref().map(|_| *secret_in).put(&mut table, "secret_in");
        key.put(&mut table, "..");
        client_cert.put(&mut table, "client_cert");
        table.into()
    }
}

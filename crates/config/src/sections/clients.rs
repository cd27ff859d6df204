//! `[[clients]]`. Each entry has the type [`Client`].

use std::ops::Deref;
use std::path::Path;

use toml::Value;

use super::super::declare::section;
use super::super::print::{MASK, Print, Words};
use super::super::value;
use super::issuers::{KeySource, key_source};
use super::sessions::read_override;
use super::{path_in, unique};
use crate::Config;
use rotogate_core::client::{Client, ClientKeys, ExchangeRules, Grant};
use rotogate_core::password::{SecretHash, cost_of};
use rotogate_core::private_file::read_private;
use rotogate_core::route::WarningKind;
use rotogate_core::session::profile::ProfileOverride;
use rotogate_core::session::{Binding, Scope};
use rotogate_core::token::claims::CLIENT_PREFIX;
use rotogate_core::token::verify::is_subject;
use rotogate_kit::config::{Section, Value as Raw};

section! {
    /// An entry of `[[clients]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ClientConfig, read by read_entry(section, others: &[ClientConfig], dir: &Path) {
        /// The rules of the client.
        reload client as "..": Client = by { read_keys(section, others, dir) },
        /// Instead of `secret_hash`: the public keys of a client that authenticates with signed assertions
        /// (`private_key_jwt`, docs/clients-without-secrets.md): `{ jwks_url = "https://orders.example.com/jwks.json"
        /// }`.
        reload keys: Option<ClientKeySource> = table(|section| read_source(section, dir, &client.id)),
    }
}

section! {
    /// `keys` of an entry of `[[clients]]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ClientKeySource, read by read_source(section, dir: &Path, client: &str) {
        /// Source of the keys.
        reload source as "..": KeySource = by { read_key_source(section, dir, client) },
    }
    with {
        /// File with the client's JWK set, in which each key has `alg`, or with one public key in PEM, whose type
        /// determines the algorithm (RS256 for RSA). The gate reads it at a start and at a reload.
        reload jwks_file: text,
        /// URL of the client's JWK set. `rotogate issuer refresh client:ID` fetches the set at once.
        reload jwks_url: text,
        /// How the gate fetches the keys (docs/issuers.md).
        reload fetch: table of super::remote::FetchKeys,
    }
}

impl Deref for ClientConfig {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

section! {
    impl Client, read by read_keys(section, others: &[ClientConfig], dir: &Path) {
        /// Required: The `client_id`. Without `secret_hash` and `keys`, the client is public.
        reload id: Box<str> = by {
            unique(section, "id", "the client_id", client_id, others.iter().map(|other| &*other.id)).into()
        },
        /// Hash of a confidential client's secret. Create both with `rotogate client secret`.
        reload secret_hash: Option<SecretHash> = by { read_secret_hash(section, dir) },
        /// The gate reads the files of `keys` later, together with the other files.
        no_key keys: Option<ClientKeys> = by { None },
        /// Grants that the client may use: `"password"`, `"refresh_token"`, `"jwt-bearer"`; for a confidential client
        /// also `"client_credentials"` and `"token-exchange"`.
        reload grants: Vec<Grant> = by { read_grants(section) },
        /// Scopes that the client's tokens may have. Unset: all scopes of the user. Set it if a client needs fewer
        /// scopes than its users have.
        reload scopes: Option<Scope> = by { self::scopes(section, "scopes") },
        /// Session rules of the client, which override those of `[sessions]`: any of its keys from `access_ttl` to
        /// `revoke_previous_after`.
        reload profile as some: ProfileOverride = by { read_override(section) },
        /// `"optional"`: a token request with a DPoP proof gets tokens that are bound to the proof's key; `"required"`:
        /// token requests without a proof are refused. Set it if a stolen token must be useless without the client's
        /// private key.
        reload dpop: Binding = get_or(value::word_of, Binding::default()),
        /// The same choice as `dpop`, for tokens that are bound to the client certificate of the TLS connection
        /// (docs/certificates.md).
        reload certificate_bound: Binding = get_or(value::word_of, Binding::default()),
        /// Which tokens the client may exchange with the grant `"token-exchange"`, and for which audiences
        /// (docs/act-for-a-user.md).
        reload exchange: Option<ExchangeRules> = table(super::exchange::read),
    }
    with {
        /// Instead of `secret_hash`: a file that contains the hash. Set it if other users may read the configuration
        /// file.
        reload secret_hash_file: text,
    }
}

impl Print for SecretHash {
    fn print(&self) -> Value {
        MASK.into()
    }
}

impl Words for Grant {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::Password.word(), Self::Password),
        (Self::RefreshToken.word(), Self::RefreshToken),
        (Self::ClientCredentials.word(), Self::ClientCredentials),
        ("token-exchange", Self::TokenExchange),
        ("jwt-bearer", Self::JwtBearer),
    ];
}

impl Words for Binding {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("optional", Self::Optional), ("required", Self::Required)];
}

pub(super) fn read(section: &Section<'_>, above: &[ClientConfig], dir: &Path) -> ClientConfig {
    let client = read_entry(section, above, dir);
    if client.keys.is_some() {
        let message = "conflicts with `keys`, with which the client authenticates; remove one of the two";
        section.blame_present(&["secret_hash", "secret_hash_file"], message);
    }
    let is_public = !section.has("secret_hash") && !section.has("secret_hash_file") && client.keys.is_none();
    if client.may(Grant::ClientCredentials) && is_public {
        let message = "`client_credentials` is only for confidential clients (RFC 6749 §4.4); give the client a \
                       `secret_hash`, `secret_hash_file` or `keys`, or remove the grant";
        section.blame("grants", message);
    }
    super::exchange::check_client(section, &client, is_public);
    if (client.may(Grant::ClientCredentials) || client.may(Grant::TokenExchange))
        && !is_subject(&format!("{CLIENT_PREFIX}{}", client.id))
        && !client.id.is_empty()
    {
        let message = format!(
            "is too long for `client_credentials` and `token-exchange`, because the `sub` of their tokens is this id \
             with \"{CLIENT_PREFIX}\" in front"
        );
        section.blame("id", message);
    }
    client
}

fn read_key_source(section: &Section<'_>, dir: &Path, client: &str) -> KeySource {
    key_source(section, dir, None, (&format!("{CLIENT_PREFIX}{client}"), client))
}

pub(super) fn check_certificates(config: &Config, clients: &[Section<'_>], routes: &[Section<'_>]) {
    let mut with_tls = config.server.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    if with_tls.any(|tls| tls.client_auth.roots().is_some()) {
        return;
    }
    let asks = |section: &&Section<'_>, words: &[&str]| {
        section.get("certificate_bound", value::text).is_some_and(|word| words.contains(&word.as_str()))
    };
    let of_clients = clients.iter().filter(|section| asks(section, &["optional", "required"]));
    for section in of_clients.chain(routes.iter().filter(|section| asks(section, &["required"]))) {
        let message = "needs a listener that requests client certificates; set `client_ca` in the `tls` of a listener";
        section.blame("certificate_bound", message);
    }
}

/// Reads a client id (RFC 6749 appendix A.1), with a length that all protocols support.
fn client_id(v: &Raw) -> Result<String, String> {
    value::matching(v, "1 to 256 visible ASCII characters", is_subject)
}

/// Reads scopes from a list or a space-separated string.
pub(super) fn scopes(section: &Section<'_>, key: &'static str) -> Option<Scope> {
    if is_text(section, key) {
        return section.get(key, value::scope);
    }
    let parts = section.list(key, value::scope)?;
    Some(united(&parts))
}

pub(super) fn united(scopes: &[Scope]) -> Scope {
    scopes.iter().fold(Scope::default(), |all, one| all.union(one))
}

pub(super) fn is_text(section: &Section<'_>, key: &'static str) -> bool {
    section.get(key, |v| Ok(matches!(v, Raw::String(_)))) == Some(true)
}

fn read_secret_hash(section: &Section<'_>, dir: &Path) -> Option<SecretHash> {
    section.misplaced(
        &["secret", "client_secret"],
        "must not be in this file in plain text; write `secret_hash` or `secret_hash_file` instead. `rotogate client \
         secret` generates a secret and its hash",
    );
    // Error messages never repeat the value, because it may be a secret that somebody entered instead of its hash.
    let read = |phc: &str| cost_of(phc).map(|_| SecretHash::new(phc.to_owned())).map_err(|e| format!("is {e}"));
    let direct = section.get("secret_hash", |v| match v {
        Raw::String(s) | Raw::Env(s) if s == MASK => {
            let message = "is the mask that `rotogate check --print` writes, so no secret matches it; write the hash \
                           itself";
            section.warn(WarningKind::NoAccess, "secret_hash", message);
            rotogate_core::password::unmatched_secret_hash().map_err(|error| error.to_string())
        }
        Raw::String(s) | Raw::Env(s) => read(s),
        _ => Err("expected an argon2id hash, \"$argon2id$v=19$…\"".to_owned()),
    });
    let from_file = section.get_file("secret_hash_file", path_in(dir), |path| {
        let text = read_private(path)?;
        read(text.trim())
    });
    if section.has("secret_hash") && section.has("secret_hash_file") {
        section.blame("secret_hash_file", "conflicts with `secret_hash`; remove one of the two");
    }
    direct.or(from_file)
}

fn read_grants(section: &Section<'_>) -> Vec<Grant> {
    let later = ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"];
    let grants = section.list("grants", value::word(Grant::WORDS, &later));
    if grants.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame("grants", "is empty, so the client could not get tokens; expected at least one grant");
    }
    grants.unwrap_or_else(|| vec![Grant::Password, Grant::RefreshToken])
}

//! `[[clients]]`. An entry is the library's [`Client`].

use std::path::Path;

use toml::{Table, Value};

use super::super::print::{MASK, list, put, put_some, texts};
use super::super::raw::{Section, Value as Raw};
use super::super::value;
use super::dpop::{CERTIFICATE_USES, USES, word};
use super::path_in;
use super::sessions::{put_override, read_override};
use crate::config::Config;
use rotogate_core::client::{Client, Grant};
use rotogate_core::password::{SecretHash, cost_of};
use rotogate_core::private_file::read_private;
use rotogate_core::route::WarningKind;
use rotogate_core::session::Scope;
use rotogate_core::token::claims::CLIENT_PREFIX;
use rotogate_core::token::verify::is_subject;

/// `[[clients]]`.
pub type ClientConfig = Client;

/// The grants of a client that names none.
const DEFAULT_GRANTS: [Grant; 2] = [Grant::Password, Grant::RefreshToken];

pub(super) fn read(sections: &[Section<'_>], dir: &Path) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::new();
    for section in sections {
        let id = section.require("id", "the client_id", client_id).unwrap_or_default();
        if !id.is_empty() && clients.iter().any(|other| *other.id == *id) {
            section.blame("id", format!("\"{id}\" is listed twice; remove or rename one of the two"));
        }
        let client = Client {
            secret_hash: secret_hash(section, dir),
            grants: grants(section),
            scopes: scopes(section, "scopes"),
            profile: read_override(section),
            dpop: section.get("dpop", value::word(&USES, &[])).unwrap_or_default(),
            certificate_bound: section
                .get("certificate_bound", value::word(&CERTIFICATE_USES, &[]))
                .unwrap_or_default(),
            id: id.into(),
        };
        let is_public = !section.has("secret_hash") && !section.has("secret_hash_file");
        if client.may(Grant::ClientCredentials) && is_public {
            let message = "client_credentials is for confidential clients (RFC 6749 §4.4); give it a secret_hash or \
                           secret_hash_file, or remove the grant";
            section.blame("grants", message);
        }
        if client.may(Grant::ClientCredentials)
            && !is_subject(&format!("{CLIENT_PREFIX}{}", client.id))
            && !client.id.is_empty()
        {
            let message = format!(
                "is too long for client_credentials: with \"{CLIENT_PREFIX}\" in front it is the sub of its tokens"
            );
            section.blame("id", message);
        }
        section.finish();
        clients.push(client);
    }
    clients
}

/// Tokens are bound to certificates that some listener asks for.
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
        let message = "needs a listener that asks clients for certificates; set client_ca in the tls of a listener";
        section.blame("certificate_bound", message);
    }
}

/// RFC 6749 appendix A.1, with a length that every protocol allows.
fn client_id(v: &Raw) -> Result<String, String> {
    match v {
        Raw::String(s) | Raw::Env(s) if (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(s.clone())
        }
        other => Err(format!("expected 1 to 256 visible ASCII characters, found {}", other.describe())),
    }
}

/// The scopes of a client or a route.
pub(super) fn scopes(section: &Section<'_>, key: &'static str) -> Option<Scope> {
    let parts = section.list(key, value::scope)?;
    let joined = parts.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
    Scope::parse(&joined).ok()
}

fn secret_hash(section: &Section<'_>, dir: &Path) -> Option<SecretHash> {
    section.misplaced(
        &["secret", "client_secret"],
        "is not kept in clear: write secret_hash, or secret_hash_file; `rotogate client secret` makes a secret and its hash",
    );
    // The value may be a secret that was mistaken for its hash: it is never repeated.
    let read = |phc: &str| cost_of(phc).map(|_| SecretHash::new(phc.to_owned())).map_err(|e| format!("is {e}"));
    let direct = section.get("secret_hash", |v| match v {
        Raw::String(s) | Raw::Env(s) if s == MASK => {
            let message = "is masked by `rotogate check --print`: no secret matches it; write the hash";
            section.warn(WarningKind::NoAccess, "secret_hash", message);
            SecretHash::of_nobody().map_err(|error| error.to_string())
        }
        Raw::String(s) | Raw::Env(s) => read(s),
        _ => Err("expected an argon2id hash, \"$argon2id$v=19$…\"".to_owned()),
    });
    let from_file = section.get_file("secret_hash_file", path_in(dir), |path| {
        let text = read_private(path)?;
        read(text.trim())
    });
    if section.has("secret_hash") && section.has("secret_hash_file") {
        section.blame("secret_hash_file", "conflicts with secret_hash; expected one of the two");
    }
    direct.or(from_file)
}

fn grants(section: &Section<'_>) -> Vec<Grant> {
    let known = [Grant::Password, Grant::RefreshToken, Grant::ClientCredentials].map(|grant| (grant.word(), grant));
    let later = ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"];
    let grants = section.list("grants", value::word(&known, &later));
    if grants.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame("grants", "is empty: such a client can do nothing; expected at least one grant");
    }
    grants.unwrap_or_else(|| DEFAULT_GRANTS.to_vec())
}

pub(super) fn print(client: &ClientConfig) -> Value {
    let Client { id, secret_hash, grants, scopes, profile, dpop, certificate_bound } = client;
    let grant = |grant: &Grant| Value::from(grant.word());
    let mut table = Table::new();
    put(&mut table, "id", &**id);
    put_some(&mut table, "secret_hash", secret_hash.as_ref().map(|_| MASK));
    put(&mut table, "grants", list(grants, grant));
    put_some(&mut table, "scopes", scopes.as_ref().map(|scopes| texts(&scopes.iter().collect::<Vec<_>>())));
    put(&mut table, "dpop", word(&USES, dpop));
    put(&mut table, "certificate_bound", word(&CERTIFICATE_USES, certificate_bound));
    put_override(&mut table, profile);
    table.into()
}

//! The keys of an endpoint with `dialect = "relay"`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;

use super::super::print::{path, put, put_some, texts, time};
use super::super::raw::{Section, Value as Raw};
use super::super::value;
use super::issuers::TrustedIssuer;
use super::remote::RemoteSource;
use super::{SECOND, dangling, path_in};
use rotogate::dialect::relay::{PASSWORD, REFRESH_TOKEN, RelayDialect, Wire};
use rotogate::relay::engine::MAX_GRACE;
use rotogate::relay::{AfterUnknown, RelayRules, SecretPlace};
use rotogate_core::http_client::{Allowed, FetchTarget};

/// A relay: the provider behind an endpoint, and the rules for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// The protocol.
    pub wire: Wire,
    /// The name of the issuer of the provider's access tokens, if it is one of `[[issuers]]`.
    pub issuer: Option<String>,
    /// The provider's token endpoint. `None`: the one in the discovery document of `issuer`.
    pub token_url: Option<String>,
    /// The provider's revocation endpoint. `None`: as for `token_url`.
    pub revocation_url: Option<String>,
    /// Where clients send revocations.
    pub revocation_path: Option<String>,
    /// The grants that are served.
    pub grants: Vec<String>,
    /// Times, and what a retry after a lost reply gets.
    pub rules: RelayRules,
    /// The gate's own client at the provider.
    pub client: Option<RelayClientSettings>,
    /// The authorities of the provider's certificate. `None`: those of the system.
    pub ca: Option<PathBuf>,
}

/// The client that the gate is towards the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayClientSettings {
    /// Its id.
    pub id: String,
    /// The file with its secret.
    pub secret_file: Option<PathBuf>,
    /// Where the secret is sent.
    pub secret_in: SecretPlace,
}

impl RelaySettings {
    /// The dialect of the endpoint.
    pub(crate) fn dialect(&self) -> RelayDialect {
        RelayDialect {
            wire: self.wire,
            grants: self.grants.clone(),
            client: self.client.as_ref().map(|client| client.id.clone()),
            revocation_path: self.revocation_path.clone(),
        }
    }
}

const WIRES: &[(&str, Wire)] = &[
    ("oauth", Wire::OAuth),
    ("envelope", Wire::Envelope),
    #[cfg(feature = "grpc")]
    ("knox", Wire::Knox),
];
const AFTER_UNKNOWN: [(&str, AfterUnknown); 2] =
    [("try-once", AfterUnknown::TryOnce), ("refuse", AfterUnknown::Refuse)];
const SECRET_IN: [(&str, SecretPlace); 2] = [("basic", SecretPlace::Basic), ("form", SecretPlace::Form)];

/// The grants that the gate's own client may pass on: each presents what a user got or knows. Those for the client itself,
/// and those whose proof the client made, would serve everybody.
const OF_USERS: [&str; 4] =
    [REFRESH_TOKEN, PASSWORD, "authorization_code", "urn:ietf:params:oauth:grant-type:device_code"];

/// The protocol of an endpoint.
pub(super) fn wire(section: &Section<'_>) -> Wire {
    section.get("wire", value::word(WIRES, &[])).unwrap_or_default()
}

pub(super) fn read(
    section: &Section<'_>,
    dir: &Path,
    issuers: &[TrustedIssuer],
    wire: Wire,
    own_path: &str,
) -> RelaySettings {
    let issuer = section.get("issuer", value::text);
    let known: Vec<&str> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    if let Some(name) = issuer.as_deref().filter(|name| !known.contains(name)) {
        section.blame("issuer", dangling("issuer", name, &known));
    }
    let is_discovered = |issuer: &TrustedIssuer| issuer.keys.remote().is_some_and(RemoteSource::is_discovered);
    let has_discovery = wire == Wire::OAuth
        && issuers.iter().any(|known| issuer.as_deref() == Some(known.name.as_str()) && is_discovered(known));
    let token_url = if has_discovery {
        section.get("token_url", url)
    } else {
        let what = "the provider's token endpoint, an https URL; or an issuer with discovery";
        section.require("token_url", what, url)
    };
    let is_origin = |url: &str| url.parse::<http::Uri>().is_ok_and(|uri| uri.path() == "/" && uri.query().is_none());
    if wire.is_grpc() && token_url.as_deref().is_some_and(|url| !is_origin(url)) {
        section.blame("token_url", "expected a URL without a path: the protocol has the paths of its calls");
    }
    let is_oauth = wire == Wire::OAuth;
    let revocation_url = is_oauth.then(|| section.get("revocation_url", url)).flatten();
    let revocation_path = is_oauth.then(|| section.get("revocation_path", plain_path)).flatten();
    let may_be_discovered = has_discovery && token_url.is_none() && revocation_url.is_none();
    if revocation_path.is_some() != revocation_url.is_some() && !may_be_discovered && !section.is_bad() {
        let (there, missing) = if revocation_path.is_some() {
            ("revocation_path", "revocation_url, the provider's endpoint")
        } else {
            ("revocation_url", "revocation_path, where clients send revocations")
        };
        section.blame(there, format!("needs {missing}"));
    }
    if revocation_path.as_deref().is_some_and(|path| path == own_path) {
        section.blame("revocation_path", "is the path of the endpoint itself; expected another one");
    }
    let grants = section.list("grants", grant).unwrap_or_else(|| vec![REFRESH_TOKEN.to_owned()]);
    if grants.is_empty() && !section.is_bad() {
        section.blame("grants", "is empty: the endpoint would serve nothing; expected \"refresh_token\"");
    }
    let default = RelayRules::default();
    let rules = RelayRules {
        grace: section.get("grace", value::duration_within(Duration::ZERO, MAX_GRACE)).unwrap_or(default.grace),
        timeout: section.get("timeout", value::duration_within(SECOND, 120 * SECOND)).unwrap_or(default.timeout),
        after_unknown: section.get("after_unknown", value::word(&AFTER_UNKNOWN, &[])).unwrap_or(default.after_unknown),
    };
    if let Some(other) = grants.iter().find(|grant| !is_oauth && ![REFRESH_TOKEN, PASSWORD].contains(&grant.as_str())) {
        section.blame("grants", format!("this protocol has \"refresh_token\" and \"password\", found \"{other}\""));
    }
    let client = (is_oauth && section.has("client")).then(|| read_client(&section.section("client"), dir));
    if client.is_some()
        && let Some(own) = grants.iter().find(|grant| !OF_USERS.contains(&grant.as_str()))
    {
        section.blame(
            "grants",
            format!(
                "\"{own}\" beside client: the gate would send it as its own client, and anybody could have that client's \
                 tokens; remove the grant, or remove client, so that clients authenticate by themselves"
            ),
        );
    }
    RelaySettings {
        wire,
        issuer,
        token_url,
        revocation_url,
        revocation_path,
        grants,
        rules,
        client,
        ca: section.get("ca", path_in(dir)),
    }
}

fn read_client(section: &Section<'_>, dir: &Path) -> RelayClientSettings {
    section.later(&["private_key_file"]);
    if section.has("secret") {
        section.blame("secret", "does not belong into this file; write it to a file, and name that as secret_file");
        let _: Option<()> = section.get("secret", |_| Ok(()));
    }
    let client = RelayClientSettings {
        id: section.require("id", "the client_id at the provider", value::text).unwrap_or_default(),
        secret_file: section.get("secret_file", path_in(dir)),
        secret_in: section.get("secret_in", value::word(&SECRET_IN, &[])).unwrap_or_default(),
    };
    if section.has("secret_in") && client.secret_file.is_none() && !section.is_bad() {
        section.blame("secret_in", "needs secret_file");
    }
    section.finish();
    client
}

/// A URL that the gate may ask.
fn url(v: &Raw) -> Result<String, String> {
    let text = value::text(v)?;
    match FetchTarget::parse(&text, Allowed::by_operator()) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{error}, found {}", v.describe())),
    }
}

fn grant(v: &Raw) -> Result<String, String> {
    let text = value::text(v)?;
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(format!("expected a grant type such as \"refresh_token\", found {}", v.describe()))
    }
}

/// A path without parameters.
pub(super) fn plain_path(v: &Raw) -> Result<String, String> {
    let path = value::pattern(v)?;
    if path.contains(['{', '}']) || path.ends_with('/') {
        return Err(format!(
            "expected a path without parameters and without a slash at its end, found {}",
            v.describe()
        ));
    }
    Ok(path)
}

pub(super) fn print(table: &mut Table, relay: &RelaySettings) {
    let RelaySettings { wire, issuer, token_url, revocation_url, revocation_path, grants, rules, client, ca } = relay;
    let RelayRules { grace, timeout, after_unknown } = rules;
    put(table, "wire", word(WIRES, wire));
    put_some(table, "issuer", issuer.as_deref());
    put_some(table, "token_url", token_url.as_deref());
    put_some(table, "revocation_url", revocation_url.as_deref());
    put_some(table, "revocation_path", revocation_path.as_deref());
    put(table, "grants", texts(grants));
    put(table, "grace", time(*grace));
    put(table, "timeout", time(*timeout));
    put(table, "after_unknown", word(&AFTER_UNKNOWN, after_unknown));
    if let Some(RelayClientSettings { id, secret_file, secret_in }) = client {
        let mut own = Table::new();
        put(&mut own, "id", id.as_str());
        put_some(&mut own, "secret_file", secret_file.as_deref().map(path));
        if secret_file.is_some() {
            put(&mut own, "secret_in", word(&SECRET_IN, secret_in));
        }
        put(table, "client", own);
    }
    put_some(table, "ca", ca.as_deref().map(path));
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}

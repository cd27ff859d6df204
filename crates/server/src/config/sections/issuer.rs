//! `[issuer]`: the tokens that the gate mints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use toml::{Table, Value};

use super::super::print::{path, put, texts, time};
use super::super::raw::{Section, Value as Raw};
use super::super::value;
use super::{ServerConfig, path_in};
use rotogate::gate::DEFAULT_LEEWAY;
use rotogate_core::token::Algorithm;

/// `[issuer]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// `iss`.
    pub url: String,
    /// `aud`; at least one.
    pub audience: Vec<String>,
    /// The algorithm of new keys.
    pub algorithm: Algorithm,
    /// The directory of the keyring.
    pub keys: PathBuf,
    /// The allowed clock difference: at most 30 s (requirement J7).
    pub leeway: Duration,
}

/// The defaults of the section. The default of `leeway` is [`DEFAULT_LEEWAY`], which is also its maximum (requirement
/// J7).
impl IssuerConfig {
    const ALGORITHM: Algorithm = Algorithm::EdDsa;
    const KEYS: &str = "data/keys";
}

pub(super) fn read(section: &Section<'_>, dir: &Path, server: &ServerConfig) -> IssuerConfig {
    let issuer = IssuerConfig {
        url: section.get("url", value::issuer_url).unwrap_or_else(|| without_slash(&server.public_url)),
        audience: audience(section),
        algorithm: section.get("algorithm", algorithm).unwrap_or(IssuerConfig::ALGORITHM),
        keys: section.get("keys", path_in(dir)).unwrap_or_else(|| dir.join(IssuerConfig::KEYS)),
        leeway: leeway(section, DEFAULT_LEEWAY),
    };
    section.finish();
    issuer
}

pub(super) fn algorithm(v: &Raw) -> Result<Algorithm, String> {
    value::word(&Algorithm::ALL.map(|a| (a.name(), a)), &[])(v)
}

pub(super) fn leeway(section: &Section<'_>, default: Duration) -> Duration {
    section.get("leeway", value::duration_within(Duration::ZERO, DEFAULT_LEEWAY)).unwrap_or(default)
}

pub(super) fn audience(section: &Section<'_>) -> Vec<String> {
    if !section.has("audience") {
        section.require("audience", "the audiences (aud), such as [\"api\"]", value::text);
        return Vec::new();
    }
    let found = section.one_or_list("audience", value::text);
    if found.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame("audience", "is empty; expected at least one audience");
    }
    found.unwrap_or_default()
}

/// The public URL as an issuer: without a trailing slash.
fn without_slash(url: &Uri) -> String {
    format!("{}://{}", url.scheme_str().unwrap_or("http"), url.authority().map_or("", |a| a.as_str()))
}

pub(super) fn print(issuer: &IssuerConfig) -> Value {
    let IssuerConfig { url, audience, algorithm, keys, leeway } = issuer;
    let mut table = Table::new();
    put(&mut table, "url", url.as_str());
    put(&mut table, "audience", texts(audience));
    put(&mut table, "algorithm", algorithm.name());
    put(&mut table, "keys", path(keys));
    put(&mut table, "leeway", time(*leeway));
    table.into()
}

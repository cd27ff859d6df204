//! The keys of `[[issuers]]` that say where an issuer's keys are fetched, and how often.

use std::path::Path;
use std::time::Duration;

use toml::Table;

use super::super::declare::section;
use super::super::print::{Put, path, put, put_some};
use super::super::raw::{Section, Value as Raw};
use super::super::value;
use super::{SECOND, path_in};
use rotogate::remote_keys::{FetchFiles, FetchSettings, KeyLocation, RemoteIssuer};
use rotogate_core::http_client::Proxy;
use rotogate_core::token::Algorithm;

/// The keys of an issuer that are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSource {
    /// The issuer, and where its keys are.
    pub issuer: RemoteIssuer,
    /// Whether the last good set is kept on disk.
    pub keep: bool,
    /// Whether the gate is not ready before it has the keys for the first time.
    pub required: bool,
}

impl RemoteSource {
    /// Are the keys fetched from the same place, in the same way?
    pub(crate) fn is_fetched_as(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.keep == other.keep
    }

    /// Whether the issuer's metadata are read, and with them the URLs of its endpoints.
    #[cfg(feature = "relay")]
    pub(super) fn is_discovered(&self) -> bool {
        matches!(self.issuer.location, KeyLocation::Discovery | KeyLocation::DiscoveryAt(_))
    }
}

const KEEP: bool = true;
const REQUIRED: bool = false;

/// Reads `discovery`, `jwks_url`, `fetch` and `required`. `None`: neither of the first two is there.
pub(super) fn read(
    section: &Section<'_>,
    dir: &Path,
    name: &str,
    url: &str,
    algorithm: Option<Algorithm>,
) -> Option<RemoteSource> {
    let discovery = section.get("discovery", discovery);
    let jwks_url = section.get("jwks_url", value::text);
    let required = section.get("required", value::boolean);
    let fetch = section.section("fetch");
    let settings = read_fetch(&fetch, &FetchSettings::default());
    let ca = fetch.get("ca", path_in(dir));
    let client_cert = fetch.get("client_cert", path_in(dir));
    let bearer = fetch.get("bearer_file", path_in(dir));
    let keep = fetch.get("keep", value::boolean).unwrap_or(KEEP);
    let proxy = fetch.get("proxy", proxy);
    fetch.finish();
    if !section.has("discovery") && !section.has("jwks_url") {
        for key in ["fetch", "required"] {
            if section.has(key) {
                section.blame(key, "is for keys that are fetched; expected discovery or jwks_url beside it");
            }
        }
        return None;
    }
    let mut issuer = RemoteIssuer::new(name, url).algorithms(algorithm).fetch(settings);
    issuer.location = match (discovery, jwks_url) {
        (Some(location), _) => location,
        (None, Some(url)) => KeyLocation::JwksUrl(url),
        (None, None) => return None,
    };
    issuer.files = FetchFiles::default();
    (issuer.files.ca, issuer.files.client_cert, issuer.files.bearer) = (ca, client_cert, bearer);
    issuer.proxy = proxy;
    if let Err(wrong) = issuer.check() {
        match wrong.key {
            // Blamed already, if it is not there or no URL.
            "url" if section.is_bad() || url.is_empty() => {}
            key @ ("url" | "discovery" | "jwks_url") => section.blame(key, wrong.message),
            _ if fetch.is_bad() => {}
            key => fetch.blame(key, wrong.message),
        }
    }
    Some(RemoteSource { issuer, keep, required: required.unwrap_or(REQUIRED) })
}

/// `true`, or the address of the document.
fn discovery(v: &Raw) -> Result<KeyLocation, String> {
    match v {
        Raw::Bool(true) => Ok(KeyLocation::Discovery),
        Raw::Env(yes) if yes == "true" => Ok(KeyLocation::Discovery),
        Raw::String(url) | Raw::Env(url) if url.contains("://") => Ok(KeyLocation::DiscoveryAt(url.clone())),
        other => Err(format!(
            "expected true, or the address of the document if it is not below url, such as \
             \"https://login.example.com/tenant/.well-known/openid-configuration\", found {}",
            other.describe()
        )),
    }
}

/// A proxy.
fn proxy(v: &Raw) -> Result<Proxy, String> {
    Proxy::parse(&value::text(v)?).map_err(|error| error.to_string())
}

section! {
    impl FetchSettings, read by read_fetch(section, default: &FetchSettings) {
        reload min: Duration = get_or(time(), default.min),
        reload max: Duration = get_or(time(), default.max),
        reload max_size: usize = get_or(value::size(1024, FetchSettings::MAX_SIZE as u64), default.max_size),
        // Where it is not written, it is within the bounds that are.
        reload fresh: Duration = get_or(time(), default.fresh.min(max).max(min)),
        reload cooldown: Duration = get_or(time(), default.cooldown),
        reload timeout: Duration = get_or(time(), default.timeout),
        reload stale_for: Duration = get_or(time(), default.stale_for),
    }
}

fn time() -> impl Fn(&Raw) -> Result<Duration, String> {
    value::duration_within(SECOND, FetchSettings::MAX_STALE_FOR)
}

pub(super) fn print(table: &mut Table, source: &RemoteSource) {
    let RemoteSource { issuer, keep, required } = source;
    match &issuer.location {
        KeyLocation::Discovery => put(table, "discovery", true),
        KeyLocation::DiscoveryAt(url) => put(table, "discovery", url.as_str()),
        KeyLocation::JwksUrl(url) => put(table, "jwks_url", url.as_str()),
        // The library may have more of them than this configuration.
        _ => {}
    }
    put_some(table, "algorithm", issuer.algorithms.first().map(|algorithm| algorithm.name()));
    let mut fetch = Table::new();
    issuer.fetch.put(&mut fetch, "..");
    let files =
        [("ca", &issuer.files.ca), ("client_cert", &issuer.files.client_cert), ("bearer_file", &issuer.files.bearer)];
    for (key, file) in files {
        put_some(&mut fetch, key, file.as_deref().map(path));
    }
    put_some(&mut fetch, "proxy", issuer.proxy.as_ref().map(Proxy::to_string));
    put(&mut fetch, "keep", *keep);
    put(table, "fetch", fetch);
    put(table, "required", *required);
}

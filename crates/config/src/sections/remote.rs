//! The configuration keys of `[[issuers]]` for fetching signing keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;

use super::super::declare::section;
use super::super::print::{Put, put};
use super::super::value;
use super::{SECOND, path_in};
use rotogate::remote_keys::{FetchFiles, FetchSettings, KeyLocation, RemoteIssuer};
use rotogate_core::http_client::Proxy;
use rotogate_core::token::Algorithm;
use rotogate_core::token::claims::CLIENT_PREFIX;
use rotogate_kit::config::{Section, Value as Raw};

/// The source of an issuer's fetched keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSource {
    /// The issuer, and the location of its keys.
    pub issuer: RemoteIssuer,
    /// Whether the last valid JWK set is stored on disk.
    pub keep: bool,
    /// Whether the gate becomes ready only after it has fetched the keys.
    pub required: bool,
}

impl RemoteSource {
    /// Whether both sources fetch the same keys with the same settings.
    pub fn is_fetched_as(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.keep == other.keep
    }

    /// Whether the gate reads the issuer's metadata, which contains the URLs of its endpoints.
    pub(super) fn is_discovered(&self) -> bool {
        matches!(self.issuer.location, KeyLocation::Discovery | KeyLocation::DiscoveryAt(_))
    }
}

pub(super) fn read(
    section: &Section<'_>,
    dir: &Path,
    name: &str,
    url: &str,
    algorithm: Option<Algorithm>,
) -> Option<RemoteSource> {
    let discovery = section.get("discovery", discovery);
    let jwks_url = section.get("jwks_url", value::text);
    // `required` does not apply to clients.
    let is_client = name.starts_with(CLIENT_PREFIX);
    let required = !is_client && section.get_or("required", value::boolean, false);
    let fetch = section.section("fetch");
    let FetchKeys { settings, ca, client_cert, bearer_file, keep, proxy } = read_fetch(&fetch, dir);
    fetch.finish();
    if !section.has("discovery") && !section.has("jwks_url") {
        let message = "only applies to signing keys that are fetched; add `discovery` or `jwks_url`";
        match section.has("introspection") {
            true => fetch.blame_present(&["stale_for", "bearer_file", "proxy"], message),
            false => section.blame_present(&["fetch"], message),
        }
        section.blame_present(&["required"], message);
        return None;
    }
    let mut issuer = RemoteIssuer::new(name, url).algorithms(algorithm).fetch(settings);
    issuer.location = match (discovery, jwks_url) {
        (Some(location), _) => location,
        (None, Some(url)) => KeyLocation::JwksUrl(url),
        (None, None) => return None,
    };
    issuer.files = FetchFiles::default();
    (issuer.files.ca, issuer.files.client_cert, issuer.files.bearer) = (ca, client_cert, bearer_file);
    issuer.proxy = proxy;
    if let Err(wrong) = issuer.check() {
        match wrong.key().unwrap_or_default() {
            // A missing or invalid URL was already reported.
            "url" if section.is_bad() || url.is_empty() => {}
            key @ ("url" | "discovery" | "jwks_url") => section.blame(key, wrong.problem()),
            _ if fetch.is_bad() => {}
            key => fetch.blame(key, wrong.problem()),
        }
    }
    Some(RemoteSource { issuer, keep, required })
}

/// Reads the files for introspection. [`read`] reports problems with these keys.
pub(super) fn read_files(section: &Section<'_>, dir: &Path) -> FetchFiles {
    let fetch = section.section("fetch");
    let file = |key| fetch.get(key, |v| Ok(path_in(dir)(v).ok())).flatten();
    let mut files = FetchFiles::default();
    (files.ca, files.client_cert) = (file("ca"), file("client_cert"));
    files
}

/// Reads `true`, or the URL of the discovery document.
fn discovery(v: &Raw) -> Result<KeyLocation, String> {
    match v {
        Raw::Bool(true) => Ok(KeyLocation::Discovery),
        Raw::Env(yes) if yes == "true" => Ok(KeyLocation::Discovery),
        Raw::String(url) | Raw::Env(url) if url.contains("://") => Ok(KeyLocation::DiscoveryAt(url.clone())),
        other => Err(format!(
            "expected true, or the URL of the discovery document if it is not below `url`, such as \
             \"https://login.example.com/tenant/.well-known/openid-configuration\", found {}",
            other.describe()
        )),
    }
}

fn proxy(v: &Raw) -> Result<Proxy, String> {
    Proxy::parse(&value::text(v)?).map_err(|error| error.to_string())
}

section! {
    /// `fetch`.
    #[derive(Clone, Debug)]
    pub(super) struct FetchKeys, read by read_fetch(section, dir: &Path) {
        /// The times and sizes for fetches.
        reload settings as "..": FetchSettings = by { read_settings(section, &FetchSettings::default()) },
        /// File (PEM) with the only certificate authorities that the gate trusts for this server. Set it if an internal
        /// authority issued the server's certificate.
        reload ca: Option<PathBuf> = get(path_in(dir)),
        /// PEM file with the gate's client certificate, its chain and its private key, for servers that request a
        /// client certificate.
        reload client_cert: Option<PathBuf> = get(path_in(dir)),
        /// File with a bearer token that the gate sends to the hosts of the discovery document and of `jwks_uri`. In
        /// Kubernetes, set `runAsUser` or `fsGroup`, because the gate refuses a file that every user can read.
        reload bearer_file: Option<PathBuf> = get(path_in(dir)),
        /// The gate stores the last valid JWK set on disk, so that it can start while the issuer does not respond.
        fixed keep: bool = always(true),
        /// HTTP proxy (CONNECT) for connections to other machines (`"http://proxy.example.com:3128"`). The proxy
        /// resolves host names, so the gate does not check IP addresses. The TLS connection is between the gate and the
        /// server. Set it if the gate can reach the internet only through a proxy.
        reload proxy: Option<Proxy> = get(self::proxy),
    }
}

section! {
    impl FetchSettings, read by read_settings(section, default: &FetchSettings) {
        /// Minimum time that a response stays fresh, whatever its headers (`max-age`, `Age`, `no-store`, `no-cache`)
        /// say. After a failed fetch the gate tries again after 1, 2, 4 … 60 s, but not later than this time.
        fixed min: Duration = get_or(time(), FetchSettings::default().min),
        /// Maximum time that a response stays fresh.
        fixed max: Duration = get_or(time(), FetchSettings::default().max),
        /// Maximum size of an accepted response; up to 1MiB. A JWK set may have at most 100 keys.
        fixed max_size: usize = get_or(value::size(1024, FetchSettings::MAX_SIZE as u64), FetchSettings::default().max_size),
        /// How long a response without `max-age` stays fresh, from `min` to `max`. The gate fetches the keys again
        /// after 80 to 95 % of this time.
        fixed fresh: Duration = get_or(time(), FetchSettings::default().fresh),
        /// Minimum time between two fetches that tokens with an unknown `kid` cause.
        fixed cooldown: Duration = get_or(time(), FetchSettings::default().cooldown),
        /// Time limit for one fetch, including DNS, connecting, TLS and the response. A client's request does not wait
        /// for keys longer than this time.
        fixed timeout: Duration = get_or(time(), FetchSettings::default().timeout),
        /// How long the gate uses the last valid JWK set while fetches fail; from `max` to 7 days. If the issuer
        /// withdraws a signing key while its server is unreachable, the gate still accepts this key for the whole time,
        /// so shorten the time if that is a risk. The gate refreshes a valid set within half of this time.
        reload stale_for: Duration = get_or(value::duration_within(max, FetchSettings::MAX_STALE_FOR), default.stale_for),
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
        // `KeyLocation` is non-exhaustive.
        _ => {}
    }
    issuer.algorithms.first().copied().put(table, "algorithm");
    let FetchFiles { ca, client_cert, bearer, .. } = issuer.files.clone();
    let (settings, proxy) = (issuer.fetch, issuer.proxy.clone());
    FetchKeys { settings, ca, client_cert, bearer_file: bearer, keep: *keep, proxy }.put(table, "fetch");
    if !issuer.name.starts_with(CLIENT_PREFIX) {
        put(table, "required", *required);
    }
}

//! Listeners, issuers, sessions, store, directory, limits, logs.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::super::raw::{Section, Value};
use super::super::types::{
    AdminConfig, CorsConfig, DirectoryConfig, IssuerConfig, KeySource, LimitsConfig, ServerConfig, SessionsConfig,
    StoreConfig, TrustedIssuer,
};
use super::super::value;
use super::{check_profile, collide, listeners, overload, path_in, profile};
use rotogate::gate::DEFAULT_MAX_STREAM;
use rotogate::limit::Rates;
use rotogate::session::Scope;
use rotogate::session::profile::Profile;
use rotogate::store::redb::DEFAULT_CACHE_SIZE;
use rotogate::token::Algorithm;
use rotogate::token::algorithm::Family;
use rotogate::token::verify::{AllowedScopes, OWN, host_of};
use rotogate::verify_cache::DEFAULT_CACHE;

use crate::log::{AccessLogConfig, LogConfig, LogFormat, LogLevel, LogOutput};

pub(super) const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The most by which clocks may differ (requirement J7).
const MAX_LEEWAY: Duration = Duration::from_secs(30);

pub(super) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn bytes(value: Option<u64>, default: usize) -> usize {
    value.and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
}

pub(super) fn server(section: &Section<'_>, dir: &Path) -> ServerConfig {
    let timeout = |key, default: u64| {
        let seconds = Duration::from_secs(default);
        section.get(key, value::duration_within(Duration::from_millis(100), HOUR)).unwrap_or(seconds)
    };
    let trusted_proxies = section.list("trusted_proxies", value::network).unwrap_or_default();
    let expected = "the URL at which clients reach the gate, such as \"https://api.example.com\"";
    let max_connections = section.get("max_connections", value::count(1, 1_000_000)).unwrap_or(10_000);
    let (overload, max_requests_per_connection) = overload::bounds(section, max_connections);
    let server = ServerConfig {
        listeners: listeners::all(section, dir, &trusted_proxies),
        public_url: section.require("public_url", expected, value::origin_url).unwrap_or_default(),
        trusted_proxies,
        hosts: section.list("hosts", value::served_host).unwrap_or_default(),
        connect_timeout: timeout("connect_timeout", 5),
        head_timeout: timeout("head_timeout", 10),
        idle_timeout: timeout("idle_timeout", 60),
        max_head: bytes(section.get("max_head", value::size(8 << 10, 1 << 20)), 32 << 10),
        max_connections,
        overload,
        max_requests_per_connection,
        workers: section
            .get("workers", value::count(1, 1024))
            .and_then(NonZeroUsize::new)
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN),
        min_body_rate: section.get("min_body_rate", value::size(0, 1 << 20)).unwrap_or(256),
        drain_timeout: section
            .get("drain_timeout", value::duration_within(Duration::ZERO, HOUR))
            .unwrap_or(30 * SECOND),
        request_id_header: section
            .get("request_id_header", |v| value::header(&value::text(v)?))
            .unwrap_or(HeaderName::from_static("x-request-id")),
    };
    // Each listener holds a place for the connection that it waits for.
    if server.max_connections < server.listeners.len() {
        let message = format!("is {}, and there are {} listeners", server.max_connections, server.listeners.len());
        section.blame("max_connections", message);
    }
    section.finish();
    server
}

pub(super) fn admin(section: &Section<'_>, dir: &Path, server: &ServerConfig) -> AdminConfig {
    let listen = section.get("listen", value::address).unwrap_or_else(|| local(8081));
    let dangerous_non_loopback = section.get("dangerous_non_loopback", value::boolean).unwrap_or(false);
    if !listen.ip().to_canonical().is_loopback() && !dangerous_non_loopback {
        let message = format!(
            "{listen} can be reached from other machines; expected a loopback address such as 127.0.0.1:8081, or \
             dangerous_non_loopback = true beside it"
        );
        section.blame("listen", message);
    }
    if let Some(public) = server.addresses().find(|public| collide(*public, listen)) {
        let message = format!("{listen} is the public listener {public} too; expected an address of its own");
        section.blame("listen", message);
    }
    let token_file = section.get("token_file", path_in(dir)).unwrap_or_else(|| dir.join("data/admin.token"));
    let hosts = section.list("hosts", value::host).unwrap_or_default();
    section.finish();
    AdminConfig { listen, token_file, dangerous_non_loopback, hosts }
}

fn algorithm(v: &Value) -> Result<Algorithm, String> {
    value::word(&Algorithm::ALL.map(|a| (a.name(), a)), &[])(v)
}

fn leeway(section: &Section<'_>, default: Duration) -> Duration {
    section.get("leeway", value::duration_within(Duration::ZERO, MAX_LEEWAY)).unwrap_or(default)
}

fn audience(section: &Section<'_>) -> Vec<String> {
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

/// The public URL as an issuer is written: without the slash at its end.
fn without_slash(url: &Uri) -> String {
    format!("{}://{}", url.scheme_str().unwrap_or("http"), url.authority().map_or("", |a| a.as_str()))
}

pub(super) fn issuer(section: &Section<'_>, dir: &Path, server: &ServerConfig) -> IssuerConfig {
    let issuer = IssuerConfig {
        url: section.get("url", value::issuer_url).unwrap_or_else(|| without_slash(&server.public_url)),
        audience: audience(section),
        algorithm: section.get("algorithm", algorithm).unwrap_or(Algorithm::EdDsa),
        keys: section.get("keys", path_in(dir)).unwrap_or_else(|| dir.join("data/keys")),
        leeway: leeway(section, MAX_LEEWAY),
    };
    section.finish();
    issuer
}

pub(super) fn issuers(sections: &[Section<'_>], dir: &Path, own: &IssuerConfig) -> Vec<TrustedIssuer> {
    let mut issuers: Vec<TrustedIssuer> = Vec::new();
    for section in sections {
        section.later(&["discovery", "jwks_url", "fetch", "preset", "scope_map", "claims", "require", "introspection"]);
        let url = section.require("url", "the issuer (iss)", value::issuer_url).unwrap_or_default();
        if !url.is_empty() && url == own.url {
            section.blame("url", "is our own issuer, whose tokens are always trusted; remove this entry");
        } else if !url.is_empty() && issuers.iter().any(|other| other.url == url) {
            section.blame("url", format!("{url} is there twice"));
        }
        let name = section.get("name", issuer_name).unwrap_or_else(|| host_of(&url).to_owned());
        if !name.is_empty() && issuers.iter().any(|other| other.name == name) {
            let hint = if section.has("name") { "" } else { ", because it is the host of url; give this one a name" };
            section.blame("name", format!("\"{name}\" is there twice{hint}"));
        }
        let typ = section.one_or_list("typ", value::text);
        if typ.as_ref().is_some_and(Vec::is_empty) {
            section.blame("typ", "is empty; expected at least one type, such as \"at+jwt\"");
        }
        issuers.push(TrustedIssuer {
            name,
            url,
            scopes: allowed_scopes(section),
            everywhere: section.get("everywhere", value::boolean).unwrap_or(false),
            subject_prefix: section.get("subject_prefix", subject_prefix).unwrap_or_default(),
            audience: audience(section),
            keys: issuer_keys(section, dir),
            typ: typ.unwrap_or_else(|| vec!["at+jwt".to_owned()]),
            max_lifetime: section.get("max_lifetime", value::duration_within(SECOND, 366 * DAY)).unwrap_or(DAY),
            leeway: leeway(section, own.leeway),
        });
        section.finish();
    }
    issuers
}

fn issuer_name(v: &Value) -> Result<String, String> {
    match v {
        Value::String(name) | Value::Env(name) if name == OWN => {
            Err(format!("\"{OWN}\" is our own issuer; expected another name"))
        }
        Value::String(name) | Value::Env(name)
            if (1..=256).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Ok(name.clone())
        }
        other => Err(format!("expected 1 to 256 visible ASCII characters, found {}", other.describe())),
    }
}

fn subject_prefix(v: &Value) -> Result<String, String> {
    match v {
        Value::String(text) | Value::Env(text) if text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(text.clone())
        }
        other => {
            Err(format!("expected at most 64 visible ASCII characters, such as \"kc|\", found {}", other.describe()))
        }
    }
}

/// A list, or "any", which must be written: another issuer's scopes are no words of ours by themselves.
fn allowed_scopes(section: &Section<'_>) -> AllowedScopes {
    const ANY: &str = "any";
    let is_any = |v: &Value| matches!(v, Value::String(word) | Value::Env(word) if word == ANY);
    if section.get("scopes", |v| Ok(is_any(v))) == Some(true) {
        return AllowedScopes::Any;
    }
    let listed = section.list("scopes", value::scope).unwrap_or_default();
    let joined = listed.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
    AllowedScopes::Only(Scope::parse(&joined).unwrap_or_default())
}

fn issuer_keys(section: &Section<'_>, dir: &Path) -> KeySource {
    let file = |v: &super::super::raw::Value| match value::text(v)? {
        url if url.contains("://") => Err(format!("expected a file, found the URL {}; download it", v.describe())),
        _ => path_in(dir)(v),
    };
    let jwks = section.get("jwks_file", file);
    let public_key = section.get("public_key", file);
    let algorithm = section.get("algorithm", algorithm);
    match (section.has("jwks_file"), section.has("public_key")) {
        (true, true) => section.blame("public_key", "stands beside jwks_file; expected one of the two"),
        (false, false) => section.blame("jwks_file", "missing; expected jwks_file, or public_key with algorithm"),
        (false, true) if !section.has("algorithm") => {
            section.blame("algorithm", "missing; a public_key needs it, because the key fixes the algorithm");
        }
        (false, true) if algorithm.is_some_and(|a| a.family() == Family::Hmac) => {
            section.blame("algorithm", "is a shared-secret algorithm, and a public key is no secret");
        }
        _ => {}
    }
    match public_key {
        Some(file) => KeySource::PublicKey(file, algorithm.unwrap_or(Algorithm::EdDsa)),
        None => KeySource::Jwks(jwks.unwrap_or_default(), algorithm),
    }
}

pub(super) fn sessions(section: &Section<'_>) -> SessionsConfig {
    section.later(&["on_expiry"]);
    let rules = profile(section).over(&Profile::default());
    let keep_login_client = section.get("keep_login_client", value::boolean).unwrap_or(true);
    let stream = value::duration_within(Duration::from_secs(1), Duration::from_secs(30 * 86_400));
    let max_stream = section.get("max_stream", stream).unwrap_or(DEFAULT_MAX_STREAM);
    // One refused value would only bring a second complaint about its default.
    if !section.is_bad() {
        check_profile(section, &rules, "");
    }
    section.finish();
    SessionsConfig { profile: rules, keep_login_client, max_stream }
}

pub(super) fn store(section: &Section<'_>, dir: &Path) -> StoreConfig {
    section.later(&["url", "wait_replicas", "when_stale", "max_stale", "staleness"]);
    let is_memory = section.get("kind", value::word(&[("redb", false), ("memory", true)], &["redis"])).unwrap_or(false);
    let path = section.get("path", path_in(dir)).unwrap_or_else(|| dir.join("data/rotogate.redb"));
    let accept_restored_store = section.get("accept_restored_store", value::boolean).unwrap_or(false);
    let cache_size = bytes(section.get("cache_size", value::size(1 << 20, 1 << 40)), DEFAULT_CACHE_SIZE);
    let give_up = section.get("give_up", value::duration_within(SECOND, 366 * DAY));
    section.finish();
    if is_memory { StoreConfig::Memory } else { StoreConfig::Redb { path, accept_restored_store, cache_size, give_up } }
}

pub(super) fn directory(section: &Section<'_>, dir: &Path) -> DirectoryConfig {
    section.later(&["url"]);
    section.get("kind", value::word(&[("file", ())], &["webhook"]));
    let path = section.get("path", path_in(dir)).unwrap_or_else(|| dir.join("data/users.toml"));
    section.finish();
    DirectoryConfig::File { path }
}

pub(super) fn limits(section: &Section<'_>) -> LimitsConfig {
    let rate = |key, default| section.get(key, value::rate).unwrap_or(default);
    let rates = Rates::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = LimitsConfig {
        login_per_address: rate("login_per_address", rates.login_per_address),
        login_per_account: rate("login_per_account", rates.login_per_account),
        login_per_client: rate("login_per_client", rates.login_per_client),
        refresh_per_session: rate("refresh_per_session", rates.refresh_per_session),
        refresh_per_address: rate("refresh_per_address", rates.refresh_per_address),
        forged_per_address: rate("forged_per_address", rates.forged_per_address),
        refused_per_address: rate("refused_per_address", rates.refused_per_address),
        forged_overall: rate("forged_overall", rates.forged_overall),
        verified_cache: section.get("verified_cache", value::size(1 << 20, 1 << 40)).unwrap_or(DEFAULT_CACHE),
        max_password_checks: section.get("max_password_checks", value::count(1, 1024)).unwrap_or(cores),
        password_queue: section.get("password_queue", value::count(0, 100_000)).unwrap_or(64),
        max_token_body: bytes(section.get("max_token_body", value::size(1 << 10, 1 << 20)), 16 << 10),
    };
    section.finish();
    limits
}

pub(super) fn cors(section: &Section<'_>) -> CorsConfig {
    let cors = CorsConfig {
        origins: section.list("origins", value::cors_origin).unwrap_or_default(),
        allow_credentials: section.get("allow_credentials", value::boolean).unwrap_or(false),
        max_age: section.get("max_age", value::duration_within(Duration::ZERO, DAY)).unwrap_or(600 * SECOND),
        expose: section.list("expose", value::exposed_header).unwrap_or_default(),
    };
    if !cors.expose.is_empty() && cors.origins.is_empty() && !section.is_bad() {
        section.blame("expose", "is of use to origins alone, and there is none in origins; add one, or remove it");
    }
    section.finish();
    cors
}

pub(super) fn log(section: &Section<'_>, dir: &Path) -> LogConfig {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let levels = levels.map(|level| (level.as_str(), level));
    let log = LogConfig {
        format: section.get("format", value::word(&formats, &[])).unwrap_or(LogFormat::Text),
        level: section.get("level", value::word(&levels, &[])).unwrap_or(LogLevel::Info),
        output: section.get("output", log_output(dir)).unwrap_or(LogOutput::Stderr),
    };
    section.finish();
    log
}

pub(super) fn access_log(section: &Section<'_>, dir: &Path, log: &LogConfig) -> AccessLogConfig {
    section.later(&["sample"]);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let interval = value::duration_within(Duration::from_millis(10), SECOND);
    let access_log = AccessLogConfig {
        enabled: section.get("enabled", value::boolean).unwrap_or(true),
        format: section.get("format", value::word(&formats, &[])).unwrap_or(log.format),
        output: section.get("output", log_output(dir)).unwrap_or(LogOutput::Stderr),
        buffer: bytes(section.get("buffer", value::size(64 << 10, 1 << 30)), 1 << 20),
        flush_interval: section.get("flush_interval", interval).unwrap_or(Duration::from_millis(200)),
        log_user_agent: section.get("log_user_agent", value::boolean).unwrap_or(true),
    };
    section.finish();
    access_log
}

/// Where a log goes. A file is written as a path, so that a misspelt word is none.
fn log_output(dir: &Path) -> impl Fn(&Value) -> Result<LogOutput, String> {
    move |v| match value::text(v)?.as_str() {
        "stderr" => Ok(LogOutput::Stderr),
        "stdout" => Ok(LogOutput::Stdout),
        path if path.contains('/') => Ok(LogOutput::File(dir.join(path))),
        other => Err(format!(
            "expected \"stderr\", \"stdout\" or a path such as \"/var/log/rotogate/access.log\", found \"{other}\""
        )),
    }
}

//! `[store]` with `kind = "redis"`.

use std::path::{Path, PathBuf};

use toml::Table;

use super::super::super::print::{number, path, put, put_some, texts};
use super::super::super::raw::{Section, Value};
use super::super::super::value;
use super::super::path_in;
use super::shared;
use rotogate::store::{RedisOptions, Staleness};

/// More than any set-up has.
const MAX_REPLICAS: usize = 64;

/// A server that several gates share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Its URL, those of its Sentinels, or those of nodes of the cluster, without credentials.
    pub urls: Vec<String>,
    /// How the Sentinels name the primary. `None`: there are none.
    pub sentinel: Option<SentinelSettings>,
    /// Whether the servers are nodes of a cluster.
    pub cluster: bool,
    /// The user.
    pub username: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// The first part of every key.
    pub prefix: String,
    /// The authorities of the server's certificate. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The files with the gate's own certificate and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Whether the operator knows that the server evicts nothing, where INFO is forbidden.
    pub assume_noeviction: bool,
    /// The file of this gate's high-water mark.
    pub mark: PathBuf,
    /// Whether the operator allows a restored backup.
    pub accept_restored_store: bool,
    /// How many replicas have what is acknowledged.
    pub wait_replicas: u32,
    /// Whether what is acknowledged is in append-only files.
    pub wait_fsync: bool,
    /// How long the gate goes on without news.
    pub staleness: Staleness,
}

/// `sentinel`, and how the Sentinels know the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelSettings {
    /// Their name for the primary.
    pub name: String,
    /// The user.
    pub username: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
}

/// `None` if a key that is needed is missing or refused.
pub(super) fn read(section: &Section<'_>, dir: &Path, keys: &Path) -> Option<RedisSettings> {
    let urls = urls(section);
    let sentinel = sentinel(section, dir);
    let cluster = section.get("cluster", value::boolean).unwrap_or(false);
    if let Some(urls) = &urls
        && !section.is_bad()
        && let Err(error) = RedisOptions::check_urls(urls, sentinel.is_some(), cluster)
    {
        let key = match (sentinel.is_some(), cluster) {
            (true, true) => "cluster",
            (false, false) if urls.len() > 1 => "sentinel",
            _ => "urls",
        };
        section.blame(key, error.to_string());
    }
    let (username, password_file) = login(section, dir, "username", "password_file");
    let prefix = section.get("prefix", prefix).unwrap_or_else(|| RedisOptions::PREFIX.to_owned());
    let ca = section.get("ca", path_in(dir));
    let client_cert = shared::client_cert(section, dir);
    if urls.as_ref().is_some_and(|urls| !urls.iter().any(|url| url.starts_with("rediss://"))) {
        for key in ["ca", "client_cert"] {
            if section.has(key) {
                section.blame(key, "needs urls that begin with rediss://");
            }
        }
    }
    let assume_noeviction = section.get("assume_noeviction", value::boolean).unwrap_or(false);
    let mark = super::read_mark(section, dir, keys);
    let accept_restored_store = section.get("accept_restored_store", value::boolean).unwrap_or(false);
    let wait_replicas = section.get("wait_replicas", value::count(0, MAX_REPLICAS)).unwrap_or(0);
    let wait_fsync = section.get("wait_fsync", value::boolean).unwrap_or(false);
    let staleness = shared::read(section);
    Some(RedisSettings {
        urls: urls?,
        sentinel,
        cluster,
        username,
        password_file,
        prefix,
        ca,
        client_cert,
        assume_noeviction,
        mark,
        accept_restored_store,
        wait_replicas,
        wait_fsync,
        staleness,
    })
}

fn urls(section: &Section<'_>) -> Option<Vec<String>> {
    let urls = section.list("urls", url);
    if !section.has("urls") {
        section.blame(
            "urls",
            "missing; expected a list with the URL of the server, such as [\"rediss://redis.internal:6379\"]",
        );
    } else if urls.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame("urls", "is empty; expected the URL of the server");
    }
    urls.filter(|urls| !urls.is_empty())
}

fn sentinel(section: &Section<'_>, dir: &Path) -> Option<SentinelSettings> {
    let name = section.get("sentinel", name);
    let (username, password_file) = login(section, dir, "sentinel_username", "sentinel_password_file");
    if !section.has("sentinel") {
        for key in ["sentinel_username", "sentinel_password_file"] {
            if section.has(key) {
                section.blame(key, "needs sentinel");
            }
        }
    }
    Some(SentinelSettings { name: name?, username, password_file })
}

fn name(value: &Value) -> Result<String, String> {
    value::text(value).and_then(|name| {
        if name.is_empty() {
            Err("is empty; expected the Sentinels' name for the primary".to_owned())
        } else {
            Ok(name)
        }
    })
}

/// A user and the file with the password. A password alone is that of the default user.
fn login(
    section: &Section<'_>,
    dir: &Path,
    username: &'static str,
    file: &'static str,
) -> (Option<String>, Option<PathBuf>) {
    let (name, path) = (section.get(username, value::text), section.get(file, path_in(dir)));
    if name.is_some() && !section.has(file) {
        section.blame(file, format!("missing; expected a file with the password of {username}"));
    }
    (name, path)
}

fn url(value: &Value) -> Result<String, String> {
    let url = value::text(value)?;
    // Not shown: it may hold a password.
    RedisOptions::check_url(&url).map_err(|error| error.to_string())?;
    Ok(url)
}

fn prefix(value: &Value) -> Result<String, String> {
    let prefix = value::text(value)?;
    RedisOptions::check_prefix(&prefix).map_err(|error| error.to_string())?;
    Ok(prefix)
}

pub(super) fn print(settings: &RedisSettings, table: &mut Table) {
    let RedisSettings {
        urls,
        sentinel,
        cluster,
        username,
        password_file,
        prefix,
        ca,
        client_cert,
        assume_noeviction,
        mark,
        accept_restored_store,
        wait_replicas,
        wait_fsync,
        staleness,
    } = settings;
    put(table, "kind", "redis");
    put(table, "urls", texts::<String>(urls));
    if let Some(SentinelSettings { name, username, password_file }) = sentinel {
        put(table, "sentinel", name.as_str());
        put_some(table, "sentinel_username", username.as_deref());
        put_some(table, "sentinel_password_file", password_file.as_deref().map(path));
    }
    put(table, "cluster", *cluster);
    put_some(table, "username", username.as_deref());
    put_some(table, "password_file", password_file.as_deref().map(path));
    put(table, "prefix", prefix.as_str());
    put_some(table, "ca", ca.as_deref().map(path));
    shared::print_client_cert(client_cert.as_ref(), table);
    put(table, "assume_noeviction", *assume_noeviction);
    put(table, "mark", path(mark));
    put(table, "accept_restored_store", *accept_restored_store);
    put(table, "wait_replicas", number(*wait_replicas));
    put(table, "wait_fsync", *wait_fsync);
    shared::print(*staleness, table);
}

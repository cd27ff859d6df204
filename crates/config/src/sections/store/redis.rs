//! `[store]` with `kind = "redis"`.

use std::path::{Path, PathBuf};

use super::super::super::declare::section;
use super::super::super::value;
use super::super::path_in;
use super::shared::{self, SharedSettings};
use rotogate::store::RedisOptions;
use rotogate_kit::config::{Section, Value};

/// The maximum of `wait_replicas`.
const MAX_REPLICAS: usize = 64;

section! {
    /// A server that several gates share.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RedisSettings, read by read_keys(section, dir: &Path, keys: &Path) {
        /// Required: URL of the Redis server, or URLs of its Sentinels or of some nodes of a Redis Cluster, without a
        /// password. `rediss://` uses TLS, `redis://` does not. `/2` at the end selects database 2.
        restart urls: Vec<String> = by { self::urls(section) },
        /// How the gate reaches the Sentinels.
        restart sentinel as "..": Option<SentinelSettings> = by { self::sentinel(section, dir) },
        /// true: `urls` lists nodes of a Redis Cluster, of which at least one must respond. Set it for a cluster,
        /// because the gate cannot detect a cluster from its URLs.
        restart cluster: bool = by { read_cluster(section, &urls, sentinel.is_some()) },
        /// Name of the Redis user; needs `password_file`. Default: the user `default`.
        restart username: Option<String> = get(value::text),
        /// Prefix of every Redis key. Set it if several installations share a server.
        restart prefix: String = get_or(
            |v| value::checked(v, RedisOptions::check_prefix),
            RedisOptions::PREFIX.to_owned()
        ),
        /// true: the gate assumes that the Redis server never evicts keys. Set it if `username` is not allowed to run
        /// `INFO`, with which the gate checks this by default. An evicted key would be a lost revocation.
        restart assume_noeviction: bool = get_or(value::boolean, false),
        /// How many replicas must have received a write before the gate acknowledges it. Raise it if a failover must
        /// not lose revocations.
        restart wait_replicas: u32 = get_or(value::count(0, MAX_REPLICAS), 0),
        /// The settings of every shared store.
        restart shared as "..": SharedSettings = by { shared::read(section, dir, keys) },
    }
}

section! {
    /// How the gate finds the primary by Sentinels, and authenticates to them.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SentinelSettings, read by read_sentinel(section, dir: &Path) {
        /// Name under which the Sentinels know the primary.
        restart name as "sentinel": String = get_or(value::text, String::new()),
        /// The gate's user name for the Sentinels; needs `sentinel_password_file`.
        restart username as "sentinel_username": Option<String> = get(value::text),
        /// File with the gate's password for the Sentinels.
        restart password_file as "sentinel_password_file": Option<PathBuf> = get(path_in(dir)),
    }
}

pub(super) fn read(section: &Section<'_>, dir: &Path, keys: &Path) -> RedisSettings {
    let settings = read_keys(section, dir, keys);
    check_login(section, settings.username.is_some(), "username", "password_file");
    let urls = &settings.urls;
    if !urls.is_empty() && !urls.iter().any(|url| url.starts_with("rediss://")) {
        section.blame_present(&["ca", "client_cert"], "needs `urls` that begin with rediss://");
    }
    settings
}

fn urls(section: &Section<'_>) -> Vec<String> {
    let urls = section.list("urls", url);
    if !section.has("urls") {
        section.blame(
            "urls",
            "missing; expected a list with the URL of the server, such as [\"rediss://redis.internal:6379\"]",
        );
    } else if urls.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame("urls", "is empty; expected the URL of the server");
    }
    urls.unwrap_or_default()
}

fn read_cluster(section: &Section<'_>, urls: &[String], has_sentinel: bool) -> bool {
    let cluster = section.get_or("cluster", value::boolean, false);
    if !urls.is_empty()
        && !section.is_bad()
        && let Err(error) = RedisOptions::check_urls(urls, has_sentinel, cluster)
    {
        let key = match (has_sentinel, cluster) {
            (true, true) => "cluster",
            (false, false) if urls.len() > 1 => "sentinel",
            _ => "urls",
        };
        section.blame(key, error.to_string());
    }
    cluster
}

fn sentinel(section: &Section<'_>, dir: &Path) -> Option<SentinelSettings> {
    let settings = read_sentinel(section, dir);
    check_login(section, settings.username.is_some(), "sentinel_username", "sentinel_password_file");
    if !section.has("sentinel") {
        section.blame_present(&["sentinel_username", "sentinel_password_file"], "needs `sentinel`");
    }
    Some(settings).filter(|settings| !settings.name.is_empty())
}

/// A password without a user name is for the default user.
fn check_login(section: &Section<'_>, has_name: bool, username: &str, file: &str) {
    if has_name && !section.has(file) {
        section.blame(file, format!("missing; expected a file with the password for {username}"));
    }
}

fn url(value: &Value) -> Result<String, String> {
    // The error does not show the URL, because it may contain a password.
    value::checked(value, RedisOptions::check_url)
}

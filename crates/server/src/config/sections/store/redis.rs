//! `[store]` with `kind = "redis"`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;

use super::super::super::print::{path, put, put_some, time};
use super::super::super::raw::{Section, Value};
use super::super::super::value;
use super::super::{DAY, path_in};
use rotogate::store::{RedisOptions, Staleness};

/// A server that several gates share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// Its URL, without credentials.
    pub url: String,
    /// Whether the URL is that of a node of a cluster.
    pub cluster: bool,
    /// The user.
    pub username: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// The first part of every key.
    pub prefix: String,
    /// The authorities of the server's certificate. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Whether the operator knows that the server evicts nothing, where INFO is forbidden.
    pub assume_noeviction: bool,
    /// The file of this gate's high-water mark.
    pub mark: PathBuf,
    /// Whether the operator allows a restored backup.
    pub accept_restored_store: bool,
    /// How long the gate goes on without news.
    pub staleness: Staleness,
}

/// `None` if a key that is needed is missing or refused.
pub(super) fn read(section: &Section<'_>, dir: &Path, keys: &Path) -> Option<RedisSettings> {
    let url = section.require("url", "the URL of the server, such as \"rediss://redis.internal:6379\"", url);
    let cluster = section.get("cluster", value::boolean).unwrap_or(false);
    if let Some(Err(error)) = url.as_ref().filter(|_| cluster).map(|url| RedisOptions::check_cluster_url(url)) {
        section.blame("url", error.to_string());
    }
    let username = section.get("username", value::text);
    let password_file = section.get("password_file", path_in(dir));
    if username.is_some() && password_file.is_none() && !section.has("password_file") {
        section.blame("password_file", "missing; expected a file with the password of username");
    }
    let prefix = section.get("prefix", prefix).unwrap_or_else(|| RedisOptions::PREFIX.to_owned());
    let ca = section.get("ca", path_in(dir));
    if ca.is_some() && url.as_ref().is_some_and(|url| !url.starts_with("rediss://")) {
        section.blame("ca", "needs a url that begins with rediss://");
    }
    let assume_noeviction = section.get("assume_noeviction", value::boolean).unwrap_or(false);
    let mark = super::read_mark(section, dir, keys);
    let accept_restored_store = section.get("accept_restored_store", value::boolean).unwrap_or(false);
    let staleness = staleness(section);
    Some(RedisSettings {
        url: url?,
        cluster,
        username,
        password_file,
        prefix,
        ca,
        assume_noeviction,
        mark,
        accept_restored_store,
        staleness,
    })
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

fn staleness(section: &Section<'_>) -> Staleness {
    let limit = value::duration_within(Staleness::SHORTEST, Staleness::LONGEST);
    let limit = section.get("staleness", limit).unwrap_or(Staleness::default().limit);
    let serves = section.get("when_stale", value::word(&[("deny", false), ("allow", true)], &[])).unwrap_or(false);
    let served = section.get("max_stale", value::duration_within(Duration::ZERO, DAY));
    match (serves, served) {
        (true, Some(served)) if served >= limit => return Staleness { limit, served },
        (true, Some(_)) => section.blame("max_stale", "is shorter than staleness"),
        (true, None) if section.has("max_stale") => {}
        (true, None) => {
            section.blame("max_stale", "missing; expected how long revocations of other gates may be unknown");
        }
        (false, Some(_)) => section.blame("max_stale", "has a meaning only with when_stale = \"allow\""),
        (false, None) => {}
    }
    Staleness::deny_after(limit)
}

pub(super) fn print(settings: &RedisSettings, table: &mut Table) {
    let RedisSettings {
        url,
        cluster,
        username,
        password_file,
        prefix,
        ca,
        assume_noeviction,
        mark,
        accept_restored_store,
        staleness,
    } = settings;
    put(table, "kind", "redis");
    put(table, "url", url.as_str());
    put(table, "cluster", *cluster);
    put_some(table, "username", username.as_deref());
    put_some(table, "password_file", password_file.as_deref().map(path));
    put(table, "prefix", prefix.as_str());
    put_some(table, "ca", ca.as_deref().map(path));
    put(table, "assume_noeviction", *assume_noeviction);
    put(table, "mark", path(mark));
    put(table, "accept_restored_store", *accept_restored_store);
    put(table, "staleness", time(staleness.limit));
    if staleness.served > staleness.limit {
        put(table, "when_stale", "allow");
        put(table, "max_stale", time(staleness.served));
    } else {
        put(table, "when_stale", "deny");
    }
}

//! What `[store]` says of every store that several gates share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;

use super::super::super::print::{path, put, time};
use super::super::super::raw::Section;
use super::super::super::value;
use super::super::{DAY, path_in};
use rotogate_core::store::Staleness;

pub(super) fn read(section: &Section<'_>) -> Staleness {
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

pub(super) fn print(staleness: Staleness, table: &mut Table) {
    put(table, "staleness", time(staleness.limit));
    if staleness.served > staleness.limit {
        put(table, "when_stale", "allow");
        put(table, "max_stale", time(staleness.served));
    } else {
        put(table, "when_stale", "deny");
    }
}

/// The gate's own certificate, and its key.
pub(super) fn client_cert(section: &Section<'_>, dir: &Path) -> Option<(PathBuf, PathBuf)> {
    if !section.has("client_cert") {
        return None;
    }
    let pair = section.section("client_cert");
    let file = |key| pair.require(key, "a PEM file", path_in(dir));
    let both = file("cert").zip(file("key"));
    pair.finish();
    both
}

pub(super) fn print_client_cert(pair: Option<&(PathBuf, PathBuf)>, table: &mut Table) {
    let Some((cert, key)) = pair else { return };
    let mut pair = Table::new();
    put(&mut pair, "cert", path(cert));
    put(&mut pair, "key", path(key));
    put(table, "client_cert", pair);
}

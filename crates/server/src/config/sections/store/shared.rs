//! What `[store]` says of every store that several gates share.

use std::time::Duration;

use toml::Table;

use super::super::super::print::{put, time};
use super::super::super::raw::Section;
use super::super::super::value;
use super::super::DAY;
use rotogate::store::Staleness;

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

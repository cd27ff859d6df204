//! The keys of `[store]` for every store that several gates share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

#[cfg(test)]
use super::super::super::declare::Key;
use super::super::super::declare::section;
use super::super::super::print::{Print, Put};
use super::super::super::value;
use super::super::{DAY, path_in};
use rotogate_core::store::Staleness;
use rotogate_kit::config::{CertificateAndKey, Section};

section! {
    /// The keys of every store that several gates share.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SharedSettings, read by pub(super) read(section, dir: &Path, keys: &Path) {
        /// File with the password, read for each connection.
        restart password_file: Option<PathBuf> = get(path_in(dir)),
        /// Only trusted authorities, in PEM. Default: the system's.
        restart ca: Option<PathBuf> = get(path_in(dir)),
        /// Gate's client certificate with its chain, and its key, if the server requires one.
        restart client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// File of this gate by which a start notices a restored older copy of the store.
        restart mark: PathBuf = by { super::read_mark(section, dir, keys) },
        /// true: the gate accepts a store that is older than `mark` says.
        restart accept_restored_store: bool = get_or(value::boolean, false),
        /// How long the gate goes on without news.
        restart staleness as "..": Staleness = by { read_staleness(section) },
    }
}

fn read_staleness(section: &Section<'_>) -> Staleness {
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

impl Print for Staleness {
    #[cfg(test)]
    const KEYS: &'static [Key] = section!(keys {
        /// Longest time without news from the store; 500ms to 60s.
        restart staleness: duration,
        /// After `staleness` the gate issues no tokens. `"deny"`: it accepts none either. `"allow"`: it accepts tokens
        /// for `max_stale`.
        restart when_stale: text,
        /// How long `when_stale = "allow"` accepts tokens; at most 24h.
        restart max_stale: duration,
    });

    fn print(&self) -> Value {
        let mut table = Table::new();
        self.limit.put(&mut table, "staleness");
        let is_served = self.served > self.limit;
        if is_served { "allow" } else { "deny" }.put(&mut table, "when_stale");
        Some(self.served).filter(|_| is_served).put(&mut table, "max_stale");
        table.into()
    }
}

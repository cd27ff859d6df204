//! The keys of `[store]` for every store that several gates share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::super::super::declare::section;
use super::super::super::print::{Print, Put, put};
use super::super::super::value;
use super::super::{DAY, path_in};
use rotogate_core::store::Staleness;
use rotogate_kit::config::{CertificateAndKey, Section, Value as Raw};

section! {
    /// The keys of every store that several gates share.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SharedSettings, read by pub(super) read(section, dir: &Path, keys: &Path) {
        /// File with the password, read for each connection.
        restart password_file: Option<PathBuf> = get(path_in(dir)),
        /// Only trusted authorities, in PEM. Set it for a server with a certificate of an internal authority. Default:
        /// the system's.
        restart ca: Option<PathBuf> = get(path_in(dir)),
        /// Gate's client certificate with its chain, and its key, if the server requires one.
        restart client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// File of this gate by which a start notices a restored older copy of the store. Set it if the gate may
        /// not write below the folder of the configuration.
        restart mark: PathBuf = by { super::read_mark(section, dir, keys) },
        /// How long the gate goes on without news.
        restart staleness as "..": Staleness = by { read_staleness(section) },
    }
}

fn read_staleness(section: &Section<'_>) -> Staleness {
    let limit = value::duration_within(Staleness::SHORTEST, Staleness::LONGEST);
    let limit = section.get("staleness", limit).unwrap_or(Staleness::default().limit);
    match section.get("when_stale", when_stale).flatten() {
        Some(served) if served >= limit => Staleness { limit, served },
        Some(_) => {
            section.blame("when_stale", "is shorter than staleness; expected at least that, or \"deny\"");
            Staleness::deny_after(limit)
        }
        None => Staleness::deny_after(limit),
    }
}

/// `"deny"`, or how long tokens are accepted.
fn when_stale(v: &Raw) -> Result<Option<Duration>, String> {
    if v.as_text() == Some("deny") {
        return Ok(None);
    }
    let expected = "expected \"deny\", or how long tokens are accepted without news, such as \"5m\"";
    value::duration_within(Duration::ZERO, DAY)(v).map(Some).map_err(|error| format!("{expected}: {error}"))
}

impl Print for Staleness {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = section!(keys {
        /// Longest time without news from the store; 500ms to 60s. Raise it for a store with a long round trip.
        restart staleness: duration,
        /// After `staleness` the gate issues no tokens. `"deny"`: it accepts none either. A time, such as `"5m"`: it
        /// accepts tokens for so long without news, at most 24h. Set a time if an outage of the store must not end
        /// every request; revocations of other gates are unknown meanwhile.
        restart when_stale: text,
    });

    fn print(&self) -> Value {
        let mut table = Table::new();
        self.limit.put(&mut table, "staleness");
        let served = Some(self.served).filter(|served| *served > self.limit);
        put(&mut table, "when_stale", served.map_or_else(|| "deny".into(), |served| served.print()));
        table.into()
    }
}

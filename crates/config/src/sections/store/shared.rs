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
        /// The gate's client certificate with its chain, and its private key, if the server requires one.
        restart client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// File of this gate by which a start detects that an older copy of the store was restored. Set it if the gate
        /// must not write below the folder of the configuration.
        restart mark: PathBuf = by { super::read_mark(section, dir, keys) },
        /// How long the gate works without news from the store.
        restart staleness as "..": Staleness = by { read_staleness(section) },
    }
}

fn read_staleness(section: &Section<'_>) -> Staleness {
    let limit = value::duration_within(Staleness::SHORTEST, Staleness::LONGEST);
    let limit = section.get("staleness", limit).unwrap_or(Staleness::default().limit);
    match section.get("when_stale", when_stale).flatten() {
        Some(served) if served >= limit => Staleness { limit, served },
        Some(_) => {
            section.blame("when_stale", "is shorter than staleness; expected at least as much, or \"deny\"");
            Staleness::deny_after(limit)
        }
        None => Staleness::deny_after(limit),
    }
}

/// Reads `"deny"`, or how long tokens are accepted.
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
        /// After `staleness` the gate issues no tokens. `"deny"`: it does not accept tokens either. A time, such as
        /// `"5m"`; at most 24h: it accepts tokens for this long without news. Set a time if an outage of the store must
        /// not make all requests fail; revocations of other gates are unknown meanwhile.
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

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
        /// File with the password. The gate reads it for each new connection.
        restart password_file: Option<PathBuf> = get(path_in(dir)),
        /// File (PEM) with the only certificate authorities that the gate trusts for this server. Set it if an internal
        /// authority issued the server's certificate. Default: the system's authorities.
        restart ca: Option<PathBuf> = get(path_in(dir)),
        /// The gate's client certificate with its chain, and its private key. Set it if the server requires a client
        /// certificate.
        restart client_cert: Option<CertificateAndKey> = certificate_and_key(dir),
        /// File of this gate by which it detects, when it starts, that an older copy of the store was restored. Set it
        /// if the gate must not write below the folder of the configuration.
        restart mark: PathBuf = by { super::read_mark(section, dir, keys) },
        /// How long the gate works without receiving changes from the store.
        restart staleness as "..": Staleness = by { read_staleness(section) },
    }
}

fn read_staleness(section: &Section<'_>) -> Staleness {
    let limit = value::duration_within(Staleness::SHORTEST, Staleness::LONGEST);
    let limit = section.get("staleness", limit).unwrap_or(Staleness::default().limit);
    match section.get("when_stale", when_stale).flatten() {
        Some(served) if served >= limit => Staleness { limit, served },
        Some(_) => {
            section.blame(
                "when_stale",
                "is shorter than `staleness`; expected a duration of at least `staleness`, or \"deny\"",
            );
            Staleness::deny_after(limit)
        }
        None => Staleness::deny_after(limit),
    }
}

fn when_stale(v: &Raw) -> Result<Option<Duration>, String> {
    if v.as_text() == Some("deny") {
        return Ok(None);
    }
    let expected = "expected \"deny\", or how long tokens are accepted without news from the store, such as \"5m\"";
    value::duration_within(Duration::ZERO, DAY)(v).map(Some).map_err(|error| format!("{expected}: {error}"))
}

impl Print for Staleness {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = section!(keys {
        /// Maximum time without contact to the store; 500ms to 60s. Raise it for a store with a long round trip.
        restart staleness: duration,
        /// What the gate does after `staleness`, when it no longer issues tokens. `"deny"`: it does not accept tokens
        /// either. A time, such as `"5m"` (at most 24h): it accepts tokens for this long without contact to the store.
        /// Set a time if requests must not fail during an outage of the store, although the gate does not see
        /// revocations by other gates meanwhile.
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

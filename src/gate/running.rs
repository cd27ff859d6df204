//! The state of a gate for as long as it runs, while its rules may be replaced: keys, sessions, caches, bounds, relays.
//! The background tasks hold only this state.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::Inner;
use super::browser::BrowserLogins;
use super::browser::device::BrowserDevices;
use super::browser::given::GivenCookies;
use super::endpoint::grants::GrantResults;
use super::fault_log::FaultLog;
use super::notice::Notices;
use super::relay::EndpointRelay;
use rotogate_core::dpop::Dpop;
use rotogate_core::engine::Engine;
use rotogate_core::overload::Overload;
use rotogate_core::password::Passwords;
use rotogate_core::store::LiveRow;

/// The running state of a gate.
#[derive(Debug)]
pub(crate) struct Running {
    pub(super) engine: Arc<Engine>,
    pub(super) notices: Notices,
    pub(super) faults: FaultLog,
    /// Logs each kind of message that a connection may cause once a minute.
    #[cfg(feature = "kuzzle")]
    pub(super) seldom: rotogate_core::counters::SeldomByKind,
    /// Whether any `require()` asks for an audience.
    pub(super) asks_audience: AtomicBool,
    /// The state that this gate publishes to the other gates of the store.
    pub(super) row: Arc<LiveRow>,
    pub(crate) overload: Overload,
    /// Why a store that gates share is no longer suitable.
    pub(super) unfit_store: ArcSwapOption<String>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) has_directory: bool,
    /// Whether the gate has an issuer of its own. A gate without an issuer is a resource server: it mints no tokens,
    /// accepts none of its own, and serves neither keys nor metadata.
    pub(super) is_issuer: bool,
    /// The used proofs.
    pub(super) dpop: Arc<Dpop>,
    /// The ids of the clients.
    pub(super) clients: ArcSwap<HashSet<Box<str>>>,
    /// The tokens of callers for upstreams.
    pub(super) exchanges: super::exchange::Exchanges,
    /// The grants, by their type and result.
    pub(super) grants: GrantResults,
    /// The logins of browsers, by their result.
    pub(super) browser_logins: BrowserLogins,
    /// The cookies of sessions that replies of the application may set.
    pub(super) given_cookies: GivenCookies,
    /// The proofs of browsers' devices, by their result.
    pub(super) browser_devices: BrowserDevices,
    /// The logins whose authorization code the gate has already sent to the provider.
    #[cfg(feature = "browser-oidc")]
    pub(super) spent_logins: super::browser::transaction::SpentLogins,
    /// The store of the relays' records, and of used assertions.
    pub(super) records: Option<Arc<dyn rotogate_core::store::relay::RelayStore>>,
    /// The API keys, if they are configured.
    pub(super) api_keys: Option<Arc<rotogate_core::engine::api_keys::ApiKeys>>,
    /// The relays of the endpoints. Replacing the rules keeps them.
    pub(super) relays: Vec<Arc<EndpointRelay>>,
    /// The gate with the rules in force.
    pub(super) in_force: Mutex<Weak<Inner>>,
}

impl Running {
    pub(super) fn in_force(&self) -> Option<Arc<Inner>> {
        self.in_force.lock().upgrade()
    }

    pub(super) fn put_in_force(&self, gate: &Arc<Inner>) {
        *self.in_force.lock() = Arc::downgrade(gate);
    }
}

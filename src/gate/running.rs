//! The state of a gate that stays when its rules are replaced: keys, sessions, caches, bounds and relays. The
//! background tasks keep a reference only to this state.

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
    /// Limits the log messages that a connection can cause: each kind is logged at most once a minute.
    #[cfg(feature = "kuzzle")]
    pub(super) seldom: rotogate_core::counters::SeldomByKind,
    /// Whether any `require()` requires an audience.
    pub(super) asks_audience: AtomicBool,
    /// The state that this gate publishes to the other gates that share the store.
    pub(super) row: Arc<LiveRow>,
    pub(crate) overload: Overload,
    /// Why the shared store is no longer suitable, or `None` if it is suitable.
    pub(super) unfit_store: ArcSwapOption<String>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) has_directory: bool,
    /// Whether the gate is an issuer itself. A gate without its own issuer is a resource server. It accepts only the
    /// tokens of other issuers, and does not mint tokens or serve keys or metadata.
    pub(super) is_issuer: bool,
    /// The rules for proofs, and the proofs that were used.
    pub(super) dpop: Arc<Dpop>,
    /// The ids of the registered clients.
    pub(super) clients: ArcSwap<HashSet<Box<str>>>,
    /// The tokens that were exchanged for callers, for use at upstreams.
    pub(super) exchanges: super::exchange::Exchanges,
    /// The number of grants by type and result.
    pub(super) grants: GrantResults,
    /// The number of browser logins by result.
    pub(super) browser_logins: BrowserLogins,
    /// The session cookies that the application's replies may set.
    pub(super) given_cookies: GivenCookies,
    /// The number of device proofs by result.
    pub(super) browser_devices: BrowserDevices,
    /// The logins whose authorization code the gate has already sent to the provider.
    #[cfg(feature = "browser-oidc")]
    pub(super) spent_logins: super::browser::transaction::SpentLogins,
    /// The store of the relays' records, and of used assertions.
    pub(super) records: Option<Arc<dyn rotogate_core::store::relay::RelayStore>>,
    /// The API keys, if they are configured.
    pub(super) api_keys: Option<Arc<rotogate_core::engine::api_keys::ApiKeys>>,
    /// The relays of the endpoints. They stay when the rules are replaced.
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

//! What a gate keeps for as long as it runs, while its rules may be replaced: keys, sessions, caches, bounds, relays. The
//! background tasks hold on to this alone.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::Inner;
use super::fault_log::FaultLog;
use super::notice::Notices;
#[cfg(feature = "relay")]
use super::relay::EndpointRelay;
use rotogate_core::dpop::Dpop;
use rotogate_core::engine::Engine;
use rotogate_core::overload::Overload;
use rotogate_core::password::Passwords;
use rotogate_core::store::LiveRow;

/// See the module.
#[derive(Debug)]
pub(crate) struct Running {
    pub(super) engine: Arc<Engine>,
    pub(super) notices: Notices,
    pub(super) faults: FaultLog,
    /// What each message of a connection may cause is logged once a minute.
    #[cfg(feature = "kuzzle")]
    pub(super) seldom: rotogate_core::counters::SeldomByKind,
    /// Whether any `require()` asks for an audience.
    pub(super) asks_audience: AtomicBool,
    /// What the other gates of the store are told of this one.
    pub(super) row: Arc<LiveRow>,
    pub(crate) overload: Overload,
    /// Why a store that gates share is not fit for one any more.
    pub(super) unfit_store: ArcSwapOption<String>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) has_directory: bool,
    /// Whether the gate has an issuer of its own. One without is a resource server: it mints no tokens, accepts none of its
    /// own, and serves neither keys nor metadata.
    pub(super) is_issuer: bool,
    /// The proofs that were used.
    pub(super) dpop: Arc<Dpop>,
    /// The ids of the clients.
    pub(super) clients: ArcSwap<HashSet<Box<str>>>,
    /// Those of the endpoints. Other rules have the same ones.
    #[cfg(feature = "relay")]
    pub(super) relays: Vec<Arc<EndpointRelay>>,
    /// The gate with the rules in force, once those of the start were replaced.
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

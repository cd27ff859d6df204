//! The part of a gate's state that is kept when the gate's rules are replaced. The background tasks only keep a
//! reference to this state.

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
use rotogate_core::store::{LiveRow, StoreError};

#[derive(Debug)]
pub(crate) struct Running {
    pub(super) engine: Arc<Engine>,
    pub(super) notices: Notices,
    pub(super) faults: FaultLog,
    /// Each kind of message that a connection can cause is logged at most once a minute.
    #[cfg(feature = "kuzzle")]
    pub(super) seldom: rotogate_core::counters::SeldomByKind,
    pub(super) asks_audience: AtomicBool,
    /// The other gates that share the store read this state.
    pub(super) row: Arc<LiveRow>,
    pub(crate) overload: Overload,
    pub(super) unfit_store: ArcSwapOption<String>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) has_directory: bool,
    /// A gate without its own issuer is a resource server.
    pub(super) is_issuer: bool,
    pub(super) dpop: Arc<Dpop>,
    pub(super) clients: ArcSwap<HashSet<Box<str>>>,
    pub(super) exchanges: super::exchange::Exchanges,
    pub(super) grants: GrantResults,
    pub(super) browser_logins: BrowserLogins,
    pub(super) given_cookies: GivenCookies,
    pub(super) browser_devices: BrowserDevices,
    #[cfg(feature = "browser-oidc")]
    pub(super) spent_logins: super::browser::transaction::SpentLogins,
    pub(super) rows: Option<Arc<dyn rotogate_core::store::rows::RowStore>>,
    pub(super) api_keys: Option<Arc<rotogate_core::engine::api_keys::ApiKeys>>,
    pub(super) relays: Vec<Arc<EndpointRelay>>,
    pub(super) in_force: Mutex<Weak<Inner>>,
}

impl Running {
    pub(super) fn in_force(&self) -> Option<Arc<Inner>> {
        self.in_force.lock().upgrade()
    }

    /// Updates each relay's count of kept responses.
    pub(super) async fn count_kept_replies(&self) -> Result<(), StoreError> {
        for relay in &self.relays {
            relay.count_again().await?;
        }
        Ok(())
    }

    /// Records which providers' tokens were used.
    pub(super) async fn flush_uses(&self) -> Result<(), StoreError> {
        loop {
            let uses = self.engine.confirmations().unwritten_uses();
            if uses.is_empty() {
                return Ok(());
            }
            for relay in &self.relays {
                relay.record_uses(&uses).await?;
            }
            self.engine.confirmations().forget_uses(&uses);
        }
    }

    pub(super) fn put_in_force(&self, gate: &Arc<Inner>) {
        *self.in_force.lock() = Arc::downgrade(gate);
    }
}

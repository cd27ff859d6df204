//! Counters of attempts in a shared store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::limit::Rate;
use crate::limit::shared::{Admission, Away, RateCounters, Step, Use};
use crate::store::{Admitted, CounterUse, SharedCounter, SharedStore, Store};
use crate::token::keyring::Keyring;

/// How long a user's login from an address is remembered.
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// The counters in a store.
#[derive(Debug)]
pub struct StoreCounters {
    store: Arc<dyn Store>,
    keyring: ArcSwap<Keyring>,
    nodes: AtomicU32,
}

impl StoreCounters {
    /// Creates counters in a store. The store sees only keyed hashes of the names.
    pub fn new(store: Arc<dyn Store>, keyring: Arc<Keyring>) -> Self {
        Self { store, keyring: ArcSwap::new(keyring), nodes: AtomicU32::new(1) }
    }

    pub(super) fn set_keyring(&self, keyring: Arc<Keyring>) {
        self.keyring.store(keyring);
    }

    pub(super) fn set_nodes(&self, nodes: usize) {
        self.nodes.store(u32::try_from(nodes).unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
    }

    /// Returns one name for each secret of the keyring, oldest first. All names are counted, so removing a secret
    /// resets nothing.
    fn names(&self, name: &[u8]) -> Vec<[u8; 16]> {
        self.keyring.load().refresh_keys().shared_names(name)
    }

    fn shared(&self) -> Result<&dyn SharedStore, Away> {
        self.store.shared().ok_or(Away)
    }
}

fn away(error: impl std::error::Error) -> Away {
    tracing::debug!(%error, "cannot reach the store of the shared limits");
    Away
}

#[async_trait]
impl RateCounters for StoreCounters {
    async fn admit(&self, caller: Option<(&[u8], Rate)>, steps: &[Step]) -> Result<Admission, Away> {
        let counters = |name: &[u8], rate: Rate| -> Vec<SharedCounter> {
            let counter = |name| SharedCounter { name, every: rate.every, burst: rate.burst.get() };
            self.names(name).into_iter().map(counter).collect()
        };
        let how = |how: &Use| match how {
            Use::Take => CounterUse::Take,
            Use::Charge => CounterUse::Charge,
            Use::Look => CounterUse::Look,
        };
        let (mut all, mut places) = (Vec::new(), Vec::new());
        for (place, (name, rate, of)) in steps.iter().enumerate() {
            for counter in counters(name, *rate) {
                all.push((counter, how(of)));
                places.push(place);
            }
        }
        let mut own = caller.map(|(name, rate)| counters(name, rate)).unwrap_or_default().into_iter();
        let Admitted { is_known, refused } = self.shared()?.admit(own.next(), all).await.map_err(away)?;
        if !is_known {
            let of_step = |(place, wait)| (places.get(place).copied().unwrap_or(usize::MAX), wait);
            return Ok(Admission { is_known, refused: refused.map(of_step) });
        }
        let later: Vec<_> = own.map(|counter| (counter, CounterUse::Take)).collect();
        if refused.is_some() || later.is_empty() {
            return Ok(Admission { is_known, refused });
        }
        let Admitted { refused, .. } = self.shared()?.admit(None, later).await.map_err(away)?;
        Ok(Admission { is_known, refused: refused.map(|(_, wait)| (0, wait)) })
    }

    async fn remember(&self, name: &[u8]) -> Result<(), Away> {
        for name in self.names(name) {
            self.shared()?.remember(name, REMEMBERED).await.map_err(away)?;
        }
        Ok(())
    }

    async fn remembers(&self, name: &[u8]) -> Result<bool, Away> {
        for name in self.names(name) {
            if self.shared()?.remembers(name).await.map_err(away)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }
}

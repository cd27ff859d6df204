//! Counters of attempts in a store that several gates share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::limit::Rate;
use crate::limit::shared::{Admission, Away, RateCounters, Step, Use};
use crate::store::{Admitted, CounterUse, SharedCounter, SharedStore, Store};
use crate::token::keyring::Keyring;

/// How long a login of a user from an address is remembered.
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// The counters of attempts in a store.
#[derive(Debug)]
pub struct StoreCounters {
    store: Arc<dyn Store>,
    keyring: ArcSwap<Keyring>,
    nodes: AtomicU32,
}

impl StoreCounters {
    /// Counters in a store. Their names are keyed hashes, so the store does not learn what is counted.
    pub fn new(store: Arc<dyn Store>, keyring: Arc<Keyring>) -> Self {
        Self { store, keyring: ArcSwap::new(keyring), nodes: AtomicU32::new(1) }
    }

    pub(super) fn set_keyring(&self, keyring: Arc<Keyring>) {
        self.keyring.store(keyring);
    }

    pub(super) fn set_nodes(&self, nodes: usize) {
        self.nodes.store(u32::try_from(nodes).unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
    }

    fn name(&self, name: &[u8]) -> Result<[u8; 16], Away> {
        self.keyring.load().refresh_keys().shared_name(name).ok_or(Away)
    }

    fn shared(&self) -> Result<&dyn SharedStore, Away> {
        self.store.shared().ok_or(Away)
    }
}

fn away(error: impl std::error::Error) -> Away {
    tracing::debug!(%error, "shared limits not reached");
    Away
}

#[async_trait]
impl RateCounters for StoreCounters {
    async fn admit(&self, caller: Option<(&[u8], Rate)>, steps: &[Step]) -> Result<Admission, Away> {
        let counter = |name: &[u8], rate: Rate| -> Result<SharedCounter, Away> {
            Ok(SharedCounter { name: self.name(name)?, every: rate.every, burst: rate.burst.get() })
        };
        let caller = caller.map(|(name, rate)| counter(name, rate)).transpose()?;
        let how = |how: &Use| match how {
            Use::Take => CounterUse::Take,
            Use::Charge => CounterUse::Charge,
            Use::Look => CounterUse::Look,
        };
        let steps = steps.iter().map(|(name, rate, of)| Ok((counter(name, *rate)?, how(of))));
        let steps = steps.collect::<Result<_, Away>>()?;
        let Admitted { is_known, refused } = self.shared()?.admit(caller, steps).await.map_err(away)?;
        Ok(Admission { is_known, refused })
    }

    async fn remember(&self, name: &[u8]) -> Result<(), Away> {
        self.shared()?.remember(self.name(name)?, REMEMBERED).await.map_err(away)
    }

    async fn remembers(&self, name: &[u8]) -> Result<bool, Away> {
        self.shared()?.remembers(self.name(name)?).await.map_err(away)
    }

    fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }
}

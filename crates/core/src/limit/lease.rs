//! Limits that all gates with the same store count together. Each gate takes requests from the store's counters in
//! advance, and admits requests from this supply. Together, the supplies for a key last half a second. Each supply is
//! at least one request. All gates together can exceed the limit by the total of their supplies. A killed gate loses
//! its supply. If the store does not respond, each gate counts alone, at the rate divided by the number of gates. Gates
//! always count locally too, so that a lost connection does not allow a second burst.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::bucket::nanos;
use super::buckets::{Buckets, Left};
use super::callers::{LimitKey, Untaken};
use super::shared::{SharedLimits, Use};
use super::{Rate, RememberedKeys, remembered};

/// How long the supplies of all gates together last.
const HELD: Duration = Duration::from_millis(500);

pub(super) struct Leases {
    of_key: RememberedKeys<Arc<KeyLease>>,
    hasher: RandomState,
    shared: Arc<SharedLimits>,
    limit: &'static str,
}

#[derive(Debug)]
pub(super) struct KeyLease {
    name: Vec<u8>,
    left: AtomicU32,
    /// When a refusal by the store ends, in ns of the monotonic clock.
    refused_until: AtomicU64,
    /// Prevents concurrent queries, which could make the supply too large.
    asking: Mutex<()>,
    is_asked_ahead: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    most: u32,
    is_ahead: bool,
}

pub(super) struct Ask {
    lease: Arc<KeyLease>,
    shared: Arc<SharedLimits>,
    rate: Rate,
}

impl Size {
    fn new(rate: Rate, gates: NonZeroU32) -> Self {
        let burst = rate.burst.get();
        let each = HELD.as_nanos() / rate.every.as_nanos().max(1) / u128::from(gates.get());
        let most = u32::try_from(each).unwrap_or(u32::MAX).clamp(1, burst);
        // With a small burst, each gate takes one request at a time, so that the other gates get some too.
        match u64::from(most) * u64::from(gates.get()) * 4 <= u64::from(burst) {
            true => Self { most, is_ahead: true },
            false => Self { most: 1, is_ahead: false },
        }
    }
}

impl Leases {
    pub(super) fn new(limit: &'static str, shared: Arc<SharedLimits>) -> Self {
        Self { of_key: remembered(), hasher: RandomState::new(), shared, limit }
    }

    fn of_key(&self, key: &LimitKey<'_>) -> Arc<KeyLease> {
        self.of_key.get_with(self.hasher.hash_one(key), || {
            Arc::new(KeyLease {
                name: key.name(self.limit),
                left: AtomicU32::new(0),
                refused_until: AtomicU64::new(0),
                asking: Mutex::new(()),
                is_asked_ahead: AtomicBool::new(false),
            })
        })
    }

    /// Takes a request, and returns whether it came from this gate's supply. `local` counts only this gate's requests.
    pub(super) fn take(&self, key: &LimitKey<'_>, local: &Buckets) -> Result<(Left, bool), Untaken> {
        let (rate, gates) = (local.rate(), self.shared.gates());
        let size = Size::new(rate, gates);
        let lease = self.of_key(key);
        let ask = || Ask { lease: Arc::clone(&lease), shared: Arc::clone(&self.shared), rate };
        if let Some(left) = lease.take(size.most) {
            local.charge_share(key, gates);
            if size.is_ahead
                && left <= size.most / 2
                && lease.refused_for(self.shared.monotonic()).is_none()
                && !lease.is_asked_ahead.swap(true, Ordering::Relaxed)
            {
                ask().ahead();
            }
            return Ok((Left { requests: left, reset: rate.every }, true));
        }
        if self.shared.is_paused() {
            let taken = local.take_share(key, gates).map_err(Untaken::Refused);
            return taken.map(|()| (Left { requests: 0, reset: rate.every }, false));
        }
        match lease.refused_for(self.shared.monotonic()) {
            Some(wait) => Err(Untaken::Refused(wait)),
            None => Err(Untaken::Pending(ask())),
        }
    }

    pub(super) fn look(&self, key: &LimitKey<'_>) -> Result<(), Duration> {
        let known = self.of_key.get(&self.hasher.hash_one(key));
        let refused = known.filter(|lease| lease.left.load(Ordering::Relaxed) == 0);
        refused.and_then(|lease| lease.refused_for(self.shared.monotonic())).map_or(Ok(()), Err)
    }

    pub(super) fn give_back(&self, key: &LimitKey<'_>, local: &Buckets, was_held: bool) {
        local.give_back(key, self.shared.gates());
        if was_held {
            self.of_key(key).left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl KeyLease {
    /// Takes a request from the supply. If the number of gates has risen, first reduces the supply to `most`.
    fn take(&self, most: u32) -> Option<u32> {
        let one_less = |left: u32| left.min(most).checked_sub(1);
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        one_less(before)
    }

    fn refused_for(&self, now: Duration) -> Option<Duration> {
        let left = self.refused_until.load(Ordering::Relaxed).saturating_sub(nanos(now));
        (left > 0).then_some(Duration::from_nanos(left))
    }
}

impl Ask {
    fn ahead(self) {
        if let Some(runtime) = self.shared.runtime.clone() {
            runtime.spawn(async move {
                let lease = Arc::clone(&self.lease);
                self.answered().await;
                lease.is_asked_ahead.store(false, Ordering::Relaxed);
            });
        }
    }

    pub(super) async fn answered(self) {
        let Self { lease, shared, rate } = self;
        let _asking = lease.asking.lock().await;
        let size = Size::new(rate, shared.gates());
        let left = lease.left.load(Ordering::Relaxed);
        if left > size.most / 2 || lease.refused_for(shared.monotonic()).is_some() {
            return;
        }
        let wanted = size.most - left.min(size.most);
        // At this rate, one attempt takes `wanted` requests.
        let at_once = Rate::new(rate.burst.get() / wanted.max(1), rate.every.saturating_mul(wanted));
        let steps = [(lease.name.clone(), at_once, Use::Take)];
        let Some(said) = shared.within(shared.counters.admit(None, &steps)).await else { return };
        match said.refused {
            None => drop(lease.left.fetch_add(wanted, Ordering::Relaxed)),
            Some((_, wait)) => {
                lease.refused_until.store(nanos(shared.monotonic().saturating_add(wait)), Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Limits that all gates with the same store count together. Each gate takes requests from the store's counters in
//! advance, and admits requests from this supply.
//!
//! For each key, the supply of a gate is at most half a second's worth of requests divided by the number of gates, but
//! at least one request. Together, the gates therefore exceed the limit by at most half a second's worth of requests,
//! or by one request for each gate. If a gate is killed, its supply is lost.
//!
//! While the store does not respond, each gate counts separately, at the rate divided by the number of gates. While the
//! store responds, a gate also counts its admitted requests locally, so that a lost connection does not allow a second
//! burst.

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

/// The supplies of all gates together may contain at most the requests that the limit admits in this period.
const HELD: Duration = Duration::from_millis(500);

/// The supply of this gate for each key.
pub(super) struct Leases {
    of_key: RememberedKeys<Arc<KeyLease>>,
    hasher: RandomState,
    shared: Arc<SharedLimits>,
    /// The name of the limit, which is part of the counters' names.
    limit: &'static str,
}

/// The supply of this gate for one key.
#[derive(Debug)]
pub(super) struct KeyLease {
    /// The name of the counter in the shared store.
    name: Vec<u8>,
    left: AtomicU32,
    /// The time until which the store refuses requests, in ns of the monotonic clock.
    refused_until: AtomicU64,
    /// Locked while the store is queried, so that the supply never exceeds its largest size.
    asking: Mutex<()>,
    /// Whether the store is being queried in the background, before a request has to wait.
    is_asked_ahead: AtomicBool,
}

/// The largest supply that a gate may have for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    most: u32,
    /// Whether the store is queried before the supply is used up.
    is_ahead: bool,
}

/// A query to the store that refills the supply for one key.
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
        // The supply of one gate is not available to the other gates. If the burst is small, gates therefore take only
        // one request at a time, and query the store for each request.
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

    /// Counts a request, and returns whether it was taken from this gate's supply. `local` has the counts of only this
    /// gate.
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

    /// Checks whether a request would be refused now, as far as this gate knows.
    pub(super) fn look(&self, key: &LimitKey<'_>) -> Result<(), Duration> {
        let known = self.of_key.get(&self.hasher.hash_one(key));
        let refused = known.filter(|lease| lease.left.load(Ordering::Relaxed) == 0);
        refused.and_then(|lease| lease.refused_for(self.shared.monotonic())).map_or(Ok(()), Err)
    }

    /// Gives back a request to this gate's own count and, if it was taken from the supply, to the supply.
    pub(super) fn give_back(&self, key: &LimitKey<'_>, local: &Buckets, was_held: bool) {
        local.give_back(key, self.shared.gates());
        if was_held {
            self.of_key(key).left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl KeyLease {
    /// Takes one request from the supply, and returns how many are left. If the number of gates has risen, the supply
    /// may exceed `most`. The surplus is then dropped.
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
    /// Queries the store in the background, before a request has to wait.
    fn ahead(self) {
        if let Some(runtime) = self.shared.runtime.clone() {
            runtime.spawn(async move {
                let lease = Arc::clone(&self.lease);
                self.answered().await;
                lease.is_asked_ahead.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Waits until the supply is refilled, the store refuses, or the store does not respond in time.
    pub(super) async fn answered(self) {
        let Self { lease, shared, rate } = self;
        let _asking = lease.asking.lock().await;
        let size = Size::new(rate, shared.gates());
        let left = lease.left.load(Ordering::Relaxed);
        // Another request has queried the store in the meantime.
        if left > size.most / 2 || lease.refused_for(shared.monotonic()).is_some() {
            return;
        }
        let wanted = size.most - left.min(size.most);
        // Takes `wanted` requests as one attempt, at a rate that is lower by the factor `wanted`.
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

//! What an engine knows of a store that other gates write to, too: how lately it heard of their revocations, and whether
//! any acknowledged write was lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Engine;
use crate::clock::{ClockState, Timestamp};
use crate::store::{FeedStep, Heard, Staleness};

/// See the module.
#[derive(Debug)]
pub(super) struct Following {
    staleness: Option<Staleness>,
    /// Engine time, in ms, until which what is known is fresh enough to mint tokens.
    fresh_until: AtomicU64,
    /// The store's time at its last answer, in ms.
    store_time: AtomicU64,
    /// No acknowledged write of any gate was lost since this engine began.
    unbroken: AtomicBool,
}

/// How well an engine knows what other gates revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Freshness {
    /// No other gate writes to the store, or all that they wrote until a moment ago is known.
    Fresh,
    /// Too little is known to mint tokens. Requests with a token pass.
    Degraded,
    /// Too little is known to accept tokens.
    Stale,
}

impl Following {
    /// With a staleness, nothing was heard yet.
    pub(super) fn new(staleness: Option<Staleness>) -> Self {
        let fresh_until = if staleness.is_some() { Timestamp::ZERO } else { Timestamp::MAX };
        Self {
            staleness,
            fresh_until: AtomicU64::new(fresh_until.as_millis()),
            store_time: AtomicU64::new(0),
            unbroken: AtomicBool::new(staleness.is_some()),
        }
    }

    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now.as_millis() < self.fresh_until.load(Ordering::Acquire)
    }

    /// The store's time at its last answer: no session of any gate that begins from now on is older.
    pub(super) fn store_time(&self) -> Timestamp {
        Timestamp::from_millis(self.store_time.load(Ordering::Acquire))
    }

    /// Does this engine know every acknowledged revocation, even those that the store lost? One that does not share its
    /// store cannot: the store falls behind only while no process has it open.
    pub(super) fn is_unbroken(&self) -> bool {
        self.unbroken.load(Ordering::Acquire)
    }
}

impl Engine {
    /// Applies what a feed brought.
    pub(crate) fn take_step(&self, step: &FeedStep) {
        for entry in &step.entries {
            self.revocations.apply(entry);
        }
        let (Some(heard), Some(staleness)) = (step.complete, self.following.staleness) else { return };
        let Heard { asked, answered, store_time, unbroken } = heard;
        self.clock.follow_store((asked, answered), store_time);
        self.following.store_time.fetch_max(store_time.as_millis(), Ordering::AcqRel);
        if !unbroken {
            self.following.unbroken.store(false, Ordering::Release);
        }
        // From before the question on, and only now: the entries are applied (requirement C8).
        let since = self.clock.at(asked);
        self.following.fresh_until.store(since.plus(staleness.limit).as_millis(), Ordering::Release);
        self.revocations.use_until(since.plus(staleness.served));
    }

    /// How well the engine knows what other gates revoked.
    pub(crate) fn freshness(&self) -> Freshness {
        let now = self.clock.now();
        match (self.following.is_fresh(now), self.revocations.is_usable(now)) {
            (true, _) => Freshness::Fresh,
            (false, true) => Freshness::Degraded,
            (false, false) => Freshness::Stale,
        }
    }

    /// May records be removed by this engine's time?
    pub(crate) fn may_sweep(&self) -> bool {
        self.clock.state() == ClockState::Good
    }
}

//! The state of an issuer's keys, and metrics of fetches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, MutexGuard};

use super::answer::{CAUSES, FetchFailure, Metadata};
use super::settings::RemoteIssuer;
use rotogate_core::clock::{EngineClock, Timestamp};
use rotogate_core::token::live_keys::LiveKeys;
use rotogate_core::token::verify::Ignored;

/// The state of an issuer's keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoteStatus {
    /// `empty` (no keys yet), `fresh`, `aging` (a fetch is due or failed) or `stale` (too old).
    pub state: &'static str,
    /// The number of usable keys.
    pub keys: usize,
    /// The time of the last successful response, by the wall clock.
    pub last_success: Option<Timestamp>,
    /// Why the last attempt failed, or `None` if it succeeded.
    pub failure: Option<FetchFailure>,
    /// The ignored keys of the last key set.
    pub ignored: Vec<Ignored>,
    /// Whether the keys were dropped and are no longer fetched.
    pub is_dropped: bool,
    /// Whether a valid key set was ever available.
    pub had_keys: bool,
    /// The number of requests waiting for keys.
    pub waiting: usize,
    /// The number of tokens with an unknown key.
    pub unknown_kids: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) last_success: Option<Timestamp>,
    pub(super) failure: Option<FetchFailure>,
    pub(super) ignored: Vec<Ignored>,
    pub(super) is_dropped: bool,
    pub(super) had_keys: bool,
}

#[derive(Debug)]
pub(super) struct RemoteKeysShared {
    issuer: RemoteIssuer,
    /// A separate clock, which a gate replaces with its own clock.
    clock: ArcSwap<EngineClock>,
    progress: Mutex<Progress>,
    metadata: ArcSwapOption<Metadata>,
    good: AtomicU64,
    unchanged: AtomicU64,
    failed: [AtomicU64; CAUSES.len()],
}

impl RemoteKeysShared {
    pub(super) fn new(issuer: RemoteIssuer, clock: EngineClock) -> Self {
        Self {
            issuer,
            clock: ArcSwap::from_pointee(clock),
            progress: Mutex::default(),
            metadata: ArcSwapOption::empty(),
            good: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            failed: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(super) fn issuer(&self) -> &RemoteIssuer {
        &self.issuer
    }

    pub(super) fn clock(&self) -> Arc<EngineClock> {
        self.clock.load_full()
    }

    pub(super) fn set_clock(&self, clock: Arc<EngineClock>) {
        self.clock.store(clock);
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }

    pub(super) fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.load_full()
    }

    pub(super) fn set_metadata(&self, metadata: Option<&Metadata>) {
        if self.metadata.load().as_deref() != metadata {
            self.metadata.store(metadata.cloned().map(Arc::new));
        }
    }

    pub(super) fn status(&self, keys: &LiveKeys) -> RemoteStatus {
        let state = keys.state(self.clock().now()).word();
        let Progress { last_success, failure, ignored, is_dropped, had_keys } = self.progress().clone();
        RemoteStatus {
            state,
            keys: keys.len(),
            last_success,
            failure,
            ignored,
            is_dropped,
            had_keys,
            waiting: keys.waiting(),
            unknown_kids: keys.unknown_kids(),
        }
    }

    pub(super) fn count_good(&self, is_unchanged: bool) {
        if is_unchanged { &self.unchanged } else { &self.good }.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failure(&self, cause: &str) {
        if let Some((_, count)) = CAUSES.iter().zip(&self.failed).find(|(word, _)| **word == cause) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn fetches(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let good = [("ok", &self.good), ("unchanged", &self.unchanged)];
        let all = good.into_iter().chain(CAUSES.into_iter().zip(&self.failed));
        all.map(|(word, count)| (word, count.load(Ordering::Relaxed)))
    }
}

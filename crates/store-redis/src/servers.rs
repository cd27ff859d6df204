//! The server to which the connections of a store lead, and the rate of new connections.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex as Lock;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

use super::options::RedisOptions;
use super::sentinel::{Primary, Sentinels};
use rotogate_core::store::kit::network::pause_after;

/// The maximum number of attempts to connect in a second, including successful ones.
const TRIES: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// The state that all connections of a store share.
pub(super) struct Servers {
    pub(super) options: Arc<RedisOptions>,
    sentinels: Option<Sentinels>,
    pace: Mutex<Pace>,
    /// Each fault of a connection raises this number. Connections of an earlier generation may be dead as well, so
    /// they are replaced before their next use. Otherwise a retried request could use one silent connection after
    /// the other.
    generation: AtomicU64,
    /// The reason why the last attempt to connect failed.
    fault: Lock<Option<String>>,
}

/// The rate of new connections. They are made one after the other, so that a server that has just recovered does
/// not receive all of them at once.
#[derive(Default)]
pub(super) struct Pace {
    tries: VecDeque<Instant>,
    failures: u32,
    next: Option<Instant>,
}

impl Servers {
    pub(super) fn new(options: &Arc<RedisOptions>) -> Arc<Self> {
        let sentinels = options.sentinel.as_ref().map(|_| Sentinels::new(options));
        let (options, pace, fault) = (Arc::clone(options), Mutex::default(), Lock::default());
        Arc::new(Self { options, sentinels, pace, generation: AtomicU64::new(0), fault })
    }

    /// Waits until the Sentinels name a primary. Returns `None` if there are no Sentinels.
    pub(super) async fn primary(&self) -> Option<Primary> {
        let mut said = self.sentinels.as_ref()?.primary();
        // This never fails, because `self` owns the sender.
        said.wait_for(Option::is_some).await.ok().and_then(|primary| primary.clone())
    }

    /// Waits until the Sentinels name a primary other than this one.
    pub(super) async fn left(&self, primary: Option<&Primary>) {
        let Some(sentinels) = &self.sentinels else { return std::future::pending().await };
        let mut said = sentinels.primary();
        let _ = said.wait_for(|now| now.as_ref() != primary).await;
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Records that a connection of this generation failed.
    pub(super) fn distrust(&self, generation: u64) {
        // Only the first fault of a generation raises the generation.
        let _ = self.generation.compare_exchange(generation, generation + 1, Ordering::AcqRel, Ordering::Relaxed);
        self.ask_again();
    }

    /// Queries the Sentinels again, because there may be a new primary.
    pub(super) fn ask_again(&self) {
        if let Some(sentinels) = &self.sentinels {
            sentinels.ask();
        }
    }

    /// Waits for permission to try a connection.
    pub(super) async fn turn(&self) -> MutexGuard<'_, Pace> {
        let mut pace = self.pace.lock().await;
        if let Some(next) = pace.next {
            sleep_until(next).await;
        }
        if let Some(first) = pace.tries.front().filter(|_| pace.tries.len() >= TRIES) {
            sleep_until(*first + SECOND).await;
            pace.tries.pop_front();
        }
        pace.tries.push_back(Instant::now());
        pace
    }

    /// Records the outcome of an attempt to connect.
    pub(super) fn tried(&self, mut pace: MutexGuard<'_, Pace>, fault: Option<String>) {
        if fault.is_some() {
            pace.next = Some(Instant::now() + pause_after(pace.failures));
            pace.failures = pace.failures.saturating_add(1);
        } else {
            (pace.failures, pace.next) = (0, None);
        }
        *self.fault.lock() = fault;
    }

    /// Returns the reason why there is no connection.
    pub(super) fn fault(&self) -> String {
        let last = self.fault.lock().clone();
        let without = || self.sentinels.as_ref().and_then(Sentinels::fault);
        last.or_else(without).unwrap_or_else(|| format!("Redis at {} does not respond", self.options.address()))
    }
}

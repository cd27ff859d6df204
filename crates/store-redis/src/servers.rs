//! Finds the server for a store's connections, and limits the rate of new connections.

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

/// The maximum number of attempts to connect per second.
const TRIES: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Servers {
    pub(super) options: Arc<RedisOptions>,
    sentinels: Option<Sentinels>,
    pace: Mutex<Pace>,
    /// Each fault increments this generation, and older connections are replaced. Otherwise a retry could use another
    /// silent connection.
    generation: AtomicU64,
    fault: Lock<Option<String>>,
}

/// New connections are made one by one, to spare a server that has just recovered.
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

    /// Waits until the Sentinels name a primary, or returns `None` without Sentinels.
    pub(super) async fn primary(&self) -> Option<Primary> {
        let mut said = self.sentinels.as_ref()?.primary();
        // Waiting cannot fail, because `self` owns the sender.
        said.wait_for(Option::is_some).await.ok().and_then(|primary| primary.clone())
    }

    /// Waits until the Sentinels name another primary.
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
        // Further faults of the same generation are ignored.
        let _ = self.generation.compare_exchange(generation, generation + 1, Ordering::AcqRel, Ordering::Relaxed);
        self.ask_again();
    }

    pub(super) fn ask_again(&self) {
        if let Some(sentinels) = &self.sentinels {
            sentinels.ask();
        }
    }

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

    pub(super) fn tried(&self, mut pace: MutexGuard<'_, Pace>, fault: Option<String>) {
        if fault.is_some() {
            pace.next = Some(Instant::now() + pause_after(pace.failures));
            pace.failures = pace.failures.saturating_add(1);
        } else {
            (pace.failures, pace.next) = (0, None);
        }
        *self.fault.lock() = fault;
    }

    pub(super) fn fault(&self) -> String {
        let last = self.fault.lock().clone();
        let without = || self.sentinels.as_ref().and_then(Sentinels::fault);
        last.or_else(without).unwrap_or_else(|| format!("Redis at {} does not respond", self.options.address()))
    }
}

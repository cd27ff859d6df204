//! The records that this engine recently wrote to a shared store. If the store loses writes, these records are written
//! back. The records also save reads, because a refresh can begin with the engine's own record of the session. If
//! another engine has changed the session, the compare-and-swap fails, and the record is read.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use moka::Entry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::Engine;
use crate::session::{Generation, Session, SessionId, Status};

/// The maximum age of restored records, counted from the store's last response.
const RESTORED: Duration = Duration::from_secs(10);
/// How long a record is kept: longer than most access tokens are valid, and longer than a failover takes.
const KEPT: Duration = Duration::from_secs(1200);
/// Each record takes about a kilobyte.
const MAX_KEPT: u64 = 65_536;

/// The cost of a failed swap, in saved reads.
const COST: i32 = 2;
const MOST_LUCK: i32 = 64;
const LEAST_LUCK: i32 = -64;

#[derive(Clone, Debug)]
struct WrittenRecord {
    at: Duration,
    record: Arc<Session>,
    /// Whether a confirmation of delivery has raised the stored revision.
    is_confirmed: bool,
}

#[derive(Debug)]
pub(super) struct Written {
    /// `None` if only this engine writes to the store.
    records: Option<Cache<SessionId, WrittenRecord, foldhash::quality::RandomState>>,
    heard: AtomicU64,
    /// Records that were written before this time do not replace reads of the store. A restoration still uses them.
    distrusted: AtomicU64,
    /// Saved reads raise this balance, and failed swaps lower it. A negative balance forces reads from the store.
    luck: AtomicI32,
}

impl Written {
    pub(super) fn new(is_shared: bool) -> Self {
        let cache = Cache::builder().max_capacity(MAX_KEPT).eviction_policy(EvictionPolicy::lru()).time_to_live(KEPT);
        Self {
            records: is_shared.then(|| cache.build_with_hasher(Default::default())),
            heard: AtomicU64::new(0),
            distrusted: AtomicU64::new(0),
            luck: AtomicI32::new(0),
        }
    }

    /// Keeps an acknowledged record, unless a later revision is already kept. `now` is monotonic.
    pub(super) fn keep(&self, now: Duration, record: &Session) {
        let Some(records) = &self.records else { return };
        let new = WrittenRecord { at: now, record: Arc::new(record.clone()), is_confirmed: false };
        records.entry(record.id).and_upsert_with(|old| match old {
            Some(old) if old.value().record.revision > new.record.revision => old.into_value(),
            Some(_) | None => new,
        });
    }

    /// Returns the record of a live session whose current generation is `presented`. The store may have a later record.
    pub(super) fn recall(&self, id: SessionId, presented: Generation) -> Option<Session> {
        let records = self.records.as_ref()?;
        if self.luck.load(Ordering::Relaxed) < 0 {
            self.luck.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let WrittenRecord { at, record, is_confirmed } = records.get(&id)?;
        let is_usable = record.current == presented
            && record.status == Status::Live
            && at >= Duration::from_millis(self.distrusted.load(Ordering::Relaxed));
        is_usable.then(|| Session {
            confirmed: record.confirmed || is_confirmed,
            revision: record.revision + u64::from(is_confirmed),
            ..record.as_ref().clone()
        })
    }

    pub(super) fn count_right(&self) {
        let more = |luck: i32| Some((luck + 1).min(MOST_LUCK));
        let _ = self.luck.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    pub(super) fn count_wrong(&self) {
        let less = |luck: i32| Some(if luck < COST { LEAST_LUCK } else { luck - COST });
        let _ = self.luck.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Confirms each generation in `seen` whose session is in `marked`.
    pub(super) fn confirm(&self, seen: &[(SessionId, Generation)], marked: Vec<SessionId>) {
        let Some(records) = &self.records else { return };
        let marked: HashSet<_> = marked.into_iter().collect();
        for (id, generation) in seen.iter().filter(|(id, _)| marked.contains(id)) {
            records.entry(*id).and_compute_with(|kept| match kept.map(Entry::into_value) {
                Some(kept) if kept.record.current == *generation && !kept.record.confirmed => {
                    Op::Put(WrittenRecord { is_confirmed: true, ..kept })
                }
                Some(_) | None => Op::Nop,
            });
        }
    }

    pub(super) fn lately(&self) -> Vec<Session> {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        let all = self.records.iter().flatten();
        all.filter(|(_, kept)| kept.at + RESTORED >= heard).map(|(_, kept)| kept.record.as_ref().clone()).collect()
    }

    /// From now on, earlier records do not replace reads of the store. After a loss, the store may have different
    /// records with the same revisions.
    pub(super) fn distrust(&self, now: Duration) {
        // Add a millisecond, to include records from the current millisecond.
        self.distrusted.store(as_millis(now).saturating_add(1), Ordering::Relaxed);
    }

    /// Frees expired records, with their secrets.
    pub(super) fn hear(&self, now: Duration) {
        self.heard.store(as_millis(now), Ordering::Relaxed);
        if let Some(records) = &self.records {
            records.run_pending_tasks();
        }
    }
}

fn as_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    pub(super) fn keep_written(&self, record: &Session) {
        self.written.keep(self.clock.source().monotonic(), record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_guesses_wrong_stops_for_a_while() {
        let written = Written::new(true);
        written.count_wrong();
        let luck = || written.luck.load(Ordering::Relaxed);
        assert_eq!(luck(), LEAST_LUCK);
        let id = SessionId::from_bytes([1; 16]);
        for _ in 0..64 {
            assert!(written.recall(id, Generation::FIRST).is_none());
        }
        assert_eq!(luck(), 0, "and tries again");
        (0..100).for_each(|_| written.count_right());
        written.count_wrong();
        assert_eq!(luck(), MOST_LUCK - COST);
    }
}

//! Several handles on one store in memory, like several gates on a remote store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::super::memory::{MemoryStore, Tables};
use super::super::shared::{
    CounterUse, Feed, FeedStep, Follow, Heard, NodeRow, NodeSeen, Restoration, SharedCounter, SharedStore,
};
use super::super::{Cursor, Filter, Inserted, Page, Store, StoreError, SubjectBound, Swap, Swept, WriteOutcome};
use crate::clock::{TimeSource, Timestamp};
use crate::revocation::Revocation;
use crate::session::{Generation, RevokedBecause, Session, SessionId};

struct Common {
    store: MemoryStore,
    time: Arc<dyn TimeSource>,
    /// A creation and a not-before must never have the same millisecond.
    last_stamp: Mutex<Timestamp>,
    leeway: Duration,
    /// When each counter is full again, in microseconds.
    counters: Mutex<HashMap<[u8; 16], u64>>,
    changes: Mutex<HashMap<[u8; 16], Change>>,
    remembered: Mutex<HashMap<[u8; 16], Timestamp>>,
    rows: Mutex<HashMap<u64, (Timestamp, Arc<NodeRow>)>>,
    written: watch::Sender<()>,
    head: Mutex<SharedHead>,
    /// A failover changes the id of the server.
    server: AtomicU64,
    nodes: AtomicU64,
}

type Change = ([u8; 16], Timestamp);

#[derive(Clone, Debug, Default)]
struct SharedHead {
    /// Each noticed loss increments the history id.
    history: u64,
    adopted: Timestamp,
    writes: u64,
    /// Sessions with changes since the last loss, other than write-backs.
    written: BTreeSet<SessionId>,
    nodes: BTreeMap<u64, (Timestamp, u64)>,
}

/// The content of a store.
pub struct Backup {
    tables: Tables,
    head: SharedHead,
}

crate::debug_with!(Backup);

/// A node's connection to the store, which a test can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Everything reaches the store.
    #[default]
    Open,
    /// Nothing reaches the store.
    Cut,
    /// Requests reach the store, but responses to the feed are delayed.
    FeedHeld,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    began: u64,
    passed: u64,
}

/// One node's handle.
pub struct MemoryNode {
    common: Arc<Common>,
    way: watch::Sender<Way>,
    held: watch::Sender<Held>,
    release: Arc<Notify>,
    loads: AtomicU64,
    id: u64,
    known: Arc<NodeExpectations>,
}

#[derive(Debug, Default)]
struct NodeExpectations {
    history: AtomicU64,
    writes: AtomicU64,
    server: AtomicU64,
}

impl MemoryNode {
    /// Creates a store and its first handle. `time` is the store's clock.
    pub fn first(issuer: impl Into<Arc<str>>, leeway: Duration, time: Arc<dyn TimeSource>) -> Self {
        let common = Common {
            store: MemoryStore::for_a_trial(issuer, leeway),
            time,
            last_stamp: Mutex::default(),
            leeway,
            counters: Mutex::default(),
            changes: Mutex::default(),
            remembered: Mutex::default(),
            rows: Mutex::default(),
            written: watch::Sender::new(()),
            head: Mutex::default(),
            server: AtomicU64::new(0),
            nodes: AtomicU64::new(0),
        };
        Self::on(Arc::new(common))
    }

    /// Creates another node's handle on the same store.
    pub fn another(&self) -> Self {
        Self::on(Arc::clone(&self.common))
    }

    fn on(common: Arc<Common>) -> Self {
        let id = common.nodes.fetch_add(1, Ordering::SeqCst);
        let known = NodeExpectations::default();
        known.history.store(common.head.lock().history, Ordering::SeqCst);
        known.server.store(common.server.load(Ordering::SeqCst), Ordering::SeqCst);
        Self {
            id,
            known: Arc::new(known),
            common,
            way: watch::Sender::default(),
            held: watch::Sender::default(),
            release: Arc::default(),
            loads: AtomicU64::new(0),
        }
    }

    /// The number of records that this node has read.
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    /// Waits until a feed response is delayed.
    pub async fn feed_is_held(&self) {
        // The wait cannot fail, because this handle owns the sender.
        let _ = self.held.subscribe().wait_for(|held| held.began > held.passed).await;
    }

    /// Releases the delayed response, and waits until the feed receives it. Later responses are delayed again.
    pub async fn release_one(&self) {
        let passed = self.held.borrow().passed;
        self.release.notify_one();
        let _ = self.held.subscribe().wait_for(|held| held.passed > passed).await;
    }

    /// Changes this node's connection to the store.
    pub fn set_way(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Saves the content of the store for [`lose`](Self::lose).
    pub fn back_up(&self) -> Result<Backup, StoreError> {
        Ok(Backup { tables: self.common.store.tables()?.clone(), head: self.common.head.lock().clone() })
    }

    /// The number of losses that nodes have noticed.
    pub fn history(&self) -> u64 {
        self.common.head.lock().history
    }

    /// Simulates a failover to a replica that lacks everything since the backup.
    pub fn fail_over(&self, backup: &Backup) -> Result<(), StoreError> {
        self.lose(backup)?;
        self.common.server.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Simulates a loss of everything since the backup, without a visible failover.
    pub fn lose(&self, backup: &Backup) -> Result<(), StoreError> {
        *self.common.store.tables()? = backup.tables.clone();
        *self.common.head.lock() = backup.head.clone();
        Ok(())
    }

    fn reach(&self) -> Result<&MemoryStore, StoreError> {
        reach(&self.way.borrow())?;
        let head = self.common.head.lock();
        let is_of_it = head.history == self.known.history.load(Ordering::SeqCst);
        if is_of_it && head.writes >= self.known.writes.load(Ordering::SeqCst) {
            Ok(&self.common.store)
        } else {
            Err(StoreError::new("the store has lost writes").with_outcome(WriteOutcome::NotDone))
        }
    }

    fn wrote<T>(&self, record: Option<SessionId>, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_ok() {
            let mut head = self.common.head.lock();
            head.writes += 1;
            head.written.extend(record);
            self.known.writes.fetch_max(head.writes, Ordering::SeqCst);
        }
        self.common.written.send_replace(());
        result
    }
}

fn reach(way: &Way) -> Result<(), StoreError> {
    match way {
        Way::Open | Way::FeedHeld => Ok(()),
        Way::Cut => Err(StoreError::new("the store cannot be reached")
            .with_outcome(WriteOutcome::NotDone)
            .with_retry_after(Duration::from_secs(1))),
    }
}

crate::debug_with!(MemoryNode, |it| { way: *it.way.borrow() });

#[async_trait]
impl Store for MemoryNode {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let record = self.reach()?.load(id).await;
        self.loads.fetch_add(1, Ordering::SeqCst);
        record
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        let id = session.id;
        self.wrote(Some(id), self.reach()?.insert(session, bound).await)
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        let id = record.id;
        self.wrote(Some(id), self.reach()?.compare_and_swap(expected, record, revocation).await)
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        self.wrote(None, self.reach()?.revoke(entry, because).await)
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        self.reach()?.revocations_since(cursor).await
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        self.wrote(None, self.reach()?.confirm(seen).await)
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        self.reach()?.list(filter, after, limit).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        self.reach()?.sweep(now).await
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        self.reach()?;
        Ok(self.common.time.wall())
    }

    fn shared(&self) -> Option<&dyn SharedStore> {
        Some(self)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.reach()?.check().await
    }
}

#[async_trait]
impl SharedStore for MemoryNode {
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.reach()?;
        let now = self.common.time.wall();
        let floor = if after == Timestamp::ZERO { after } else { after.plus(Duration::from_millis(1)) };
        let mut last = self.common.last_stamp.lock();
        let stamp = now.max(*last).max(floor);
        if stamp > now.plus(self.common.leeway) {
            return Ok(None);
        }
        *last = stamp;
        Ok(Some(stamp))
    }

    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError> {
        self.reach()?;
        let mut last = self.common.last_stamp.lock();
        let stamp = self.common.time.wall().max(*last);
        *last = stamp.plus(Duration::from_millis(1));
        Ok(stamp)
    }

    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        let known = self.common.changes.lock().get(&name).copied();
        if let Some((_, stamp)) = known.filter(|(known, _)| *known == state) {
            self.reach()?;
            return Ok(stamp);
        }
        let stamp = self.stamp_not_before().await?;
        self.common.changes.lock().insert(name, (state, stamp));
        Ok(stamp)
    }

    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError> {
        self.reach()?;
        let now = self.common.time.wall().as_millis() * 1000;
        let mut counters = self.common.counters.lock();
        let full_at = counters.get(&counter.name).copied().unwrap_or_default();
        let (next, wait) = how.apply(&counter, full_at, now);
        if let Some(next) = next {
            counters.insert(counter.name, next);
        }
        Ok((wait > 0).then(|| Duration::from_micros(wait)))
    }

    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        self.reach()?;
        let until = self.common.time.wall().plus(lifetime);
        self.common.remembered.lock().insert(name, until);
        Ok(())
    }

    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        self.reach()?;
        let now = self.common.time.wall();
        let remembered = self.common.remembered.lock();
        Ok(remembered.get(&name).is_some_and(|until| *until > now))
    }

    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        self.reach()?;
        let after = self.common.time.wall().minus(within);
        let rows = self.common.rows.lock();
        let heard = rows.values().filter(|(beat, _)| *beat >= after);
        Ok(heard.map(|(beat, row)| NodeSeen { row: NodeRow::clone(row), beat: *beat }).collect())
    }

    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError> {
        self.reach()?;
        let mut written = self.common.written.subscribe();
        written.mark_changed();
        let (common, way) = (Arc::clone(&self.common), self.way.subscribe());
        let (held, release) = (self.held.clone(), Arc::clone(&self.release));
        let (id, known) = (self.id, Arc::clone(&self.known));
        Ok(Box::new(NodeFeed { common, id, known, way, held, release, written, follow, cursor: from, broke: false }))
    }

    async fn adopt(&self) -> Result<(), StoreError> {
        reach(&self.way.borrow())?;
        let mut head = self.common.head.lock();
        if head.history == self.known.history.load(Ordering::SeqCst) {
            head.history += 1;
            head.adopted = self.common.time.wall();
            head.written.clear();
        }
        self.known.history.store(head.history, Ordering::SeqCst);
        self.known.writes.store(head.writes, Ordering::SeqCst);
        self.known.server.store(self.common.server.load(Ordering::SeqCst), Ordering::SeqCst);
        self.common.written.send_replace(());
        Ok(())
    }

    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError> {
        let store = self.reach()?;
        let mut restored = 0;
        for record in records {
            if self.common.head.lock().written.contains(&record.id) {
                continue;
            }
            if store.restore(&record)? {
                self.wrote(None, Ok(()))?;
                restored += 1;
            }
        }
        Ok(restored)
    }

    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError> {
        self.reach()?;
        let now = self.common.time.wall();
        let mut head = self.common.head.lock();
        let (history, adopted) = (head.history, head.adopted);
        head.nodes.insert(self.id, (now, history));
        let has = |(heard, restored): &(Timestamp, u64)| *restored == history || heard.plus(patience) < adopted;
        let is_complete = now >= adopted.plus(patience) || head.nodes.values().all(has);
        Ok(Restoration { adopted, is_complete })
    }

    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError> {
        self.reach()?;
        let head = self.common.head.lock();
        Ok(head.history > 0 && !head.written.contains(&id))
    }
}

struct NodeFeed {
    common: Arc<Common>,
    id: u64,
    known: Arc<NodeExpectations>,
    way: watch::Receiver<Way>,
    held: watch::Sender<Held>,
    release: Arc<Notify>,
    written: watch::Receiver<()>,
    follow: Follow,
    cursor: Cursor,
    broke: bool,
}

crate::debug_with!(NodeFeed { cursor });

#[async_trait]
impl Feed for NodeFeed {
    async fn next(&mut self) -> Result<FeedStep, StoreError> {
        tokio::select! {
            // `changed` cannot fail, because the feed keeps the cluster alive.
            _ = self.written.changed(), if !self.broke => {}
            () = tokio::time::sleep(self.follow.every) => {}
        }
        self.broke = true;
        reach(&self.way.borrow())?;
        let asked = self.follow.time.monotonic();
        let (entries, end) = self.common.store.revocations_since(self.cursor.clone()).await?;
        let store_time = self.common.time.wall();
        let row = self.follow.row.get();
        self.common.rows.lock().insert(self.id, (store_time, row));
        if *self.way.borrow() == Way::FeedHeld {
            self.held.send_modify(|held| held.began += 1);
            tokio::select! {
                () = self.release.notified() => {}
                // The wait also ends when the handle is dropped.
                _ = self.way.wait_for(|way| *way != Way::FeedHeld) => {}
            }
            self.held.send_modify(|held| held.passed += 1);
        }
        reach(&self.way.borrow())?;
        self.broke = false;
        {
            let mut head = self.common.head.lock();
            let history = self.known.history.load(Ordering::SeqCst);
            let is_another = self.common.server.load(Ordering::SeqCst) != self.known.server.load(Ordering::SeqCst);
            if is_another || head.history != history || head.writes < self.known.writes.load(Ordering::SeqCst) {
                self.cursor = Cursor::default();
                return Ok(FeedStep { lost: true, ..FeedStep::default() });
            }
            self.known.writes.fetch_max(head.writes, Ordering::SeqCst);
            let restored = head.nodes.get(&self.id).map_or(history, |(_, restored)| *restored);
            head.nodes.insert(self.id, (store_time, restored));
        }
        self.cursor = end;
        let answered = self.follow.time.monotonic();
        Ok(FeedStep { entries, complete: Some(Heard { asked, answered, store_time }), lost: false })
    }
}

#[cfg(test)]
mod tests;

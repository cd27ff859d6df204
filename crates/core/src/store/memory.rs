//! Keeps sessions and revocations in memory, for tests and trials.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use super::rows::{self, Row, RowInserted, RowKey, RowStore, RowSwapped, RowTable, RowVersion, Space};
use super::rules::{Failure, Rules, State};
use super::{Cursor, Filter, Inserted, Page, Store, StoreError, SubjectBound, Swap, Swept};
use crate::clock::Timestamp;
use crate::revocation::{Revocation, Target};
use crate::session::{Generation, RevokedBecause, Session, SessionId};

/// A store that loses everything when the process ends.
///
/// ```
/// use rotogate::clock::Timestamp;
/// use rotogate::Gate;
/// use rotogate::store::{MemoryStore, Store};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let store = MemoryStore::for_a_trial("https://api.example.com", Gate::DEFAULT_LEEWAY);
/// assert_eq!(store.last_known_time().await?, Timestamp::ZERO, "it is new");
/// let builder = rotogate::Gate::builder().store(store);
/// # let _ = builder;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct MemoryStore {
    rules: Rules,
    /// The lock is never held across an await.
    tables: Mutex<Tables>,
}

#[derive(Clone, Default)]
pub(super) struct Tables {
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions that are not revoked.
    live: BTreeMap<(Box<str>, SessionId), Timestamp>,
    revocations: BTreeMap<Target, (u64, Revocation)>,
    log: BTreeMap<u64, Target>,
    sequence: u64,
    last_known_time: Timestamp,
    /// The rows of each space.
    rows: BTreeMap<u8, BTreeMap<RowKey, Row>>,
}

impl MemoryStore {
    /// Creates an empty store. `issuer` is the gate's own issuer, and `leeway` is added to the expiry of revocations.
    pub fn new(issuer: impl Into<Arc<str>>, leeway: Duration) -> Self {
        tracing::warn!(
            "sessions and revocations are kept in memory only, so a restart ends all sessions. In production, give the \
             gate another store"
        );
        Self::for_a_trial(issuer, leeway)
    }

    /// Like [`new`](Self::new), but without the warning in the log.
    pub fn for_a_trial(issuer: impl Into<Arc<str>>, leeway: Duration) -> Self {
        Self { rules: Rules { issuer: issuer.into(), leeway }, tables: Mutex::default() }
    }

    pub(super) fn tables(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        self.tables.lock().map_err(|_| StoreError::new("a panic interrupted a write to the memory store"))
    }

    fn run<T>(&self, work: impl FnOnce(&Rules, &mut Tables) -> Result<T, Failure>) -> Result<T, StoreError> {
        Ok(work(&self.rules, &mut *self.tables()?)?)
    }
}

crate::debug_with!(MemoryStore);

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        Ok(self.tables()?.sessions.get(&id).cloned())
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        self.run(|rules, tables| rules.insert(tables, &session, bound))
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        self.run(|rules, tables| rules.compare_and_swap(tables, expected, &record, revocation.as_ref()))
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        self.run(|rules, tables| rules.revoke(tables, entry, because))
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        let tables = self.tables()?;
        let mut end = cursor.place()?;
        let mut entries = Vec::new();
        for (&sequence, target) in tables.log.range((Excluded(end), Unbounded)) {
            end = sequence;
            entries.extend(tables.revocations.get(target).map(|(_, entry)| entry.clone()));
        }
        Ok((entries, Cursor::from_place(end)))
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        self.run(|rules, tables| rules.confirm(tables, &seen))
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        let tables = self.tables()?;
        let limit = Rules::page_size(limit);
        let mut found =
            tables.sessions.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, s)| s).filter(|session| {
                match &filter {
                    Filter::All => true,
                    Filter::Subject(subject) => session.subject == *subject,
                }
            });
        let sessions: Vec<_> = found.by_ref().take(limit).cloned().collect();
        let more = found.next().is_some();
        Ok(Page { next: sessions.last().map(|s| s.id).filter(|_| more), sessions })
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        let mut total = Swept::default();
        loop {
            let step = self.run(|rules, tables| rules.sweep_step(tables, now))?;
            if step == Swept::default() {
                return Ok(total);
            }
            total.sessions += step.sessions;
            total.revocations += step.revocations;
            tokio::task::yield_now().await;
        }
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        Ok(self.tables()?.last_known_time)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.tables().map(drop)
    }
}

impl State for Tables {
    fn session(&self, id: SessionId) -> Result<Option<Session>, Failure> {
        Ok(self.sessions.get(&id).cloned())
    }

    fn revocation(&self, target: &Target) -> Result<Option<Revocation>, Failure> {
        Ok(self.revocations.get(target).map(|(_, entry)| entry.clone()))
    }

    fn end_of_subject(&self, subject: &str) -> Result<Timestamp, Failure> {
        Ok(self.sessions.values().filter(|s| *s.subject == *subject).map(Session::ends_at).max().unwrap_or_default())
    }

    fn end_of_all(&self) -> Result<Timestamp, Failure> {
        Ok(self.sessions.values().map(Session::ends_at).max().unwrap_or_default())
    }

    fn live_of(&self, subject: &str, limit: usize) -> Result<Vec<(SessionId, Timestamp)>, Failure> {
        let from = (Box::from(subject), SessionId::from_bytes([0; 16]));
        let to = (Box::from(subject), SessionId::from_bytes([0xff; 16]));
        Ok(self.live.range(from..=to).take(limit).map(|((_, id), end)| (*id, *end)).collect())
    }

    fn forget_live(&mut self, subject: &str, id: SessionId) -> Result<(), Failure> {
        self.live.remove(&(subject.into(), id));
        Ok(())
    }

    fn put_session(&mut self, _old: Option<&Session>, new: &Session) -> Result<(), Failure> {
        let key = (new.subject.clone(), new.id);
        if new.is_revoked() {
            self.live.remove(&key);
        } else {
            self.live.insert(key, new.expires);
        }
        self.sessions.insert(new.id, new.clone());
        Ok(())
    }

    fn put_revocation(&mut self, entry: &Revocation) -> Result<(), Failure> {
        self.sequence += 1;
        let place = (self.sequence, entry.clone());
        if let Some((earlier, _)) = self.revocations.insert(entry.target.clone(), place) {
            self.log.remove(&earlier);
        }
        self.log.insert(self.sequence, entry.target.clone());
        Ok(())
    }

    fn raise_time(&mut self, time: Timestamp) -> Result<(), Failure> {
        self.last_known_time = self.last_known_time.max(time);
        Ok(())
    }

    fn remove_ended(&mut self, before: Timestamp, limit: usize) -> Result<Swept, Failure> {
        let ended = self.sessions.values().filter(|s| s.ends_at() < before).map(|s| s.id).take(limit);
        let sessions: Vec<_> = ended.collect();
        let over = self.revocations.values().filter(|(_, entry)| entry.until < before).take(limit);
        let revocations: Vec<_> = over.map(|(place, entry)| (*place, entry.target.clone())).collect();
        for id in &sessions {
            if let Some(session) = self.sessions.remove(id) {
                self.live.remove(&(session.subject.clone(), *id));
            }
        }
        for (place, target) in &revocations {
            self.log.remove(place);
            self.revocations.remove(target);
        }
        Ok(Swept { sessions: sessions.len() as u64, revocations: revocations.len() as u64 })
    }
}

#[async_trait]
impl RowStore for MemoryStore {
    async fn load_row(&self, space: Space, key: RowKey) -> Result<Option<Row>, StoreError> {
        Ok(self.tables()?.row(space, key)?)
    }

    async fn insert_row(&self, space: Space, key: RowKey, row: Row, now: Timestamp) -> Result<RowInserted, StoreError> {
        self.run(|_, tables| rows::insert(tables, (space, key), &row, now))
    }

    async fn swap_row(
        &self,
        space: Space,
        key: RowKey,
        expected: RowVersion,
        row: Row,
        _now: Timestamp,
    ) -> Result<RowSwapped, StoreError> {
        self.run(|_, tables| rows::swap(tables, (space, key), expected, &row))
    }

    async fn remove_row(&self, space: Space, key: RowKey, expected: Option<RowVersion>) -> Result<bool, StoreError> {
        self.run(|_, tables| rows::remove(tables, (space, key), expected))
    }

    async fn row_keys(&self, space: Space, after: Option<RowKey>, limit: usize) -> Result<Vec<RowKey>, StoreError> {
        let from = after.map_or(Unbounded, Excluded);
        let tables = self.tables()?;
        let rows = tables.rows.get(&space.id()).into_iter().flat_map(|rows| rows.range((from, Unbounded)));
        Ok(rows.take(limit).map(|(key, _)| *key).collect())
    }

    async fn sweep_rows(&self, space: Space, now: Timestamp) -> Result<u64, StoreError> {
        let mut total = 0;
        loop {
            match self.run(|_, tables| rows::sweep_step(tables, space, now))? {
                0 => return Ok(total),
                step => total += step,
            }
            tokio::task::yield_now().await;
        }
    }
}

impl RowTable for Tables {
    fn row(&self, space: Space, key: RowKey) -> Result<Option<Row>, Failure> {
        Ok(self.rows.get(&space.id()).and_then(|rows| rows.get(&key)).cloned())
    }

    fn rows_in(&self, space: Space) -> Result<u64, Failure> {
        Ok(self.rows.get(&space.id()).map_or(0, |rows| rows.len() as u64))
    }

    fn put_row(&mut self, space: Space, key: RowKey, _old: Option<&Row>, new: &Row) -> Result<(), Failure> {
        self.rows.entry(space.id()).or_default().insert(key, new.clone());
        Ok(())
    }

    fn take_row(&mut self, space: Space, key: RowKey, _old: &Row) -> Result<(), Failure> {
        if let Some(rows) = self.rows.get_mut(&space.id()) {
            rows.remove(&key);
        }
        Ok(())
    }

    fn take_ended_rows(&mut self, space: Space, now: Timestamp, limit: usize) -> Result<u64, Failure> {
        let Some(rows) = self.rows.get_mut(&space.id()) else { return Ok(0) };
        let ended = rows.iter().filter(|(_, row)| row.until <= now).map(|(key, _)| *key).take(limit);
        let ended: Vec<_> = ended.collect();
        for key in &ended {
            rows.remove(key);
        }
        Ok(ended.len() as u64)
    }
}

#[cfg(any(test, feature = "test-util"))]
mod for_tests {
    use super::*;

    impl MemoryStore {
        pub(crate) fn restore(&self, record: &Session) -> Result<bool, StoreError> {
            self.run(|rules, tables| rules.restore(tables, record))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn k10_the_memory_store_keeps_rows() {
        conformance::run_rows(|| Arc::new(MemoryStore::for_a_trial(conformance::ISSUER, conformance::LEEWAY))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_memory_store_passes_the_conformance_suite() {
        conformance::run(|issuer, leeway| Arc::new(MemoryStore::new(issuer, leeway))).await;
    }
}

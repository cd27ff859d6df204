//! The state of a store that cannot run the rules in its own transactions.
//!
//! The rules run on this snapshot, which collects their writes. The store executes the writes if its state equals the
//! snapshot. Otherwise the store returns its state, and the rules run again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::revocation::{Revocation, Target};
use crate::session::{Session, SessionId};
use crate::store::rules::{Failure, State};
use crate::store::{StoreError, Swept};

/// A record that the rules write.
#[derive(Debug)]
pub struct RecordWrite {
    /// The replaced record.
    pub old: Option<Session>,
    /// The new record.
    pub new: Session,
}

/// The known or presumed state of a store.
#[derive(Debug, Default)]
pub struct Snapshot {
    records: BTreeMap<SessionId, Result<Session, StoreError>>,
    entries: BTreeMap<Target, Revocation>,
    current: BTreeSet<SessionId>,
    end: Timestamp,
    reads_end: AtomicBool,
    writes: Vec<RecordWrite>,
    entry_writes: Vec<Revocation>,
}

impl Snapshot {
    /// Adds a record from the store.
    pub fn see(&mut self, id: SessionId, record: Result<Session, StoreError>) {
        self.records.insert(id, record);
    }

    /// Adds a revocation entry from the store.
    pub fn see_entry(&mut self, entry: Revocation) {
        self.entries.insert(entry.target.clone(), entry);
    }

    /// Records that the session was written after the store's last loss of writes.
    pub fn see_current(&mut self, id: SessionId) {
        self.current.insert(id);
    }

    /// Returns whether the session was written after the store's last loss of writes.
    pub fn is_current(&self, id: SessionId) -> bool {
        self.current.contains(&id)
    }

    /// Adds a margin to the latest session expiry.
    pub fn allow(&mut self, margin: Duration) {
        self.end = self.end.plus(margin);
    }

    /// The latest session expiry from the store, plus the margin.
    pub fn found_end(&self) -> Timestamp {
        self.end
    }

    /// Sets the latest expiry of all sessions, or of one subject's sessions.
    pub fn see_end(&mut self, end: Timestamp) {
        self.end = end;
    }

    /// The session's record before the rules ran.
    pub fn record(&self, id: SessionId) -> Option<&Result<Session, StoreError>> {
        self.records.get(&id)
    }

    /// All readable records.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.records.values().flatten()
    }

    /// The target's entry before the rules ran.
    pub fn entry(&self, target: &Target) -> Option<&Revocation> {
        self.entries.get(target)
    }

    /// Returns the latest session expiry, if the rules have used it.
    pub fn end_relied_on(&self) -> Option<Timestamp> {
        self.reads_end.load(Ordering::Relaxed).then_some(self.end)
    }

    /// The records that the rules wrote.
    pub fn writes(&self) -> &[RecordWrite] {
        &self.writes
    }

    /// The entries that the rules wrote.
    pub fn entry_writes(&self) -> &[Revocation] {
        &self.entry_writes
    }

    /// Returns whether the rules wrote anything.
    pub fn is_changed(&self) -> bool {
        !self.writes.is_empty() || !self.entry_writes.is_empty()
    }

    fn end(&self) -> Timestamp {
        self.reads_end.store(true, Ordering::Relaxed);
        self.end
    }
}

impl State for Snapshot {
    fn session(&self, id: SessionId) -> Result<Option<Session>, Failure> {
        if let Some(written) = self.writes.iter().find(|write| write.new.id == id) {
            return Ok(Some(written.new.clone()));
        }
        match self.records.get(&id) {
            None => Ok(None),
            Some(Ok(session)) => Ok(Some(session.clone())),
            Some(Err(error)) => Err(Failure::Refused(StoreError::new(error.to_string()).of_one_record())),
        }
    }

    fn revocation(&self, target: &Target) -> Result<Option<Revocation>, Failure> {
        let written = self.entry_writes.iter().rfind(|entry| entry.target == *target);
        Ok(written.or_else(|| self.entries.get(target)).cloned())
    }

    fn end_of_subject(&self, _subject: &str) -> Result<Timestamp, Failure> {
        Ok(self.end())
    }

    fn end_of_all(&self) -> Result<Timestamp, Failure> {
        Ok(self.end())
    }

    fn live_of(&self, subject: &str, limit: usize) -> Result<Vec<(SessionId, Timestamp)>, Failure> {
        let live = self.sessions().filter(|one| *one.subject == *subject && !one.is_revoked());
        Ok(live.map(|one| (one.id, one.ends_at())).take(limit).collect())
    }

    fn forget_live(&mut self, _subject: &str, _id: SessionId) -> Result<(), Failure> {
        // The store removes expired sessions by its own clock.
        Ok(())
    }

    fn put_session(&mut self, old: Option<&Session>, new: &Session) -> Result<(), Failure> {
        match self.writes.iter_mut().find(|write| write.new.id == new.id) {
            Some(write) => write.new = new.clone(),
            None => self.writes.push(RecordWrite { old: old.cloned(), new: new.clone() }),
        }
        Ok(())
    }

    fn put_revocation(&mut self, entry: &Revocation) -> Result<(), Failure> {
        self.entry_writes.retain(|other| other.target != entry.target);
        self.entry_writes.push(entry.clone());
        Ok(())
    }

    fn raise_time(&mut self, _time: Timestamp) -> Result<(), Failure> {
        // The server's clock is used instead of this time.
        Ok(())
    }

    fn remove_ended(&mut self, _before: Timestamp, _limit: usize) -> Result<Swept, Failure> {
        // The store itself removes expired records.
        Ok(Swept::default())
    }
}

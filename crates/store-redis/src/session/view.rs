//! What a bounded insert is decided by.

use std::collections::{BTreeMap, BTreeSet};

use super::InsertBound;
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::rules::{Failure, State, end_of, is_revoked};
use rotogate_core::store::{StoreError, Swept};

/// What a bounded insert is decided by. Nothing is written here: the script does it, if all is as it was.
#[derive(Default)]
pub(super) struct View {
    pub(super) inserts: Vec<String>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) revocations: BTreeMap<Target, Revocation>,
    pub(super) gives_way: Vec<(SessionId, u64)>,
}

impl View {
    pub(super) fn room(self) -> InsertBound {
        let gives_way: BTreeSet<_> = self.gives_way.iter().map(|(id, _)| *id).collect();
        let stays = self.sessions.values().filter(|one| !is_revoked(one) && !gives_way.contains(&one.id));
        InsertBound { stays: stays.map(|one| one.id).collect(), inserts: self.inserts, gives_way: self.gives_way }
    }
}

impl State for View {
    fn session(&self, id: SessionId) -> Result<Option<Session>, Failure> {
        Ok(self.sessions.get(&id).cloned())
    }

    fn revocation(&self, target: &Target) -> Result<Option<Revocation>, Failure> {
        Ok(self.revocations.get(target).cloned())
    }

    fn end_of_subject(&self, _subject: &str) -> Result<Timestamp, Failure> {
        Ok(self.sessions.values().map(end_of).max().unwrap_or_default())
    }

    fn end_of_all(&self) -> Result<Timestamp, Failure> {
        Err(Failure::Broken(StoreError::new("one subject's sessions do not show the end of all")))
    }

    fn live_of(&self, _subject: &str, limit: usize) -> Result<Vec<(SessionId, Timestamp)>, Failure> {
        let live = self.sessions.values().filter(|one| !is_revoked(one));
        Ok(live.map(|one| (one.id, end_of(one))).take(limit).collect())
    }

    fn forget_live(&mut self, _subject: &str, _id: SessionId) -> Result<(), Failure> {
        // The index drops what ended by the server's time.
        Ok(())
    }

    fn put_session(&mut self, old: Option<&Session>, new: &Session) -> Result<(), Failure> {
        if let Some(old) = old {
            self.gives_way.push((new.id, old.revision));
        }
        Ok(())
    }

    fn put_revocation(&mut self, _entry: &Revocation) -> Result<(), Failure> {
        Ok(())
    }

    fn raise_time(&mut self, _time: Timestamp) -> Result<(), Failure> {
        Ok(())
    }

    fn remove_ended(&mut self, _before: Timestamp, _limit: usize) -> Result<Swept, Failure> {
        Ok(Swept::default())
    }
}

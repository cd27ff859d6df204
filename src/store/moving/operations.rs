//! The operations of a gate: the old store decides, and the next one is given what was written.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Inner, MovingStore};
use crate::clock::Timestamp;
use crate::revocation::{RevocationList, Target};
use crate::session::{Generation, RevokedBecause, Session, SessionId};
use crate::store::owed::OwedFile;
use crate::store::{
    Admitted, CounterUse, Cursor, Feed, Filter, Follow, Inserted, NodeSeen, Page, Restoration, Revocation,
    SharedCounter, SharedStore, Store, StoreError, SubjectBound, Swap, Swept, WriteOutcome,
};

/// How many records are read again and put at once.
const AT_ONCE: usize = 256;

impl Inner {
    /// A write that failed may have been done.
    fn in_doubt<T>(&self, id: SessionId, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &done
            && error.outcome() == WriteOutcome::InDoubt
        {
            self.miss([id]);
        }
        done
    }

    /// Puts the records of these sessions as they are now.
    async fn mirror_again(&self, ids: &[SessionId], mut entries: Vec<Revocation>) -> Result<(), StoreError> {
        for some in ids.chunks(AT_ONCE) {
            let mut records = Vec::new();
            for id in some {
                match self.old.load(*id).await {
                    Ok(record) => records.extend(record),
                    // It was written, and is put later.
                    Err(_) => self.miss([*id]),
                }
            }
            self.mirror(records, std::mem::take(&mut entries)).await?;
        }
        if entries.is_empty() { Ok(()) } else { self.mirror(Vec::new(), entries).await }
    }

    fn shared(&self) -> Result<&dyn SharedStore, StoreError> {
        self.old
            .shared()
            .ok_or_else(|| StoreError::new("the store serves one gate").with_outcome(WriteOutcome::Refused))
    }
}

#[async_trait]
impl Store for MovingStore {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.0.old.load(id).await
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        let inserted = self.0.in_doubt(session.id, self.0.old.insert(session.clone(), bound).await)?;
        if let Inserted::Inserted(ended) = &inserted {
            let gave_way: Vec<_> = ended.iter().filter_map(|entry| session_of(&entry.target)).collect();
            self.0.mirror(vec![session], Vec::new()).await?;
            self.0.mirror_again(&gave_way, ended.clone()).await?;
        }
        Ok(inserted)
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        let swapped = self.0.old.compare_and_swap(expected, record.clone(), revocation.clone()).await;
        let swapped = self.0.in_doubt(record.id, swapped)?;
        if swapped == Swap::Swapped {
            self.0.mirror(vec![record], revocation.into_iter().collect()).await?;
        }
        Ok(swapped)
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        let session = session_of(&entry.target);
        let revoked = self.0.old.revoke(entry, because).await;
        let revoked = match session {
            Some(id) => self.0.in_doubt(id, revoked)?,
            None => revoked?,
        };
        self.0.mirror_again(session.as_slice(), vec![revoked.clone()]).await?;
        Ok(revoked)
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        self.0.old.revocations_since(cursor).await
    }

    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        self.0.old.revocations().await
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        let ids: Vec<_> = seen.iter().map(|(id, _)| *id).collect();
        let marked = self.0.old.confirm(seen).await?;
        self.0.mirror_again(&ids, Vec::new()).await?;
        Ok(marked)
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        self.0.old.list(filter, after, limit).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        self.0.old.sweep(now).await
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        self.0.old.last_known_time().await
    }

    fn shared(&self) -> Option<&dyn SharedStore> {
        self.0.old.shared().is_some().then_some(self)
    }

    fn owed_file(&self) -> Option<&Arc<OwedFile>> {
        self.0.old.owed_file()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.0.old.check().await
    }
}

fn session_of(target: &Target) -> Option<SessionId> {
    match target {
        Target::Session(id) => Some(*id),
        Target::Subject { .. } | Target::Client { .. } | Target::Global | Target::Token { .. } => None,
    }
}

#[async_trait]
impl SharedStore for MovingStore {
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.0.shared()?.stamp_creation(after).await
    }

    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError> {
        self.0.shared()?.stamp_not_before().await
    }

    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        self.0.shared()?.stamp_change(name, state).await
    }

    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError> {
        self.0.shared()?.count(counter, how).await
    }

    async fn admit(
        &self,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        self.0.shared()?.admit(caller, counters).await
    }

    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        self.0.shared()?.remember(name, lifetime).await
    }

    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        self.0.shared()?.remembers(name).await
    }

    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        self.0.shared()?.nodes_within(within).await
    }

    fn reads(&self) -> [u8; 2] {
        self.0.old.shared().map_or([1, 1], SharedStore::reads)
    }

    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.0.shared()?.load_to_revoke(id).await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.0.shared()?.settle().await
    }

    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError> {
        let next = self.0.next.load().as_ref().map(|next| next.id);
        *self.0.row.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::sync::Arc::clone(&follow.row));
        self.0.say(next);
        self.0.shared()?.follow(from, follow).await
    }

    async fn adopt(&self) -> Result<(), StoreError> {
        self.0.shared()?.adopt().await
    }

    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError> {
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        let restored = self.0.shared()?.restore(records).await?;
        self.0.mirror_again(&ids, Vec::new()).await?;
        Ok(restored)
    }

    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError> {
        self.0.shared()?.restoration(patience).await
    }

    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError> {
        self.0.shared()?.predates_loss(id).await
    }

    async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.0.shared()?.written_in_doubt(id).await
    }

    fn resolved(&self, id: SessionId) {
        if let Some(shared) = self.0.old.shared() {
            shared.resolved(id);
        }
    }
}

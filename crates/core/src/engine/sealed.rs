//! Seals each record before it is written, and requires a valid seal on each loaded record (requirement J23). The rest
//! of the crate uses only this store, so the seals cannot be bypassed. An unreadable record causes a fault for its
//! session only (requirement J27). The session does not count as ended, and can still be revoked.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::{Counts, Event};
use crate::clock::Timestamp;
use crate::fault::Chain;
use crate::revocation::{Revocation, RevocationList};
use crate::session::{Generation, RevokedBecause, Session, SessionId};
use crate::store::owed::OwedFile;
use crate::store::{
    Admitted, CounterUse, Cursor, Feed, Filter, Follow, Inserted, NodeSeen, Page, Restoration, SharedCounter,
    SharedStore, Store, StoreError, SubjectBound, Swap, Swept, WriteOutcome,
};
use crate::token::keyring::Keyring;
use crate::token::seal::{self, BrokenSeal};

#[derive(Debug)]
pub(super) struct SealedStore {
    inner: Arc<dyn Store>,
    keyring: Arc<ArcSwap<Keyring>>,
    counts: Arc<Counts>,
}

impl SealedStore {
    pub(super) const fn new(inner: Arc<dyn Store>, keyring: Arc<ArcSwap<Keyring>>, counts: Arc<Counts>) -> Self {
        Self { inner, keyring, counts }
    }

    fn seal(&self, record: Session) -> Result<Session, StoreError> {
        seal::sealed(self.keyring.load().refresh_keys(), record).ok_or_else(|| {
            StoreError::new("a session's record cannot be sealed, because the current refresh secret is missing")
                .with_outcome(WriteOutcome::NotDone)
        })
    }

    fn check(&self, record: Session) -> Result<Session, StoreError> {
        match seal::check(self.keyring.load().refresh_keys(), &record) {
            Ok(()) => Ok(record),
            Err(broken) => Err(self.broken(&record, broken)),
        }
    }

    fn checked(
        &self,
        id: SessionId,
        answer: Result<Option<Session>, StoreError>,
    ) -> Result<Option<Session>, StoreError> {
        answer.map_err(|error| self.noted(id, error))?.map(|record| self.check(record)).transpose()
    }

    fn noted(&self, id: SessionId, error: StoreError) -> StoreError {
        if error.is_of_one_record() {
            self.counts.add(Event::BrokenSeal);
            tracing::error!(
                session.id = %id,
                error = ?Chain(&error),
                "session record cannot be read, so the session gets 503. If `error` names another version of rotogate, \
                 start that version. Otherwise run `rotogate session revoke ID`"
            );
        }
        error
    }

    fn broken(&self, record: &Session, broken: BrokenSeal) -> StoreError {
        self.counts.add(Event::BrokenSeal);
        tracing::error!(
            session.id = %record.id,
            error = %broken,
            "session record: the seal is missing or invalid, so the session gets 503. If `error` names a refresh \
             secret, copy the key folder to this gate. Otherwise run `rotogate session revoke ID`"
        );
        let what = format!("record of session {}: the seal is missing or invalid", record.id);
        StoreError::caused_by(what, broken).of_one_record()
    }

    fn of_several(&self) -> Result<&dyn SharedStore, StoreError> {
        let one = || StoreError::new("the store is not shared between gates").with_outcome(WriteOutcome::Refused);
        self.inner.shared().ok_or_else(one)
    }
}

#[async_trait]
impl Store for SealedStore {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.checked(id, self.inner.load(id).await)
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        self.inner.insert(self.seal(session)?, bound).await
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        let id = record.id;
        let swapped = self.inner.compare_and_swap(expected, self.seal(record)?, revocation).await;
        match swapped.map_err(|error| self.noted(id, error))? {
            Swap::Changed(Some(record)) => Ok(Swap::Changed(Some(Box::new(self.check(*record)?)))),
            swap @ (Swap::Changed(None) | Swap::Swapped | Swap::NoLongerValid) => Ok(swap),
        }
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        self.inner.revoke(entry, because).await
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        self.inner.revocations_since(cursor).await
    }

    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        self.inner.revocations().await
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        self.inner.confirm(seen).await
    }

    /// Skips records without a valid seal.
    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        let Page { sessions, next } = self.inner.list(filter, after, limit).await?;
        Ok(Page { sessions: sessions.into_iter().filter_map(|record| self.check(record).ok()).collect(), next })
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        self.inner.sweep(now).await
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        self.inner.last_known_time().await
    }

    fn shared(&self) -> Option<&dyn SharedStore> {
        self.inner.shared().is_some().then_some(self)
    }

    fn owed_file(&self) -> Option<&Arc<OwedFile>> {
        self.inner.owed_file()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.inner.probe().await
    }
}

#[async_trait]
impl SharedStore for SealedStore {
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.of_several()?.stamp_creation(after).await
    }

    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError> {
        self.of_several()?.stamp_not_before().await
    }

    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError> {
        self.of_several()?.stamp_change(name, state).await
    }

    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError> {
        self.of_several()?.count(counter, how).await
    }

    async fn admit(
        &self,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        self.of_several()?.admit(caller, counters).await
    }

    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError> {
        self.of_several()?.remember(name, lifetime).await
    }

    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError> {
        self.of_several()?.remembers(name).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.of_several()?.nodes().await
    }

    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError> {
        self.of_several()?.nodes_within(within).await
    }

    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.checked(id, self.of_several()?.load_to_revoke(id).await)
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.of_several()?.settle().await
    }

    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError> {
        self.of_several()?.follow(from, follow).await
    }

    async fn adopt(&self) -> Result<(), StoreError> {
        self.of_several()?.adopt().await
    }

    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError> {
        let records = records.into_iter().map(|record| self.seal(record)).collect::<Result<_, _>>()?;
        self.of_several()?.restore(records).await
    }

    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError> {
        self.of_several()?.restoration(patience).await
    }

    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError> {
        self.of_several()?.predates_loss(id).await
    }

    async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.checked(id, self.of_several()?.written_in_doubt(id).await)
    }

    fn resolved(&self, id: SessionId) {
        if let Some(shared) = self.inner.shared() {
            shared.resolved(id);
        }
    }
}

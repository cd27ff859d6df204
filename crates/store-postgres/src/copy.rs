//! Writes a copy of another store. Gates refuse an unfinished copy.

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio_postgres::types::Type;

use super::call::Arg;
use super::record::{target_key, time};
use super::{PostgresInner, PostgresStore};
use rotogate_core::clock::Timestamp;
use rotogate_core::session::Session;
use rotogate_core::store::copy::{CopyTarget, put_record};
use rotogate_core::store::kit::commit::{Operation, decide, raises};
use rotogate_core::store::kit::fields::encode_effect;
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::reset_clock::RemembersTime;
use rotogate_core::store::{Revocation, SharedStore, Store, StoreError, rules};

#[async_trait]
impl CopyTarget for PostgresStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError> {
        for some in sessions.chunks(self.0.options.connections) {
            join_all(some.iter().map(|session| self.0.put(session))).await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError> {
        for entry in entries {
            let targets = vec![entry.target.clone()];
            let operation = Operation { targets, raises: raises(&entry), ..Operation::default() };
            // The copied records already reflect the revocations.
            let merge = |state: &mut Snapshot| rules::put(state, &entry);
            decide(&self.0.commit_by(&self.0.revocations)?, operation, Snapshot::default(), merge).await?;
        }
        Ok(())
    }

    async fn raise_stamp(&self, latest: Timestamp) -> Result<(), StoreError> {
        self.stamp_creation(latest).await?.map(drop).ok_or_else(|| {
            StoreError::new(
                "a session was created later than the present time of PostgreSQL: synchronize both clocks with NTP",
            )
        })
    }

    async fn end_copy(&self) -> Result<(), StoreError> {
        self.0.one("rg_end_copy", Vec::new()).await?.with_status("whole").map(drop)
    }
}

#[async_trait]
impl RemembersTime for PostgresStore {
    async fn time_now(&self) -> Result<Timestamp, StoreError> {
        self.last_known_time().await
    }

    async fn latest_time(&self) -> Result<Timestamp, StoreError> {
        let (keys, effects) = (Arg::Null(Type::BYTEA_ARRAY), Arg::Null(Type::BYTEA_ARRAY));
        let answer = self.0.one("rg_lower", vec![keys, effects]).await?.with_status("lowered")?;
        Ok(time(answer.get("o_latest")?))
    }

    async fn lower_times(&self, _now: Timestamp, entries: Vec<Revocation>) -> Result<(), StoreError> {
        let keys = entries.iter().map(|entry| target_key(&entry.target)).collect::<Result<Vec<_>, _>>()?;
        let effects = Arg::byte_list(entries.iter().map(|entry| encode_effect(entry.effect)));
        self.0.one("rg_lower", vec![Arg::byte_list(keys), effects]).await?.with_status("lowered").map(drop)
    }
}

impl PostgresInner {
    async fn put(&self, session: &Session) -> Result<(), StoreError> {
        let operation = Operation { ids: vec![session.id], into_copy: true, ..Operation::default() };
        let put = |state: &mut Snapshot| put_record(state, session);
        decide(&self.commit_by(&self.commands)?, operation, Snapshot::default(), put).await.map(drop)
    }
}

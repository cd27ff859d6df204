//! A copy of another store. Until it is whole, its first head says so, and no gate opens it.

use async_trait::async_trait;

use super::super::copy::CopyTarget;
use super::super::{Revocation, StoreError};
use super::partitions::{Partition, in_each};
use super::record::{encode_record, new_op};
use super::script::PUT;
use super::{RedisStore, drop_mut};
use crate::session::{RevokedBecause, Session};
use crate::store::SharedStore;

#[async_trait]
impl CopyTarget for RedisStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError> {
        let inner = &self.0;
        let latest = sessions.iter().map(Session::created).max().unwrap_or_default();
        let put = async |session: &Session| {
            let op = new_op()?;
            let partition = inner.partitions.of(session.id);
            let history = partition.history();
            let keys = vec![partition.keys.session(session.id), partition.keys.subject(&session.subject)];
            let args = vec![encode_record(session, &op, &history)?.to_vec(), session.id.as_bytes().to_vec()];
            let answer = inner.run_as(&inner.commands, partition, (op, history), &PUT, keys, args).await?;
            if answer.status == "put" { Ok(()) } else { Err(answer.unknown()) }
        };
        in_each(sessions.iter().map(put)).await?;
        // A not-before is stamped after all that began.
        self.stamp_creation(latest).await?.map(drop).ok_or_else(|| {
            StoreError::new(
                "a session began later than the clock of Redis says: set the clocks of both machines by NTP",
            )
        })
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError> {
        let inner = &self.0;
        for entry in entries {
            let op = new_op()?;
            // As an entry that reaches nothing here: the records have their end already.
            let put = async |partition: &Partition| {
                let reach = ("none", Vec::new(), Vec::new());
                inner.revoke_in(partition, op, &entry, RevokedBecause::Operator, reach).await.map(drop)
            };
            match inner.held_by(&entry.target)? {
                Some(partition) => put(partition).await?,
                None => in_each(inner.partitions.iter().map(put)).await.map(drop)?,
            }
        }
        Ok(())
    }
}

impl RedisStore {
    /// The copy is whole: gates may open it.
    ///
    /// # Errors
    /// Redis does not answer.
    #[doc(hidden)]
    pub async fn end_copy(&self) -> Result<(), StoreError> {
        let first = self.0.partitions.first();
        let head = first.keys.of("h");
        self.0
            .read(&self.0.commands, first, |pipeline| drop_mut(pipeline.cmd("HDEL").arg(head).arg("copying")))
            .await?;
        self.0.settle().await
    }
}

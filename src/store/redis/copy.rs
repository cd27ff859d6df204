//! A copy of another store. Until it is whole, its head says so, and no gate opens it.

use async_trait::async_trait;

use super::super::copy::CopyTarget;
use super::super::{Revocation, StoreError};
use super::record::{decode_merged, encode_effect, encode_record, millis, new_op, target};
use super::script::{ADOPT, REVOKE};
use super::{RedisStore, drop_mut};
use crate::clock::Timestamp;
use crate::session::Session;
use crate::store::SharedStore;

#[async_trait]
impl CopyTarget for RedisStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError> {
        let inner = &self.0;
        let mut latest = Timestamp::ZERO;
        for session in &sessions {
            latest = latest.max(session.created());
            let op = new_op()?;
            let keys = vec![inner.keys.session(session.id), inner.keys.subject(&session.subject)];
            let args = vec![encode_record(session, &op, &inner.history)?.to_vec(), session.id.as_bytes().to_vec()];
            let answer = inner.run_as(&inner.commands, op, &ADOPT, keys, args).await?;
            if answer.status != "adopted" {
                return Err(answer.unknown());
            }
        }
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
            let field = target(&entry.target)?;
            // As an entry that reaches nothing here: the records have their end already.
            let mut args = vec![field.clone(), encode_effect(entry.effect), millis(entry.until).into(), b"0".to_vec()];
            args.extend([b"none".to_vec(), b"0".to_vec(), b"0".to_vec(), inner.keys.of("sub:"), Vec::new()]);
            let mut answer = inner.run(&REVOKE, Vec::new(), args).await?;
            if answer.status != "merged" {
                return Err(answer.unknown());
            }
            decode_merged(&field, &answer.bytes()?, &answer.bytes()?)?;
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
        let head = self.0.keys.of("h");
        self.0
            .read(&self.0.commands, |pipeline| drop_mut(pipeline.cmd("HDEL").arg(head).arg("copying")))
            .await
            .map(drop)
    }
}

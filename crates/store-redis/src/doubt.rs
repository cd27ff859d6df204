//! The record of a swap that got no reply.

use redis::Value;

use super::record::{decode_record, op_of};
use super::script::unexpected;
use super::{RedisInner, drop_mut};
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::StoreError;

impl RedisInner {
    /// The record of a session, if a swap in doubt wrote it last and its tokens have not been used since.
    pub(super) async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some(ops) = self.doubts.ops(id) else { return Ok(None) };
        let partition = self.partitions.of_session(id);
        let key = partition.keys.session(id);
        let mut replies =
            self.read(&self.commands, partition, |pipeline| drop_mut(pipeline.cmd("GET").arg(key))).await?;
        let record = match replies.next() {
            Some(Value::BulkString(record)) => record,
            Some(Value::Nil) => return Ok(None),
            _ => return Err(unexpected("no record")),
        };
        let session = decode_record(id, &record)?;
        let is_own = op_of(&record).is_some_and(|op| ops.contains(&op)) && !session.confirmed;
        Ok(is_own.then_some(session))
    }
}

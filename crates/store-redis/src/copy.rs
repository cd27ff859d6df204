//! Writes a copy of another store. Gates refuse an unfinished copy.

use async_trait::async_trait;
use redis::Value;

use super::partitions::{Partition, in_each};
use super::record::{encode_kept, new_op, target};
use super::script::{LOWER, bytes, unexpected};
use super::{RedisInner, RedisStore, drop_mut};
use rotogate_core::clock::Timestamp;
use rotogate_core::session::Session;
use rotogate_core::store::copy::{CopyTarget, put_record};
use rotogate_core::store::kit::commit::{Operation, decide, decide_each, raises};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::reset_clock::RemembersTime;
use rotogate_core::store::{Revocation, SharedStore, StoreError, rules};

const AT_ONCE: usize = 64;

#[async_trait]
impl CopyTarget for RedisStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError> {
        let inner = &self.0;
        for some in sessions.chunks(AT_ONCE) {
            let sorted = inner.partitions.sort(some, |session| session.id);
            in_each(sorted.iter().map(|(partition, sessions)| inner.put_in(partition, sessions))).await?;
        }
        Ok(())
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError> {
        let inner = &self.0;
        for entry in entries {
            let op = new_op()?;
            let put = async |partition: &Partition| {
                let targets = vec![entry.target.clone()];
                let operation = Operation { targets, raises: raises(&entry), ..Operation::default() };
                let call = inner.call_to_revoke(partition, op);
                // The copied records already reflect the revocations.
                let merge = |state: &mut Snapshot| rules::put(state, &entry);
                decide(&call, operation, Snapshot::default(), merge).await.map(drop)
            };
            match inner.held_by(&entry.target)? {
                Some(partition) => put(partition).await?,
                None => in_each(inner.partitions.iter().map(put)).await.map(drop)?,
            }
        }
        Ok(())
    }

    async fn raise_stamp(&self, latest: Timestamp) -> Result<(), StoreError> {
        self.stamp_creation(latest).await?.map(drop).ok_or_else(|| {
            StoreError::new(
                "a session was created later than the present time of Redis: synchronize both clocks with NTP",
            )
        })
    }

    async fn end_copy(&self) -> Result<(), StoreError> {
        let inner = &self.0;
        let end = async |partition: &Partition| {
            let head = partition.keys.named("h");
            let ended = inner.read(&inner.commands, partition, |pipeline| {
                drop_mut(pipeline.cmd("HDEL").arg(&head).arg("copying"));
            });
            ended.await.map(drop)
        };
        // The first partition comes last, because its head marks the whole copy as complete.
        in_each(inner.partitions.iter().skip(1).map(end)).await?;
        inner.settle().await?;
        end(inner.partitions.first()).await?;
        inner.settle().await
    }
}

const LOWERED_AT_ONCE: usize = 128;

#[async_trait]
impl RemembersTime for RedisStore {
    async fn time_now(&self) -> Result<Timestamp, StoreError> {
        self.0.time().await
    }

    async fn latest_time(&self) -> Result<Timestamp, StoreError> {
        let first = self.0.partitions.first();
        let head = first.keys.named("h");
        let read = |pipeline: &mut redis::Pipeline| {
            drop_mut(pipeline.cmd("HMGET").arg(head).arg("stamp").arg("adopted"));
        };
        let mut replies = self.0.read(&self.0.commands, first, read).await?;
        let Some(Value::Array(fields)) = replies.next() else { return Err(unexpected("no times")) };
        let times = fields.into_iter().filter_map(bytes).filter_map(|time| String::from_utf8(time).ok()?.parse().ok());
        Ok(times.max().map(Timestamp::from_millis).unwrap_or_default())
    }

    async fn lower_times(&self, _now: Timestamp, entries: Vec<Revocation>) -> Result<(), StoreError> {
        let inner = &self.0;
        for partition in inner.partitions.iter() {
            let mut args = Vec::new();
            for entry in &entries {
                if inner.held_by(&entry.target)?.is_none_or(|holder| holder.number == partition.number) {
                    args.push([target(&entry.target)?, encode_kept(entry)]);
                }
            }
            // The script runs at least once, even without entries.
            let mut rest = args.chunks(LOWERED_AT_ONCE);
            let mut some = rest.next().unwrap_or_default();
            loop {
                let keys = vec![partition.keys.named("n"), partition.keys.named("f")];
                inner.run(partition, &LOWER, keys, some.concat()).await?.with_status("lowered")?;
                match rest.next() {
                    Some(next) => some = next,
                    None => break,
                }
            }
        }
        Ok(())
    }
}

impl RedisInner {
    async fn put_in(&self, partition: &Partition, sessions: &[&Session]) -> Result<(), StoreError> {
        let call = self.call_in(partition, new_op()?);
        let operations = sessions.iter().map(|session| {
            (Operation { ids: vec![session.id], into_copy: true, ..Operation::default() }, Snapshot::default())
        });
        let put = |state: &mut Snapshot, place: usize| match sessions.get(place) {
            Some(session) => put_record(state, session),
            None => Ok(()),
        };
        decide_each(&call, operations, put).await?.into_iter().try_for_each(|put| put.map(drop))
    }
}

//! The records of the relay.
//!
//! The caller's clock decides on expiry. The server's clock decides on deletion, an hour later. Clock differences are
//! harmless, because records are valid for only a minute.

use async_trait::async_trait;
use redis::{Pipeline, Value};

use super::partitions::{Partition, in_each};
use super::record::{Op, millis, new_op, unknown_version};
use super::script::{RELAY_INSERT, RELAY_REMOVE, RELAY_SWAP, RELAY_SWEEP, ScriptReply, unexpected};
use super::{RedisInner, RedisStore, drop_mut};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::encoding::{decode, encode};
use rotogate_core::store::relay::{
    RelayId, RelayInserted, RelayRecord, RelayStore, RelaySwapped, RelayVersion, fits, may_replace,
};

const VERSION: u8 = 1;
const FIXED: usize = 46;
const SWEPT_AT_ONCE: u64 = 128;

fn encode_relay(record: &RelayRecord, op: &Op) -> Result<Vec<u8>, StoreError> {
    let encoded = encode(record)?;
    Ok([&[VERSION], &op[..], &record.version().encode(), &millis(record.until), &encoded].concat())
}

fn decode_relay(id: RelayId, bytes: &[u8]) -> Result<RelayRecord, StoreError> {
    match bytes.first() {
        Some(&VERSION) => decode(format_args!("{id:?}"), bytes.get(FIXED..).unwrap_or_default()),
        Some(version) => Err(unknown_version(format_args!("{id:?}"), (*version).into())),
        None => Err(unexpected("an empty record")),
    }
}

impl RedisInner {
    fn relay_place(&self, id: RelayId) -> (&Partition, Vec<Vec<u8>>) {
        let partition = self.partitions.of_bytes(&id.0);
        (partition, vec![partition.keys.with("x:", &id.0), partition.keys.named("xu")])
    }

    async fn sweep_relay_in(&self, partition: &Partition, now: Timestamp) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let (now, most) = (now.as_millis().to_string().into(), SWEPT_AT_ONCE.to_string().into());
            let args = vec![now, most, partition.keys.named("x:")];
            let reply = self.run(partition, &RELAY_SWEEP, vec![partition.keys.named("xu")], args).await?;
            let removed = reply.with_status("swept")?.number()?;
            swept += removed;
            if removed < SWEPT_AT_ONCE {
                return Ok(swept);
            }
        }
    }

    pub(super) async fn insert_relay(
        &self,
        op: Op,
        id: RelayId,
        record: &RelayRecord,
        now: Timestamp,
    ) -> Result<RelayInserted, StoreError> {
        fits(record)?;
        let args = vec![encode_relay(record, &op)?, millis(now).into(), id.0.into()];
        let (partition, keys) = self.relay_place(id);
        let mut answer =
            self.run_as(&self.commands, partition, (op, partition.history()), &RELAY_INSERT, keys, args).await?;
        match answer.status.as_str() {
            "inserted" => Ok(RelayInserted::Inserted),
            "present" => Ok(RelayInserted::Present(Box::new(decode_relay(id, &answer.bytes()?)?))),
            _ => Err(other(id, &mut answer)),
        }
    }

    pub(super) async fn swap_relay(
        &self,
        op: Op,
        id: RelayId,
        expected: RelayVersion,
        record: &RelayRecord,
    ) -> Result<RelaySwapped, StoreError> {
        may_replace(expected, record)?;
        let args = vec![encode_relay(record, &op)?, expected.encode(), id.0.into()];
        let (partition, keys) = self.relay_place(id);
        let mut answer =
            self.run_as(&self.commands, partition, (op, partition.history()), &RELAY_SWAP, keys, args).await?;
        match answer.status.as_str() {
            "swapped" => Ok(RelaySwapped::Swapped),
            "changed" => {
                let now = answer.bytes()?;
                let now = if now.is_empty() { None } else { Some(Box::new(decode_relay(id, &now)?)) };
                Ok(RelaySwapped::Changed(now))
            }
            _ => Err(other(id, &mut answer)),
        }
    }
}

fn other(id: RelayId, answer: &mut ScriptReply) -> StoreError {
    match answer.status.as_str() {
        "version" => {
            answer.number().map_or_else(|error| error, |version| unknown_version(format_args!("{id:?}"), version))
        }
        _ => answer.unknown(),
    }
}

#[async_trait]
impl RelayStore for RedisStore {
    async fn load_relay(&self, id: RelayId) -> Result<Option<RelayRecord>, StoreError> {
        let partition = self.0.partitions.of_bytes(&id.0);
        let record = self.0.value_of(partition, partition.keys.with("x:", &id.0)).await?;
        record.map(|record| decode_relay(id, &record)).transpose()
    }

    async fn insert_relay(
        &self,
        id: RelayId,
        record: RelayRecord,
        now: Timestamp,
    ) -> Result<RelayInserted, StoreError> {
        self.0.insert_relay(new_op()?, id, &record, now).await
    }

    async fn swap_relay(
        &self,
        id: RelayId,
        expected: RelayVersion,
        record: RelayRecord,
    ) -> Result<RelaySwapped, StoreError> {
        self.0.swap_relay(new_op()?, id, expected, &record).await
    }

    async fn remove_relay(&self, id: RelayId, expected: Option<RelayVersion>) -> Result<bool, StoreError> {
        let expected = expected.map(|version| version.encode()).unwrap_or_default();
        let args = vec![expected, id.0.into()];
        let (partition, keys) = self.0.relay_place(id);
        let mut answer = self.0.run(partition, &RELAY_REMOVE, keys, args).await?;
        match answer.status.as_str() {
            "removed" => Ok(answer.number()? == 1),
            _ => Err(other(id, &mut answer)),
        }
    }

    async fn relay_ids(&self) -> Result<Vec<RelayId>, StoreError> {
        let mut ids = Vec::new();
        for partition in self.0.partitions.iter() {
            let key = partition.keys.named("xu");
            let all = |pipeline: &mut Pipeline| drop_mut(pipeline.cmd("ZRANGE").arg(key).arg(0).arg(-1));
            let mut replies = self.0.read(&self.0.commands, partition, all).await?;
            let Some(Value::Array(members)) = replies.next() else { return Err(unexpected("no index")) };
            let of_partition = members.into_iter().map(|member| match member {
                Value::BulkString(id) => id.try_into().map(RelayId).map_err(|_| unexpected("no id of a record")),
                _ => Err(unexpected("no id of a record")),
            });
            ids.extend(of_partition.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(ids)
    }

    async fn sweep_relay(&self, now: Timestamp) -> Result<u64, StoreError> {
        let swept = self.0.partitions.iter().map(|partition| self.0.sweep_relay_in(partition, now));
        Ok(in_each(swept).await?.into_iter().sum())
    }
}

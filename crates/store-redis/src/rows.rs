//! The rows of the parts.
//!
//! The caller's clock decides on expiry. The server's clock decides on deletion, an hour later. Clock differences of less
//! than an hour are therefore harmless.

use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::{Pipeline, Value};

use super::partitions::{Partition, in_each};
use super::record::{millis, unknown_version};
use super::script::{ROW_INSERT, ROW_REMOVE, ROW_SWAP, ROW_SWEEP, ScriptReply, unexpected};
use super::{RedisInner, RedisStore, drop_mut};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::rows::{
    Row, RowInserted, RowKey, RowStore, RowSwapped, RowVersion, Space, fits, may_replace,
};

/// The format of rows.
const FORMAT: u8 = 1;
const SWEPT_AT_ONCE: u64 = 128;

fn encode_row(row: &Row) -> Vec<u8> {
    [&[FORMAT], &row.version.0[..], &millis(row.until), &row.bytes].concat()
}

fn decode_row(key: RowKey, bytes: &[u8]) -> Result<Row, StoreError> {
    let rest = match bytes.split_first() {
        Some((&FORMAT, rest)) => rest,
        Some((format, _)) => return Err(unknown_version(format_args!("{key:?}"), (*format).into())),
        None => return Err(unexpected("an empty row")),
    };
    let parts = rest.split_first_chunk().and_then(|(version, rest)| Some((version, rest.split_first_chunk()?)));
    let Some((version, (until, bytes))) = parts else { return Err(unexpected("a row that is too short")) };
    let until = Timestamp::from_millis(u64::from_be_bytes(*until));
    Ok(Row { version: RowVersion(*version), until, bytes: bytes.to_vec() })
}

/// The start of the keys of a space's rows.
fn prefix(partition: &Partition, space: Space) -> Vec<u8> {
    partition.keys.named(&format!("x{}:", space.id()))
}

/// The key of the expiries of a space's rows.
fn ends(partition: &Partition, space: Space) -> Vec<u8> {
    partition.keys.named(&format!("xu{}", space.id()))
}

impl RedisInner {
    fn row_place(&self, space: Space, key: RowKey) -> (&Partition, Vec<Vec<u8>>) {
        let partition = self.partitions.of_bytes(&key.0);
        let row = [prefix(partition, space), key.0.to_vec()].concat();
        (partition, vec![row, ends(partition, space)])
    }

    async fn sweep_rows_in(&self, partition: &Partition, space: Space, now: Timestamp) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let (now, most) = (now.as_millis().to_string().into(), SWEPT_AT_ONCE.to_string().into());
            let args = vec![now, most, prefix(partition, space)];
            let reply = self.run(partition, &ROW_SWEEP, vec![ends(partition, space)], args).await?;
            let removed = reply.with_status("swept")?.number()?;
            swept += removed;
            if removed < SWEPT_AT_ONCE {
                return Ok(swept);
            }
        }
    }

    async fn row_keys_in(&self, partition: &Partition, space: Space) -> Result<Vec<RowKey>, StoreError> {
        let all = |pipeline: &mut Pipeline| drop_mut(pipeline.cmd("ZRANGE").arg(ends(partition, space)).arg(0).arg(-1));
        let mut replies = self.read(&self.commands, partition, all).await?;
        let Some(Value::Array(members)) = replies.next() else { return Err(unexpected("no index")) };
        let key = |member| match member {
            Value::BulkString(key) => key.try_into().map(RowKey).map_err(|_| unexpected("no key of a row")),
            _ => Err(unexpected("no key of a row")),
        };
        members.into_iter().map(key).collect()
    }
}

fn other(key: RowKey, answer: &mut ScriptReply) -> StoreError {
    match answer.status.as_str() {
        "version" => {
            answer.number().map_or_else(|error| error, |version| unknown_version(format_args!("{key:?}"), version))
        }
        _ => answer.unknown(),
    }
}

#[async_trait]
impl RowStore for RedisStore {
    async fn load_row(&self, space: Space, key: RowKey) -> Result<Option<Row>, StoreError> {
        let (partition, keys) = self.0.row_place(space, key);
        let at = keys.into_iter().next().unwrap_or_default();
        let row = self.0.value_of(partition, at).await?;
        row.map(|row| decode_row(key, &row)).transpose()
    }

    async fn insert_row(&self, space: Space, key: RowKey, row: Row, now: Timestamp) -> Result<RowInserted, StoreError> {
        fits(space, &row)?;
        let most = space.max_rows_in_part(self.0.partitions.count() as u64);
        let args = vec![encode_row(&row), millis(now).into(), key.0.into(), most.to_string().into()];
        let (partition, keys) = self.0.row_place(space, key);
        let mut answer = self.0.run(partition, &ROW_INSERT, keys, args).await?;
        match answer.status.as_str() {
            "inserted" => Ok(RowInserted::Inserted),
            "present" => Ok(RowInserted::Present(Box::new(decode_row(key, &answer.bytes()?)?))),
            "full" => Err(space.full()),
            _ => Err(other(key, &mut answer)),
        }
    }

    async fn swap_row(
        &self,
        space: Space,
        key: RowKey,
        expected: RowVersion,
        row: Row,
        _now: Timestamp,
    ) -> Result<RowSwapped, StoreError> {
        may_replace(space, expected, &row)?;
        let args = vec![encode_row(&row), expected.0.into(), key.0.into()];
        let (partition, keys) = self.0.row_place(space, key);
        let mut answer = self.0.run(partition, &ROW_SWAP, keys, args).await?;
        match answer.status.as_str() {
            "swapped" => Ok(RowSwapped::Swapped),
            "changed" => {
                let now = answer.bytes()?;
                let now = if now.is_empty() { None } else { Some(Box::new(decode_row(key, &now)?)) };
                Ok(RowSwapped::Changed(now))
            }
            _ => Err(other(key, &mut answer)),
        }
    }

    async fn remove_row(&self, space: Space, key: RowKey, expected: Option<RowVersion>) -> Result<bool, StoreError> {
        let expected = expected.map(|version| version.0.to_vec()).unwrap_or_default();
        let (partition, keys) = self.0.row_place(space, key);
        let mut answer = self.0.run(partition, &ROW_REMOVE, keys, vec![expected, key.0.into()]).await?;
        match answer.status.as_str() {
            "removed" => Ok(answer.number()? == 1),
            _ => Err(other(key, &mut answer)),
        }
    }

    async fn row_keys(&self, space: Space, after: Option<RowKey>, limit: usize) -> Result<Vec<RowKey>, StoreError> {
        let keys = self.0.partitions.iter().map(|partition| self.0.row_keys_in(partition, space));
        let mut keys = try_join_all(keys).await?.concat();
        keys.retain(|key| after.is_none_or(|after| *key > after));
        keys.sort_unstable();
        keys.truncate(limit);
        Ok(keys)
    }

    async fn sweep_rows(&self, space: Space, now: Timestamp) -> Result<u64, StoreError> {
        let swept = self.0.partitions.iter().map(|partition| self.0.sweep_rows_in(partition, space, now));
        Ok(in_each(swept).await?.into_iter().sum())
    }
}

//! The records of the relay. The caller supplies the time for expiry.

use async_trait::async_trait;

use super::call::{Arg, ResultRow};
use super::record::millis;
use super::{PostgresInner, PostgresStore};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::begin::unknown_version;
use rotogate_core::store::kit::encoding::{decode, encode};
use rotogate_core::store::kit::fields::{Op, new_op};
use rotogate_core::store::relay::{
    RelayId, RelayInserted, RelayRecord, RelayStore, RelaySwapped, RelayVersion, fits, may_replace, refusal,
};
use rotogate_core::store::rules::MAX_SWEPT;

/// The version of the row, not of the record.
const VERSION: i16 = 1;

fn record(id: RelayId, answer: &ResultRow) -> Result<RelayRecord, StoreError> {
    match answer.get("o_version")? {
        VERSION => decode(format_args!("{id:?}"), answer.get("o_record")?),
        version => Err(of_other_version(id, version)),
    }
}

fn of_other_version(id: RelayId, version: i16) -> StoreError {
    unknown_version("PostgreSQL", format_args!("{id:?}"), u64::try_from(version).unwrap_or_default())
}

fn other(id: RelayId, answer: &ResultRow) -> StoreError {
    match (answer.status(), answer.get("o_version")) {
        (Ok("version"), Ok(version)) => of_other_version(id, version),
        _ => answer.unknown(),
    }
}

impl PostgresInner {
    pub(super) async fn insert_relay(
        &self,
        op: Op,
        id: RelayId,
        new: &RelayRecord,
        now: Timestamp,
    ) -> Result<RelayInserted, StoreError> {
        fits(new)?;
        let args = vec![
            Arg::bytes(&op),
            Arg::bytes(&id.0),
            Arg::bytes(&new.version().encode()),
            Arg::Big(millis(new.until)),
            Arg::Bytes(encode(new)?),
            Arg::Big(millis(now)),
        ];
        let answer = self.one("rg_relay_insert", args).await?;
        match answer.status()? {
            "inserted" => Ok(RelayInserted::Inserted),
            "present" => Ok(RelayInserted::Present(Box::new(record(id, &answer)?))),
            _ => Err(other(id, &answer)),
        }
    }

    pub(super) async fn swap_relay(
        &self,
        op: Op,
        id: RelayId,
        expected: RelayVersion,
        new: &RelayRecord,
    ) -> Result<RelaySwapped, StoreError> {
        may_replace(expected, new)?;
        let args = vec![
            Arg::bytes(&op),
            Arg::bytes(&id.0),
            Arg::bytes(&expected.encode()),
            Arg::bytes(&new.version().encode()),
            Arg::Big(millis(new.until)),
            Arg::Bytes(encode(new)?),
        ];
        let answer = self.one("rg_relay_swap", args).await?;
        match answer.status()? {
            "swapped" => Ok(RelaySwapped::Swapped),
            "none" => Ok(RelaySwapped::Changed(None)),
            "changed" => Ok(RelaySwapped::Changed(Some(Box::new(record(id, &answer)?)))),
            _ => Err(other(id, &answer)),
        }
    }
}

#[async_trait]
impl RelayStore for PostgresStore {
    async fn load_relay(&self, id: RelayId) -> Result<Option<RelayRecord>, StoreError> {
        let answer = self.0.one("rg_relay_load", vec![Arg::bytes(&id.0)]).await?;
        match answer.status()? {
            "none" => Ok(None),
            "found" => record(id, &answer).map(Some),
            _ => Err(answer.unknown()),
        }
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
        let expected = Arg::bytes_or_null(expected.map(|version| version.encode()).as_deref());
        let answer = self.0.one("rg_relay_remove", vec![Arg::bytes(&id.0), expected]).await?;
        match answer.status()? {
            "removed" => answer.get("o_removed"),
            _ => Err(other(id, &answer)),
        }
    }

    async fn relay_ids(&self) -> Result<Vec<RelayId>, StoreError> {
        self.relay_ids_after(None, usize::MAX).await
    }

    async fn relay_ids_after(&self, after: Option<RelayId>, limit: usize) -> Result<Vec<RelayId>, StoreError> {
        let after = Arg::bytes_or_null(after.as_ref().map(|RelayId(id)| &id[..]));
        let rows = self.0.all("rg_relay_ids", vec![after, Arg::limit(limit)]).await?;
        let id = |row: &ResultRow| {
            let id: Vec<u8> = row.get("o_id")?;
            id.try_into().map(RelayId).map_err(|_| refusal("the id of a relay record is malformed"))
        };
        rows.iter().map(id).collect()
    }

    async fn sweep_relay(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let args = vec![Arg::Big(millis(now)), Arg::limit(MAX_SWEPT)];
            let removed = self.0.one("rg_relay_sweep", args).await?.count("o_removed")?;
            swept += removed;
            if removed < MAX_SWEPT as u64 {
                return Ok(swept);
            }
        }
    }
}

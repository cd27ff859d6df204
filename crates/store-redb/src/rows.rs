//! The records of the relay.

use std::ops::Bound;

use async_trait::async_trait;
use redb::ReadableDatabase;

use super::RedbStore;
use super::schema::{self, failed};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::relay::{self, RelayId, RelayInserted, RelayRecord, RelayStore, RelaySwapped, RelayVersion};

#[async_trait]
impl RelayStore for RedbStore {
    async fn load_relay(&self, id: RelayId) -> Result<Option<RelayRecord>, StoreError> {
        let read = self.database()?.begin_read().map_err(failed)?;
        let records = match read.open_table(schema::RELAYS) {
            Ok(records) => records,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let row = records.get(&id.0).map_err(failed)?;
        row.map(|row| schema::decode_relay(id, row.value())).transpose()
    }

    async fn insert_relay(
        &self,
        id: RelayId,
        record: RelayRecord,
        now: Timestamp,
    ) -> Result<RelayInserted, StoreError> {
        self.write(move |_, state| relay::insert(state, id, &record, now)).await
    }

    async fn swap_relay(
        &self,
        id: RelayId,
        expected: RelayVersion,
        record: RelayRecord,
    ) -> Result<RelaySwapped, StoreError> {
        self.write(move |_, state| relay::swap(state, id, expected, &record)).await
    }

    async fn remove_relay(&self, id: RelayId, expected: Option<RelayVersion>) -> Result<bool, StoreError> {
        self.write(move |_, state| relay::remove(state, id, expected)).await
    }

    async fn relay_ids(&self) -> Result<Vec<RelayId>, StoreError> {
        self.relay_ids_after(None, usize::MAX).await
    }

    async fn relay_ids_after(&self, after: Option<RelayId>, limit: usize) -> Result<Vec<RelayId>, StoreError> {
        let read = self.database()?.begin_read().map_err(failed)?;
        let records = match read.open_table(schema::RELAYS) {
            Ok(records) => records,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let from = after.map_or(Bound::Unbounded, |RelayId(id)| Bound::Excluded(id));
        let rows = records.range::<&[u8; 32]>((from.as_ref(), Bound::Unbounded)).map_err(failed)?;
        rows.take(limit).map(|row| row.map(|(id, _)| RelayId(*id.value())).map_err(failed)).collect()
    }

    async fn sweep_relay(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut total = 0;
        loop {
            match self.write(move |_, state| relay::sweep_step(state, now)).await? {
                0 => return Ok(total),
                step => total += step,
            }
        }
    }
}

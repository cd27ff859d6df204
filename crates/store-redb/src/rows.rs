//! The rows of the parts.

use std::ops::Bound;

use async_trait::async_trait;
use redb::ReadableDatabase;

use super::RedbStore;
use super::schema::{self, failed};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::rows::{self, Row, RowInserted, RowKey, RowStore, RowSwapped, RowVersion, Space};
use rotogate_core::store::rules::State;

#[async_trait]
impl RowStore for RedbStore {
    async fn load_row(&self, space: Space, key: RowKey) -> Result<Option<Row>, StoreError> {
        let read = self.database()?.begin_read().map_err(failed)?;
        let rows = match read.open_table(schema::ROWS) {
            Ok(rows) => rows,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let row = rows.get((space.id(), &key.0)).map_err(failed)?;
        row.map(|row| schema::decode_row(key, row.value())).transpose()
    }

    async fn insert_row(&self, space: Space, key: RowKey, row: Row, now: Timestamp) -> Result<RowInserted, StoreError> {
        self.write(move |_, state| {
            let inserted = rows::insert(state, (space, key), &row, now)?;
            if inserted == RowInserted::Inserted {
                state.raise_time(now)?;
            }
            Ok(inserted)
        })
        .await
    }

    async fn swap_row(
        &self,
        space: Space,
        key: RowKey,
        expected: RowVersion,
        row: Row,
        now: Timestamp,
    ) -> Result<RowSwapped, StoreError> {
        self.write(move |_, state| {
            let swapped = rows::swap(state, (space, key), expected, &row)?;
            if swapped == RowSwapped::Swapped {
                state.raise_time(now)?;
            }
            Ok(swapped)
        })
        .await
    }

    async fn remove_row(&self, space: Space, key: RowKey, expected: Option<RowVersion>) -> Result<bool, StoreError> {
        self.write(move |_, state| rows::remove(state, (space, key), expected)).await
    }

    async fn row_keys(&self, space: Space, after: Option<RowKey>, limit: usize) -> Result<Vec<RowKey>, StoreError> {
        let read = self.database()?.begin_read().map_err(failed)?;
        let rows = match read.open_table(schema::ROWS) {
            Ok(rows) => rows,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let from = match &after {
            Some(RowKey(key)) => Bound::Excluded((space.id(), key)),
            None => Bound::Included((space.id(), &[0; 32])),
        };
        let to = Bound::Included((space.id(), &[0xff; 32]));
        let found = rows.range::<(u8, &schema::KeyBytes)>((from, to)).map_err(failed)?;
        found.take(limit).map(|row| row.map(|(at, _)| RowKey(*at.value().1)).map_err(failed)).collect()
    }

    async fn sweep_rows(&self, space: Space, now: Timestamp) -> Result<u64, StoreError> {
        let mut total = 0;
        loop {
            match self.write(move |_, state| rows::sweep_step(state, space, now)).await? {
                0 => return Ok(total),
                step => total += step,
            }
        }
    }
}

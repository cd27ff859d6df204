//! The rows of the parts. The caller supplies the time for expiry.

use async_trait::async_trait;

use super::PostgresStore;
use super::call::{Arg, ResultRow, unexpected};
use super::record::{millis, time};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::begin::unknown_version;
use rotogate_core::store::rows::{
    Row, RowInserted, RowKey, RowStore, RowSwapped, RowVersion, Space, fits, may_replace,
};
use rotogate_core::store::rules::MAX_SWEPT;

/// The format of rows.
const FORMAT: i16 = 1;
/// How often an insert is tried if other writers take the room that it makes.
const MAX_TRIES: usize = 4;

fn space_arg(space: Space) -> Arg {
    Arg::Int(space.id().into())
}

fn insert_args(space: Space, key: RowKey, row: &Row, now: Timestamp) -> Vec<Arg> {
    vec![
        space_arg(space),
        Arg::bytes(&key.0),
        Arg::bytes(&row.version.0),
        Arg::Big(millis(row.until)),
        Arg::bytes(&row.bytes),
        Arg::Big(millis(now)),
        Arg::Big(i64::try_from(space.max_rows()).unwrap_or(i64::MAX)),
    ]
}

fn row_of(key: RowKey, answer: &ResultRow) -> Result<Row, StoreError> {
    match answer.get("o_format")? {
        FORMAT => {
            let version: &[u8] = answer.get("o_row_version")?;
            let version = version.try_into().map(RowVersion).map_err(|_| unexpected("no version of a row"))?;
            Ok(Row { version, until: time(answer.get("o_until")?), bytes: answer.get("o_bytes")? })
        }
        format => Err(of_other_format(key, format)),
    }
}

fn of_other_format(key: RowKey, format: i16) -> StoreError {
    unknown_version("PostgreSQL", format_args!("{key:?}"), u64::try_from(format).unwrap_or_default())
}

fn other(key: RowKey, answer: &ResultRow) -> StoreError {
    match (answer.status(), answer.get("o_format")) {
        (Ok("format"), Ok(format)) => of_other_format(key, format),
        _ => answer.unknown(),
    }
}

#[async_trait]
impl RowStore for PostgresStore {
    async fn load_row(&self, space: Space, key: RowKey) -> Result<Option<Row>, StoreError> {
        let answer = self.0.one("rg_row_load", vec![space_arg(space), Arg::bytes(&key.0)]).await?;
        match answer.status()? {
            "none" => Ok(None),
            "found" => row_of(key, &answer).map(Some),
            _ => Err(answer.unknown()),
        }
    }

    async fn insert_row(&self, space: Space, key: RowKey, row: Row, now: Timestamp) -> Result<RowInserted, StoreError> {
        fits(space, &row)?;
        for _ in 0..MAX_TRIES {
            let answer = self.0.one("rg_row_insert", insert_args(space, key, &row, now)).await?;
            match answer.status()? {
                "inserted" => return Ok(RowInserted::Inserted),
                "present" => return Ok(RowInserted::Present(Box::new(row_of(key, &answer)?))),
                // The space was full, and rows that have ended were removed.
                "swept" => {}
                "full" => break,
                _ => return Err(other(key, &answer)),
            }
        }
        Err(space.full())
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
        let args = vec![
            space_arg(space),
            Arg::bytes(&key.0),
            Arg::bytes(&expected.0),
            Arg::bytes(&row.version.0),
            Arg::Big(millis(row.until)),
            Arg::Bytes(row.bytes.into()),
        ];
        let answer = self.0.one("rg_row_swap", args).await?;
        match answer.status()? {
            "swapped" => Ok(RowSwapped::Swapped),
            "none" => Ok(RowSwapped::Changed(None)),
            "changed" => Ok(RowSwapped::Changed(Some(Box::new(row_of(key, &answer)?)))),
            _ => Err(other(key, &answer)),
        }
    }

    async fn remove_row(&self, space: Space, key: RowKey, expected: Option<RowVersion>) -> Result<bool, StoreError> {
        let expected = Arg::bytes_or_null(expected.as_ref().map(|RowVersion(version)| &version[..]));
        let answer = self.0.one("rg_row_remove", vec![space_arg(space), Arg::bytes(&key.0), expected]).await?;
        match answer.status()? {
            "removed" => answer.get("o_removed"),
            _ => Err(other(key, &answer)),
        }
    }

    async fn row_keys(&self, space: Space, after: Option<RowKey>, limit: usize) -> Result<Vec<RowKey>, StoreError> {
        let after = Arg::bytes_or_null(after.as_ref().map(|RowKey(key)| &key[..]));
        let rows = self.0.all("rg_row_keys", vec![space_arg(space), after, Arg::limit(limit)]).await?;
        let key = |row: &ResultRow| {
            let key: &[u8] = row.get("o_key")?;
            key.try_into().map(RowKey).map_err(|_| unexpected("no key of a row"))
        };
        rows.iter().map(key).collect()
    }

    async fn sweep_rows(&self, space: Space, now: Timestamp) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let args = vec![space_arg(space), Arg::Big(millis(now)), Arg::limit(MAX_SWEPT)];
            let removed = self.0.one("rg_row_sweep", args).await?.count("o_removed")?;
            swept += removed;
            if removed < MAX_SWEPT as u64 {
                return Ok(swept);
            }
        }
    }
}

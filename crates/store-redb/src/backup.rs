//! A consistent copy of a store.

use std::path::Path;

use redb::{
    Database, Durability, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, Value,
};

use super::open;
use super::schema::{
    BY_END, BY_SUBJECT, BY_UNTIL, LIVE, LOG, META, RELAYS, RELAYS_BY_UNTIL, REVOCATIONS, SESSIONS, decode_relay, failed,
};
use rotogate_core::private_file::{self, Unpublished};
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::encoding::encode;
use rotogate_core::store::relay::{KEY_OWNER, RelayId};

/// The number of rows in each transaction of the copy. It is limited, so that the copy needs little memory.
const ROWS_PER_TRANSACTION: usize = 4096;
/// The cache size of the copy. It is small, because the copy is written once and not read.
const CACHE_BYTES: usize = 16 << 20;

/// Copies all data that a read transaction sees into a new file (0600). The file gets its name when it is complete
/// and durable. If a file exists at `to`, or the folder is missing, the function fails and does not change
/// anything.
pub(super) fn copy(read: &ReadTransaction, to: &Path) -> Result<(), StoreError> {
    let shown = to.display();
    let io =
        |error: std::io::Error| StoreError::caused_by(format!("the backup {shown} cannot be written: {error}"), error);
    let uncopied =
        |error: redb::Error| StoreError::caused_by(format!("the store cannot be copied to {shown}: {error}"), error);
    if std::fs::symlink_metadata(to).is_ok() {
        return Err(StoreError::new(format!("the backup {shown} exists already, and is not overwritten")));
    }
    let folder = private_file::parent(to);
    // Creating the folder would hide a misspelled path, or a disk that is not mounted.
    if !folder.is_dir() {
        let folder = folder.display();
        return Err(StoreError::new(format!("the backup {shown} cannot be written: there is no folder {folder}")));
    }
    let (unpublished, file) = Unpublished::beside(to).map_err(io)?;
    let (database, _) = open::create(file, CACHE_BYTES).map_err(|error| uncopied(error.into()))?;
    copy_tables(read, &database).map_err(uncopied)?;
    drop(database);
    unpublished.publish_new(to).map_err(io)
}

fn copy_tables(read: &ReadTransaction, into: &Database) -> Result<(), redb::Error> {
    copy_table(read, into, SESSIONS)?;
    copy_table(read, into, BY_SUBJECT)?;
    // A store of an earlier version does not have this table until a gate opens it.
    if read.list_tables()?.any(|table| table.name() == LIVE.name()) {
        copy_table(read, into, LIVE)?;
    }
    copy_table(read, into, BY_END)?;
    copy_table(read, into, REVOCATIONS)?;
    copy_table(read, into, BY_UNTIL)?;
    copy_table(read, into, LOG)?;
    copy_rows(read, into)?;
    // The other records of the relay are not copied. They expire within a minute, except the vaults of browser
    // sessions. A vault contains a provider's refresh token, which may already have been used when the copy is opened.
    // A strict provider would then report reuse. Without its vault, a browser session ends.
    copy_table(read, into, META)?;
    // The earlier commits are only in memory. This commit makes all of them durable.
    let mut last = into.begin_write()?;
    last.set_durability(Durability::Immediate)?;
    last.commit()?;
    Ok(())
}

/// Copies the API keys, which are stored among the records of the relay.
fn copy_rows(read: &ReadTransaction, into: &Database) -> Result<(), redb::Error> {
    if !read.list_tables()?.any(|table| table.name() == RELAYS.name()) {
        return Ok(());
    }
    let mut transaction = into.begin_write()?;
    transaction.set_durability(Durability::None)?;
    let mut to = transaction.open_table(RELAYS)?;
    let mut ends = transaction.open_table(RELAYS_BY_UNTIL)?;
    for row in read.open_table(RELAYS)?.iter()? {
        let (id, bytes) = row?;
        // A row that cannot be decoded is skipped, because a gate could not use it either.
        let record = decode_relay(RelayId(*id.value()), bytes.value()).ok();
        let Some(record) = record.filter(|record| record.owner == KEY_OWNER) else { continue };
        let Ok(bytes) = encode(&record) else { continue };
        to.insert(id.value(), bytes.as_slice())?;
        ends.insert((record.until.as_millis(), id.value()), ())?;
    }
    drop((to, ends));
    transaction.commit()?;
    Ok(())
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    into: &Database,
    table: TableDefinition<'_, K, V>,
) -> Result<(), redb::Error> {
    let from = read.open_table(table)?;
    let mut rows = from.iter()?;
    loop {
        let mut transaction = into.begin_write()?;
        transaction.set_durability(Durability::None)?;
        let mut copied = 0;
        let mut to = transaction.open_table(table)?;
        for row in rows.by_ref().take(ROWS_PER_TRANSACTION) {
            let (key, value) = row?;
            to.insert(key.value(), value.value())?;
            copied += 1;
        }
        drop(to);
        transaction.commit()?;
        if copied < ROWS_PER_TRANSACTION {
            return Ok(());
        }
    }
}

/// Copies a store that is not in use. The store is first verified in full, and is not changed.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    let database = open::untouched(from, super::DEFAULT_CACHE_SIZE)?;
    let read = database.begin_read().map_err(failed)?;
    copy(&read, to)
}

//! A consistent copy of a store.

use std::path::Path;

use redb::{
    Database, Durability, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, Value,
};

use super::open;
use super::schema::{
    BY_END, BY_SUBJECT, BY_UNTIL, LIVE, LOG, META, REVOCATIONS, ROWS, ROWS_BY_UNTIL, ROWS_IN, SESSIONS, decode_row,
    failed,
};
use rotogate_core::private_file::{self, Unpublished};
use rotogate_core::store::StoreError;
use rotogate_core::store::rows::{RowKey, Space};

/// The number is limited, so that the copy needs little memory.
const ROWS_PER_TRANSACTION: usize = 4096;
/// The cache is small, because the copy is written once and not read.
const CACHE_BYTES: usize = 16 << 20;

/// Copies a snapshot into a new file (0600). The file gets its name once it is durable. Fails if `to` exists, or if its
/// folder is missing.
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
    // If the folder were created, a misspelled path or an unmounted disk would go unnoticed.
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
    // Stores of an earlier version lack this table until a gate opens them.
    if read.list_tables()?.any(|table| table.name() == LIVE.name()) {
        copy_table(read, into, LIVE)?;
    }
    copy_table(read, into, BY_END)?;
    copy_table(read, into, REVOCATIONS)?;
    copy_table(read, into, BY_UNTIL)?;
    copy_table(read, into, LOG)?;
    copy_rows(read, into)?;
    copy_table(read, into, META)?;
    // This commit also makes all earlier commits durable.
    let mut last = into.begin_write()?;
    last.set_durability(Durability::Immediate)?;
    last.commit()?;
    Ok(())
}

/// Copies the rows of spaces that belong in backups.
fn copy_rows(read: &ReadTransaction, into: &Database) -> Result<(), redb::Error> {
    if !read.list_tables()?.any(|table| table.name() == ROWS.name()) {
        return Ok(());
    }
    let mut transaction = into.begin_write()?;
    transaction.set_durability(Durability::None)?;
    let mut to = transaction.open_table(ROWS)?;
    let mut ends = transaction.open_table(ROWS_BY_UNTIL)?;
    let mut numbers = transaction.open_table(ROWS_IN)?;
    for row in read.open_table(ROWS)?.iter()? {
        let (at, bytes) = row?;
        let (space, key) = at.value();
        // Undecodable rows are skipped, because a gate cannot use them either.
        let row = decode_row(RowKey(*key), bytes.value()).ok().filter(|_| Space::is_lasting(space));
        let Some(row) = row else { continue };
        to.insert((space, key), bytes.value())?;
        ends.insert((space, row.until.as_millis(), key), ())?;
        let number = numbers.get(space)?.map_or(0, |number| number.value());
        numbers.insert(space, number + 1)?;
    }
    drop((to, ends, numbers));
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

pub(super) fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    let database = open::untouched(from, super::DEFAULT_CACHE_SIZE)?;
    let read = database.begin_read().map_err(failed)?;
    copy(&read, to)
}

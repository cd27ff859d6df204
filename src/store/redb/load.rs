//! Loads all revocations, for a start.

use std::ops::Bound;

use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use super::super::{Cursor, StoreError};
use super::schema::{REVOCATIONS, decode_revocation};
use super::writer::failed;
use crate::revocation::RevocationList;
use crate::revocation::list::ListFilling;

/// How many entries are read at a time, so that other tasks run in between. Few in tests, so that they take several
/// steps.
const ENTRIES_PER_STEP: usize = if cfg!(test) { 16 } else { 16 << 10 };
/// The table's length is not covered by its checksums, so no more room than this is reserved in advance.
const MAX_RESERVED_ENTRIES: u64 = 16 << 20;

/// Reads the table from end to end, and not the log, whose order does not matter here: in one transaction, without a
/// look-up for each entry, and without more of them in memory than the list itself.
pub(super) async fn all(database: &Database) -> Result<(RevocationList, Cursor), StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let table = read.open_table(REVOCATIONS).map_err(failed)?;
    let room = table.len().map_err(failed)?.min(MAX_RESERVED_ENTRIES);
    let mut list = ListFilling::expecting(usize::try_from(room).unwrap_or(0));
    let mut end = 0;
    let mut last: Option<Vec<u8>> = None;
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = table.range::<&[u8]>((from, Bound::Unbounded)).map_err(failed)?;
        let mut step = 0;
        let mut key = None;
        for row in rows.by_ref().take(ENTRIES_PER_STEP) {
            let (target, entry) = row.map_err(failed)?;
            let (place, revocation) = decode_revocation(target.value(), entry.value())?;
            list.add(&revocation);
            end = end.max(place);
            step += 1;
            key = (step == ENTRIES_PER_STEP).then(|| target.value().to_vec());
        }
        if key.is_none() {
            return Ok((list.finish(), Cursor::from_place(end)));
        }
        last = key;
        tokio::task::yield_now().await;
    }
}

//! Rows that the parts of a gate keep in the store: a key, a version, an expiry, and bytes that only the part can read.
//!
//! The rows of a part are a [`Space`], which bounds their number and size. A store keeps them through [`RowStore`].
//! [`insert`], [`swap`], [`remove`] and [`sweep_step`] decide the effect of each operation, and use the tables through
//! [`RowTable`].

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::rules::{Failure, MAX_SWEPT};
use super::{StoreError, WriteOutcome};
use crate::clock::Timestamp;
use crate::random::{NoRandomness, random};

/// The number of spaces of each kind.
const NUMBERS: u8 = 64;

/// The rows of one part: their id in the store, and their bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    id: u8,
    name: &'static str,
    max_rows: u64,
    max_bytes: usize,
}

impl Space {
    /// A space whose rows are in backups and in copies of the store. Two spaces of one kind need different numbers below
    /// 64. `max_rows` and `max_bytes` (of one row) are at least 1.
    pub const fn lasting(number: u8, name: &'static str, max_rows: u64, max_bytes: usize) -> Self {
        Self::of_kind(0, number, name, max_rows, max_bytes)
    }

    /// A space whose rows are in copies of the store, but not in backups: a restored row could contain a used secret.
    pub const fn copied(number: u8, name: &'static str, max_rows: u64, max_bytes: usize) -> Self {
        Self::of_kind(1, number, name, max_rows, max_bytes)
    }

    /// A space whose rows are neither in backups nor in copies, because they belong to work in progress.
    pub const fn of_work(number: u8, name: &'static str, max_rows: u64, max_bytes: usize) -> Self {
        Self::of_kind(2, number, name, max_rows, max_bytes)
    }

    const fn of_kind(kind: u8, number: u8, name: &'static str, max_rows: u64, max_bytes: usize) -> Self {
        assert!(number < NUMBERS && max_rows > 0 && max_bytes > 0);
        Self { id: kind * NUMBERS + number, name, max_rows, max_bytes }
    }

    /// The id in the store. Each part of a program has its own.
    pub const fn id(self) -> u8 {
        self.id
    }

    /// The name in messages, in the plural.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The maximum number of rows.
    pub const fn max_rows(self) -> u64 {
        self.max_rows
    }

    /// The maximum number of rows in each of `parts` of a store that cannot count together. A part has room for four
    /// times its even share, so that a client that chooses the keys of its rows does not fill one part alone.
    pub const fn max_rows_in_part(self, parts: u64) -> u64 {
        let times = if parts < 4 { parts } else { 4 };
        let most = self.max_rows.saturating_mul(times) / parts;
        if most == 0 { 1 } else { most }
    }

    /// The maximum size of a row's bytes.
    pub const fn max_bytes(self) -> usize {
        self.max_bytes
    }

    /// Whether a copy of the store has these rows.
    pub const fn is_copied(self) -> bool {
        self.id < 2 * NUMBERS
    }

    /// Whether rows with this [`id`](Self::id) belong in backups.
    pub const fn is_lasting(id: u8) -> bool {
        id < NUMBERS
    }

    /// The error of an insert when the space is full.
    pub fn full(self) -> StoreError {
        let Self { name, max_rows, .. } = self;
        refusal(format!("the store has no room for more {name}: at most {max_rows} are allowed"))
    }
}

/// The key of a row in its space: a digest, or the output of a key derivation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(pub [u8; 32]);

// Four bytes are enough to tell two keys apart in a log.
crate::debug_with!(RowKey, |it, f| {
    let [a, b, c, d, ..] = it.0;
    write!(f, "RowKey({a:02x}{b:02x}{c:02x}{d:02x}…)")
});

/// The version of a row, which a writer must know to replace the row. Each write has a new one. The default is that of a
/// row that was not written yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowVersion(pub [u8; 16]);

impl RowVersion {
    /// A random version, which no other write has.
    ///
    /// # Errors
    /// The system did not provide random bytes.
    pub fn random() -> Result<Self, NoRandomness> {
        random().map(|bytes| Self(*bytes))
    }
}

/// A row.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The version.
    pub version: RowVersion,
    /// The expiry, from which the row counts as absent.
    pub until: Timestamp,
    /// The content, which only its part can read.
    pub bytes: Vec<u8>,
}

crate::debug_with!(Row, |it| { version: it.version, until: it.until, bytes: it.bytes.len() });

impl Row {
    /// A row with a version of its own.
    ///
    /// # Errors
    /// The system did not provide random bytes.
    pub fn new(until: Timestamp, bytes: Vec<u8>) -> Result<Self, StoreError> {
        let version = RowVersion::random().map_err(|error| {
            StoreError::caused_by("a row could not be written", error).with_outcome(WriteOutcome::Refused)
        })?;
        Ok(Self { version, until, bytes })
    }
}

/// The result of an insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowInserted {
    /// The row is stored and durable.
    Inserted,
    /// Another row with this key exists and has not expired.
    Present(Box<Row>),
}

/// The result of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowSwapped {
    /// The new row is stored and durable.
    Swapped,
    /// Another writer changed the row. Contains the current row, or `None` if the row was removed.
    Changed(Option<Box<Row>>),
}

/// A store of rows. As with [`Store`](super::Store), an `Ok` from a writing method means that the write is durable. An
/// insert or a swap that is sent again, before another writer changes the row, has no further effect.
#[async_trait]
pub trait RowStore: fmt::Debug + Send + Sync + 'static {
    /// Loads the row with this key, even if it has expired.
    async fn load_row(&self, space: Space, key: RowKey) -> Result<Option<Row>, StoreError>;

    /// Inserts a row, unless another row with this key exists that is unexpired at `now`.
    ///
    /// # Errors
    /// The store returns an error, the space is full, or the row is larger than [`Space::max_bytes`].
    async fn insert_row(&self, space: Space, key: RowKey, row: Row, now: Timestamp) -> Result<RowInserted, StoreError>;

    /// Replaces the row if it still has the version `expected`.
    ///
    /// # Errors
    /// The store returns an error, the new row has the version `expected`, or it is larger than [`Space::max_bytes`].
    async fn swap_row(
        &self,
        space: Space,
        key: RowKey,
        expected: RowVersion,
        row: Row,
        now: Timestamp,
    ) -> Result<RowSwapped, StoreError>;

    /// Removes the row if it has the version `expected`. If `expected` is `None`, removes the row regardless of its
    /// version. Returns whether a row was removed.
    async fn remove_row(&self, space: Space, key: RowKey, expected: Option<RowVersion>) -> Result<bool, StoreError>;

    /// At most `limit` keys of the space after `after`, in order, including those of expired rows.
    async fn row_keys(&self, space: Space, after: Option<RowKey>, limit: usize) -> Result<Vec<RowKey>, StoreError>;

    /// Removes the rows of the space that expired at or before `now`, and returns their number.
    async fn sweep_rows(&self, space: Space, now: Timestamp) -> Result<u64, StoreError>;
}

/// Access to the rows inside one transaction, in which reads see earlier writes.
pub trait RowTable {
    /// Loads the row with this key.
    fn row(&self, space: Space, key: RowKey) -> Result<Option<Row>, Failure>;
    /// The number of rows in the space.
    fn rows_in(&self, space: Space) -> Result<u64, Failure>;
    /// Writes a row. `old` is the replaced row.
    fn put_row(&mut self, space: Space, key: RowKey, old: Option<&Row>, new: &Row) -> Result<(), Failure>;
    /// Removes the row `old`.
    fn take_row(&mut self, space: Space, key: RowKey, old: &Row) -> Result<(), Failure>;
    /// Removes at most `limit` rows of the space that expired at or before `now`, including undecodable rows. Returns
    /// their number.
    fn take_ended_rows(&mut self, space: Space, now: Timestamp, limit: usize) -> Result<u64, Failure>;
}

/// The rule for [`RowStore::insert_row`].
pub fn insert(
    rows: &mut impl RowTable,
    (space, key): (Space, RowKey),
    row: &Row,
    now: Timestamp,
) -> Result<RowInserted, Failure> {
    fits(space, row)?;
    let old = rows.row(space, key)?;
    match old {
        Some(old) if old.version == row.version => {}
        Some(old) if old.until > now => return Ok(RowInserted::Present(Box::new(old))),
        None if rows.rows_in(space)? >= space.max_rows && rows.take_ended_rows(space, now, MAX_SWEPT)? == 0 => {
            return Err(Failure::Refused(space.full()));
        }
        old => rows.put_row(space, key, old.as_ref(), row)?,
    }
    Ok(RowInserted::Inserted)
}

/// The rule for [`RowStore::swap_row`].
pub fn swap(
    rows: &mut impl RowTable,
    (space, key): (Space, RowKey),
    expected: RowVersion,
    row: &Row,
) -> Result<RowSwapped, Failure> {
    may_replace(space, expected, row)?;
    match rows.row(space, key)? {
        Some(old) if old.version == row.version => {}
        Some(old) if old.version == expected => rows.put_row(space, key, Some(&old), row)?,
        other => return Ok(RowSwapped::Changed(other.map(Box::new))),
    }
    Ok(RowSwapped::Swapped)
}

/// The rule for [`RowStore::remove_row`].
pub fn remove(
    rows: &mut impl RowTable,
    (space, key): (Space, RowKey),
    expected: Option<RowVersion>,
) -> Result<bool, Failure> {
    match rows.row(space, key)? {
        Some(old) if expected.is_none_or(|expected| old.version == expected) => {
            rows.take_row(space, key, &old)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

/// One step of [`RowStore::sweep_rows`]. Returns 0 when the sweep is complete.
pub fn sweep_step(rows: &mut impl RowTable, space: Space, now: Timestamp) -> Result<u64, Failure> {
    rows.take_ended_rows(space, now, MAX_SWEPT)
}

/// Checks the size of a row, and that it has a version.
///
/// # Errors
/// The row is larger than [`Space::max_bytes`], or has the default version.
pub fn fits(space: Space, row: &Row) -> Result<(), Failure> {
    let (name, length, most) = (space.name, row.bytes.len(), space.max_bytes);
    if row.version == RowVersion::default() {
        return Err(Failure::Refused(refusal(format!("{name}: a row has no version"))));
    }
    if length <= most {
        return Ok(());
    }
    Err(Failure::Refused(refusal(format!("{name}: a row has {length} bytes, but at most {most} are allowed"))))
}

/// Checks that this row may replace the row with the version `expected`.
///
/// # Errors
/// The row has the same version, or is larger than [`Space::max_bytes`].
pub fn may_replace(space: Space, expected: RowVersion, row: &Row) -> Result<(), Failure> {
    fits(space, row)?;
    if row.version == expected {
        let name = space.name;
        return Err(Failure::Refused(refusal(format!("{name}: the new row has the same version as the old one"))));
    }
    Ok(())
}

/// The error for an operation that is refused before anything is written.
pub fn refusal(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::Refused)
}

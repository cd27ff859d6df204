//! The records of the relay: the result of the exchange, for each of a provider's refresh tokens that was exchanged
//! lately.
//!
//! A store that keeps them implements [`RelayStore`]. [`insert`], [`swap`], [`remove`] and [`sweep_step`] decide the
//! effect of each operation; [`RelayRows`] gives access to the tables.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::rules::{Failure, MAX_SWEPT};
use super::{StoreError, WriteOutcome};
use crate::clock::Timestamp;

/// The largest sealed part of a record: an answer of at most 64 KiB, and the overhead of the seal.
pub const MAX_SEALED: usize = (64 << 10) + 1024;

/// The owner of rows that are not records of the relay but vaults of browser sessions, with the tokens of their
/// provider. Such a row lives as long as its session. No run of the program has this owner.
pub const VAULT_OWNER: [u8; 16] = *b"rotogate vault 1";

/// The owner of rows that are used assertions. The row's id identifies the assertion, and the row has no content.
pub const USED_OWNER: [u8; 16] = *b"rotogate used  1";

/// The owner of rows that contain an API key, or the names of one owner's keys.
pub const KEY_OWNER: [u8; 16] = *b"rotogate api key";

/// The key of a record. It is derived from the refresh token, and reveals nothing without the key ring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub [u8; 32]);

// Four bytes are enough to tell two ids apart in a log.
crate::debug_with!(RelayId, |it, f| {
    let [a, b, c, d, ..] = it.0;
    write!(f, "RelayId({a:02x}{b:02x}{c:02x}{d:02x}…)")
});

/// The state of the exchange of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RelayState {
    /// The token is about to be sent, or was sent, and no answer is stored.
    Pending,
    /// The provider exchanged the token. The answer is in the record.
    Done,
    /// The provider refused the token. The refusal is in the record.
    Dead,
    /// The token was sent, but no complete answer arrived: the provider may have exchanged it.
    Unknown,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// The outcome for the token.
    pub state: RelayState,
    /// The number of the attempt to send the token, within the life of this record.
    pub attempt: u32,
    /// The run of the program that made the attempt.
    pub owner: [u8; 16],
    /// When the record got this state.
    pub since: Timestamp,
    /// The time until which an answer to a pending attempt may still arrive.
    pub lease: Timestamp,
    /// The end of the record: from this time on it counts as absent.
    pub until: Timestamp,
    /// A keyed digest of the parameters that an answer depends on.
    pub params: [u8; 32],
    /// The answer, sealed under the refresh token and its presenter. A record without an answer has an empty text,
    /// sealed so that only the same presenter can open it.
    pub sealed: Vec<u8>,
}

impl RelayRecord {
    /// The version that a writer must name to replace the record.
    pub fn version(&self) -> RelayVersion {
        RelayVersion { state: self.state, attempt: self.attempt, owner: self.owner, since: self.since }
    }
}

/// The version of a record that a writer read. Each change of the record changes the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayVersion {
    /// The state of the record.
    pub state: RelayState,
    /// The attempt of the record.
    pub attempt: u32,
    /// The owner of the record.
    pub owner: [u8; 16],
    /// The time of its state.
    pub since: Timestamp,
}

impl RelayVersion {
    /// As the stores compare it.
    pub fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            RelayState::Pending => 0,
            RelayState::Done => 1,
            RelayState::Dead => 2,
            RelayState::Unknown => 3,
        };
        [&[state], &self.attempt.to_be_bytes()[..], &self.owner, &self.since.as_millis().to_be_bytes()].concat()
    }
}

/// The result of an insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayInserted {
    /// The record is stored and durable.
    Inserted,
    /// A record with this id exists and has not ended.
    Present(Box<RelayRecord>),
}

/// The result of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelaySwapped {
    /// The new record is stored and durable.
    Swapped,
    /// The record has another version now, or was removed.
    Changed(Option<Box<RelayRecord>>),
}

/// A store of the relay's records. As with [`Store`](super::Store), an `Ok` of a writing method means that the write is
/// durable, and only one process writes.
#[async_trait]
pub trait RelayStore: fmt::Debug + Send + Sync + 'static {
    /// The record of an id, ended or not.
    async fn load_relay(&self, id: RelayId) -> Result<Option<RelayRecord>, StoreError>;

    /// Inserts a record, unless a record with this id ends after `now`.
    ///
    /// # Errors
    /// The errors of the store; or the sealed part is larger than [`MAX_SEALED`].
    async fn insert_relay(&self, id: RelayId, record: RelayRecord, now: Timestamp)
    -> Result<RelayInserted, StoreError>;

    /// Replaces the record if it still has the version `expected`.
    ///
    /// # Errors
    /// The errors of the store; or the sealed part is larger than [`MAX_SEALED`], or the new record has the same
    /// version.
    async fn swap_relay(
        &self,
        id: RelayId,
        expected: RelayVersion,
        record: RelayRecord,
    ) -> Result<RelaySwapped, StoreError>;

    /// Removes the record if it has the version `expected`, or any version without `expected`. True if there was such a
    /// record.
    async fn remove_relay(&self, id: RelayId, expected: Option<RelayVersion>) -> Result<bool, StoreError>;

    /// The ids of all records, ended or not, in any order: for a copy of the store.
    async fn relay_ids(&self) -> Result<Vec<RelayId>, StoreError>;

    /// At most `limit` ids after this one, in order. The default implementation reads all ids.
    async fn relay_ids_after(&self, after: Option<RelayId>, limit: usize) -> Result<Vec<RelayId>, StoreError> {
        let mut ids = self.relay_ids().await?;
        ids.retain(|id| after.is_none_or(|after| *id > after));
        ids.sort_unstable();
        ids.truncate(limit);
        Ok(ids)
    }

    /// Removes the records whose end is not after `now`, and returns how many.
    async fn sweep_relay(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// The records inside one transaction, in which reads see earlier writes.
pub trait RelayRows {
    /// The record of an id.
    fn relay(&self, id: RelayId) -> Result<Option<RelayRecord>, Failure>;
    /// Writes a record; `old` is the replaced record.
    fn put_relay(&mut self, id: RelayId, old: Option<&RelayRecord>, new: &RelayRecord) -> Result<(), Failure>;
    /// Removes the record `old`.
    fn take_relay(&mut self, id: RelayId, old: &RelayRecord) -> Result<(), Failure>;
    /// Removes at most `limit` records whose end is not after `now`, readable or not, and returns how many.
    fn take_ended_relays(&mut self, now: Timestamp, limit: usize) -> Result<u64, Failure>;
}

/// [`RelayStore::insert_relay`].
pub fn insert(
    rows: &mut impl RelayRows,
    id: RelayId,
    record: &RelayRecord,
    now: Timestamp,
) -> Result<RelayInserted, Failure> {
    fits(record)?;
    let old = rows.relay(id)?;
    match old {
        Some(old) if old.until > now => Ok(RelayInserted::Present(Box::new(old))),
        old => {
            rows.put_relay(id, old.as_ref(), record)?;
            Ok(RelayInserted::Inserted)
        }
    }
}

/// [`RelayStore::swap_relay`].
pub fn swap(
    rows: &mut impl RelayRows,
    id: RelayId,
    expected: RelayVersion,
    record: &RelayRecord,
) -> Result<RelaySwapped, Failure> {
    may_replace(expected, record)?;
    match rows.relay(id)? {
        Some(old) if old.version() == expected => {
            rows.put_relay(id, Some(&old), record)?;
            Ok(RelaySwapped::Swapped)
        }
        other => Ok(RelaySwapped::Changed(other.map(Box::new))),
    }
}

/// [`RelayStore::remove_relay`].
pub fn remove(rows: &mut impl RelayRows, id: RelayId, expected: Option<RelayVersion>) -> Result<bool, Failure> {
    match rows.relay(id)? {
        Some(old) if expected.is_none_or(|expected| old.version() == expected) => {
            rows.take_relay(id, &old)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

/// One step of [`RelayStore::sweep_relay`]: 0 means that the sweep is complete.
pub fn sweep_step(rows: &mut impl RelayRows, now: Timestamp) -> Result<u64, Failure> {
    rows.take_ended_relays(now, MAX_SWEPT)
}

/// Checks that the sealed part is at most [`MAX_SEALED`].
///
/// # Errors
/// The sealed part is larger.
pub fn fits(record: &RelayRecord) -> Result<(), Failure> {
    if record.sealed.len() <= MAX_SEALED {
        return Ok(());
    }
    let length = record.sealed.len();
    Err(Failure::Refused(refusal(format!("a record of the relay has {length} bytes, above {MAX_SEALED}"))))
}

/// Checks that this record may replace the version `expected`.
///
/// # Errors
/// The record has the same version, or its sealed part is larger than [`MAX_SEALED`].
pub fn may_replace(expected: RelayVersion, record: &RelayRecord) -> Result<(), Failure> {
    fits(record)?;
    if record.version() == expected {
        return Err(Failure::Refused(refusal("a changed record of the relay needs another version")));
    }
    Ok(())
}

/// An error for an operation that is refused before anything is written.
pub fn refusal(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::Refused)
}

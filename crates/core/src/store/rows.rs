//! The records of the relay. Each record contains the result of one exchange of a provider's refresh token. Records
//! are kept only for recently exchanged tokens.
//!
//! A store that keeps these records implements [`RelayStore`]. [`insert`], [`swap`], [`remove`] and [`sweep_step`]
//! decide the effect of each operation, and use the tables through [`RelayRows`].

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::rules::{Failure, MAX_SWEPT};
use super::{StoreError, WriteOutcome};
use crate::clock::Timestamp;

/// The largest sealed part of a record: a response of 64 KiB, and the seal's overhead.
pub const MAX_SEALED: usize = (64 << 10) + 1024;

/// The owner id of vaults. A vault is a row with the provider's tokens for one browser session, kept as long as
/// the session. No running process has this owner id.
pub const VAULT_OWNER: [u8; 16] = *b"rotogate vault 1";

/// The owner id of rows that mark used assertions. The row's id identifies the assertion, and the row is otherwise
/// empty.
pub const USED_OWNER: [u8; 16] = *b"rotogate used  1";

/// The owner id of rows for API keys. A row contains one API key, or lists the names of several.
pub const KEY_OWNER: [u8; 16] = *b"rotogate api key";

/// The owner id of rows for kept replies. A relay keeps a reply until a client uses one of its tokens.
pub const KEPT_OWNER: [u8; 16] = *b"rotogate kept  1";

/// The owner id of rows for the tokens in a kept reply. The first use of a token removes the reply's row, whose id is
/// in `params`.
pub const USE_OWNER: [u8; 16] = *b"rotogate use   1";

/// The id under which a record is stored. The id is derived from the refresh token, and reveals nothing about it
/// without the keyring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub [u8; 32]);

// Four bytes are enough to tell two ids apart in a log.
crate::debug_with!(RelayId, |it, f| {
    let [a, b, c, d, ..] = it.0;
    write!(f, "RelayId({a:02x}{b:02x}{c:02x}{d:02x}…)")
});

/// The state of a refresh token's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RelayState {
    /// The token is about to be sent or was sent, and no response is stored.
    Pending,
    /// The provider exchanged the token. The record contains the response.
    Done,
    /// The provider refused the token. The record contains the refusal.
    Dead,
    /// The token was sent, but no complete response arrived. The provider may have exchanged the token.
    Unknown,
}

/// The record of one exchanged refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// The state of the exchange.
    pub state: RelayState,
    /// The number of attempts to send the token since the record was created.
    pub attempt: u32,
    /// The id of the process that made the attempt.
    pub owner: [u8; 16],
    /// When the record got this state.
    pub since: Timestamp,
    /// The time until which a response to a pending attempt may still arrive.
    pub lease: Timestamp,
    /// The expiry, from which the record counts as absent.
    pub until: Timestamp,
    /// A keyed digest of the parameters on which a response depends.
    pub params: [u8; 32],
    /// The response, sealed under the refresh token and the presenter's identity. If there is no response, an empty
    /// string is sealed.
    pub sealed: Vec<u8>,
}

impl RelayRecord {
    /// The version that a writer must state to replace the record.
    pub fn version(&self) -> RelayVersion {
        RelayVersion { state: self.state, attempt: self.attempt, owner: self.owner, since: self.since }
    }
}

/// The version of a record that a writer has read. Each change of the record changes the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayVersion {
    /// The state of the record.
    pub state: RelayState,
    /// The number of attempts in the record.
    pub attempt: u32,
    /// The owner of the record.
    pub owner: [u8; 16],
    /// When the record got this state.
    pub since: Timestamp,
}

impl RelayVersion {
    /// Encodes the version, for comparisons in stores.
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
    /// A record with this id exists and has not expired.
    Present(Box<RelayRecord>),
}

/// The result of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelaySwapped {
    /// The new record is stored and durable.
    Swapped,
    /// Another writer changed the record. Contains the current record, or `None` if the record was removed.
    Changed(Option<Box<RelayRecord>>),
}

/// A store of the relay's records. As with [`Store`](super::Store), an `Ok` from a writing method means that the write
/// is durable. Only one process writes.
#[async_trait]
pub trait RelayStore: fmt::Debug + Send + Sync + 'static {
    /// Loads the record with this id, even if it has expired.
    async fn load_relay(&self, id: RelayId) -> Result<Option<RelayRecord>, StoreError>;

    /// Inserts a record, unless an unexpired record with this id exists.
    ///
    /// # Errors
    /// The store returns an error, or the sealed part is larger than [`MAX_SEALED`].
    async fn insert_relay(&self, id: RelayId, record: RelayRecord, now: Timestamp)
    -> Result<RelayInserted, StoreError>;

    /// Replaces the record if it still has the version `expected`.
    ///
    /// # Errors
    /// The store returns an error, or the sealed part is larger than [`MAX_SEALED`], or the new record has the same
    /// version.
    async fn swap_relay(
        &self,
        id: RelayId,
        expected: RelayVersion,
        record: RelayRecord,
    ) -> Result<RelaySwapped, StoreError>;

    /// Removes the record if it has the version `expected`. If `expected` is `None`, removes the record regardless of
    /// its version. Returns whether a record was removed.
    async fn remove_relay(&self, id: RelayId, expected: Option<RelayVersion>) -> Result<bool, StoreError>;

    /// The ids of all records, including expired ones, in any order. Used to copy the store.
    async fn relay_ids(&self) -> Result<Vec<RelayId>, StoreError>;

    /// At most `limit` ids after `after`, in order. The default implementation reads all ids.
    async fn relay_ids_after(&self, after: Option<RelayId>, limit: usize) -> Result<Vec<RelayId>, StoreError> {
        let mut ids = self.relay_ids().await?;
        ids.retain(|id| after.is_none_or(|after| *id > after));
        ids.sort_unstable();
        ids.truncate(limit);
        Ok(ids)
    }

    /// Removes the records that expired at or before `now`, and returns their number.
    async fn sweep_relay(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// Access to the records inside one transaction, in which reads see earlier writes.
pub trait RelayRows {
    /// Loads the record with this id.
    fn relay(&self, id: RelayId) -> Result<Option<RelayRecord>, Failure>;
    /// Writes a record. `old` is the replaced record.
    fn put_relay(&mut self, id: RelayId, old: Option<&RelayRecord>, new: &RelayRecord) -> Result<(), Failure>;
    /// Removes the record `old`.
    fn take_relay(&mut self, id: RelayId, old: &RelayRecord) -> Result<(), Failure>;
    /// Removes at most `limit` records that expired at or before `now`, including undecodable records. Returns their
    /// number.
    fn take_ended_relays(&mut self, now: Timestamp, limit: usize) -> Result<u64, Failure>;
}

/// The rule for [`RelayStore::insert_relay`].
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

/// The rule for [`RelayStore::swap_relay`].
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

/// The rule for [`RelayStore::remove_relay`].
pub fn remove(rows: &mut impl RelayRows, id: RelayId, expected: Option<RelayVersion>) -> Result<bool, Failure> {
    match rows.relay(id)? {
        Some(old) if expected.is_none_or(|expected| old.version() == expected) => {
            rows.take_relay(id, &old)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

/// One step of [`RelayStore::sweep_relay`]. Returns 0 when the sweep is complete.
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
    Err(Failure::Refused(refusal(format!(
        "a record of the relay has {length} bytes, but at most {MAX_SEALED} are allowed"
    ))))
}

/// Checks that this record may replace the record with the version `expected`.
///
/// # Errors
/// The record has the same version, or its sealed part is larger than [`MAX_SEALED`].
pub fn may_replace(expected: RelayVersion, record: &RelayRecord) -> Result<(), Failure> {
    fits(record)?;
    if record.version() == expected {
        return Err(Failure::Refused(refusal("the new record of the relay has the same version as the old one")));
    }
    Ok(())
}

/// The error for an operation that is refused before anything is written.
pub fn refusal(message: impl Into<String>) -> StoreError {
    StoreError::new(message).with_outcome(WriteOutcome::Refused)
}

//! The register of lists: one row of the store, sealed under a refresh secret.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BLOCK, BLOCK_FOR};
use crate::clock::Timestamp;
use crate::random::{are_equal, random};
use crate::store::StoreError;
pub(super) use crate::store::relay::LISTS_ROW as ROW;
use crate::store::relay::{LISTS_OWNER, RelayRecord, RelayState, RelayStore};
use crate::token::keyring::RefreshKeys;

/// The row has no end.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The most lists of a register.
const MAX_LISTS: usize = 512;
const TAG: usize = 32;

/// A list of the register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredList {
    /// The list's number, which is random, so that it shows neither how many lists exist nor when a list began.
    pub number: u32,
    /// The binary logarithm of the list's number of bits.
    pub size: u8,
    /// The id of the refresh secret from which the list's permutation is derived.
    pub key: u8,
    /// The blocks that were taken.
    pub blocks: u32,
    /// When the list began, in milliseconds.
    pub opened: u64,
    /// When the list was closed, in milliseconds. No block is taken from a closed list.
    pub closed: Option<u64>,
    /// Whether the store may have lost records of the list's sessions. Then only sessions with a live record are valid.
    #[serde(default)]
    pub lost: bool,
}

impl RegisteredList {
    /// The blocks that it has.
    pub(super) fn capacity(&self) -> u32 {
        (1_u32 << self.size) / BLOCK
    }

    pub(super) fn close(&mut self, now: Timestamp) {
        self.closed.get_or_insert(now.as_millis());
    }

    /// Closes the list of a store that may have lost records.
    pub(super) fn lose(&mut self, now: Timestamp) {
        self.close(now);
        self.lost = true;
    }
}

/// All lists that a token may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Register {
    pub(super) lists: Vec<RegisteredList>,
}

/// A row as it was read.
pub(super) struct ReadRegister {
    pub(super) register: Register,
    /// Whether the row must be rewritten, because it is sealed under an old secret or comes from a restored store.
    pub(super) is_outdated: bool,
    /// Whether the row's lists cannot be read, because their secret is gone.
    pub(super) is_lost: bool,
}

impl Register {
    /// Reads a row.
    ///
    /// # Errors
    /// No gate of this keyring wrote the row.
    pub(super) fn read(keys: &RefreshKeys, row: &RelayRecord, now: Timestamp) -> Result<ReadRegister, StoreError> {
        let bad = |what: &str| {
            StoreError::new(format!("the register of status lists {what}: no gate of this keyring wrote it so"))
                .of_one_record()
        };
        let Some(([key], rest)) = row.sealed.split_first_chunk() else { return Err(bad("is empty")) };
        let Some((tag, lists)) = rest.split_first_chunk::<TAG>() else { return Err(bad("is cut")) };
        let (mut register, is_known) = match keys.status_tag(*key, &sealed_text(*key, row.attempt, lists)) {
            Some(expected) if are_equal(expected.as_ref(), tag) && row.owner == LISTS_OWNER => {
                let lists = serde_json::from_slice(lists).map_err(|_| bad("cannot be read"))?;
                (Self { lists }, true)
            }
            Some(_) => return Err(bad("has no good seal")),
            // The secret was retired while no gate ran. The row's content cannot be trusted, so new lists begin.
            None => (Self::default(), false),
        };
        let is_restored = row.state != RelayState::Done;
        if is_restored {
            register.lists.iter_mut().for_each(|list| list.lose(now));
        }
        let is_outdated = is_restored || !is_known || *key != keys.current();
        Ok(ReadRegister { register, is_outdated, is_lost: !is_known })
    }

    /// The row of this register, with the number `attempt`.
    pub(super) fn row(&self, keys: &RefreshKeys, attempt: u32, now: Timestamp) -> Result<RelayRecord, StoreError> {
        let lists =
            serde_json::to_vec(&self.lists).map_err(|error| StoreError::caused_by("no register of lists", error))?;
        let key = keys.current();
        let tag = keys.status_tag(key, &sealed_text(key, attempt, &lists));
        let tag = tag.ok_or_else(|| StoreError::new("the register of status lists cannot be sealed"))?;
        Ok(RelayRecord {
            state: RelayState::Done,
            attempt,
            owner: LISTS_OWNER,
            since: now,
            lease: now,
            until: now.plus(FOR_EVER),
            params: ROW.0,
            sealed: [&[key][..], tag.as_ref(), &lists].concat(),
        })
    }

    /// Drops the lists that no token names any more. `longest` is the longest life of a session.
    pub(super) fn drop_ended(&mut self, longest: Duration, now: Timestamp) -> bool {
        let before = self.lists.len();
        let kept = longest + BLOCK_FOR + Duration::from_secs(3600);
        self.lists.retain(|list| list.closed.is_none_or(|closed| Timestamp::from_millis(closed).plus(kept) > now));
        self.lists.len() != before
    }

    /// A new list.
    pub(super) fn open(&mut self, size: u8, key: u8, now: Timestamp) -> Result<(), StoreError> {
        if self.lists.len() >= MAX_LISTS {
            return Err(StoreError::new("there are 512 status lists: raise size of [status_list]"));
        }
        loop {
            let bytes = random::<4>().map_err(|error| StoreError::caused_by("no number for a status list", error))?;
            let number = u32::from_be_bytes(*bytes);
            if !self.lists.iter().any(|list| list.number == number) {
                let opened = now.as_millis();
                self.lists.push(RegisteredList { number, size, key, blocks: 0, opened, closed: None, lost: false });
                return Ok(());
            }
        }
    }
}

fn sealed_text(key: u8, attempt: u32, lists: &[u8]) -> Vec<u8> {
    [&[key][..], &attempt.to_be_bytes(), lists].concat()
}

/// How many lists of a store still assign indices with this refresh secret, and how many lists were made with it.
///
/// # Errors
/// The store does not answer, or no gate of this keyring wrote the register.
pub async fn lists_of_key(
    store: &dyn RelayStore,
    keys: &RefreshKeys,
    key: u8,
    now: Timestamp,
) -> Result<(usize, usize), StoreError> {
    let Some(row) = store.load_relay(ROW).await? else { return Ok((0, 0)) };
    let lists = Register::read(keys, &row, now)?.register.lists;
    let of_key = lists.iter().filter(|list| list.key == key);
    Ok((of_key.clone().filter(|list| list.closed.is_none()).count(), of_key.count()))
}

//! Assigns each session an index that no other session has or gets.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::hmac;

use super::permutation;
use super::register::{ROW, ReadRegister, Register, RegisteredList};
use super::{BLOCK, BLOCK_FOR, StatusLists};
use crate::clock::Timestamp;
use crate::session::StatusPlace;
use crate::store::relay::{RelayInserted, RelaySwapped};
use crate::store::{StoreError, WriteOutcome};
use crate::token::keyring::RefreshKeys;

/// How often a change of the register is tried while other gates change it.
const MAX_TRIES: usize = 64;
/// When the last list has at most this many blocks left, the next list is added to the register, so that every gate
/// knows a list before a token names it.
const OPENED_AHEAD: u32 = 8;

/// This gate's block of indices, and its knowledge of the register.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    block: Option<IndexBlock>,
    /// The number of the last row that this gate read or wrote. A lower number in the store means that the store was
    /// set back.
    attempt: u32,
    /// The lists that this gate knows.
    known: Vec<RegisteredList>,
}

/// A block of a list's numbers, which only this gate assigns.
#[derive(Debug)]
struct IndexBlock {
    list: u32,
    size: u8,
    key: hmac::Key,
    next: u32,
    end: u32,
    taken: Timestamp,
}

impl IndexBlock {
    fn give(&mut self, now: Timestamp) -> Option<StatusPlace> {
        if self.next == self.end || now.since(self.taken) >= BLOCK_FOR {
            return None;
        }
        let index = permutation::index(&self.key, self.size, self.next);
        self.next += 1;
        Some(StatusPlace { list: self.list, index })
    }
}

impl StatusLists {
    /// Assigns a place that no session has. `adopted` is when the gates last noticed a loss of writes in the store.
    ///
    /// # Errors
    /// The store does not answer, or the register gives no block.
    // Requirement S2.
    pub async fn place(
        &self,
        keys: &RefreshKeys,
        now: Timestamp,
        adopted: impl Fn() -> Timestamp,
    ) -> Result<StatusPlace, StoreError> {
        let mut allocator = self.allocator.lock().await;
        let block = allocator.block.as_mut().filter(|block| block.taken > adopted());
        if let Some(place) = block.and_then(|block| block.give(now)) {
            return Ok(place);
        }
        allocator.block = None;
        let size = self.settings.size.0;
        let taken =
            self.change(&mut allocator, keys, now, &adopted, |register| take(register, keys, size, now)).await?;
        let (list, number) = taken;
        let key =
            keys.status_key(list.key, list.number).ok_or_else(|| StoreError::new("the secret of a list is gone"))?;
        let next = number * BLOCK;
        let mut block = IndexBlock { list: list.number, size: list.size, key, next, end: next + BLOCK, taken: now };
        let place = block.give(now);
        allocator.block = Some(block);
        place.ok_or_else(|| StoreError::new("a block without an index"))
    }

    /// Reads the register, and repairs it after a restored store or a retired secret.
    ///
    /// # Errors
    /// The store does not answer, or no gate of this keyring wrote the register.
    pub async fn read_register(
        &self,
        keys: &RefreshKeys,
        now: Timestamp,
        adopted: impl Fn() -> Timestamp,
    ) -> Result<(), StoreError> {
        let mut allocator = self.allocator.lock().await;
        let size = self.settings.size.0;
        self.change(&mut allocator, keys, now, &adopted, |register| {
            // A list must exist before the first login.
            let is_ready = register.lists.iter().any(|list| gives(list, keys, size));
            if is_ready { Ok((false, ())) } else { register.open(size, keys.current(), now).map(|()| (true, ())) }
        })
        .await
    }

    /// Changes the register by compare-and-swap. `change` returns whether it changed anything.
    async fn change<T>(
        &self,
        allocator: &mut Allocator,
        keys: &RefreshKeys,
        now: Timestamp,
        adopted: &impl Fn() -> Timestamp,
        change: impl Fn(&mut Register) -> Result<(bool, T), StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 0..MAX_TRIES {
            let row = self.store.load_relay(ROW).await?;
            let ReadRegister { mut register, is_outdated, is_lost } = match &row {
                Some(row) => Register::read(keys, row, now)?,
                None => ReadRegister { register: Register::default(), is_outdated: true, is_lost: false },
            };
            let attempt = row.as_ref().map_or(0, |row| row.attempt);
            let mut must_write = is_outdated;
            // True if this gate knows a later state of the register than the store has.
            let went_back = is_lost || attempt < allocator.attempt;
            must_write |= in_order(&mut register, allocator, went_back, (now, adopted()));
            must_write |= register.drop_ended(Duration::from_secs(self.longest.load(Ordering::Relaxed)), now);
            let (is_changed, value) = change(&mut register)?;
            let mut written = attempt;
            if must_write || is_changed {
                written = attempt.max(allocator.attempt).checked_add(1).unwrap_or(1);
                let new = register.row(keys, written, now)?;
                let is_written = match &row {
                    None => matches!(self.store.insert_relay(ROW, new, now).await?, RelayInserted::Inserted),
                    Some(old) => {
                        let swapped = self.store.swap_relay(ROW, old.version(), new).await?;
                        matches!(swapped, RelaySwapped::Swapped)
                    }
                };
                if !is_written {
                    continue;
                }
            }
            allocator.attempt = written;
            allocator.known.clone_from(&register.lists);
            let is_lost = |block: &IndexBlock| register.lists.iter().any(|list| list.lost && list.number == block.list);
            allocator.block = allocator.block.take().filter(|block| !is_lost(block));
            self.registered.store(register.lists.into());
            return Ok(value);
        }
        Err(StoreError::new("other gates took a block of indices at every attempt").with_outcome(WriteOutcome::NotDone))
    }
}

/// Closes the lists of a store that was set back. True if anything changed.
fn in_order(
    register: &mut Register,
    allocator: &Allocator,
    went_back: bool,
    (now, adopted): (Timestamp, Timestamp),
) -> bool {
    let before = register.clone();
    for known in &allocator.known {
        if went_back && !register.lists.iter().any(|list| list.number == known.number) {
            register.lists.push(known.clone());
        }
    }
    for list in &mut register.lists {
        if went_back || list.opened <= adopted.as_millis() {
            list.lose(now);
        }
    }
    *register != before
}

/// Can blocks still be taken from the list?
fn gives(list: &RegisteredList, keys: &RefreshKeys, size: u8) -> bool {
    list.closed.is_none() && list.size == size && list.blocks < list.capacity() && keys.contains(list.key)
}

/// Takes the next block. Returns its list, and its number in the list.
fn take(
    register: &mut Register,
    keys: &RefreshKeys,
    size: u8,
    now: Timestamp,
) -> Result<(bool, (RegisteredList, u32)), StoreError> {
    let is_last = |list: &RegisteredList| list.blocks + OPENED_AHEAD >= list.capacity();
    if !register.lists.iter().any(|list| gives(list, keys, size) && !is_last(list)) {
        register.open(size, keys.current(), now)?;
    }
    let list = register.lists.iter_mut().find(|list| gives(list, keys, size));
    let list = list.ok_or_else(|| StoreError::new("there is no status list"))?;
    let number = list.blocks;
    list.blocks += 1;
    if list.blocks == list.capacity() {
        list.close(now);
    }
    Ok((true, (list.clone(), number)))
}

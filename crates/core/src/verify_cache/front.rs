//! A small cache of verified tokens for each thread, in front of the cache that all threads share. A hit costs only a
//! comparison, and does not write to memory that other processors use. A token that is found here is not yet accepted,
//! because time and revocation are checked at every hit.
//!
//! Each token has one slot. The last bytes of the signature select the slot. A client cannot choose these bytes for a
//! valid token. A new token evicts the token in its slot. If the tokens exceed the memory limit, the slots are emptied
//! in turn. A token is found only if all of its bytes match, and only for the set of keys that verified it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Verified;

/// The number of slots in each thread's cache.
const SLOTS: usize = 4096;
/// Memory sizes are rounded up to whole units.
const UNIT_BYTES: u32 = 256;
/// The memory limit for a thread's tokens: 8 MiB, enough for 4096 tokens of usual size.
const MAX_UNITS: usize = (8 << 20) / UNIT_BYTES as usize;
/// After this many consecutive hits, one look-up goes to the shared cache, so that the token is not evicted there.
const MAX_UNREPORTED_HITS: u8 = 64;

thread_local! {
    static FRONT: RefCell<Front> = const { RefCell::new(Front { slots: Vec::new(), units: 0, hand: 0 }) };
}

struct Front {
    slots: Vec<Option<Slot>>,
    units: usize,
    /// The slot that is evicted next if the tokens use too much memory.
    hand: usize,
}

struct Slot {
    set: SetId,
    found: u8,
    /// A part of the token's hash, compared before the token itself.
    tag: u8,
    units: u16,
    verified: Arc<Verified>,
}

/// The identity of a key set, unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId(pub(super) u32);

impl SetId {
    pub(super) fn next() -> Self {
        // Zero is never used as an id.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Returns the token if this thread has it. Sometimes returns `None` for a cached token, so that the look-up reaches
/// the shared cache.
pub(super) fn find(set: SetId, token: &[u8]) -> Option<Arc<Verified>> {
    FRONT.with(|front| {
        let mut front = front.try_borrow_mut().ok()?;
        let (at, tag) = place_of(token);
        let slot = front.slots.get_mut(at)?.as_mut()?;
        if slot.set != set || slot.tag != tag || slot.verified.text().as_bytes() != token {
            return None;
        }
        if slot.found >= MAX_UNREPORTED_HITS {
            return None;
        }
        slot.found += 1;
        Some(Arc::clone(&slot.verified))
    })
}

/// Caches a token that is also in the shared cache.
pub(super) fn keep(set: SetId, verified: &Arc<Verified>) {
    FRONT.with(|front| {
        let Ok(mut front) = front.try_borrow_mut() else { return };
        if front.slots.is_empty() {
            front.slots.resize_with(SLOTS, || None);
        }
        let (at, tag) = place_of(verified.text().as_bytes());
        let units = u16::try_from(verified.weight().div_ceil(UNIT_BYTES)).unwrap_or(u16::MAX);
        front.units += usize::from(units);
        front.put(at, Some(Slot { set, found: 0, tag, units, verified: Arc::clone(verified) }));
        for _ in 0..SLOTS {
            if front.units <= MAX_UNITS {
                break;
            }
            front.hand = (front.hand + 1) % SLOTS;
            if front.hand != at {
                let gone = front.hand;
                front.put(gone, None);
            }
        }
    });
}

impl Front {
    /// Replaces the content of a slot.
    fn put(&mut self, at: usize, new: Option<Slot>) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        if let Some(old) = std::mem::replace(slot, new) {
            self.units -= usize::from(old.units);
        }
    }
}

/// The slot of a token, and a tag that distinguishes most tokens in the slot. The multiplication spreads tokens over
/// all slots.
fn place_of(token: &[u8]) -> (usize, u8) {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let end = token.last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
    let [high, low, tag, ..] = end.wrapping_mul(ODD).to_be_bytes();
    (usize::from(u16::from_be_bytes([high, low])) % SLOTS, tag)
}

#[cfg(test)]
pub(crate) mod for_tests {
    use super::*;

    /// The memory that this thread's tokens use, in bytes.
    pub(crate) fn bytes() -> usize {
        FRONT.with_borrow(|front| front.units * UNIT_BYTES as usize)
    }
}

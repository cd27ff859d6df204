//! A small cache of verified tokens for each thread, in front of the cache that all threads share. A hit costs a
//! comparison, and no write that another processor sees. This cache decides nothing: time and revocation are checked at
//! every hit.
//!
//! A token has one slot, chosen by the end of its signature, which a client cannot choose for a valid token. A new
//! token evicts the one in its slot. When the tokens take more memory than the bound, others are evicted in turn. A
//! token is found only by all of its bytes, and only for the keys that verified it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Verified;

/// The number of slots of a thread.
const SLOTS: usize = 4096;
/// The most memory that a thread's tokens take, in bytes: 4096 tokens of usual size fit.
const MAX_BYTES: usize = 8 << 20;
/// After this many hits in a row the shared cache is asked, so that it learns that the token is in use and keeps it.
const MAX_UNREPORTED_HITS: u32 = 64;

thread_local! {
    static FRONT: RefCell<Front> = const { RefCell::new(Front { slots: Vec::new(), bytes: 0, hand: 0 }) };
}

struct Front {
    slots: Vec<Option<Slot>>,
    /// The memory that the tokens take.
    bytes: usize,
    /// The slot to evict next when the tokens take too much memory.
    hand: usize,
}

struct Slot {
    set: SetId,
    found: u32,
    verified: Arc<Verified>,
}

/// The identity of a key set. No two sets of a process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId(pub(super) u32);

impl SetId {
    pub(super) fn next() -> Self {
        // Zero is no set.
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The token, if this thread has it. Returns `None` now and then all the same, so that the shared cache is asked.
pub(super) fn find(set: SetId, token: &[u8]) -> Option<Arc<Verified>> {
    FRONT.with(|front| {
        let mut front = front.try_borrow_mut().ok()?;
        let slot = front.slots.get_mut(slot_of(token))?.as_mut()?;
        if slot.set != set || slot.verified.text().as_bytes() != token || slot.found >= MAX_UNREPORTED_HITS {
            return None;
        }
        slot.found += 1;
        Some(Arc::clone(&slot.verified))
    })
}

/// Keeps a token that the shared cache has.
pub(super) fn keep(set: SetId, verified: &Arc<Verified>) {
    FRONT.with(|front| {
        let Ok(mut front) = front.try_borrow_mut() else { return };
        if front.slots.is_empty() {
            front.slots.resize_with(SLOTS, || None);
        }
        let at = slot_of(verified.text().as_bytes());
        front.bytes += verified.weight() as usize;
        front.put(at, Some(Slot { set, found: 0, verified: Arc::clone(verified) }));
        for _ in 0..SLOTS {
            if front.bytes <= MAX_BYTES {
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
            self.bytes -= old.verified.weight() as usize;
        }
    }
}

/// The memory that this thread's tokens take, in bytes.
#[cfg(test)]
pub(crate) fn bytes() -> usize {
    FRONT.with_borrow(|front| front.bytes)
}

/// The bits of a signature are as good as random. The multiplication spreads its base64 letters over all bits.
fn slot_of(token: &[u8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let end = token.last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
    usize::try_from(end.wrapping_mul(ODD) >> 48).unwrap_or_default() % SLOTS
}

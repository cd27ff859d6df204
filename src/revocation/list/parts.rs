//! The table of sessions: a map in many parts, each with a lock of its own.
//!
//! A map doubles when it is seven eighths full, so one that has just doubled takes twice what it must. How many parts
//! there are is therefore chosen by how many entries are expected: such that the maps are filled well, and small enough
//! that a part stays in a processor's cache while it is filled, and that whoever waits for one that grows waits shortly.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use foldhash::fast::RandomState;

use super::entry::SessionEntry;
use crate::session::SessionId;

/// How many parts there are at least.
const FEWEST: usize = 64;
/// How many entries of those expected a part gets. Its map has room for 7168: more than chance will add.
const EACH: usize = 6400;

/// Ids of ours, which nobody chooses: a quick hash will do.
type Part = HashMap<SessionId, SessionEntry, RandomState>;

pub(super) struct Parts {
    parts: Box<[RwLock<Part>]>,
    /// Never less than what the parts hold: raised before an insertion, lowered after a removal.
    count: AtomicUsize,
}

impl Parts {
    /// With room for so many.
    pub(super) fn expecting(entries: usize) -> Self {
        let parts = entries.div_ceil(EACH).max(FEWEST);
        let each = entries.div_ceil(parts);
        // Chance fills one part more than another.
        let room = each + each / 10;
        let part = || RwLock::new(HashMap::with_capacity_and_hasher(room, RandomState::default()));
        let parts = (0..parts).map(|_| part()).collect();
        Self { parts, count: AtomicUsize::new(0) }
    }

    /// How many parts there are.
    pub(super) fn number(&self) -> usize {
        self.parts.len()
    }

    /// The part of an id.
    pub(super) fn of(&self, id: SessionId) -> usize {
        let [.., a, b, c, d, e, f, g, h] = *id.as_bytes();
        // Its random bytes, spread by a multiplication: the map hashes in earnest.
        let spread = u64::from_be_bytes([a, b, c, d, e, f, g, h]).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // Less than the number of parts, which are not so many that this overflows.
        ((spread * self.parts.len() as u64) >> 32) as usize
    }

    /// What [`Table::get`](super::Table::get) says of readers and writers is so here, too.
    pub(super) fn get<T>(&self, id: SessionId, of: impl FnOnce(&SessionEntry) -> T) -> Option<T> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let part = self.parts.get(self.of(id))?;
        part.read().unwrap_or_else(PoisonError::into_inner).get(&id).map(of)
    }

    /// What [`Table::merge`](super::Table::merge) says of `news` is so here, too.
    pub(super) fn merge(&self, id: SessionId, with: SessionEntry, news: impl FnOnce()) -> bool {
        let Some(part) = self.parts.get(self.of(id)) else { return false };
        let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = self.put(&mut part, id, with);
        if is_news {
            news();
        }
        is_news
    }

    /// Merges entries whose part this is, before anybody asks.
    pub(super) fn merge_into(&self, part: usize, entries: impl IntoIterator<Item = (SessionId, SessionEntry)>) {
        let Some(part) = self.parts.get(part) else { return };
        let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
        for (id, with) in entries {
            self.put(&mut part, id, with);
        }
    }

    fn put(&self, part: &mut Part, id: SessionId, with: SessionEntry) -> bool {
        match part.entry(id) {
            Entry::Occupied(mut there) => there.get_mut().merge(&with),
            Entry::Vacant(free) => {
                self.count.fetch_add(1, Ordering::Release);
                free.insert(with);
                true
            }
        }
    }

    /// Keeps what `keep` says, gives back memory where most of it is free, and says how many entries went.
    pub(super) fn sweep(&self, mut keep: impl FnMut(&mut SessionEntry) -> bool) -> usize {
        let mut gone = 0;
        for part in &self.parts {
            let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
            let before = part.len();
            part.retain(|_, entry| keep(entry));
            if part.len() < before {
                gone += before - part.len();
                if part.capacity() > 4 * part.len() {
                    part.shrink_to_fit();
                }
            }
        }
        self.count.fetch_sub(gone, Ordering::Release);
        gone
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// For how many there is room now.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.parts.iter().map(|part| part.read().unwrap().capacity()).sum()
    }
}

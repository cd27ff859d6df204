//! The table of sessions: a map in many parts, each with its own lock.
//!
//! A map doubles when it is seven eighths full, so a map that has just doubled takes twice the memory it needs. The
//! number of parts is therefore chosen by the expected number of entries, so that the maps are well filled, a part fits
//! into a processor's cache while it is filled, and a thread waits only briefly for a growing part.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::entry::SessionEntry;
use crate::session::SessionId;

/// The least number of parts.
const MIN_PARTS: usize = 64;
/// The expected number of entries of a part. Its map has room for 7168 entries, because the parts are filled at random.
const ENTRIES_PER_PART: usize = 6400;

/// The gate makes the ids, not clients, so a fast hash is safe.
type Part = HashMap<SessionId, SessionEntry, RandomState>;

pub(super) struct SessionTable {
    parts: Box<[RwLock<Part>]>,
    /// Never less than the size of the parts: raised before an insertion, lowered after a removal.
    count: AtomicUsize,
}

impl SessionTable {
    /// Room for this many entries.
    pub(super) fn expecting(entries: usize) -> Self {
        let parts = entries.div_ceil(ENTRIES_PER_PART).max(MIN_PARTS);
        let each = entries.div_ceil(parts);
        // Extra room, because the random ids fill some parts more than others.
        let room = each + each / 10;
        let part = || RwLock::new(HashMap::with_capacity_and_hasher(room, RandomState::default()));
        let parts = (0..parts).map(|_| part()).collect();
        Self { parts, count: AtomicUsize::new(0) }
    }

    /// The number of parts.
    pub(super) fn number(&self) -> usize {
        self.parts.len()
    }

    /// The part of an id.
    pub(super) fn index_of(&self, id: SessionId) -> usize {
        let [.., a, b, c, d, e, f, g, h] = *id.as_bytes();
        // The random bytes of the id, spread by a multiplication; the map itself uses a stronger hash.
        let spread = u64::from_be_bytes([a, b, c, d, e, f, g, h]).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // The product fits into 64 bits: `spread` has 32, and there are few parts. The result is less than their number.
        ((spread * self.parts.len() as u64) >> 32) as usize
    }

    /// The ordering rule of [`CountedMap::get`](super::CountedMap::get) applies here, too.
    pub(super) fn get<T>(&self, id: SessionId, of: impl FnOnce(&SessionEntry) -> T) -> Option<T> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let part = self.parts.get(self.index_of(id))?;
        part.read().get(&id).map(of)
    }

    /// The rule of `news` in [`CountedMap::merge`](super::CountedMap::merge) applies here, too.
    pub(super) fn merge(&self, id: SessionId, with: SessionEntry, news: impl FnOnce()) -> bool {
        let Some(part) = self.parts.get(self.index_of(id)) else { return false };
        let mut part = part.write();
        let is_news = match part.entry(id) {
            Entry::Occupied(mut there) => there.get_mut().merge(&with),
            Entry::Vacant(free) => {
                self.count.fetch_add(1, Ordering::Release);
                free.insert(with);
                true
            }
        };
        if is_news {
            news();
        }
        is_news
    }

    /// Merges entries of this part, before the list is in use.
    pub(super) fn merge_into(&self, part: usize, entries: impl IntoIterator<Item = (SessionId, SessionEntry)>) {
        let Some(part) = self.parts.get(part) else { return };
        let mut part = part.write();
        let before = part.len();
        for (id, with) in entries {
            match part.entry(id) {
                Entry::Occupied(mut there) => {
                    there.get_mut().merge(&with);
                }
                Entry::Vacant(free) => {
                    free.insert(with);
                }
            }
        }
        // The counter is raised once for all entries, because the filling threads share it.
        self.count.fetch_add(part.len() - before, Ordering::Release);
    }

    /// Keeps the entries for which `keep` is true, frees memory if most of it is unused, and returns how many were
    /// removed.
    pub(super) fn sweep(&self, mut keep: impl FnMut(&mut SessionEntry) -> bool) -> usize {
        let mut gone = 0;
        for part in &self.parts {
            let mut part = part.write();
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

    /// A copy of the entries of one part.
    pub(super) fn copy(&self, part: usize) -> Vec<(SessionId, SessionEntry)> {
        let Some(part) = self.parts.get(part) else { return Vec::new() };
        let part = part.read();
        part.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl SessionTable {
        /// The total capacity of the maps.
        pub(crate) fn capacity(&self) -> usize {
            self.parts.iter().map(|part| part.read().capacity()).sum()
        }
    }
}

//! The table of sessions, a map that consists of many parts, each with its own lock.
//!
//! A map doubles its size when it is seven eighths full, so a map that has just doubled takes twice the memory that it
//! needs. The number of parts therefore depends on the expected number of entries. The maps are then well filled, a
//! part fits into a processor's cache while it is filled, and a thread waits only briefly while a part grows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::entry::SessionEntry;
use crate::session::SessionId;

/// The minimum number of parts.
const MIN_PARTS: usize = 64;
/// The expected number of entries in a part. Its map has room for 7168 entries, because the parts are filled at random.
const ENTRIES_PER_PART: usize = 6400;

/// The ids are created by the gate and not by its clients, so a fast hash is safe.
type Part = HashMap<SessionId, SessionEntry, RandomState>;

pub(super) struct SessionTable {
    parts: Box<[RwLock<Part>]>,
    /// At least the number of entries, because it is incremented before an insertion and decremented after a removal.
    count: AtomicUsize,
}

impl SessionTable {
    /// Creates a table with room for this many entries.
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

    /// The part to which an id belongs.
    pub(super) fn index_of(&self, id: SessionId) -> usize {
        let [.., a, b, c, d, e, f, g, h] = *id.as_bytes();
        // The random bytes of the id, spread by a multiplication. The map itself uses a stronger hash.
        let spread = u64::from_be_bytes([a, b, c, d, e, f, g, h]).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // The product fits into 64 bits because `spread` has 32 bits and there are few parts. The result is less than
        // the number of parts.
        ((spread * self.parts.len() as u64) >> 32) as usize
    }

    /// The ordering rule of [`CountedMap::get`](super::CountedMap::get) also applies here.
    pub(super) fn get<T>(&self, id: SessionId, of: impl FnOnce(&SessionEntry) -> T) -> Option<T> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let part = self.parts.get(self.index_of(id))?;
        part.read().get(&id).map(of)
    }

    /// The rule for `news` in [`CountedMap::merge`](super::CountedMap::merge) also applies here.
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

    /// Merges entries of this part, before the list is used.
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
        // The counter is incremented once for all entries, because the filling threads share it.
        self.count.fetch_add(part.len() - before, Ordering::Release);
    }

    /// Keeps the entries for which `keep` returns true, frees memory if most of it is unused, and returns the number of
    /// removed entries.
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

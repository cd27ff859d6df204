//! The table of sessions: a map of many parts, each with its own lock.
//!
//! A map doubles when it is seven eighths full, and may then take twice the memory that it needs. The number of parts
//! depends on the expected number of entries, so that little memory is wasted. A part fits into a processor's cache,
//! and threads wait only briefly while it grows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::entry::SessionEntry;
use crate::session::SessionId;

const MIN_PARTS: usize = 64;
/// The average number of entries in a part. A part has room for 7168 entries, because random ids do not fill all parts
/// equally.
const ENTRIES_PER_PART: usize = 6400;

/// A fast hash is safe, because the gate itself creates the ids.
type Part = HashMap<SessionId, SessionEntry, RandomState>;

pub(super) struct SessionTable {
    parts: Box<[RwLock<Part>]>,
    /// An upper bound on the number of entries. Writers raise it before an insertion, and lower it after a removal.
    count: AtomicUsize,
}

impl SessionTable {
    pub(super) fn expecting(entries: usize) -> Self {
        let parts = entries.div_ceil(ENTRIES_PER_PART).max(MIN_PARTS);
        let each = entries.div_ceil(parts);
        // Random ids do not fill all parts equally.
        let room = each + each / 10;
        let part = || RwLock::new(HashMap::with_capacity_and_hasher(room, RandomState::default()));
        let parts = (0..parts).map(|_| part()).collect();
        Self { parts, count: AtomicUsize::new(0) }
    }

    pub(super) fn number(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn index_of(&self, id: SessionId) -> usize {
        let [.., a, b, c, d, e, f, g, h] = *id.as_bytes();
        let spread = u64::from_be_bytes([a, b, c, d, e, f, g, h]).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // `spread` has 32 bits, so the result is below the number of parts.
        ((spread * self.parts.len() as u64) >> 32) as usize
    }

    /// Reads an entry, like [`CountedMap::get`](super::CountedMap::get).
    pub(super) fn get<T>(&self, id: SessionId, of: impl FnOnce(&SessionEntry) -> T) -> Option<T> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let part = self.parts.get(self.index_of(id))?;
        part.read().get(&id).map(of)
    }

    /// Merges an entry, like [`CountedMap::merge`](super::CountedMap::merge).
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

    /// Call this only before the list is used.
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
        // Change the counter only once, because the threads that fill the list contend for it.
        self.count.fetch_add(part.len() - before, Ordering::Release);
    }

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
        pub(crate) fn capacity(&self) -> usize {
            self.parts.iter().map(|part| part.read().capacity()).sum()
        }
    }
}

//! Fills a list from a store before the list is used.
//!
//! The table may be far larger than the processor's caches. To avoid cache misses, entries are grouped by part of the
//! table, and inserted in batches.

use super::RevocationList;
use super::entry::SessionEntry;
use crate::revocation::{Revocation, Target};
use crate::session::SessionId;

/// The maximum number of buffered entries, which take 3 MiB.
const MAX_WAITING_ENTRIES: usize = 96 << 10;

/// A list that is being filled.
#[derive(Debug)]
pub struct ListFilling {
    list: RevocationList,
    waiting: Waiting,
}

/// The buffer of one thread that fills a list.
#[derive(Debug)]
pub struct ListShare<'a> {
    list: &'a RevocationList,
    waiting: Waiting,
}

#[derive(Debug)]
struct Waiting {
    parts: Vec<Vec<(SessionId, SessionEntry)>>,
    /// The number of entries that are inserted into a part at once.
    together: usize,
}

impl Waiting {
    /// `most` is the total capacity of all parts.
    fn with_capacity(list: &RevocationList, most: usize) -> Self {
        let number = list.sessions.number();
        let together = (most / number).max(1);
        Self { parts: (0..number).map(|_| Vec::with_capacity(together)).collect(), together }
    }

    fn add(&mut self, list: &RevocationList, revocation: &Revocation) {
        let Target::Session(id) = &revocation.target else {
            list.apply(revocation);
            return;
        };
        let entry = SessionEntry::new(revocation.effect, revocation.until);
        let number = list.sessions.index_of(*id);
        let Some(part) = self.parts.get_mut(number) else {
            return list.sessions.merge_into(number, [(*id, entry)]);
        };
        part.push((*id, entry));
        if part.len() >= self.together {
            list.sessions.merge_into(number, part.drain(..));
        }
    }

    fn finish(self, list: &RevocationList) {
        self.parts.into_iter().enumerate().for_each(|(number, part)| list.sessions.merge_into(number, part));
    }
}

impl Default for ListFilling {
    fn default() -> Self {
        let list = RevocationList::new();
        let number = list.sessions.number();
        let together = (MAX_WAITING_ENTRIES / number).max(1);
        Self { list, waiting: Waiting { parts: vec![Vec::new(); number], together } }
    }
}

impl ListFilling {
    /// Creates a list with room for this many sessions.
    pub fn expecting(sessions: usize) -> Self {
        let list = RevocationList::expecting(sessions);
        let waiting = Waiting::with_capacity(&list, MAX_WAITING_ENTRIES.min(sessions));
        Self { list, waiting }
    }

    /// Adds an entry. The order of the entries does not matter.
    pub fn add(&mut self, revocation: &Revocation) {
        self.waiting.add(&self.list, revocation);
    }

    /// Creates the buffer of one thread, if `threads` threads fill the list.
    pub fn share(&self, threads: usize) -> ListShare<'_> {
        ListShare {
            list: &self.list,
            waiting: Waiting::with_capacity(&self.list, MAX_WAITING_ENTRIES / threads.max(1)),
        }
    }

    /// Returns the list. The caller must first finish every [`ListShare`].
    pub fn finish(self) -> RevocationList {
        let Self { list, waiting } = self;
        waiting.finish(&list);
        list
    }
}

impl ListShare<'_> {
    /// Adds an entry. The order of the entries does not matter.
    pub fn add(&mut self, revocation: &Revocation) {
        self.waiting.add(self.list, revocation);
    }

    /// Inserts the waiting entries into the list.
    pub fn finish(self) {
        self.waiting.finish(self.list);
    }
}

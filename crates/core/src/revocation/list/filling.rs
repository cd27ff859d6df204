//! Fills a list from a store before the list is used.
//!
//! The table of a million entries is far larger than the processor's caches, so inserting entries in the order of
//! arrival would cause a cache miss each time. The entries are therefore sorted by their part of the table, and many
//! entries of a part are inserted at once.

use super::RevocationList;
use super::entry::SessionEntry;
use crate::revocation::{Revocation, Target};
use crate::session::SessionId;

/// The maximum number of waiting entries in all parts together. They take 3 MiB.
const MAX_WAITING_ENTRIES: usize = 96 << 10;

/// A list that is being filled.
#[derive(Debug)]
pub struct ListFilling {
    list: RevocationList,
    waiting: Waiting,
}

/// One of several threads that fill a list together.
#[derive(Debug)]
pub struct ListShare<'a> {
    list: &'a RevocationList,
    waiting: Waiting,
}

/// Entries that wait to be inserted.
#[derive(Debug)]
struct Waiting {
    parts: Vec<Vec<(SessionId, SessionEntry)>>,
    /// The number of entries of one part that are inserted together.
    together: usize,
}

impl Waiting {
    /// Creates a buffer for at most this many entries in all parts together.
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

/// Creates a list that grows as needed.
impl Default for ListFilling {
    fn default() -> Self {
        let list = RevocationList::new();
        let number = list.sessions.number();
        let together = (MAX_WAITING_ENTRIES / number).max(1);
        Self { list, waiting: Waiting { parts: vec![Vec::new(); number], together } }
    }
}

impl ListFilling {
    /// Creates a list with room for the entries of this many sessions.
    pub fn expecting(sessions: usize) -> Self {
        let list = RevocationList::expecting(sessions);
        let waiting = Waiting::with_capacity(&list, MAX_WAITING_ENTRIES.min(sessions));
        Self { list, waiting }
    }

    /// Adds an entry. As with [`RevocationList::apply`], the order does not matter.
    pub fn add(&mut self, revocation: &Revocation) {
        self.waiting.add(&self.list, revocation);
    }

    /// Creates the share of one of `threads` threads.
    pub fn share(&self, threads: usize) -> ListShare<'_> {
        ListShare {
            list: &self.list,
            waiting: Waiting::with_capacity(&self.list, MAX_WAITING_ENTRIES / threads.max(1)),
        }
    }

    /// Returns the list with all added entries. Each share must be finished first.
    pub fn finish(self) -> RevocationList {
        let Self { list, waiting } = self;
        waiting.finish(&list);
        list
    }
}

impl ListShare<'_> {
    /// Adds an entry, as [`ListFilling::add`] does.
    pub fn add(&mut self, revocation: &Revocation) {
        self.waiting.add(self.list, revocation);
    }

    /// Inserts the waiting entries into the list.
    pub fn finish(self) {
        self.waiting.finish(self.list);
    }
}

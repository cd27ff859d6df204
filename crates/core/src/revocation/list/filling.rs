//! Fills a list from a store, before the list is in use.
//!
//! The table of a million entries is far larger than the processor's caches, so inserting entries in order of arrival
//! misses the caches each time. The filling therefore sorts entries by their part of the table, and inserts many of a
//! part at a time.

use super::RevocationList;
use super::entry::SessionEntry;
use crate::revocation::{Revocation, Target};
use crate::session::SessionId;

/// The most waiting entries, over all parts: 3 MiB.
const MAX_WAITING_ENTRIES: usize = 96 << 10;

/// Fills a list.
#[derive(Debug)]
pub struct ListFilling {
    list: RevocationList,
    waiting: Waiting,
}

/// One thread's share of filling a list together with other threads.
#[derive(Debug)]
pub struct ListShare<'a> {
    list: &'a RevocationList,
    waiting: Waiting,
}

/// Entries that wait to be inserted.
#[derive(Debug)]
struct Waiting {
    parts: Vec<Vec<(SessionId, SessionEntry)>>,
    /// How many entries of one part are inserted together.
    together: usize,
}

impl Waiting {
    /// Room for at most this many entries over all parts.
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

/// Room that grows.
impl Default for ListFilling {
    fn default() -> Self {
        let list = RevocationList::new();
        let number = list.sessions.number();
        let together = (MAX_WAITING_ENTRIES / number).max(1);
        Self { list, waiting: Waiting { parts: vec![Vec::new(); number], together } }
    }
}

impl ListFilling {
    /// Room for the entries of this many sessions.
    pub fn expecting(sessions: usize) -> Self {
        let list = RevocationList::expecting(sessions);
        let waiting = Waiting::with_capacity(&list, MAX_WAITING_ENTRIES.min(sessions));
        Self { list, waiting }
    }

    /// Adds an entry. As for [`RevocationList::apply`], the order does not matter.
    pub fn add(&mut self, revocation: &Revocation) {
        self.waiting.add(&self.list, revocation);
    }

    /// The share of one of `threads` threads.
    pub fn share(&self, threads: usize) -> ListShare<'_> {
        ListShare {
            list: &self.list,
            waiting: Waiting::with_capacity(&self.list, MAX_WAITING_ENTRIES / threads.max(1)),
        }
    }

    /// The list, with all added entries. Each share must be finished first.
    pub fn finish(self) -> RevocationList {
        let Self { list, waiting } = self;
        waiting.finish(&list);
        list
    }
}

impl ListShare<'_> {
    /// As [`ListFilling::add`].
    pub fn add(&mut self, revocation: &Revocation) {
        self.waiting.add(self.list, revocation);
    }

    /// Inserts the waiting entries into the list.
    pub fn finish(self) {
        self.waiting.finish(self.list);
    }
}

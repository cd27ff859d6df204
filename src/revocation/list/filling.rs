//! Fills a list from a store, before the list is in use.
//!
//! The table of a million entries is far larger than the processor's caches, so entries inserted in order of arrival
//! miss them each time. The filling therefore sorts entries by their part of the table, and inserts many of a part at a
//! time.

use super::RevocationList;
use super::entry::SessionEntry;
use crate::revocation::{Revocation, Target};
use crate::session::SessionId;

/// How many entries wait, over all parts: 3 MiB of them.
const MAX_WAITING_ENTRIES: usize = 96 << 10;

/// Fills a list.
#[derive(Debug)]
pub struct ListFilling {
    list: RevocationList,
    parts: Vec<Vec<(SessionId, SessionEntry)>>,
    /// How many entries of one part are inserted together.
    together: usize,
}

/// With room that grows.
impl Default for ListFilling {
    fn default() -> Self {
        let list = RevocationList::new();
        let number = list.sessions.number();
        Self { list, parts: vec![Vec::new(); number], together: (MAX_WAITING_ENTRIES / number).max(1) }
    }
}

impl ListFilling {
    /// With room for the entries of this many sessions.
    pub fn expecting(sessions: usize) -> Self {
        let list = RevocationList::expecting(sessions);
        let number = list.sessions.number();
        let together = (MAX_WAITING_ENTRIES.min(sessions) / number).max(1);
        Self { list, parts: (0..number).map(|_| Vec::with_capacity(together)).collect(), together }
    }

    /// Adds an entry. As for [`RevocationList::apply`], the order does not matter.
    pub fn add(&mut self, revocation: &Revocation) {
        let Target::Session(id) = &revocation.target else {
            self.list.apply(revocation);
            return;
        };
        let entry = SessionEntry::new(revocation.effect, revocation.until);
        let number = self.list.sessions.of(*id);
        let Some(part) = self.parts.get_mut(number) else {
            return self.list.sessions.merge_into(number, [(*id, entry)]);
        };
        part.push((*id, entry));
        if part.len() >= self.together {
            self.list.sessions.merge_into(number, part.drain(..));
        }
    }

    /// The list, with everything that was added.
    pub fn finish(self) -> RevocationList {
        let Self { list, parts, .. } = self;
        parts.into_iter().enumerate().for_each(|(number, part)| list.sessions.merge_into(number, part));
        list
    }
}

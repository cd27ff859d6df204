//! The users of a file, and where to find one.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::{HashTable, hash_table};

use super::UserChange;
use super::entry::Entry;
use crate::audit::{ChangedUser, UserEvent};
use rotogate_core::directory::User;
use rotogate_core::password::{CostClass, Passwords};

/// The users, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) entries: Vec<Arc<Entry>>,
    by_subject: Index,
    by_name: Index,
    /// The digest of each entry's piece of the file; `None` if the file was parsed as a whole.
    pub(super) pieces: Option<Vec<[u8; 16]>>,
    dearest: CostClass,
}

impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(one, two)| Arc::ptr_eq(one, two) || one == two)
    }
}

impl Users {
    /// Users that are `known` already at the beginning are not entered into the indexes again.
    pub(super) fn new(entries: Vec<Arc<Entry>>, pieces: Option<Vec<[u8; 16]>>, known: &Self) -> Self {
        let is_longer = known.entries.len() <= entries.len()
            && known.entries.iter().zip(&entries).all(|(known, new)| Arc::ptr_eq(known, new));
        let (mut by_subject, mut by_name, from) = if is_longer {
            (known.by_subject.clone(), known.by_name.clone(), known.entries.len())
        } else {
            (Index::default(), Index::default(), 0)
        };
        by_subject.extend(&entries, from, |entry| &*entry.subject);
        by_name.extend(&entries, from, Entry::name);
        Self { by_subject, by_name, pieces, dearest: CostClass::default(), entries }
    }

    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    pub(super) fn by_subject(&self, subject: &str) -> Option<&Arc<Entry>> {
        self.by_subject.find(&self.entries, subject, |entry| &*entry.subject == subject)
    }

    /// Each entry with its piece of the text, if the text is in pieces.
    pub(super) fn with_pieces(&self, text: &str) -> Option<Vec<(&Arc<Entry>, Range<usize>)>> {
        self.pieces.as_ref()?;
        Some(self.entries.iter().zip(super::parse::pieces(text)).collect())
    }

    /// Whether the file was parsed in pieces.
    pub(super) fn are_in_pieces(&self) -> bool {
        self.pieces.is_some()
    }

    pub(super) fn by_name(&self, account: Option<&str>, username: &str) -> Option<&Arc<Entry>> {
        let name = (account, username);
        self.by_name.find(&self.entries, name, |entry| entry.name() == name)
    }

    /// Whether each subject, and each name in its account, is there once.
    pub(super) fn are_distinct(&self) -> bool {
        let number = self.entries.len();
        self.by_subject.table.len() == number && self.by_name.table.len() == number
    }

    /// The class whose checks take the longest, of the classes in use. Every check takes as long, so that its duration
    /// does not tell whether a user exists (A2, I32).
    pub(super) fn dearest(&self) -> CostClass {
        self.dearest
    }

    /// Finds the dearest class, of the classes in use and of those that are expected. Blocks if a class was not measured
    /// yet.
    pub(super) fn measure(&mut self, passwords: &Passwords, expected: &[CostClass]) {
        let in_use = self.entries.iter().map(|entry| entry.class);
        self.dearest = passwords.dearest(in_use.chain(expected.iter().copied()));
    }

    /// A class that few users have and that makes every login slow: less than a thousandth of the users, and checks of
    /// more than four times the time of the usual class. With the number of its users.
    pub(super) fn lone_dear(&self, passwords: &Passwords) -> Option<(CostClass, usize)> {
        let mut numbers: BTreeMap<CostClass, usize> = BTreeMap::new();
        for entry in &self.entries {
            *numbers.entry(entry.class).or_default() += 1;
        }
        let usual = *numbers.iter().max_by_key(|(_, number)| **number)?.0;
        let number = *numbers.get(&self.dearest)?;
        let is_dear = || passwords.time_of(self.dearest) > passwords.time_of(usual) * 4;
        (number * 1000 < self.entries.len() && is_dear()).then_some((self.dearest, number))
    }

    /// The users that differ in `now`; and what the audit trail has of them, of new ones, and of new names.
    pub(super) fn changes<'a>(&'a self, now: &'a Self) -> (Vec<UserChange>, Vec<ChangedUser<'a>>) {
        let same = |(one, two): &(&Arc<Entry>, &Arc<Entry>)| Arc::ptr_eq(one, two);
        let head = self.entries.iter().zip(&now.entries).take_while(same).count();
        let tail =
            self.entries.iter().skip(head).rev().zip(now.entries.iter().skip(head).rev()).take_while(same).count();
        let changed = |users: &Self| head..users.entries.len() - tail;
        let (mut changes, mut found) = (Vec::new(), Vec::new());
        for old in self.entries.get(changed(self)).unwrap_or_default() {
            let new = now.by_subject(&old.subject);
            if new.is_some_and(|new| Arc::ptr_eq(new, old)) {
                continue;
            }
            let (before, after) = (old.user(), new.map(|new| new.user()));
            let (event, keys) = match (new, &after) {
                (Some(new), Some(after)) => (event(&before, after), differing((old, &before), (new, after))),
                (None, _) | (_, None) => (UserEvent::Removed, Vec::new()),
            };
            if event != UserEvent::Changed || !keys.is_empty() {
                found.push(of(new.unwrap_or(old), event, (!keys.is_empty()).then(|| keys.join(", "))));
            }
            if after.as_ref() != Some(&before) {
                changes.push(UserChange { before, after });
            }
        }
        let added = now.entries.get(changed(now)).unwrap_or_default();
        let added = added.iter().filter(|new| self.by_subject(&new.subject).is_none());
        found.extend(added.map(|new| of(new, UserEvent::Added, None)));
        (changes, found)
    }
}

fn of(entry: &Entry, event: UserEvent, changed: Option<String>) -> ChangedUser<'_> {
    let (account, subject) = (entry.account.as_deref(), Some(&*entry.subject));
    ChangedUser { event, name: &entry.username, account, subject, changed }
}

fn event(before: &User, after: &User) -> UserEvent {
    match (before.active, after.active) {
        (true, false) => UserEvent::Disabled,
        (false, true) => UserEvent::Enabled,
        (true, true) | (false, false) => UserEvent::Changed,
    }
}

/// The keys that differ.
fn differing((old, before): (&Entry, &User), (new, after): (&Entry, &User)) -> Vec<&'static str> {
    let keys = [
        ("username", old.username != new.username),
        ("account", before.account != after.account),
        ("password", before.password_mark != after.password_mark),
        ("active", before.active != after.active),
        ("sessions_valid_from", before.sessions_valid_from != after.sessions_valid_from),
        ("scopes", before.scopes != after.scopes),
        ("profile", before.profile != after.profile),
    ];
    keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
}

/// Where entries are, by a key that each of them has. Of entries with one key, the first counts.
#[derive(Clone, Debug, Default)]
struct Index {
    table: HashTable<u32>,
    state: RandomState,
}

impl Index {
    /// Adds the entries from this one on.
    fn extend<'e, K: Hash + Eq>(&mut self, entries: &'e [Arc<Entry>], from: usize, key: impl Fn(&'e Entry) -> K) {
        let Self { table, state } = self;
        let of = |at: &u32| Some(key(entries.get(usize::try_from(*at).ok()?)?));
        table.reserve(entries.len().saturating_sub(table.len()), |at| state.hash_one(of(at)));
        for (at, entry) in (0_u32..).zip(entries).skip(from) {
            let own = Some(key(entry));
            let hash = state.hash_one(&own);
            if let hash_table::Entry::Vacant(free) =
                table.entry(hash, |other| of(other) == own, |other| state.hash_one(of(other)))
            {
                free.insert(at);
            }
        }
    }

    /// `key` is hashed as the key that [`Index::extend`] made.
    fn find<'e>(
        &self,
        entries: &'e [Arc<Entry>],
        key: impl Hash,
        is_it: impl Fn(&Entry) -> bool,
    ) -> Option<&'e Arc<Entry>> {
        let entry = |at: &u32| entries.get(usize::try_from(*at).ok()?);
        let found = self.table.find(self.state.hash_one(Some(key)), |at| entry(at).is_some_and(|entry| is_it(entry)));
        entry(found?)
    }
}

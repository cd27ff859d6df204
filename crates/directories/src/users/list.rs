//! The loaded users, with indexes by subject and by name.

use std::collections::{BTreeMap, HashMap};

use super::audit::{ChangedUser, UserEvent};
use super::entry::UserEntry;
use super::{UserChange, UsersPage};
use crate::username::composed;
use rotogate_core::directory::User;
use rotogate_core::password::{CostClass, Passwords};

/// A user in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUser {
    /// The login name.
    pub username: String,
    /// The user's other properties, without the password.
    pub user: User,
}

#[derive(Debug, Default)]
pub(super) struct Users {
    entries: Vec<UserEntry>,
    by_subject: HashMap<Box<str>, usize>,
    by_name: HashMap<String, usize>,
    dearest: CostClass,
}

impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

/// The key is unambiguous, because an account never contains `/`. Names that differ only in Unicode normalization share
/// a key.
fn name_key((account, username): (Option<&str>, &str)) -> String {
    format!("{}/{}", account.unwrap_or_default(), composed(username))
}

impl Users {
    pub(super) fn new(entries: Vec<UserEntry>) -> Self {
        let numbered = || entries.iter().enumerate();
        let by_subject = numbered().map(|(index, entry)| (entry.user.subject.clone(), index)).collect();
        let by_name = numbered().map(|(index, entry)| (name_key(entry.name()), index)).collect();
        Self { by_subject, by_name, entries, dearest: CostClass::default() }
    }

    pub(super) fn entries(&self) -> &[UserEntry] {
        &self.entries
    }

    pub(super) fn into_entries(self) -> Vec<UserEntry> {
        self.entries
    }

    pub(super) fn by_subject(&self, subject: &str) -> Option<&UserEntry> {
        self.entries.get(*self.by_subject.get(subject)?)
    }

    pub(super) fn by_name(&self, account: Option<&str>, username: &str) -> Option<&UserEntry> {
        self.entries.get(self.index_of(account, username)?)
    }

    pub(super) fn index_of(&self, account: Option<&str>, username: &str) -> Option<usize> {
        self.by_name.get(&name_key((account, username))).copied()
    }

    /// Copies only the users on the page.
    pub(super) fn page(&self, words: &str, after: Option<&str>, limit: usize) -> Option<UsersPage> {
        let start = match after {
            Some(subject) => *self.by_subject.get(subject)? + 1,
            None => 0,
        };
        let words = composed(words).to_lowercase();
        let is_found = |entry: &&UserEntry| words.is_empty() || contains(&entry.username, &words);
        let listed = |entry: &UserEntry| ListedUser { username: entry.username.to_string(), user: entry.user.clone() };
        let (before, rest) = self.entries.split_at(start);
        let mut found = rest.iter().filter(is_found);
        let users: Vec<_> = found.by_ref().take(limit).map(listed).collect();
        let left = found.count();
        let total = before.iter().filter(is_found).count() + users.len() + left;
        Some(UsersPage { users, total, has_more: left > 0 })
    }

    /// The most expensive hash class in use. Every check takes as long as this class, so that the duration does not
    /// reveal whether a user exists (A2, I32).
    pub(super) fn dearest(&self) -> CostClass {
        self.dearest
    }

    /// Blocks while a new class is measured.
    pub(super) fn measure(&mut self, passwords: &Passwords, expected: &[CostClass]) {
        let in_use = self.entries.iter().map(|entry| entry.class);
        self.dearest = passwords.dearest(in_use.chain(expected.iter().copied()));
    }

    /// Finds a rare hash class that slows down every login. Fewer than one user in a thousand has this class. A check
    /// takes more than four times as long as with the most common class.
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

    pub(super) fn changes<'a>(&'a self, now: &'a Self) -> (Vec<UserChange>, Vec<ChangedUser<'a>>) {
        let (mut changes, mut found) = (Vec::new(), Vec::new());
        for old in &self.entries {
            let new = now.by_subject(&old.user.subject);
            let event = new.map_or(UserEvent::Removed, |new| event(&old.user, &new.user));
            let keys = new.map(|new| differing(old, new)).unwrap_or_default();
            if event != UserEvent::Changed || !keys.is_empty() {
                found.push(changed(new.unwrap_or(old), event, (!keys.is_empty()).then(|| keys.join(", "))));
            }
            let after = new.map(|new| &new.user);
            if after != Some(&old.user) {
                changes.push(UserChange { before: old.user.clone(), after: after.cloned() });
            }
        }
        let added = now.entries.iter().filter(|new| self.by_subject(&new.user.subject).is_none());
        found.extend(added.map(|new| changed(new, UserEvent::Added, None)));
        (changes, found)
    }
}

/// Returns whether a name contains the words, which are in lower case. A name of ASCII characters is not copied.
fn contains(name: &str, words: &str) -> bool {
    if name.is_ascii() {
        let (name, words) = (name.as_bytes(), words.as_bytes());
        return name.windows(words.len()).any(|part| part.eq_ignore_ascii_case(words));
    }
    composed(name).to_lowercase().contains(words)
}

fn changed(entry: &UserEntry, event: UserEvent, keys: Option<String>) -> ChangedUser<'_> {
    let (account, name) = entry.name();
    ChangedUser { event, name, account, subject: Some(&entry.user.subject), changed: keys }
}

fn event(before: &User, after: &User) -> UserEvent {
    match (before.active, after.active) {
        (true, false) => UserEvent::Disabled,
        (false, true) => UserEvent::Enabled,
        (true, true) | (false, false) => UserEvent::Changed,
    }
}

fn differing(old: &UserEntry, new: &UserEntry) -> Vec<&'static str> {
    let (before, after) = (&old.user, &new.user);
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

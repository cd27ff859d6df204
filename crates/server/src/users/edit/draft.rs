//! The text of the users file while it is edited.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::{EditError, UserKey};
use crate::users::UsersFile;
use crate::users::entry::Entry;
use crate::users::list::Users;
use crate::users::parse;
use rotogate_core::clock::Timestamp;

/// Changes a user's table.
pub(super) type Edit<'a> = &'a dyn Fn(&Entry, &mut Table);

/// The users of the file, as far as new ones must differ from them.
pub(in crate::users) enum Known {
    Outline(parse::Outline),
    Users(Users),
}

impl Known {
    pub(in crate::users) fn has_subject(&self, subject: &str) -> bool {
        match self {
            Self::Outline(outline) => outline.has_subject(subject),
            Self::Users(users) => users.by_subject(subject).is_some(),
        }
    }

    pub(in crate::users) fn has_name(&self, account: Option<&str>, username: &str) -> bool {
        match self {
            Self::Outline(outline) => outline.has_name((account, username)),
            Self::Users(users) => users.by_name(account, username).is_some(),
        }
    }

    pub(super) fn is_new(&self, entry: &Entry) -> bool {
        let (account, username) = entry.name();
        !self.has_subject(&entry.subject) && !self.has_name(account, username)
    }
}

/// The text of the file, and its users.
pub(super) struct Draft<'a> {
    file: &'a UsersFile,
    pub(super) text: zeroize::Zeroizing<String>,
    pub(super) users: Users,
    pub(super) is_changed: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(file: &'a UsersFile, text: zeroize::Zeroizing<String>) -> Result<Self, EditError> {
        let users = parse::parse(&text, file, &Users::default()).map_err(EditError::File)?;
        Ok(Self { file, text, users, is_changed: false })
    }

    /// Edits the tables of some users.
    pub(super) fn edit(&mut self, is_meant: &dyn Fn(&Entry) -> bool, edit: Edit<'_>) -> Result<(), EditError> {
        let edited = self.users.with_pieces(&self.text).and_then(|pieces| {
            let mut text = zeroize::Zeroizing::new(String::with_capacity(self.text.len() + 1024));
            let mut copied = 0;
            for (entry, piece) in pieces.into_iter().filter(|(entry, _)| is_meant(entry)) {
                let mut document: DocumentMut = self.text.get(piece.clone())?.parse().ok()?;
                edit(entry, document.get_mut("users")?.as_array_of_tables_mut()?.get_mut(0)?);
                text.push_str(self.text.get(copied..piece.start)?);
                text.push_str(&document.to_string());
                copied = piece.end;
            }
            text.push_str(self.text.get(copied..)?);
            Some(std::mem::take(&mut *text))
        });
        let meant: Vec<Arc<Entry>> = self.users.entries().iter().filter(|entry| is_meant(entry)).cloned().collect();
        self.settle(edited, self.users.entries().len(), |tables| {
            for table in tables.iter_mut() {
                let subject = table.get("subject").and_then(Item::as_str);
                let entry = meant.iter().find(|entry| Some(&*entry.subject) == subject);
                if let Some(entry) = entry {
                    edit(entry, table);
                }
            }
        })
    }

    /// Removes a user, with the comments before it.
    pub(super) fn remove(&mut self, who: UserKey<'_>) -> Result<(), EditError> {
        let user = Arc::clone(self.users.by_name(who.account, who.username).ok_or(EditError::Unknown)?);
        let shorter = self.users.with_pieces(&self.text).and_then(|pieces| {
            let (_, piece) = pieces.into_iter().find(|(entry, _)| entry.subject == user.subject)?;
            let start = piece.start - trailing_comments(self.text.get(header(&self.text).len()..piece.start)?);
            let end = piece.end - trailing_comments(self.text.get(piece.clone())?);
            Some(format!("{}{}", self.text.get(..start)?, self.text.get(end..)?))
        });
        self.settle(shorter, self.users.entries().len() - 1, |tables| tables.retain(|table| !is(table, who)))
    }

    /// Takes the text that an edit of one piece made, if it is sound; otherwise edits the whole file.
    pub(super) fn settle(
        &mut self,
        text: Option<String>,
        number: usize,
        edit: impl FnOnce(&mut ArrayOfTables),
    ) -> Result<(), EditError> {
        self.is_changed = true;
        if let Some(text) = text.map(zeroize::Zeroizing::new)
            && let Ok(users) = parse::parse(&text, self.file, &self.users)
            && users.entries().len() == number
        {
            (self.text, self.users) = (text, users);
            return Ok(());
        }
        let text = zeroize::Zeroizing::new(self.edited_as_a_whole(edit)?);
        self.users = parse::parse(&text, self.file, &self.users).map_err(EditError::File)?;
        self.text = text;
        Ok(())
    }

    fn edited_as_a_whole(&self, edit: impl FnOnce(&mut ArrayOfTables)) -> Result<String, EditError> {
        let text = &*self.text;
        let mut document: DocumentMut =
            text.parse().map_err(|e: toml_edit::TomlError| EditError::File(broken(self.file.path(), &e)))?;
        // A list of inline tables means the same in TOML; it is written as [[users]].
        let item = document.remove("users").unwrap_or(Item::ArrayOfTables(ArrayOfTables::new()));
        let Ok(mut tables) = item.into_array_of_tables() else {
            return Err(EditError::File(format!("{}: users is not a list of tables", self.file.path().display())));
        };
        edit(&mut tables);
        document.insert("users", Item::ArrayOfTables(tables));
        let mut outcome = document.to_string();
        // To the TOML editor, the header comment belongs to the first user or to the end of the file. Keep it at the
        // top.
        let header = header(text);
        if !header.is_empty() && !outcome.starts_with(header) {
            outcome = format!("{header}{}", outcome.replacen(header, "", 1));
        }
        Ok(outcome)
    }
}

/// The length of the blank lines and comments at the end of a text.
fn trailing_comments(text: &str) -> usize {
    let is_comment = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    text.split_inclusive('\n').rev().take_while(is_comment).map(str::len).sum()
}

pub(super) fn document(tables: ArrayOfTables) -> DocumentMut {
    let mut document = DocumentMut::new();
    document.insert("users", Item::ArrayOfTables(tables));
    document
}

/// The comment at the head of the file, which a blank line separates from the first user: ours, or an older one.
fn header(text: &str) -> &str {
    let end = text.find("\n\n").map_or(text.len(), |at| at + 1);
    text.get(..end).filter(|head| head.lines().all(|line| line.starts_with('#'))).unwrap_or_default()
}

fn broken(path: &Path, error: &toml_edit::TomlError) -> String {
    // Without the error's own `Display`: it repeats the line, which may hold a hash.
    format!("{}: not TOML: {}", path.display(), error.message())
}

fn is(table: &Table, who: UserKey<'_>) -> bool {
    let text = |key| table.get(key).and_then(Item::as_str);
    text("username") == Some(who.username) && text("account") == who.account
}

/// Sets a key and keeps the comment after it.
pub(super) fn set(table: &mut Table, key: &str, mut new: toml_edit::Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => {
            table.insert(key, value(new));
        }
    }
}

pub(super) fn moment(at: Timestamp) -> toml_edit::Value {
    let rfc3339 = UNIX_EPOCH
        .checked_add(Duration::from_millis(at.as_millis()))
        .filter(|_| at < LAST_WRITABLE)
        .map(|time| humantime::format_rfc3339_millis(time).to_string());
    match rfc3339.and_then(|text| text.parse::<toml_edit::Datetime>().ok()) {
        Some(datetime) => datetime.into(),
        None => i64::try_from(at.as_millis()).unwrap_or(i64::MAX).into(),
    }
}

/// The first moment after the year 9999, which RFC 3339 cannot write.
const LAST_WRITABLE: Timestamp = Timestamp::from_secs(253_402_300_800);

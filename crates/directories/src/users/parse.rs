//! Parsing of `users.toml`.

use std::collections::HashSet;

use super::UsersFile;
use super::entry::UserEntry;
use super::list::Users;
use crate::username::composed;
use rotogate_core::password::Accepted;
use rotogate_core::private_file::read_private;
use rotogate_kit::config::{self, Problems, Section, printable};

pub(super) fn read(file: &UsersFile) -> Result<Users, String> {
    parse(&read_private(file.path())?, file)
}

/// The error lists every problem, one per line.
pub(super) fn parse(text: &str, file: &UsersFile) -> Result<Users, String> {
    let name = file.path().display().to_string();
    let problems = Problems::new(&name, text);
    let users = config::parse(text, &problems).map(|root| users(&Section::root(&root, &problems), file.accepted()));
    match (problems.into_errors(), users) {
        (None, Some(users)) => Ok(users),
        (Some(errors), _) => Err(errors.to_string()),
        (None, None) => Err(format!("{name}: cannot be read")),
    }
}

fn users(root: &Section<'_>, accepted: &Accepted) -> Users {
    let mut entries = Vec::new();
    let (mut subjects, mut names) = (HashSet::new(), HashSet::new());
    for section in root.sections("users") {
        let Some(entry) = UserEntry::read(&section, accepted) else { continue };
        if !subjects.insert(entry.user.subject.clone()) {
            section.blame("subject", format!("\"{}\" is listed twice", entry.user.subject));
        }
        if !names.insert((entry.user.account.clone(), composed(&entry.username).into_owned())) {
            let name = printable(&entry.username);
            let same = "names that differ only in their Unicode normalization form are the same name";
            section.blame("username", format!("\"{name}\" is listed twice in one account; {same}"));
        }
        entries.push(entry);
    }
    root.finish();
    Users::new(entries)
}

//! Edits `users.toml` from the command line. Each command reads the file, changes it, checks the result and replaces
//! the whole file, under a lock that serializes commands. Comments and the order of keys stay.
//!
//! Only the piece of the file with the user goes through the editor of TOML, whose document takes some twenty times the
//! memory of its text. New users are written after the text, which is read for mistakes and for their names alone. A
//! file that is not in pieces (see `parse`) is edited as a whole.
//!
//! Passwords arrive as a [`SecretString`], from a prompt or standard input: never as arguments of a process, which
//! every user of the machine can read (requirement O3).

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;
use toml_edit::{Array, ArrayOfTables, InlineTable, Table};

use super::entry::{Entry, MARK, is_valid_account, is_valid_name};
use super::import::{Place, Problems};
use super::list::Users;
use super::parse;
use super::{FirstUser, UsersFile, private_file};
use rotogate_core::clock::Timestamp;
use rotogate_core::directory::{PasswordMark, User, is_valid_subject};
use rotogate_core::password::{self, BadPassword, SecretHash};
use rotogate_core::random::random;
use rotogate_core::session::Scope;

mod draft;

pub(super) use draft::Known;
use draft::{Draft, Edit, document, moment, set};

const HEADER: &str = "\
# Users of the gate. Only the gate's user may read this file (mode 0600). `rotogate user` edits it and keeps comments.
# If you change a password or give a subject to a new user by hand, also set sessions_valid_from to the time of the
# change: older sessions end with it. The gate reloads this file when it changes.
";

/// Why an edit failed. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be read, is accessible to others, or is broken.
    #[error("{0}")]
    File(String),
    /// The users of an import, none of which was added.
    #[error("nothing was imported:{0}")]
    Import(Problems),
    /// The file cannot be written.
    #[error("the users file cannot be written: {0}")]
    Io(#[from] io::Error),
    /// No such user.
    #[error("there is no such user")]
    Unknown,
    /// The account has such a name already, or the subject is taken.
    #[error("there is such a user already: {0}")]
    Exists(&'static str),
    /// A name that a user may not have, or a change that changes nothing.
    #[error("{0}")]
    Invalid(&'static str),
    /// The password cannot be hashed.
    #[error(transparent)]
    Password(#[from] BadPassword),
}

/// Names a user.
#[derive(Clone, Copy, Debug)]
pub struct UserKey<'a> {
    /// The account, if the user belongs to one.
    pub account: Option<&'a str>,
    /// The login name.
    pub username: &'a str,
}

/// A user, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUser {
    /// The login name.
    pub username: String,
    /// Everything else, without the password.
    pub user: User,
}

/// Lists every user, in the order of the file.
///
/// # Errors
/// The file cannot be read, is accessible to others, or is broken.
pub fn list(file: impl Into<UsersFile>) -> Result<Vec<ListedUser>, EditError> {
    let users = parse::read(&file.into(), &Users::default()).map_err(EditError::File)?;
    Ok(users.entries().iter().map(|e| ListedUser { username: e.username.to_string(), user: e.user() }).collect())
}

/// Adds a user and returns its subject: `subject`, or a random one. Sessions of an earlier user of that subject stay
/// invalid, because only sessions from after `now` are valid. Creates the file if it is missing.
///
/// # Errors
/// See [`EditError`].
pub fn add_user(
    file: impl Into<UsersFile>,
    who: UserKey<'_>,
    subject: Option<&str>,
    scopes: &Scope,
    password: &SecretString,
    now: Timestamp,
) -> Result<String, EditError> {
    check_new(who, subject)?;
    let file = file.into();
    private_file::create_private_dir(file.path().parent().unwrap_or(Path::new("")))?;
    // Takes as long as reading a large file, and is waited for before anything is written.
    let prepare = || {
        let subject = subject.map_or_else(random_subject, |subject| Ok(subject.to_owned()))?;
        Ok::<_, EditError>((subject, password::hash(password)?))
    };
    let mut added = String::new();
    std::thread::scope(|scope| {
        let prepared = scope.spawn(prepare);
        add(&file, false, |known| {
            if known.has_name(who.account, who.username) {
                return Err(EditError::Exists("its name, in this account"));
            }
            let (subject, hash) = prepared.join().unwrap_or(Err(BadPassword::Failed("argon2").into()))?;
            if known.has_subject(&subject) {
                return Err(EditError::Exists("its subject"));
            }
            let user = new_user(who, &subject, scopes, hash, now);
            added = subject;
            Ok(vec![user.table()?])
        })
    })?;
    Ok(added)
}

/// Removes a user. The user's sessions end.
///
/// # Errors
/// See [`EditError`].
pub fn remove_user(file: impl Into<UsersFile>, who: UserKey<'_>) -> Result<(), EditError> {
    change(&file.into(), |draft| draft.remove(who))
}

/// Sets a user's password and ends the sessions so far (requirement R8).
///
/// # Errors
/// See [`EditError`].
pub fn set_password(
    file: impl Into<UsersFile>,
    who: UserKey<'_>,
    password: &SecretString,
    now: Timestamp,
) -> Result<(), EditError> {
    let hash = password::hash(password)?;
    change_one(&file.into(), who, &|entry, table| {
        set(table, "password", hash.as_str().into());
        table.remove("rehashed");
        set(table, "sessions_valid_from", moment(now.max(entry.user().sessions_valid_from)));
    })
}

/// Enables or disables a user. Disabling ends the sessions begun until `now`; enabling does not revive them.
///
/// # Errors
/// See [`EditError`].
pub fn set_active(file: impl Into<UsersFile>, who: UserKey<'_>, active: bool, now: Timestamp) -> Result<(), EditError> {
    change_one(&file.into(), who, &|entry, table| {
        set(table, "active", active.into());
        if !active {
            set(table, "sessions_valid_from", moment(now.max(entry.user().sessions_valid_from)));
        }
    })
}

/// Adds scopes to those of a user, or removes them. Sessions go on: from its next refresh on, each has those of its
/// scopes that the user still has.
///
/// # Errors
/// See [`EditError`]: the user has them all already, or none of them.
pub fn change_scopes(
    file: impl Into<UsersFile>,
    who: UserKey<'_>,
    named: &Scope,
    granted: bool,
) -> Result<(), EditError> {
    change(&file.into(), |draft| {
        let user = Arc::clone(draft.users.by_name(who.account, who.username).ok_or(EditError::Unknown)?);
        let before = user.user().scopes;
        let kept = before.iter().filter(|scope| granted || !named.contains(scope));
        let added = named.iter().filter(|scope| granted && !before.contains(scope));
        let scopes: Vec<&str> = kept.chain(added).collect();
        if scopes.len() == before.iter().count() {
            return Err(EditError::Invalid(if granted {
                "the user has these scopes already"
            } else {
                "the user has none of these scopes"
            }));
        }
        draft.edit(&|entry| entry.subject == user.subject, &|_, table| {
            set(table, "scopes", scopes.iter().copied().collect::<Array>().into());
        })
    })
}

/// A hash that a login replaces.
#[derive(Debug)]
pub(super) struct Rehash {
    pub(super) subject: Box<str>,
    pub(super) old: SecretHash,
    pub(super) new: SecretHash,
}

/// Replaces hashes, each only if it still is the old one. The password stays the same, and so do its mark and the
/// sessions (requirement I31). Returns how many were replaced.
pub(super) fn rehash(file: &UsersFile, hashes: &[Rehash]) -> Result<usize, EditError> {
    let by_subject: HashMap<&str, &Rehash> = hashes.iter().map(|rehash| (&*rehash.subject, rehash)).collect();
    let mut replaced = 0;
    let unchanged = |entry: &Entry| by_subject.get(&*entry.subject).filter(|rehash| rehash.old == entry.hash).copied();
    change(file, |draft| {
        replaced = draft.users.entries().iter().filter(|entry| unchanged(entry).is_some()).count();
        if replaced == 0 {
            return Ok(());
        }
        draft.edit(&|entry| unchanged(entry).is_some(), &|entry, table| {
            let Some(rehash) = unchanged(entry) else { return };
            set(table, "password", rehash.new.expose().into());
            let text = |mark: PasswordMark| base64::Engine::encode(&MARK, mark.to_bytes());
            let mut rehashed = InlineTable::new();
            rehashed.insert("hash", text(PasswordMark::of(rehash.new.expose().as_bytes())).into());
            rehashed.insert("mark", text(entry.mark()).into());
            table.remove("rehashed");
            set(table, "rehashed", rehashed.into());
        })
    })?;
    Ok(replaced)
}

/// Creates the file with its first user.
pub(super) fn create(path: &Path, now: Timestamp) -> Result<FirstUser, EditError> {
    let secret = random::<15>().map_err(io::Error::from)?;
    let password = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret.as_slice());
    let first = FirstUser { username: "demo".to_owned(), password: SecretString::from(password) };
    let scopes = Scope::parse("read write").unwrap_or_default();
    let who = UserKey { account: None, username: &first.username };
    let user = new_user(who, &random_subject()?, &scopes, password::hash(&first.password)?, now);
    let mut tables = ArrayOfTables::new();
    tables.push(user.table()?);
    let document = document(tables);
    private_file::create_private_dir(path.parent().unwrap_or(Path::new("")))?;
    private_file::create_private_new(path, format!("{HEADER}{document}").as_bytes())?;
    Ok(first)
}

/// A user to add.
pub(super) struct NewUser {
    pub(super) username: String,
    pub(super) account: Option<String>,
    pub(super) subject: String,
    pub(super) hash: SecretHash,
    pub(super) active: bool,
    pub(super) scopes: Scope,
    pub(super) valid_from: Timestamp,
    pub(super) profile: serde_json::Map<String, serde_json::Value>,
}

impl NewUser {
    fn table(&self) -> Result<Table, EditError> {
        // Without `..`: a new field must be written.
        let Self { username, account, subject, hash, active, scopes, valid_from, profile } = self;
        let mut table = Table::new();
        table.decor_mut().set_prefix("\n");
        set(&mut table, "subject", subject.into());
        set(&mut table, "username", username.into());
        if let Some(account) = account {
            set(&mut table, "account", account.into());
        }
        set(&mut table, "password", hash.expose().into());
        set(&mut table, "active", (*active).into());
        set(&mut table, "sessions_valid_from", moment(*valid_from));
        set(&mut table, "scopes", scopes.iter().collect::<Array>().into());
        if !profile.is_empty() {
            let profile = serde_json::Value::from(profile.clone());
            let no = "a profile has texts, true and false, numbers, lists and objects; an integer has at most 63 bits";
            set(&mut table, "profile", toml(&profile).ok_or(EditError::Invalid(no))?);
        }
        Ok(table)
    }
}

/// A JSON value in TOML, which has no `null`: a member that is null is left out.
fn toml(json: &serde_json::Value) -> Option<toml_edit::Value> {
    use serde_json::Value;
    Some(match json {
        Value::Null => return None,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => integer.into(),
            None if number.is_f64() => number.as_f64()?.into(),
            None => return None,
        },
        Value::String(text) => text.into(),
        Value::Array(list) => list.iter().map(toml).collect::<Option<Array>>()?.into(),
        Value::Object(members) => {
            let mut table = InlineTable::new();
            for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
                table.insert(key, toml(value)?);
            }
            table.into()
        }
    })
}

fn check_new(who: UserKey<'_>, subject: Option<&str>) -> Result<(), EditError> {
    if !subject.is_none_or(is_valid_subject) {
        return Err(EditError::Invalid(
            "a subject is 1 to 256 visible ASCII characters, and does not begin with client:",
        ));
    }
    if !is_valid_name(who.username) {
        return Err(EditError::Invalid("a user name is 1 to 256 bytes without control characters"));
    }
    if !who.account.is_none_or(is_valid_account) {
        return Err(EditError::Invalid("an account is 1 to 256 visible ASCII characters, none of them /"));
    }
    Ok(())
}

fn new_user(who: UserKey<'_>, subject: &str, scopes: &Scope, hash: String, now: Timestamp) -> NewUser {
    NewUser {
        username: who.username.to_owned(),
        account: who.account.map(str::to_owned),
        subject: subject.to_owned(),
        hash: SecretHash::new(hash),
        active: true,
        scopes: scopes.clone(),
        valid_from: now,
        profile: serde_json::Map::new(),
    }
}

/// Adds users that `judge` does not refuse, with one write. `dry_run`: does all but write.
pub(super) fn add_all(
    file: &UsersFile,
    users: Vec<(Place, NewUser)>,
    dry_run: bool,
    judge: impl FnOnce(&Known, &[(Place, NewUser)]) -> Result<(), EditError>,
) -> Result<(), EditError> {
    private_file::create_private_dir(file.path().parent().unwrap_or(Path::new("")))?;
    add(file, dry_run, |known| {
        judge(known, &users)?;
        let table =
            |(place, user): (Place, NewUser)| user.table().map_err(|error| Problems::one(place, error.to_string()));
        users.into_iter().map(table).collect()
    })
}

fn change_one(file: &UsersFile, who: UserKey<'_>, edit: Edit<'_>) -> Result<(), EditError> {
    change(file, |draft| {
        let user = Arc::clone(draft.users.by_name(who.account, who.username).ok_or(EditError::Unknown)?);
        draft.edit(&|entry| entry.subject == user.subject, edit)
    })
}

fn change(file: &UsersFile, edit: impl FnOnce(&mut Draft<'_>) -> Result<(), EditError>) -> Result<(), EditError> {
    let path = file.path();
    let _lock = private_file::lock_for_edit(path)?;
    let text = private_file::read_private(path).map_err(EditError::File)?;
    let mut draft = Draft::new(file, text)?;
    edit(&mut draft)?;
    if draft.is_changed { write(path, &[&draft.text]) } else { Ok(()) }
}

/// Adds users at the end, with one write. Creates the file if it is missing. `dry_run`: does all but write.
fn add(
    file: &UsersFile,
    dry_run: bool,
    new: impl FnOnce(&Known) -> Result<Vec<Table>, EditError>,
) -> Result<(), EditError> {
    let path = file.path();
    let _lock = private_file::lock_for_edit(path)?;
    let is_missing = matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound);
    let text = if is_missing {
        zeroize::Zeroizing::new(HEADER.to_owned())
    } else {
        private_file::read_private(path).map_err(EditError::File)?
    };
    let in_tables = |new: Vec<Table>| {
        let mut tables = ArrayOfTables::new();
        new.into_iter().for_each(|table| tables.push(table));
        tables
    };
    let (mut draft, tables) = if let Some(outline) = parse::outline(&text, file) {
        let known = Known::Outline(outline);
        let tables = in_tables(new(&known)?);
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let appended = zeroize::Zeroizing::new(format!("{newline}{}", document(tables.clone())));
        // The pieces before are read already, and mean the same with others after them.
        if let Ok(added) = parse::parse(&appended, file, &Users::default())
            && added.are_in_pieces()
            && added.entries().len() == tables.len()
            && added.entries().iter().all(|entry| known.is_new(entry))
        {
            return if dry_run { Ok(()) } else { write(path, &[&text, &appended]) };
        }
        (Draft::new(file, text)?, tables)
    } else {
        let mut draft = Draft::new(file, text)?;
        let known = Known::Users(std::mem::take(&mut draft.users));
        let tables = in_tables(new(&known)?);
        if let Known::Users(users) = known {
            draft.users = users;
        }
        (draft, tables)
    };
    let number = draft.users.entries().len() + tables.len();
    draft.settle(None, number, |all| tables.iter().for_each(|table| all.push(table.clone())))?;
    if dry_run { Ok(()) } else { write(path, &[&draft.text]) }
}

fn write(path: &Path, parts: &[&str]) -> Result<(), EditError> {
    if parts.iter().map(|part| part.len() as u64).sum::<u64>() > private_file::MAX_LEN {
        return Err(EditError::Invalid("the users file would be longer than 64 MiB, and could not be read again"));
    }
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    Ok(private_file::write_private_atomic_parts(path, &parts)?)
}

pub(super) fn random_subject() -> Result<String, EditError> {
    Ok(uuid::Builder::from_random_bytes(*random::<16>().map_err(io::Error::from)?).into_uuid().to_string())
}

//! Edits of `users.toml` from the command line. A lock serializes the edits. Comments and the order of keys are kept.
//!
//! Passwords are never command-line arguments, because other users can see the arguments of a process (requirement O3).

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use secrecy::SecretString;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, value};
use zeroize::Zeroizing;

use super::entry::{MARK, UserEntry, is_valid_account, is_valid_name};
use super::import::ImportProblems;
pub use super::list::ListedUser;
use super::list::Users;
use super::{FirstUser, MAX_USERS, UsersFile, parse, private_file};
use rotogate_core::clock::Timestamp;
use rotogate_core::directory::{PasswordMark, User, is_valid_subject};
use rotogate_core::invalid::InvalidValue;
use rotogate_core::password::{self, CostClass, SecretHash};
use rotogate_core::random::random;
use rotogate_core::session::Scope;

const HEADER: &str = "\
# Users of the gate. Only the gate's user may read this file (mode 0600). `rotogate user` edits it and keeps comments.
# If you change a password or give a subject to a new user by hand, also set sessions_valid_from to the time of the
# change: older sessions end with it. The gate reloads this file when it changes.
";

/// The error for a duplicate name in an account.
pub const SAME_NAME: &str = "another user in this account has the same name";

/// Why an edit failed. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be read, is invalid, or is accessible to others.
    #[error("{0}")]
    File(String),
    /// Users in the import are invalid.
    #[error("nothing was imported:{0}")]
    Import(ImportProblems),
    /// The file would have too many users after the import.
    #[error("the users file has {there} users, and {added} more would exceed {MAX_USERS}, the maximum for an import")]
    TooMany {
        /// The number of existing users.
        there: usize,
        /// The number of users in the import.
        added: usize,
    },
    /// The file cannot be written.
    #[error("the users file cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The user does not exist.
    #[error("the user does not exist")]
    Unknown,
    /// The name or the subject is already taken.
    #[error("the user exists already: {0}")]
    Exists(&'static str),
    /// The name is invalid, or the edit changes nothing.
    #[error("{0}")]
    Invalid(&'static str),
    /// The password cannot be hashed.
    #[error(transparent)]
    Password(#[from] InvalidValue),
}

/// The account and name that identify a user.
#[derive(Clone, Copy, Debug)]
pub struct UserKey<'a> {
    /// The account, if the user belongs to one.
    pub account: Option<&'a str>,
    /// The login name.
    pub username: &'a str,
}

/// Lists every user, in the order of the file.
///
/// # Errors
/// The file cannot be read, is invalid, or is accessible to others.
pub fn list(file: impl Into<UsersFile>) -> Result<Vec<ListedUser>, EditError> {
    let users = parse::read(&file.into()).map_err(EditError::File)?.into_entries();
    Ok(users.into_iter().map(|entry| ListedUser { username: entry.username.into(), user: entry.user }).collect())
}

/// Adds a user and returns its subject. The default subject is random. The file is created if it is missing. Sessions
/// created until `now` are invalid, so a reused subject does not inherit old sessions.
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
    let subject = subject.map_or_else(random_subject, |subject| Ok(subject.to_owned()))?;
    let user = new_user(who, &subject, scopes, password, now)?;
    add(&file.into(), false, |known| {
        if known.by_name(who.account, who.username).is_some() {
            return Err(EditError::Exists(SAME_NAME));
        }
        if known.by_subject(&subject).is_some() {
            return Err(EditError::Exists("another user has the same subject"));
        }
        Ok(vec![table(&user)?])
    })?;
    Ok(subject)
}

/// Returns a random password of 20 characters.
///
/// # Errors
/// The system has no random numbers.
pub fn random_password() -> Result<SecretString, EditError> {
    let secret = random::<15>().map_err(io::Error::from)?;
    let password = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret.as_slice());
    Ok(SecretString::from(password))
}

/// Removes a user together with the preceding comments. The user's sessions end.
///
/// # Errors
/// See [`EditError`].
pub fn remove_user(file: impl Into<UsersFile>, who: UserKey<'_>) -> Result<(), EditError> {
    change(&file.into(), |users, tables| {
        tables.remove(users.index_of(who.account, who.username).ok_or(EditError::Unknown)?);
        Ok(())
    })
}

/// Sets a user's password and ends the user's sessions (requirement R8).
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
    change_one(&file.into(), who, |user, table| {
        set(table, "password", hash.as_str().into());
        table.remove("rehashed");
        set(table, "sessions_valid_from", moment(now.max(user.sessions_valid_from)));
        Ok(())
    })
}

/// Enables or disables a user. Disabling permanently ends the sessions created until `now`.
///
/// # Errors
/// See [`EditError`].
pub fn set_active(file: impl Into<UsersFile>, who: UserKey<'_>, active: bool, now: Timestamp) -> Result<(), EditError> {
    change_one(&file.into(), who, |user, table| {
        set(table, "active", active.into());
        if !active {
            set(table, "sessions_valid_from", moment(now.max(user.sessions_valid_from)));
        }
        Ok(())
    })
}

/// Adds or removes scopes. Sessions continue, and lose removed scopes at their next refresh.
///
/// # Errors
/// See [`EditError`]. An edit that would change nothing is also an error.
pub fn change_scopes(
    file: impl Into<UsersFile>,
    who: UserKey<'_>,
    named: &Scope,
    granted: bool,
) -> Result<(), EditError> {
    change_one(&file.into(), who, |user, table| {
        let before = &user.scopes;
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
        set(table, "scopes", scopes.into_iter().collect::<Array>().into());
        Ok(())
    })
}

#[derive(Debug)]
pub(super) struct Rehash {
    pub(super) subject: Box<str>,
    pub(super) old: SecretHash,
    pub(super) new: SecretHash,
}

/// Replaces each hash that still equals its `old` hash, and returns the number of replacements. Sessions continue,
/// because `password_mark` does not change (requirement I31).
pub(super) fn rehash(file: &UsersFile, hashes: &[Rehash]) -> Result<usize, EditError> {
    let by_subject: HashMap<&str, &Rehash> = hashes.iter().map(|rehash| (&*rehash.subject, rehash)).collect();
    let unchanged = |entry: &UserEntry| by_subject.get(&*entry.user.subject).filter(|rehash| rehash.old == entry.hash);
    change(file, |users, tables| {
        let mut replaced = 0;
        for (entry, table) in users.entries().iter().zip(tables.iter_mut()) {
            let (Some(rehash), Some(mark)) = (unchanged(entry), entry.user.password_mark) else { continue };
            set(table, "password", rehash.new.expose().into());
            let text = |mark: PasswordMark| base64::Engine::encode(&MARK, mark.to_bytes());
            let mut rehashed = InlineTable::new();
            rehashed.insert("hash", text(PasswordMark::new(rehash.new.expose().as_bytes())).into());
            rehashed.insert("mark", text(mark).into());
            table.remove("rehashed");
            set(table, "rehashed", rehashed.into());
            replaced += 1;
        }
        Ok(replaced)
    })
}

pub(super) fn create(path: &Path, now: Timestamp) -> Result<FirstUser, EditError> {
    let first = FirstUser { username: "demo".to_owned(), password: random_password()? };
    let scopes = Scope::parse("read write").unwrap_or_default();
    let who = UserKey { account: None, username: &first.username };
    let table = table(&new_user(who, &random_subject()?, &scopes, &first.password, now)?)?;
    let mut document = DocumentMut::new();
    document.insert("users", Item::ArrayOfTables(ArrayOfTables::from_iter([table])));
    private_file::create_private_dir(path.parent().unwrap_or(Path::new("")))?;
    private_file::create_private_new(path, format!("{HEADER}{document}").as_bytes())?;
    Ok(first)
}

pub(super) fn table(entry: &UserEntry) -> Result<Table, EditError> {
    let UserEntry { username, user, hash, class: _ } = entry;
    let mut table = Table::new();
    table.decor_mut().set_prefix("\n");
    set(&mut table, "subject", (&*user.subject).into());
    set(&mut table, "username", (&**username).into());
    if let Some(account) = user.account.as_deref() {
        set(&mut table, "account", account.into());
    }
    set(&mut table, "password", hash.expose().into());
    set(&mut table, "active", user.active.into());
    set(&mut table, "sessions_valid_from", moment(user.sessions_valid_from));
    set(&mut table, "scopes", user.scopes.iter().collect::<Array>().into());
    if !user.profile.is_empty() {
        let no = "a profile may have strings, booleans, numbers, lists and objects, but no null in a list and no \
                  integer of more than 63 bits";
        let profile = serde_json::Value::from_iter(user.profile.clone());
        set(&mut table, "profile", toml(&profile).ok_or(EditError::Invalid(no))?);
    }
    Ok(table)
}

/// Null members are left out, because TOML has no `null`.
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
            "the subject must be 1 to 256 visible ASCII characters and must not begin with client:",
        ));
    }
    if !is_valid_name(who.username) {
        return Err(EditError::Invalid("the user name must be 1 to 256 bytes without control characters"));
    }
    if !who.account.is_none_or(is_valid_account) {
        return Err(EditError::Invalid("the account must be 1 to 256 visible ASCII characters other than /"));
    }
    Ok(())
}

fn new_user(
    who: UserKey<'_>,
    subject: &str,
    scopes: &Scope,
    password: &SecretString,
    now: Timestamp,
) -> Result<UserEntry, EditError> {
    let mut user = User::new(subject).scopes(scopes.clone()).sessions_valid_from(now);
    user.account = who.account.map(Into::into);
    let hash = SecretHash::new(password::hash(password)?);
    Ok(UserEntry { username: who.username.into(), user, hash, class: CostClass::default() })
}

fn change_one(
    file: &UsersFile,
    who: UserKey<'_>,
    edit: impl FnOnce(&User, &mut Table) -> Result<(), EditError>,
) -> Result<(), EditError> {
    change(file, |users, tables| {
        let index = users.index_of(who.account, who.username).ok_or(EditError::Unknown)?;
        let (Some(entry), Some(table)) = (users.entries().get(index), tables.get_mut(index)) else {
            return Err(EditError::Unknown);
        };
        edit(&entry.user, table)
    })
}

fn change<T>(
    file: &UsersFile,
    edit: impl FnOnce(&Users, &mut ArrayOfTables) -> Result<T, EditError>,
) -> Result<T, EditError> {
    let _lock = private_file::lock_for_edit(file.path())?;
    let text = private_file::read_private(file.path()).map_err(EditError::File)?;
    rewrite(file, &text, false, edit)
}

/// With `dry_run`, nothing is written.
pub(super) fn add(
    file: &UsersFile,
    dry_run: bool,
    new: impl FnOnce(&Users) -> Result<Vec<Table>, EditError>,
) -> Result<(), EditError> {
    let path = file.path();
    private_file::create_private_dir(path.parent().unwrap_or(Path::new("")))?;
    let _lock = private_file::lock_for_edit(path)?;
    let is_missing = matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound);
    let text = if is_missing {
        Zeroizing::new(HEADER.to_owned())
    } else {
        private_file::read_private(path).map_err(EditError::File)?
    };
    rewrite(file, &text, dry_run, |known, tables| {
        tables.extend(new(known)?);
        Ok(())
    })
}

/// The file is written only if it changed.
fn rewrite<T>(
    file: &UsersFile,
    text: &str,
    dry_run: bool,
    edit: impl FnOnce(&Users, &mut ArrayOfTables) -> Result<T, EditError>,
) -> Result<T, EditError> {
    let shown = file.path().display();
    // The TOML editor always writes "\n".
    let text: &str = &Zeroizing::new(text.replace("\r\n", "\n"));
    let users = parse::parse(text, file).map_err(EditError::File)?;
    // `Display` for this error repeats the line, which may contain a hash.
    let broken = |error: toml_edit::TomlError| EditError::File(format!("{shown}: not TOML: {}", error.message()));
    let mut document: DocumentMut = text.parse().map_err(broken)?;
    // A list of inline tables is rewritten as `[[users]]` tables.
    let item = document.remove("users").unwrap_or_else(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let mut tables =
        item.into_array_of_tables().map_err(|_| EditError::File(format!("{shown}: users is not a list of tables")))?;
    let done = edit(&users, &mut tables)?;
    // A comment at the end of the file must stay before the new users.
    if let Some(added) = tables.get_mut(users.entries().len()) {
        let comment = document.trailing().as_str().unwrap_or_default();
        let newline = if comment.is_empty() || comment.ends_with('\n') { "" } else { "\n" };
        added.decor_mut().set_prefix(format!("{comment}{newline}\n"));
        document.set_trailing("");
    }
    document.insert("users", Item::ArrayOfTables(tables));
    let edited = Zeroizing::new(with_header(header(text), document.to_string()));
    if *edited == *text {
        return Ok(done);
    }
    parse::parse(&edited, file).map_err(EditError::File)?;
    if edited.len() as u64 > private_file::MAX_LEN {
        return Err(EditError::Invalid(
            "the users file would be longer than 64 MiB, so the gate could not read it again",
        ));
    }
    if !dry_run {
        private_file::write_private_atomic(file.path(), edited.as_bytes())?;
    }
    Ok(done)
}

/// Returns the comment at the top of the file, up to the first blank line.
fn header(text: &str) -> &str {
    let end = text.find("\n\n").map_or(text.len(), |at| at + 1);
    text.get(..end).filter(|head| head.lines().all(|line| line.starts_with('#'))).unwrap_or_default()
}

/// The TOML editor treats the header as part of the first user. Moves the header back to the top of the file.
fn with_header(header: &str, text: String) -> String {
    if text.starts_with(header) { text } else { format!("{header}{}", text.replacen(header, "", 1)) }
}

/// Sets a key, and keeps the comment after it.
fn set(table: &mut Table, key: &str, mut new: toml_edit::Value) {
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

fn moment(at: Timestamp) -> toml_edit::Value {
    match rfc3339(at).and_then(|text| text.parse::<toml_edit::Datetime>().ok()) {
        Some(datetime) => datetime.into(),
        None => i64::try_from(at.as_millis()).unwrap_or(i64::MAX).into(),
    }
}

/// Returns `None` after the year 9999, which RFC 3339 cannot express.
pub(super) fn rfc3339(at: Timestamp) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(at.as_millis()));
    time.filter(|_| at < LAST_WRITABLE).map(|time| humantime::format_rfc3339_millis(time).to_string())
}

/// The start of the year 10000.
const LAST_WRITABLE: Timestamp = Timestamp::from_secs(253_402_300_800);

pub(super) fn random_subject() -> Result<String, EditError> {
    Ok(uuid::Builder::from_random_bytes(*random::<16>().map_err(io::Error::from)?).into_uuid().to_string())
}

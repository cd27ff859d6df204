//! Edits `users.toml` from the command line. Each command reads the file, changes it, checks the result and replaces
//! the whole file, under a lock that serializes commands. Comments and the order of keys stay.
//!
//! Only the piece of the file with the user goes through the editor of TOML, whose document takes some twenty times the
//! memory of its text. A file that is not in pieces (see [`super::parse`]) is edited as a whole.
//!
//! Passwords arrive as a [`SecretString`], from a prompt or standard input: never as arguments of a process, which
//! every user of the machine can read (requirement O3).

use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use secrecy::SecretString;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::parse::{self, Users, is_valid_account, is_valid_name};
use super::{FirstUser, private_file};
use rotogate::clock::Timestamp;
use rotogate::directory::{User, is_valid_subject};
use rotogate::password::{self, BadPassword};
use rotogate::random::random;
use rotogate::session::Scope;

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
    /// The file cannot be written.
    #[error("the users file cannot be written: {0}")]
    Io(#[from] io::Error),
    /// No such user.
    #[error("there is no such user")]
    Unknown,
    /// The account has such a name already, or the subject is taken.
    #[error("there is such a user already: {0}")]
    Exists(&'static str),
    /// A name that a user may not have.
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
pub fn list(path: &Path) -> Result<Vec<ListedUser>, EditError> {
    let users = parse::read(path, &Users::default()).map_err(EditError::File)?;
    Ok(users.entries().iter().map(|e| ListedUser { username: e.username.to_string(), user: e.user() }).collect())
}

/// Adds a user and returns its subject: `subject`, or a random one. Sessions of an earlier user of that subject stay
/// invalid, because only sessions from after `now` are valid. Creates the file if it is missing.
///
/// # Errors
/// See [`EditError`].
pub fn add_user(
    path: &Path,
    who: UserKey<'_>,
    subject: Option<&str>,
    scopes: &Scope,
    password: &SecretString,
    now: Timestamp,
) -> Result<String, EditError> {
    let subject = match subject {
        Some(subject) => subject.to_owned(),
        None => random_subject()?,
    };
    let user = new_user(who, &subject, scopes, password, now)?;
    private_file::create_private_dir(path.parent().unwrap_or(Path::new("")))?;
    change(path, true, |draft| {
        if draft.users.by_name(who.account, who.username).is_some() {
            return Err(EditError::Exists("its name, in this account"));
        }
        if draft.users.by_subject(&subject).is_some() {
            return Err(EditError::Exists("its subject"));
        }
        draft.add(vec![user])
    })?;
    Ok(subject)
}

/// Removes a user. The user's sessions end.
///
/// # Errors
/// See [`EditError`].
pub fn remove_user(path: &Path, who: UserKey<'_>) -> Result<(), EditError> {
    change(path, false, |draft| draft.remove(who))
}

/// Sets a user's password and ends the sessions so far (requirement R8).
///
/// # Errors
/// See [`EditError`].
pub fn set_password(path: &Path, who: UserKey<'_>, password: &SecretString, now: Timestamp) -> Result<(), EditError> {
    let hash = password::hash(password)?;
    change_one(path, who, |user, table| {
        set(table, "password", hash.as_str().into());
        set(table, "sessions_valid_from", moment(now.max(user.sessions_valid_from)));
    })
}

/// Enables or disables a user. Disabling ends the sessions begun until `now`; enabling does not revive them.
///
/// # Errors
/// See [`EditError`].
pub fn set_active(path: &Path, who: UserKey<'_>, active: bool, now: Timestamp) -> Result<(), EditError> {
    change_one(path, who, |user, table| {
        set(table, "active", active.into());
        if !active {
            set(table, "sessions_valid_from", moment(now.max(user.sessions_valid_from)));
        }
    })
}

/// Creates the file with its first user.
pub(super) fn create(path: &Path, now: Timestamp) -> Result<FirstUser, EditError> {
    let secret = random::<15>().map_err(io::Error::from)?;
    let password = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret.as_slice());
    let first = FirstUser { username: "demo".to_owned(), password: SecretString::from(password) };
    let scopes = Scope::parse("read write").unwrap_or_default();
    let who = UserKey { account: None, username: &first.username };
    let user = new_user(who, &random_subject()?, &scopes, &first.password, now)?;
    let mut tables = ArrayOfTables::new();
    tables.push(user);
    let document = document(tables);
    private_file::create_private_dir(path.parent().unwrap_or(Path::new("")))?;
    private_file::create_private_new(path, format!("{HEADER}{document}").as_bytes())?;
    Ok(first)
}

fn new_user(
    who: UserKey<'_>,
    subject: &str,
    scopes: &Scope,
    password: &SecretString,
    now: Timestamp,
) -> Result<Table, EditError> {
    if !is_valid_subject(subject) {
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
    let mut table = Table::new();
    table.decor_mut().set_prefix("\n");
    set(&mut table, "subject", subject.into());
    set(&mut table, "username", who.username.into());
    if let Some(account) = who.account {
        set(&mut table, "account", account.into());
    }
    set(&mut table, "password", password::hash(password)?.into());
    set(&mut table, "active", true.into());
    set(&mut table, "sessions_valid_from", moment(now));
    set(&mut table, "scopes", scopes.iter().collect::<Array>().into());
    Ok(table)
}

fn change_one(path: &Path, who: UserKey<'_>, edit: impl Fn(&User, &mut Table)) -> Result<(), EditError> {
    change(path, false, |draft| draft.edit(who, &edit))
}

fn change(
    path: &Path,
    make: bool,
    edit: impl FnOnce(&mut Draft<'_>) -> Result<(), EditError>,
) -> Result<(), EditError> {
    let _lock = private_file::lock_for_edit(path)?;
    let is_missing = matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound);
    let text = if make && is_missing {
        zeroize::Zeroizing::new(HEADER.to_owned())
    } else {
        private_file::read_private(path).map_err(EditError::File)?
    };
    let users = parse::parse(&text, path, &Users::default()).map_err(EditError::File)?;
    let mut draft = Draft { path, text, users };
    edit(&mut draft)?;
    Ok(private_file::write_private_atomic(path, draft.text.as_bytes())?)
}

/// The text of the file, and its users.
struct Draft<'a> {
    path: &'a Path,
    text: zeroize::Zeroizing<String>,
    users: Users,
}

impl Draft<'_> {
    fn add(&mut self, new: Vec<Table>) -> Result<(), EditError> {
        let number = self.users.entries().len() + new.len();
        let mut tables = ArrayOfTables::new();
        new.into_iter().for_each(|table| tables.push(table));
        let mut appended = None;
        if self.users.are_in_pieces() {
            let newline = if self.text.is_empty() || self.text.ends_with('\n') { "" } else { "\n" };
            appended = Some(format!("{}{newline}{}", *self.text, document(tables.clone())));
        }
        self.settle(appended, number, |all| tables.iter().for_each(|table| all.push(table.clone())))
    }

    fn edit(&mut self, who: UserKey<'_>, edit: &dyn Fn(&User, &mut Table)) -> Result<(), EditError> {
        let user = self.users.by_name(who.account, who.username).ok_or(EditError::Unknown)?.user();
        let edited = self.users.piece(&self.text, who.account, who.username).and_then(|piece| {
            let mut document: DocumentMut = self.text.get(piece.clone())?.parse().ok()?;
            let table = document.get_mut("users")?.as_array_of_tables_mut()?.get_mut(0)?;
            edit(&user, table);
            Some(format!("{}{document}{}", self.text.get(..piece.start)?, self.text.get(piece.end..)?))
        });
        self.settle(edited, self.users.entries().len(), |tables| {
            tables.iter_mut().filter(|table| is(table, who)).for_each(|table| edit(&user, table));
        })
    }

    /// Removes a user, with the comments before it.
    fn remove(&mut self, who: UserKey<'_>) -> Result<(), EditError> {
        self.users.by_name(who.account, who.username).ok_or(EditError::Unknown)?;
        let shorter = self.users.piece(&self.text, who.account, who.username).and_then(|piece| {
            let start = piece.start - trailing_comments(self.text.get(header(&self.text).len()..piece.start)?);
            let end = piece.end - trailing_comments(self.text.get(piece.clone())?);
            Some(format!("{}{}", self.text.get(..start)?, self.text.get(end..)?))
        });
        self.settle(shorter, self.users.entries().len() - 1, |tables| tables.retain(|table| !is(table, who)))
    }

    /// Takes the text that an edit of one piece made, if it is sound; otherwise edits the whole file.
    fn settle(
        &mut self,
        text: Option<String>,
        number: usize,
        edit: impl FnOnce(&mut ArrayOfTables),
    ) -> Result<(), EditError> {
        if let Some(text) = text.map(zeroize::Zeroizing::new)
            && let Ok(users) = parse::parse(&text, self.path, &self.users)
            && users.entries().len() == number
        {
            (self.text, self.users) = (text, users);
            return Ok(());
        }
        let text = zeroize::Zeroizing::new(self.edited_as_a_whole(edit)?);
        self.users = parse::parse(&text, self.path, &self.users).map_err(EditError::File)?;
        self.text = text;
        Ok(())
    }

    fn edited_as_a_whole(&self, edit: impl FnOnce(&mut ArrayOfTables)) -> Result<String, EditError> {
        let text = &*self.text;
        let mut document: DocumentMut =
            text.parse().map_err(|e: toml_edit::TomlError| EditError::File(broken(self.path, &e)))?;
        // A list of inline tables means the same in TOML; it is written as [[users]].
        let item = document.remove("users").unwrap_or(Item::ArrayOfTables(ArrayOfTables::new()));
        let Ok(mut tables) = item.into_array_of_tables() else {
            return Err(EditError::File(format!("{}: users is not a list of tables", self.path.display())));
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

fn document(tables: ArrayOfTables) -> DocumentMut {
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

fn random_subject() -> Result<String, EditError> {
    Ok(uuid::Builder::from_random_bytes(*random::<16>().map_err(io::Error::from)?).into_uuid().to_string())
}

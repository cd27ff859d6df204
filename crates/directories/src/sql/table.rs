//! The table of users that `rotogate user import --to` fills in an SQLite file, and the statements that read it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use serde_json::Value as Json;

use super::sqlite::BUSY_TIMEOUT;
use crate::username;
use rotogate_core::directory::User;
use rotogate_core::password::SecretHash;

/// The definition of the table. Names are compared exactly, and are unique within an account.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS users (
    subject TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    account TEXT,
    password_hash TEXT,
    active INTEGER NOT NULL DEFAULT 1,
    scopes TEXT NOT NULL DEFAULT '',
    valid_from
);
CREATE UNIQUE INDEX IF NOT EXISTS users_name ON users (username, ifnull(account, ''));
";

/// The columns that are not profile fields.
const COLUMNS: [&str; 7] = ["subject", "username", "account", "password_hash", "active", "scopes", "valid_from"];

/// A user to add.
#[derive(Debug)]
pub struct TableUser<'a> {
    /// The login name.
    pub username: &'a str,
    /// The user's subject, account, scopes and other properties.
    pub user: &'a User,
    /// The hash of the password.
    pub hash: &'a SecretHash,
    /// `sessions_valid_from` in RFC 3339 format. `None` after the year 9999.
    pub valid_from: Option<String>,
}

/// The state of the table after an import.
#[derive(Debug)]
pub struct UserTable {
    /// The columns that are profile fields.
    pub profile: Vec<String>,
    /// The columns whose values have types that SQLite lacks. Booleans are stored as numbers, and lists and objects as
    /// JSON strings.
    pub converted: Vec<String>,
    /// The password hashes of all users.
    pub hashes: Vec<SecretHash>,
}

impl UserTable {
    /// Returns the statements for `authenticate`, `lookup` and `rehash` of the directory.
    pub fn statements(&self) -> [(&'static str, String); 3] {
        let fields: String = self.profile.iter().map(|field| format!(", \"{field}\"")).collect();
        let select = |condition: &str| {
            format!(
                "SELECT subject, password_hash, active, scopes, valid_from, account{fields}\nFROM users WHERE {condition}"
            )
        };
        let rehash =
            "UPDATE users SET password_hash = {new_hash}\nWHERE subject = {subject} AND password_hash = {old_hash}";
        [
            ("authenticate", select("username = {username} AND account IS {account}")),
            ("lookup", select("subject = {subject}")),
            ("rehash", rehash.to_owned()),
        ]
    }
}

/// The reason why no user was added.
#[derive(Debug)]
pub enum TableError {
    /// The database failed, or its table has other columns.
    Database(String),
    /// These users cannot be stored. Each has its index and the reason.
    Users(Vec<(usize, String)>),
}

impl From<rusqlite::Error> for TableError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

/// Returns the path of the SQLite file in a URL. `None` if the URL does not name a file.
pub fn sqlite_path(url: &str, folder: &Path) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    (!path.is_empty() && !path.contains('?')).then(|| folder.join(path))
}

/// Adds users to the database in a file. Either all users are added, or none. Without a path, a database in memory is
/// used. With `dry_run`, nothing is stored.
///
/// # Errors
/// See [`TableError`].
pub fn add(path: Option<&Path>, users: &[TableUser<'_>], dry_run: bool) -> Result<UserTable, TableError> {
    let mut connection = match path {
        Some(path) => Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?,
        None => Connection::open_in_memory()?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // If the transaction is dropped without a commit, nothing changes.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLE)?;
    let mut profile = profile_columns(&transaction)?;
    let mut problems = Vec::new();
    let mut converted = BTreeSet::new();
    for (index, user) in users.iter().enumerate() {
        let added =
            add_columns(&transaction, user, &mut profile).and_then(|()| insert(&transaction, user, &mut converted));
        match added {
            Ok(()) => {}
            Err(RowFault::User(problem)) => problems.push((index, problem)),
            Err(RowFault::Database(error)) => return Err(error.into()),
        }
    }
    if !problems.is_empty() {
        return Err(TableError::Users(problems));
    }
    let hashes = hashes(&transaction)?;
    if !dry_run {
        transaction.commit()?;
    }
    Ok(UserTable { profile, converted: converted.into_iter().map(str::to_owned).collect(), hashes })
}

fn hashes(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<SecretHash>> {
    let mut prepared = transaction.prepare("SELECT password_hash FROM users WHERE password_hash IS NOT NULL")?;
    prepared.query_map([], |row| row.get::<_, String>(0).map(SecretHash::new))?.collect()
}

enum RowFault {
    User(String),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for RowFault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => {
                let what = if error.to_string().contains("users.subject") {
                    "another user has the same subject"
                } else {
                    "another user in this account has the same name"
                };
                Self::User(format!("the user exists already: {what}"))
            }
            Some(_) | None => Self::Database(error),
        }
    }
}

/// Returns the columns of the table besides [`COLUMNS`], after checking that all of [`COLUMNS`] exist.
fn profile_columns(transaction: &Transaction<'_>) -> Result<Vec<String>, TableError> {
    let mut prepared = transaction.prepare("SELECT name FROM pragma_table_info('users')")?;
    let all: Vec<String> = prepared.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    match COLUMNS.iter().find(|column| !all.iter().any(|found| found == *column)) {
        Some(missing) => Err(TableError::Database(format!("its table `users` has no column `{missing}`"))),
        None => Ok(all.into_iter().filter(|found| !COLUMNS.contains(&&**found)).collect()),
    }
}

/// Adds a column for each profile field that the table does not have yet.
fn add_columns(transaction: &Transaction<'_>, user: &TableUser<'_>, known: &mut Vec<String>) -> Result<(), RowFault> {
    for field in user.user.profile.keys() {
        if known.contains(field) {
            continue;
        }
        // Names are compared case-insensitively, as SQLite does. They become part of statements, so the characters are
        // restricted.
        let is_taken = COLUMNS
            .iter()
            .copied()
            .chain(known.iter().map(String::as_str))
            .any(|column| column.eq_ignore_ascii_case(field));
        let is_name =
            !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-. ".contains(&byte));
        if is_taken || !is_name {
            let why = if is_taken { "another column has this name" } else { "it is not a column name" };
            return Err(RowFault::User(format!(
                "profile.{}: the table cannot store the field: {why}",
                field.escape_debug()
            )));
        }
        transaction.execute_batch(&format!("ALTER TABLE users ADD COLUMN \"{field}\""))?;
        known.push(field.clone());
    }
    Ok(())
}

fn insert<'u>(
    transaction: &Transaction<'_>,
    TableUser { username, user, hash, valid_from }: &TableUser<'u>,
    converted: &mut BTreeSet<&'u str>,
) -> Result<(), RowFault> {
    if !username::is_acceptable(username) {
        let what = "username: expected a name without leading, trailing or double spaces or characters that RFC 4518 \
                    prohibits";
        return Err(RowFault::User(what.to_owned()));
    }
    let text = |text: &str| Value::Text(text.to_owned());
    let scopes = user.scopes.as_str();
    // Scopes that begin like a JSON array would be parsed as JSON when they are read, so they are stored as a JSON
    // array.
    let scopes =
        if scopes.starts_with('[') { Json::from_iter(user.scopes.iter()).to_string() } else { scopes.to_owned() };
    let seconds = user.sessions_valid_from.as_millis().div_ceil(1000);
    let mut columns = COLUMNS.map(|column| format!("\"{column}\"")).to_vec();
    let mut values = vec![
        text(&user.subject),
        text(username),
        user.account.as_deref().map_or(Value::Null, text),
        text(hash.expose()),
        Value::Integer(user.active.into()),
        Value::Text(scopes),
        valid_from.as_deref().map_or(Value::Integer(i64::try_from(seconds).unwrap_or(i64::MAX)), text),
    ];
    for (field, json) in &user.profile {
        if matches!(json, Json::Bool(_) | Json::Array(_) | Json::Object(_)) {
            converted.insert(field);
        }
        let Some(value) = value(json) else {
            return Err(RowFault::User(format!("profile.{}: the table cannot store the field", field.escape_debug())));
        };
        columns.push(format!("\"{field}\""));
        values.push(value);
    }
    let marks = vec!["?"; values.len()].join(", ");
    let statement = format!("INSERT INTO users ({}) VALUES ({marks})", columns.join(", "));
    transaction.prepare_cached(&statement)?.execute(rusqlite::params_from_iter(values))?;
    Ok(())
}

/// Converts the value of a profile field. `None` if a number is out of SQLite's range.
fn value(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Integer((*value).into()),
        Json::String(text) => Value::Text(text.clone()),
        Json::Number(number) if number.is_f64() => Value::Real(number.as_f64()?),
        Json::Number(number) => Value::Integer(number.as_i64()?),
        Json::Array(_) | Json::Object(_) => Value::Text(json.to_string()),
    })
}

//! The SQLite table that `rotogate user import --to` fills.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use serde_json::Value as Json;

use super::sqlite::BUSY_TIMEOUT;
use crate::username;
use rotogate_core::directory::User;
use rotogate_core::password::SecretHash;

/// Names are case-sensitive and unique within an account.
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

const COLUMNS: [&str; 7] = ["subject", "username", "account", "password_hash", "active", "scopes", "valid_from"];

/// A user to import.
#[derive(Debug)]
pub struct TableUser<'a> {
    /// The login name.
    pub username: &'a str,
    /// The user's properties.
    pub user: &'a User,
    /// The hash of the password.
    pub hash: &'a SecretHash,
    /// `sessions_valid_from` in RFC 3339, or `None` after the year 9999.
    pub valid_from: Option<String>,
}

/// The table after an import.
#[derive(Debug)]
pub struct UserTable {
    /// The columns that are profile fields.
    pub profile: Vec<String>,
    /// Columns whose values were converted. Booleans become numbers; lists and objects become JSON strings.
    pub converted: Vec<String>,
    /// The password hashes of all users.
    pub hashes: Vec<SecretHash>,
}

impl UserTable {
    /// Returns the statements `authenticate`, `lookup` and `rehash`.
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

/// Why the import failed.
#[derive(Debug)]
pub enum TableError {
    /// The database failed, or its table has unexpected columns.
    Database(String),
    /// The index of each user that cannot be stored, and the reason.
    Users(Vec<(usize, String)>),
}

impl From<rusqlite::Error> for TableError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

/// Returns the path in an SQLite URL, or `None` for another URL.
pub fn sqlite_path(url: &str, folder: &Path) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    (!path.is_empty() && !path.contains('?')).then(|| folder.join(path))
}

/// Adds all users, or none. Without a path, the database is in memory. With `dry_run`, nothing is stored.
///
/// # Errors
/// Returns why no user was added.
pub fn add(path: Option<&Path>, users: &[TableUser<'_>], dry_run: bool) -> Result<UserTable, TableError> {
    let mut connection = match path {
        Some(path) => Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?,
        None => Connection::open_in_memory()?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A dropped transaction is rolled back.
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

fn profile_columns(transaction: &Transaction<'_>) -> Result<Vec<String>, TableError> {
    let mut prepared = transaction.prepare("SELECT name FROM pragma_table_info('users')")?;
    let all: Vec<String> = prepared.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    match COLUMNS.iter().find(|column| !all.iter().any(|found| found == *column)) {
        Some(missing) => Err(TableError::Database(format!("its table `users` has no column `{missing}`"))),
        None => Ok(all.into_iter().filter(|found| !COLUMNS.contains(&&**found)).collect()),
    }
}

fn add_columns(transaction: &Transaction<'_>, user: &TableUser<'_>, known: &mut Vec<String>) -> Result<(), RowFault> {
    for field in user.user.profile.keys() {
        if known.contains(field) {
            continue;
        }
        // SQLite compares names case-insensitively. The characters are restricted, because names become part of
        // statements.
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
    // Scopes that start with `[` would be parsed as JSON, so they are stored as a JSON array.
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

/// Returns `None` if a number is out of SQLite's range.
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

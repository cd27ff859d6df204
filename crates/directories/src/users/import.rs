//! Import of users from JSON lines, CSV, `firebase auth:export` or Kuzzle. The next login replaces an imported hash
//! with the gate's own.
//!
//! Error messages never quote a value, because it may be a password.

use std::collections::{BTreeMap, HashSet};

use csv::ReaderBuilder;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::edit::{self, EditError};
use super::entry::{self, UserEntry};
use super::kuzzle;
use super::{MAX_USERS, UsersFile};
use rotogate_core::clock::Timestamp;
use rotogate_core::directory::{PasswordMark, User, is_valid_subject};
use rotogate_core::password::{Accepted, FirebaseParameters, PasswordHash, SecretHash};
use rotogate_core::session::Scope;

const SHOWN: usize = 20;

/// The position of an imported user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportPlace {
    /// A line number.
    Line(usize),
    /// The index of a user in a Firebase export.
    User(usize),
    /// An index in an Elasticsearch search result.
    Hit(usize),
}

impl std::fmt::Display for ImportPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::User(index) => write!(f, "users[{index}]"),
            Self::Hit(index) => write!(f, "hits.hits[{index}]"),
        }
    }
}

/// Defaults for missing values.
#[derive(Debug, Default)]
pub struct ImportDefaults {
    /// The default account.
    pub account: Option<String>,
    /// The default scopes.
    pub scopes: Scope,
    /// The hash parameters of the Firebase project.
    pub firebase: Option<FirebaseParameters>,
}

/// The result of an import.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The number of users.
    pub users: usize,
    /// The number of users per hash scheme.
    pub schemes: BTreeMap<&'static str, usize>,
    /// The number of omitted users without a password, such as users of other providers.
    pub without_password: usize,
}

/// Adds all users in `text` to the file, or none. A `name` that ends in `.csv` means CSV.
///
/// # Errors
/// The format of `text` is unknown, users are invalid or already exist, or there would be more than [`MAX_USERS`]
/// users. The error lists the first invalid users.
pub fn import(
    file: &UsersFile,
    name: &str,
    text: &str,
    defaults: &ImportDefaults,
    now: Timestamp,
    dry_run: bool,
) -> Result<Imported, EditError> {
    let (users, imported) = read(name, text, defaults, file.accepted(), now)?;
    edit::add(file, dry_run, |known| {
        let there = known.entries().len();
        if there + users.len() > MAX_USERS {
            return Err(EditError::TooMany { there, added: users.len() });
        }
        let mut problems = ImportProblems::default();
        let mut tables = Vec::with_capacity(users.len());
        for (place, user) in &users {
            let (account, username) = user.name();
            if known.by_name(account, username).is_some() {
                problems
                    .add(*place, "the user exists already: another user in this account has the same name".to_owned());
            } else if known.by_subject(&user.user.subject).is_some() {
                problems.add(*place, "the user exists already: another user has the same subject".to_owned());
            } else {
                match edit::table(user) {
                    Ok(table) => tables.push(table),
                    Err(error) => problems.add(*place, error.to_string()),
                }
            }
        }
        problems.none()?;
        Ok(tables)
    })?;
    Ok(imported)
}

pub(super) fn read(
    name: &str,
    text: &str,
    defaults: &ImportDefaults,
    accepted: &Accepted,
    now: Timestamp,
) -> Result<(Vec<(ImportPlace, UserEntry)>, Imported), EditError> {
    let (records, without_password) = records(name, text, defaults)?;
    let mut imported = Imported { without_password, ..Imported::default() };
    let mut problems = ImportProblems::default();
    let mut users = Vec::with_capacity(records.len());
    let (mut subjects, mut names) = (HashSet::new(), HashSet::new());
    for (place, record) in records {
        let user = record.and_then(|record| user(record, defaults, accepted, now));
        let user = user.and_then(|(user, scheme)| {
            if !subjects.insert(user.user.subject.clone()) {
                return Err("the import has this subject twice".to_owned());
            }
            if !names.insert((user.user.account.clone(), user.username.clone())) {
                return Err("the import has this user name twice in one account".to_owned());
            }
            *imported.schemes.entry(scheme).or_default() += 1;
            Ok(user)
        });
        match user {
            Ok(user) => users.push((place, user)),
            Err(problem) => problems.add(place, problem),
        }
    }
    problems.none()?;
    imported.users = users.len();
    Ok((users, imported))
}

/// The first problems of an import, and the total number of problems.
#[derive(Debug, Default)]
pub struct ImportProblems {
    shown: Vec<(ImportPlace, String)>,
    number: usize,
}

impl ImportProblems {
    /// The listed problems with their positions.
    pub fn shown(&self) -> impl Iterator<Item = (ImportPlace, &str)> {
        self.shown.iter().map(|(place, problem)| (*place, &**problem))
    }

    /// The number of problems that are not listed.
    pub const fn hidden(&self) -> usize {
        self.number - self.shown.len()
    }

    pub(super) fn add(&mut self, place: ImportPlace, problem: String) {
        self.number += 1;
        if self.shown.len() < SHOWN {
            self.shown.push((place, problem));
        }
    }

    pub(super) fn none(self) -> Result<(), EditError> {
        if self.number == 0 { Ok(()) } else { Err(EditError::Import(self)) }
    }
}

impl std::fmt::Display for ImportProblems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shown().try_for_each(|(place, problem)| write!(f, "\n{place}: {problem}"))?;
        if self.hidden() > 0 { write!(f, "\nand {} more", self.hidden()) } else { Ok(()) }
    }
}

fn one(place: ImportPlace, problem: String) -> EditError {
    EditError::Import(ImportProblems { shown: vec![(place, problem)], number: 1 })
}

pub(super) type Record = Map<String, Value>;
pub(super) type Placed = Vec<(ImportPlace, Result<Record, String>)>;

fn records(name: &str, text: &str, defaults: &ImportDefaults) -> Result<(Placed, usize), EditError> {
    let text = text.trim_start_matches('\u{feff}');
    if name.to_ascii_lowercase().ends_with(".csv") {
        return Ok((csv_records(text)?, 0));
    }
    // Firebase and Elasticsearch export a single object, which may span many lines.
    if let Ok(Value::Object(mut whole)) = serde_json::from_str(text) {
        if let Some(Value::Array(users)) = whole.remove("users") {
            let Some(parameters) = &defaults.firebase else {
                return Err(EditError::File(
                    "this is a Firebase export: give the password hash parameters of the Firebase project with \
                     `--firebase`, or as `hash_parameters` in `[directory]`"
                        .to_owned(),
                ));
            };
            return Ok(firebase_records(users, parameters));
        }
        if let Some(found) = whole.remove("hits") {
            return Ok((kuzzle::records(found)?, 0));
        }
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let record = |(index, line): (usize, &str)| (ImportPlace::Line(index + 1), json_record(line));
    Ok((lines.map(record).collect(), 0))
}

/// A line of an import. Unlike a map, a struct rejects repeated members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportLine {
    username: Option<Value>,
    password_hash: Option<Value>,
    account: Option<Value>,
    subject: Option<Value>,
    active: Option<Value>,
    scopes: Option<Value>,
    valid_from: Option<Value>,
    profile: Option<Value>,
}

fn json_record(line: &str) -> Result<Record, String> {
    let read: ImportLine = match serde_json::from_str(line) {
        Ok(read) => read,
        Err(error) => {
            return match serde_json::from_str::<Value>(line) {
                Ok(hit) if hit.get("_source").is_some() => kuzzle::record(hit),
                Ok(_) | Err(_) => Err(flaw(&error)),
            };
        }
    };
    let ImportLine { username, password_hash, account, subject, active, scopes, valid_from, profile } = read;
    let members = [
        ("username", username),
        ("password_hash", password_hash),
        ("account", account),
        ("subject", subject),
        ("active", active),
        ("scopes", scopes),
        ("valid_from", valid_from),
        ("profile", profile),
    ];
    Ok(members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
}

fn flaw(error: &serde_json::Error) -> String {
    let said = error.to_string();
    // Other messages of the parser may quote a value.
    match said.starts_with("unknown field") || said.starts_with("duplicate field") {
        true => said,
        false => format!("expected a JSON object with username and password_hash, at column {}", error.column()),
    }
}

/// An empty cell is treated as a missing key. A column `profile.x` is the profile field x.
fn csv_records(text: &str) -> Result<Placed, EditError> {
    let line = |at: Option<&csv::Position>| {
        ImportPlace::Line(at.map_or(1, |at| usize::try_from(at.line()).unwrap_or(usize::MAX)))
    };
    let mut reader = ReaderBuilder::new().from_reader(text.as_bytes());
    let no_header =
        |_| one(ImportPlace::Line(1), "the file is not CSV, because its first line does not name columns".to_owned());
    let headers = reader.headers().map_err(no_header)?.clone();
    let mut seen = HashSet::new();
    if let Some(twice) = headers.iter().find(|header| !seen.insert(header.trim())) {
        return Err(one(ImportPlace::Line(1), format!("the column {twice:?} occurs twice")));
    }
    let mut records = Placed::new();
    for row in reader.records() {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                records.push((
                    line(error.position()),
                    Err("the line has more or fewer cells than there are columns, or is not UTF-8".to_owned()),
                ));
                continue;
            }
        };
        let place = line(row.position());
        let mut record = Record::new();
        let mut profile = Map::new();
        for (header, cell) in headers.iter().map(str::trim).zip(&row).filter(|(_, cell)| !cell.is_empty()) {
            match header.strip_prefix("profile.") {
                Some(field) => profile.insert(field.to_owned(), cell.into()),
                None => record.insert(header.to_owned(), cell.into()),
            };
        }
        if !profile.is_empty() {
            record.insert("profile".to_owned(), profile.into());
        }
        records.push((place, Ok(record)));
    }
    Ok(records)
}

fn firebase_records(users: Vec<Value>, parameters: &FirebaseParameters) -> (Placed, usize) {
    let mut without_password = 0;
    let mut records = Placed::new();
    for (index, user) in users.into_iter().enumerate() {
        let text = |key: &str| user.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let Some(hash) = text("passwordHash") else {
            without_password += 1;
            continue;
        };
        let place = ImportPlace::User(index);
        let Some(hash) = parameters.hash_of(text("salt").unwrap_or_default(), hash) else {
            records.push((place, Err("passwordHash or salt is not base64".to_owned())));
            continue;
        };
        let mut record = Record::new();
        record.insert("password_hash".to_owned(), hash.into());
        let mut put = |key: &str, from: Option<&str>| {
            if let Some(from) = from {
                record.insert(key.to_owned(), from.into());
            }
        };
        put("subject", text("localId"));
        put("username", text("email").or_else(|| text("phoneNumber")));
        let fields =
            [("email", "email"), ("name", "displayName"), ("phone_number", "phoneNumber"), ("picture", "photoUrl")];
        let mut profile: Map<String, Value> =
            fields.iter().filter_map(|(ours, theirs)| Some(((*ours).to_owned(), text(theirs)?.into()))).collect();
        if let Some(Value::Bool(verified)) = user.get("emailVerified") {
            profile.insert("email_verified".to_owned(), (*verified).into());
        }
        record.insert("profile".to_owned(), profile.into());
        let is_disabled = user.get("disabled").and_then(Value::as_bool).unwrap_or(false);
        record.insert("active".to_owned(), (!is_disabled).into());
        records.push((place, Ok(record)));
    }
    (records, without_password)
}

fn user(
    mut record: Record,
    defaults: &ImportDefaults,
    accepted: &Accepted,
    now: Timestamp,
) -> Result<(UserEntry, &'static str), String> {
    let mut text = |key: &str| match record.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{key}: expected a string")),
    };
    let username = text("username")?.ok_or("username: missing")?;
    let account = text("account")?.or_else(|| defaults.account.clone());
    let subject = text("subject")?;
    let hash = text("password_hash")?.ok_or("password_hash: missing")?;
    if !entry::is_valid_name(&username) {
        return Err("username: expected 1 to 256 bytes without control characters".to_owned());
    }
    if !account.as_deref().is_none_or(entry::is_valid_account) {
        return Err("account: expected 1 to 256 visible ASCII characters other than /".to_owned());
    }
    if !subject.as_deref().is_none_or(is_valid_subject) {
        return Err("subject: expected 1 to 256 visible ASCII characters that do not begin with client:".to_owned());
    }
    let active = match record.remove("active") {
        None => true,
        Some(Value::Bool(active)) => active,
        Some(Value::String(text)) if text == "true" || text == "1" => true,
        Some(Value::String(text)) if text == "false" || text == "0" => false,
        Some(_) => return Err("active: expected true or false".to_owned()),
    };
    let scopes = match record.remove("scopes") {
        None => defaults.scopes.clone(),
        Some(value) => scopes(&value).ok_or("scopes: expected scopes separated by spaces, or a list of them")?,
    };
    let valid_from = match record.remove("valid_from") {
        None => now,
        Some(value) => moment(&value)
            .ok_or("valid_from: expected a time in UTC such as 2026-01-31T12:00:00Z, or seconds since 1970")?,
    };
    let profile = match record.remove("profile") {
        None => Map::new(),
        Some(Value::Object(profile)) => profile,
        Some(_) => return Err("profile: expected an object".to_owned()),
    };
    if let Some((unknown, _)) = record.iter().next() {
        let unknown = rotogate_kit::config::printable(unknown);
        return Err(format!(
            "{unknown}: unknown; expected username, password_hash, account, subject, active, scopes, valid_from, profile"
        ));
    }
    let parsed = PasswordHash::parse(&hash, accepted).map_err(|error| format!("password_hash: is {error}"))?;
    let (scheme, class) = (parsed.scheme(), parsed.class());
    let subject = subject.map_or_else(edit::random_subject, Ok).map_err(|error| error.to_string())?;
    let mark = PasswordMark::new(hash.as_bytes());
    let mut user = User::new(subject).active(active).sessions_valid_from(valid_from).password_mark(mark);
    (user.account, user.scopes) = (account.map(Into::into), scopes);
    user.profile = profile.into_iter().collect();
    Ok((UserEntry { username: username.into(), user, hash: SecretHash::new(hash), class }, scheme))
}

fn scopes(value: &Value) -> Option<Scope> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join(" "),
        _ => return None,
    };
    Scope::parse(&text).ok()
}

fn moment(value: &Value) -> Option<Timestamp> {
    let seconds = match value {
        Value::Number(seconds) => seconds.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    // A time after the year 9999 is probably in milliseconds.
    if let Some(seconds) = seconds {
        return (seconds < 253_402_300_800).then(|| Timestamp::from_secs(seconds));
    }
    entry::instant(value.as_str()?)
}

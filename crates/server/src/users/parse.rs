//! Parses `users.toml`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::UserChange;
use crate::config::raw::{self, Problems, Section, Value};
use crate::config::value;
use rotogate::clock::Timestamp;
use rotogate::directory::{PasswordMark, User, is_valid_subject};
use rotogate::password::SecretHash;
use rotogate::password::{Cost, cost_of};
use rotogate::private_file::read_private;
use rotogate::session::Scope;
use rotogate::token::claims::CLIENT_PREFIX;
use rotogate::token::verify::is_subject;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) user: User,
    pub(super) username: Box<str>,
    pub(super) hash: SecretHash,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (&self.user, &self.username, self.hash.expose()) == (&other.user, &other.username, other.hash.expose())
    }
}

/// The users, indexed by subject and by name.
#[derive(Debug, Default)]
pub(super) struct Users {
    entries: Vec<Entry>,
    by_subject: HashMap<Box<str>, usize>,
    by_name: HashMap<Option<Box<str>>, HashMap<Box<str>, usize>>,
    dearest: Cost,
}

impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Users {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn by_subject(&self, subject: &str) -> Option<&Entry> {
        self.entries.get(*self.by_subject.get(subject)?)
    }

    pub(super) fn by_name(&self, account: Option<&str>, username: &str) -> Option<&Entry> {
        let account: Option<Box<str>> = account.map(Into::into);
        self.entries.get(*self.by_name.get(&account)?.get(username)?)
    }

    /// The cost of checking the most expensive password hash. Every check costs as much, so that its duration does not
    /// tell whether a user exists (A2).
    pub(super) fn dearest(&self) -> Cost {
        self.dearest
    }

    /// The users that differ in `now`.
    pub(super) fn changes(&self, now: &Self) -> Vec<UserChange> {
        let user = |entry: Option<&Entry>| entry.map(|e| e.user.clone());
        let mut changes = Vec::new();
        for old in &self.entries {
            let new = now.by_subject(&old.user.subject);
            if new.map(|e| &e.user) != Some(&old.user) {
                changes.push(UserChange { before: Some(old.user.clone()), after: user(new) });
            }
        }
        for new in &now.entries {
            if self.by_subject(&new.user.subject).is_none() {
                changes.push(UserChange { before: None, after: Some(new.user.clone()) });
            }
        }
        changes
    }
}

/// Reads the file, which must be private.
pub(super) fn read(path: &Path) -> Result<Users, String> {
    parse(&read_private(path)?, path)
}

/// Reports every problem of the text, one on each line.
pub(super) fn parse(text: &str, path: &Path) -> Result<Users, String> {
    let name = path.display().to_string();
    let problems = Problems::new(&name, text);
    let users = raw::parse(text, &problems).map(|root| users(&Section::root(&root, &problems)));
    match (problems.into_errors(), users) {
        (None, Some(users)) => Ok(users),
        (Some(errors), _) => Err(errors.to_string()),
        // Without a tree there is at least one problem.
        (None, None) => Err(format!("{name}: cannot be read")),
    }
}

fn users(root: &Section<'_>) -> Users {
    let mut users = Users::default();
    let mut costs: Vec<Cost> = Vec::new();
    for section in root.sections("users") {
        let entry = entry(&section);
        section.finish();
        let Some(entry) = entry else { continue };
        let at = users.entries.len();
        if users.by_subject.insert(entry.user.subject.clone(), at).is_some() {
            section.blame("subject", format!("\"{}\" is listed twice", entry.user.subject));
        }
        let names = users.by_name.entry(entry.user.account.clone()).or_default();
        if names.insert(entry.username.clone(), at).is_some() {
            let name = raw::printable(&entry.username);
            section.blame("username", format!("\"{name}\" is listed twice in one account"));
        }
        costs.extend(cost_of(entry.hash.expose()));
        users.entries.push(entry);
    }
    root.finish();
    users.dearest = costs.into_iter().max_by_key(|cost| cost.work()).unwrap_or_default();
    users
}

/// One user; `None` if a required part was refused.
fn entry(section: &Section<'_>) -> Option<Entry> {
    let subject = section.require("subject", "the sub of the user's tokens", subject);
    let username = section.require("username", "the name to log in with", name);
    let account = section.get("account", account);
    let password = section.require("password", "an argon2id hash; see rotogate user passwd", hash);
    let active = section.get("active", value::boolean).unwrap_or(true);
    let sessions_valid_from = section.get("sessions_valid_from", moment).unwrap_or(Timestamp::ZERO);
    let scopes = section.list("scopes", value::scope).unwrap_or_default();
    let scopes = Scope::parse(&scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")).unwrap_or_default();
    let profile = profile(&section.section("profile"));
    let hash = password?;
    let mut user = User::new(subject?)
        .active(active)
        .sessions_valid_from(sessions_valid_from)
        .password_mark(PasswordMark::of(hash.expose().as_bytes()))
        .scopes(scopes);
    (user.account, user.profile) = (account, profile);
    Some(Entry { user, username: username?, hash })
}

fn subject(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_subject(s) => Ok(s.as_str().into()),
        Value::String(s) if is_subject(s) => {
            Err(format!("\"{}\" begins with \"{CLIENT_PREFIX}\", as the subjects of clients do", raw::printable(s)))
        }
        other => Err(format!("expected 1 to 256 visible ASCII characters, found {}", other.describe())),
    }
}

fn name(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_name(s) => Ok(s.as_str().into()),
        other => {
            Err(format!("expected a text of at most 256 bytes without control characters, found {}", other.describe()))
        }
    }
}

fn account(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_account(s) => Ok(s.as_str().into()),
        other => Err(format!("expected 1 to 256 visible ASCII characters, none of them /, found {}", other.describe())),
    }
}

pub(super) fn is_valid_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.contains(char::is_control)
}

/// An account is one segment in the path of an endpoint.
pub(super) fn is_valid_account(account: &str) -> bool {
    is_subject(account) && !account.contains('/')
}

/// The value may be a password that was mistaken for its hash: it is never repeated.
fn hash(v: &Value) -> Result<SecretHash, String> {
    match v {
        Value::String(s) => match cost_of(s) {
            Ok(_) => Ok(SecretHash::new(s.clone())),
            Err(e) => Err(format!("is {e}")),
        },
        _ => Err("expected an argon2id hash, \"$argon2id$v=19$…\"".to_owned()),
    }
}

fn moment(v: &Value) -> Result<Timestamp, String> {
    let parsed = match v {
        Value::Integer(ms) => u64::try_from(*ms).ok().map(Timestamp::from_millis),
        Value::Datetime(d) => humantime::parse_rfc3339(&d.to_string())
            .ok()
            .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
            .and_then(|d| u64::try_from((d + Duration::from_nanos(999_999)).as_millis()).ok())
            .map(Timestamp::from_millis),
        _ => None,
    };
    parsed.ok_or_else(|| {
        format!(
            "expected a time in UTC such as 2026-01-31T12:00:00Z, or milliseconds since 1970, found {}",
            v.describe()
        )
    })
}

fn profile(section: &Section<'_>) -> BTreeMap<String, serde_json::Value> {
    let mut fields = BTreeMap::new();
    for (key, v) in section.free() {
        match json(v) {
            Some(field) => {
                fields.insert(key.to_owned(), field);
            }
            None => section.blame(key, "holds a number that JSON cannot represent"),
        }
    }
    fields
}

fn json(v: &Value) -> Option<serde_json::Value> {
    Some(match v {
        Value::String(s) | Value::Env(s) => s.as_str().into(),
        Value::Integer(n) => (*n).into(),
        Value::OtherNumber(text) => serde_json::Number::from_f64(text.replace('_', "").parse().ok()?)?.into(),
        Value::Bool(b) => (*b).into(),
        Value::Datetime(d) => d.to_string().into(),
        Value::List(list) => list.iter().map(|node| json(&node.value)).collect::<Option<Vec<_>>>()?.into(),
        Value::Table(table) => {
            let field = |(key, node): (&String, &raw::Node)| Some((key.clone(), json(&node.value)?));
            table.iter().map(field).collect::<Option<serde_json::Map<_, _>>>()?.into()
        }
    })
}

//! The entry of one user in `users.toml`.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;

use rotogate_core::clock::Timestamp;
use rotogate_core::directory::{PasswordMark, User, is_valid_subject, login_state};
use rotogate_core::password::{Accepted, CostClass, PasswordHash, SecretHash};
use rotogate_core::session::Scope;
use rotogate_core::token::claims::CLIENT_PREFIX;
use rotogate_core::token::verify::is_subject;
use rotogate_kit::config::{Node, Section, Value, printable, value};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserEntry {
    pub(super) username: Box<str>,
    /// The user. A rehash of the same password does not change `password_mark`.
    pub(super) user: User,
    pub(super) hash: SecretHash,
    pub(super) class: CostClass,
}

impl UserEntry {
    /// `None` if a required key is missing.
    pub(super) fn read(section: &Section<'_>, accepted: &Accepted) -> Option<Self> {
        let subject = section.require("subject", "the sub of the user's tokens", subject);
        let username = section.require("username", "the name to log in with", name);
        let account = section.get("account", account);
        let password =
            section.require("password", "a password hash; see rotogate user passwd and import", |v| hash(v, accepted));
        let active = section.get("active", value::boolean).unwrap_or(true);
        let valid_from = section.get("sessions_valid_from", moment).unwrap_or(Timestamp::ZERO);
        let scopes = section.list("scopes", value::scope).unwrap_or_default();
        let scopes = Scope::parse(&scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")).unwrap_or_default();
        let profile = profile(&section.section("profile"));
        let rehashed = rehashed(&section.section("rehashed"));
        section.finish();
        let (hash, class) = password?;
        let own = PasswordMark::new(hash.expose().as_bytes());
        // Ignore the stored mark if an operator has edited the hash.
        let mark = rehashed.filter(|(of, _)| *of == own).map_or(own, |(_, mark)| mark);
        let mut user = User::new(subject?).active(active).sessions_valid_from(valid_from).password_mark(mark);
        (user.account, user.scopes, user.profile) = (account, scopes, profile);
        Some(Self { username: username?, user, hash, class })
    }

    pub(super) fn name(&self) -> (Option<&str>, &str) {
        (self.user.account.as_deref(), &self.username)
    }

    /// A digest of the user. It includes field lengths, because fields have no terminators.
    pub(super) fn digest(&self) -> [u8; 32] {
        let user = &self.user;
        let account = user.account.as_deref().unwrap_or_default();
        let parts = [&*user.subject, &*self.username, account, &user.scopes.to_string()].map(str::to_owned);
        let text = format!("{parts:?} {} {:?}", user.account.is_some(), user.profile);
        let state = PasswordMark::new(&login_state(user));
        PasswordMark::new(&[text.as_bytes(), &state.to_bytes()].concat()).to_bytes()
    }
}

fn subject(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_subject(s) => Ok(s.as_str().into()),
        Value::String(s) if is_subject(s) => Err(format!(
            "\"{}\" begins with \"{CLIENT_PREFIX}\", which is reserved for subjects of clients",
            printable(s)
        )),
        other => Err(format!("expected 1 to 256 visible ASCII characters, found {}", other.describe())),
    }
}

fn name(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_name(s) => Ok(s.as_str().into()),
        other => Err(format!(
            "expected a string of at most 256 bytes without control characters, found {}",
            other.describe()
        )),
    }
}

fn account(v: &Value) -> Result<Box<str>, String> {
    match v {
        Value::String(s) if is_valid_account(s) => Ok(s.as_str().into()),
        other => Err(format!("expected 1 to 256 visible ASCII characters other than /, found {}", other.describe())),
    }
}

pub(super) fn is_valid_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.contains(char::is_control)
}

pub(super) fn is_valid_account(account: &str) -> bool {
    is_subject(account) && !account.contains('/')
}

/// Errors never repeat the value, because it may be a password.
pub(super) fn hash(v: &Value, accepted: &Accepted) -> Result<(SecretHash, CostClass), String> {
    match v {
        Value::String(s) => match PasswordHash::parse(s, accepted) {
            Ok(hash) => Ok((SecretHash::new(s.clone()), hash.class())),
            Err(e) => Err(format!("is {e}")),
        },
        _ => Err("expected a password hash, such as \"$argon2id$v=19$…\"".to_owned()),
    }
}

fn rehashed(section: &Section<'_>) -> Option<(PasswordMark, PasswordMark)> {
    let (hash, mark) = (section.get("hash", mark), section.get("mark", mark));
    section.finish();
    hash.zip(mark)
}

fn mark(v: &Value) -> Result<PasswordMark, String> {
    let text = match v {
        Value::String(s) => MARK.decode(s).ok(),
        _ => None,
    };
    let bytes = text.and_then(|bytes| bytes.try_into().ok());
    bytes.map(PasswordMark::from_bytes).ok_or_else(|| "was not written by the gate; remove `rehashed`".to_owned())
}

pub(super) const MARK: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;

fn moment(v: &Value) -> Result<Timestamp, String> {
    let parsed = match v {
        Value::Integer(ms) => u64::try_from(*ms).ok().map(Timestamp::from_millis),
        Value::Datetime(d) => instant(&d.to_string()),
        _ => None,
    };
    parsed.ok_or_else(|| {
        format!(
            "expected a time in UTC such as 2026-01-31T12:00:00Z, or milliseconds since 1970, found {}",
            v.describe()
        )
    })
}

/// Parses RFC 3339 in UTC, and rounds up to milliseconds.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from((since + Duration::from_nanos(999_999)).as_millis()).ok().map(Timestamp::from_millis)
}

fn profile(section: &Section<'_>) -> BTreeMap<String, serde_json::Value> {
    let mut fields = BTreeMap::new();
    for (key, v) in section.free() {
        match json(v) {
            Some(field) => {
                fields.insert(key.to_owned(), field);
            }
            None => section.blame(key, "contains a number that JSON cannot represent"),
        }
    }
    fields
}

/// Returns `None` if JSON cannot represent a number.
fn json(v: &Value) -> Option<serde_json::Value> {
    Some(match v {
        Value::String(s) | Value::Env(s) => s.as_str().into(),
        Value::Integer(n) => (*n).into(),
        Value::OtherNumber(text) => serde_json::Number::from_f64(text.replace('_', "").parse().ok()?)?.into(),
        Value::Bool(b) => (*b).into(),
        Value::Datetime(d) => d.to_string().into(),
        Value::List(list) => list.iter().map(|node| json(&node.value)).collect::<Option<Vec<_>>>()?.into(),
        Value::Table(table) => {
            let field = |(key, node): (&String, &Node)| Some((key.clone(), json(&node.value)?));
            table.iter().map(field).collect::<Option<serde_json::Map<_, _>>>()?.into()
        }
    })
}

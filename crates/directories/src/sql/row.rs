use serde_json::Value as Json;

use super::super::{Cause, HashedUser, SourceError};
use super::Columns;
use rotogate_core::claim::OwnClaims;
use rotogate_core::clock::Timestamp;
use rotogate_core::directory::{PasswordMark, User};
use rotogate_core::password::SecretHash;
use rotogate_core::session::Scope;

pub(super) const FIXED: [&str; 6] = ["subject", "password_hash", "active", "scopes", "valid_from", "account"];

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
    Time(Timestamp),
    List(Vec<String>),
    Json(Json),
}

impl Field {
    fn json(self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => value.into(),
            Self::Integer(value) => value.into(),
            Self::Text(value) => value.into(),
            Self::Time(value) => value.as_secs().into(),
            Self::List(value) => value.into(),
            Self::Json(value) => value,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Text(_) => "a text",
            Self::Time(_) => "a time",
            Self::List(_) => "a list",
            Self::Json(_) => "JSON",
        }
    }
}

/// The columns of a row. `Debug` hides the values, which may include a password hash.
pub(super) struct Row(pub(super) Vec<(String, Field)>);

fn wrong(column: &str, expected: &str, found: &Field) -> SourceError {
    SourceError::new(Cause::Entry, format!("column {column}: expected {expected}, found {}", found.kind()))
}

impl Row {
    fn take(&mut self, column: &str) -> Option<Field> {
        let at = self.0.iter().position(|(name, _)| name.eq_ignore_ascii_case(column))?;
        match self.0.swap_remove(at).1 {
            Field::Null => None,
            field => Some(field),
        }
    }

    fn text(&mut self, column: &str) -> Result<Option<String>, SourceError> {
        match self.take(column) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(Field::Integer(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(wrong(column, "a string or an integer", &other)),
        }
    }

    pub(super) fn user(mut self, columns: &Columns) -> Result<(User, Option<SecretHash>), SourceError> {
        columns.check(&self.0.iter().map(|(name, _)| name.as_str()))?;
        let Some(subject) = self.text("subject")? else {
            return Err(SourceError::new(Cause::Entry, "the row has no column subject; write … AS subject"));
        };
        let active = match self.take("active") {
            None => true,
            Some(Field::Bool(active)) => active,
            Some(Field::Integer(number @ 0..=1)) => number == 1,
            Some(other) => return Err(wrong("active", "a boolean, 0 or 1", &other)),
        };
        let scopes = self.take("scopes").map_or_else(|| Ok(Scope::default()), |field| scopes(&field))?;
        let valid_from = self.take("valid_from").map_or(Ok(Timestamp::ZERO), |field| moment(&field))?;
        let hash = self.text("password_hash")?.map(SecretHash::new);
        let mut user = User::new(subject).active(active).scopes(scopes).sessions_valid_from(valid_from);
        if let Some(account) = self.text("account")? {
            user = user.account(account);
        }
        let mut claims = OwnClaims::new();
        for column in &columns.claims {
            let value = self.named(column)?;
            let insert = value.map_or(Ok(()), |value| claims.insert(column.as_str(), value));
            insert.map_err(|error| SourceError::new(Cause::Entry, error.to_string()))?;
        }
        for column in &columns.profile {
            if let Some(value) = self.named(column)? {
                user = user.field(column.as_str(), value);
            }
        }
        Ok((user.claims(claims), hash))
    }

    /// Returns the value of a configured column, or `None` for NULL.
    fn named(&self, column: &str) -> Result<Option<Json>, SourceError> {
        match self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)) {
            Some((_, Field::Null)) => Ok(None),
            Some((_, field)) => Ok(Some(field.clone().json())),
            None => Err(SourceError::new(Cause::Entry, format!("the row lacks the configured column {column}"))),
        }
    }

    pub(super) fn hashed_user(self, columns: &Columns) -> Result<Option<HashedUser>, SourceError> {
        let is_there = self.0.iter().any(|(name, _)| name.eq_ignore_ascii_case("password_hash"));
        if !is_there {
            let message = "the row has no column password_hash; write … AS password_hash";
            return Err(SourceError::new(Cause::Entry, message));
        }
        let (user, hash) = self.user(columns)?;
        // A user without a hash cannot log in with a password.
        Ok(hash.map(|hash| HashedUser { user, hash, is_marked: columns.is_marked }))
    }

    /// Sets the password mark if the statement returns the hash.
    pub(super) fn looked_up(self, columns: &Columns) -> Result<User, SourceError> {
        let (user, hash) = self.user(columns)?;
        Ok(match hash.filter(|_| columns.is_marked) {
            Some(hash) => user.password_mark(PasswordMark::new(hash.expose().as_bytes())),
            None => user,
        })
    }
}

/// Accepts a list, a JSON array, or a string separated by spaces.
fn scopes(field: &Field) -> Result<Scope, SourceError> {
    let list = match field {
        Field::List(list) => Some(list.join(" ")),
        Field::Text(text) if text.trim_start().starts_with('[') => {
            serde_json::from_str::<Vec<String>>(text).ok().map(|list| list.join(" "))
        }
        Field::Text(text) => Some(text.clone()),
        Field::Json(json) => serde_json::from_value::<Vec<String>>(json.clone()).ok().map(|list| list.join(" ")),
        Field::Null | Field::Bool(_) | Field::Integer(_) | Field::Time(_) => None,
    };
    let scope = list.and_then(|list| Scope::parse(list.trim()).ok());
    scope.ok_or_else(|| wrong("scopes", "scopes as a list, a JSON array or a string with spaces", field))
}

/// Accepts a timestamp, integer seconds since 1970, or RFC 3339, in UTC.
fn moment(field: &Field) -> Result<Timestamp, SourceError> {
    let found = match field {
        Field::Time(time) => Some(*time),
        Field::Integer(seconds) => u64::try_from(*seconds).ok().map(Timestamp::from_secs),
        Field::Text(text) => humantime::parse_rfc3339_weak(text).ok().and_then(of_system_time),
        Field::Null | Field::Bool(_) | Field::List(_) | Field::Json(_) => None,
    };
    found.ok_or_else(|| wrong("valid_from", "a time, seconds since 1970, or text such as 2026-01-31T12:00:00Z", field))
}

/// Rounds up to the millisecond, so that no older session stays valid.
pub(super) fn of_system_time(time: std::time::SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros().div_ceil(1000)).ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Columns {
        Columns { claims: vec!["roles".to_owned()], profile: vec!["email".to_owned()], is_marked: true }
    }

    fn row(fields: &[(&str, Field)]) -> Row {
        let extra = [("roles", Field::Null), ("email", Field::Null)];
        let all = fields.iter().cloned().chain(extra);
        let mut row: Vec<(String, Field)> = Vec::new();
        for (name, field) in all {
            if !row.iter().any(|(there, _)| there == name) {
                row.push((name.to_owned(), field));
            }
        }
        Row(row)
    }

    fn text(text: &str) -> Field {
        Field::Text(text.to_owned())
    }

    #[test]
    fn columns_are_read_by_name_whatever_their_type() {
        let hash = "$argon2id$…";
        let user = row(&[
            ("subject", Field::Integer(17)),
            ("Active", Field::Integer(1)),
            ("scopes", Field::List(vec!["read".to_owned(), "write".to_owned()])),
            ("valid_from", Field::Integer(100)),
            ("account", text("acme")),
            ("password_hash", text(hash)),
            ("roles", Field::Json(serde_json::json!(["boss"]))),
            ("email", text("a@x")),
            ("shoe_size", Field::Integer(38)),
        ])
        .looked_up(&columns())
        .unwrap();
        let mut claims = OwnClaims::new();
        claims.insert("roles", ["boss"]).unwrap();
        let expected = User::new("17")
            .account("acme")
            .scopes(Scope::parse("read write").unwrap())
            .sessions_valid_from(Timestamp::from_secs(100))
            .password_mark(PasswordMark::new(hash.as_bytes()))
            .claims(claims)
            .field("email", "a@x");
        assert_eq!(user, expected, "an unlisted column is not a claim");
    }

    #[test]
    fn scopes_and_times_have_several_forms() {
        for field in
            [text("read write"), text(r#"["read","write"]"#), Field::Json(serde_json::json!(["read", "write"]))]
        {
            assert_eq!(scopes(&field).unwrap(), Scope::parse("read write").unwrap());
        }
        let expected = Timestamp::from_secs(1_769_860_800);
        for field in [Field::Integer(1_769_860_800), text("2026-01-31T12:00:00Z"), text("2026-01-31 12:00:00")] {
            assert_eq!(moment(&field).unwrap(), expected);
        }
    }

    #[test]
    fn i29_a_row_that_cannot_be_right_is_a_fault() {
        for fields in [
            vec![("name", text("ada"))],
            vec![("subject", Field::Null)],
            vec![("subject", Field::Bool(true))],
            vec![("subject", text("u")), ("active", Field::Integer(2))],
            vec![("subject", text("u")), ("active", text("yes"))],
            vec![("subject", text("u")), ("scopes", Field::Integer(1))],
            vec![("subject", text("u")), ("scopes", text("[1]"))],
            vec![("subject", text("u")), ("valid_from", text("yesterday"))],
            vec![("subject", text("u")), ("valid_from", Field::Integer(-1))],
            vec![("subject", text("u")), ("roles", text(&"x".repeat(3000)))],
        ] {
            let shown = format!("{fields:?}");
            assert_eq!(row(&fields).looked_up(&columns()).unwrap_err().cause, Cause::Entry, "{shown}");
        }
        let listed = Columns { claims: vec!["tenant".to_owned()], ..Columns::default() };
        assert!(row(&[("subject", text("u"))]).looked_up(&listed).is_err(), "a listed column is missing");
        assert!(row(&[("subject", text("u"))]).hashed_user(&Columns::default()).is_err(), "no hash at a login");
    }

    #[test]
    fn i29_two_columns_of_one_name_with_a_meaning_are_a_fault() {
        let good = [("subject", text("u")), ("active", Field::Bool(true)), ("password_hash", text("$argon2id$"))];
        for name in FIXED.into_iter().chain(["roles", "email"]) {
            for again in [name.to_owned(), name.to_uppercase()] {
                let mut row = row(&good);
                row.0.retain(|(there, _)| there != name);
                row.0.extend([(name.to_owned(), Field::Null), (again.clone(), Field::Bool(false))]);
                let fault = row.hashed_user(&columns()).err().expect(&again);
                assert!(fault.cause == Cause::Entry && fault.to_string().contains("several columns"), "{fault}");
            }
        }
        let twice = [("shoe_size", text("38")), ("SHOE_SIZE", text("39"))];
        assert!(row(&[&good[..], &twice].concat()).hashed_user(&columns()).unwrap().is_some(), "without a meaning");
    }
}

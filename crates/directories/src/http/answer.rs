//! Parsing of a login hook's response. Any response of the wrong form is an error, not a decision about the user
//! (requirement I24). Error messages do not quote the response.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::{Cause, SourceError};
use rotogate_core::claim::OwnClaims;
use rotogate_core::clock::Timestamp;
use rotogate_core::directory::{NamedUsers, User, is_valid_subject};
use rotogate_core::session::{Scope, VouchedBy};
use rotogate_core::strict_json;
use rotogate_core::token::verify::is_name;

/// The maximum `retry_after` of a hook, in seconds.
const MAX_RETRY_AFTER: u64 = 86_400;

fn wrong(message: &str) -> SourceError {
    SourceError::new(Cause::Entry, message)
}

/// Returns `None` if the user is inactive.
pub(super) fn read(body: &[u8]) -> Result<Option<User>, SourceError> {
    let object = strict_json::object(body).map_err(|what| wrong(&format!("the response is {what}")))?;
    let mut answer = Answer(object);
    match answer.0.remove("active") {
        Some(Value::Bool(true)) => answer.user().map(Some),
        Some(Value::Bool(false)) => answer.inactive(),
        _ => Err(wrong("active: expected true or false")),
    }
}

/// Parses the response to a lookup by name: one user, no user, or `"several": true`.
pub(super) fn read_named(body: &[u8]) -> Result<NamedUsers, SourceError> {
    let object = strict_json::object(body).map_err(|what| wrong(&format!("the response is {what}")))?;
    match object.get("several") {
        Some(Value::Bool(true)) if object.get("active") == Some(&Value::Bool(false)) => Ok(NamedUsers::Several),
        None | Some(Value::Null | Value::Bool(false)) => {
            Ok(read(body)?.map_or(NamedUsers::None, |user| NamedUsers::One(Box::new(user))))
        }
        Some(_) => Err(wrong("several: expected true, together with active = false")),
    }
}

/// A member that is `null` counts as absent.
struct Answer(Map<String, Value>);

impl Answer {
    fn take(&mut self, member: &str) -> Option<Value> {
        self.0.remove(member).filter(|value| !value.is_null())
    }

    fn text(&mut self, member: &str) -> Result<Option<String>, SourceError> {
        match self.take(member) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(&format!("{member}: expected a string"))),
        }
    }

    fn object(&mut self, member: &str) -> Result<Map<String, Value>, SourceError> {
        match self.take(member) {
            None => Ok(Map::new()),
            Some(Value::Object(object)) => Ok(object),
            Some(_) => Err(wrong(&format!("{member}: expected an object"))),
        }
    }

    fn inactive(&mut self) -> Result<Option<User>, SourceError> {
        match self.take("retry_after") {
            None => Ok(None),
            Some(seconds) => match seconds.as_u64() {
                Some(seconds) => {
                    let wait = Duration::from_secs(seconds.clamp(1, MAX_RETRY_AFTER));
                    Err(SourceError::new(Cause::Later(wait), "the hook asks to retry later"))
                }
                None => Err(wrong("retry_after: expected whole seconds")),
            },
        }
    }

    fn user(&mut self) -> Result<User, SourceError> {
        let subject = self.text("subject")?.ok_or_else(|| wrong("subject: missing; expected the sub of the user"))?;
        if !is_valid_subject(&subject) {
            let expected = "subject: expected 1 to 256 visible ASCII characters, which do not begin with client:";
            return Err(wrong(expected));
        }
        let mut user = User::new(subject).scopes(self.scopes()?).sessions_valid_from(self.valid_from()?);
        if let Some(account) = self.text("account")? {
            if !is_name(&account) {
                return Err(wrong("account: expected 1 to 256 bytes without control characters"));
            }
            user = user.account(account);
        }
        let mut claims = OwnClaims::new();
        for (name, value) in self.object("claims")? {
            claims.insert(name, value).map_err(|error| wrong(&format!("claims: {error}")))?;
        }
        user = user.claims(claims);
        if let Some(by) = self.vouched_by()? {
            user = user.vouched_by(by);
        }
        for (name, value) in self.object("profile")? {
            user = user.field(name, value);
        }
        Ok(user)
    }

    fn vouched_by(&mut self) -> Result<Option<VouchedBy>, SourceError> {
        let Some(by) = self.take("vouched_by") else { return Ok(None) };
        let read: Option<VouchedBy> = serde_json::from_value(by).ok();
        let expected =
            "vouched_by: expected `issuer`, `subject` and, optionally, `session`, each a string of 1 to 256 bytes";
        read.filter(VouchedBy::is_valid).map(Some).ok_or_else(|| wrong(expected))
    }

    fn scopes(&mut self) -> Result<Scope, SourceError> {
        let expected = || wrong("scopes: expected a list of scopes");
        let list = match self.take("scopes") {
            None => return Ok(Scope::default()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(expected()),
        };
        let scope = |value: Value| match value {
            Value::String(text) if !text.is_empty() && !text.contains(' ') => Some(text),
            _ => None,
        };
        let list: Option<Vec<String>> = list.into_iter().map(scope).collect();
        list.and_then(|list| Scope::parse(&list.join(" ")).ok()).ok_or_else(expected)
    }

    /// Returns `valid_from`, rounded up to the millisecond.
    fn valid_from(&mut self) -> Result<Timestamp, SourceError> {
        let Some(text) = self.text("valid_from")? else { return Ok(Timestamp::ZERO) };
        let time = humantime::parse_rfc3339(&text).ok();
        let since = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let millis = since.and_then(|since| u64::try_from(since.as_micros().div_ceil(1000)).ok());
        let expected = || wrong("valid_from: expected a time in UTC such as 2026-01-31T12:00:00Z");
        millis.map(Timestamp::from_millis).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> SourceError {
        match read(body.as_bytes()) {
            Err(error) => error,
            Ok(found) => panic!("{body}: {found:?}"),
        }
    }

    #[test]
    fn i24_every_member_of_an_active_user_is_read_and_unknown_ones_are_ignored() {
        let body = r#"{"active":true,"subject":"u-17","account":"acme","scopes":["read","write"],
            "claims":{"roles":["boss"]},"profile":{"email":"a@x"},"valid_from":"2026-11-20T20:00:00.0001Z",
            "shoe_size":38}"#;
        let mut claims = OwnClaims::new();
        claims.insert("roles", ["boss"]).unwrap();
        let expected = User::new("u-17")
            .account("acme")
            .scopes(Scope::parse("read write").unwrap())
            .claims(claims)
            .field("email", "a@x")
            .sessions_valid_from(Timestamp::from_millis(1_795_204_800_001));
        assert_eq!(read(body.as_bytes()).unwrap(), Some(expected));
        let least = r#"{"active":true,"subject":"u","account":null,"scopes":null,"claims":null,"valid_from":null}"#;
        assert_eq!(read(least.as_bytes()).unwrap(), Some(User::new("u")), "null is absent");
        assert_eq!(read(br#"{"active":false,"subject":7}"#).unwrap(), None, "fields of inactive users are not read");
    }

    #[test]
    fn i24_active_and_a_subject_are_the_only_verdict() {
        for body in [
            "",
            "<html></html>",
            "true",
            "[]",
            "{}",
            r#"{"active":"true","subject":"u"}"#,
            r#"{"active":1,"subject":"u"}"#,
            r#"{"active":null,"subject":"u"}"#,
            r#"{"Active":true,"subject":"u"}"#,
            r#"{"active":true}"#,
            r#"{"active":true,"subject":null}"#,
            r#"{"active":true,"subject":17}"#,
            r#"{"active":true,"subject":""}"#,
            r#"{"active":true,"subject":"client:web"}"#,
            r#"{"active":true,"subject":"a b"}"#,
            r#"{"active":true,"subject":"u","subject":"v"}"#,
            r#"{"active":true,"active":false,"subject":"u"}"#,
            r#"{"active":false,"active":true,"subject":"u"}"#,
            r#"{"active":true,"subject":"u"} "#.trim_end_matches(' ').repeat(2).as_str(),
            r#"{"active":true,"subject":"u","account":1}"#,
            r#"{"active":true,"subject":"u","account":""}"#,
            r#"{"active":true,"subject":"u","scopes":"read"}"#,
            r#"{"active":true,"subject":"u","scopes":["read write"]}"#,
            r#"{"active":true,"subject":"u","scopes":[1]}"#,
            r#"{"active":true,"subject":"u","claims":[]}"#,
            r#"{"active":true,"subject":"u","claims":{"iss":"x"}}"#,
            r#"{"active":true,"subject":"u","profile":"x"}"#,
            r#"{"active":true,"subject":"u","valid_from":1}"#,
            r#"{"active":true,"subject":"u","valid_from":"2026-11-20"}"#,
            r#"{"active":true,"subject":"u","valid_from":"1950-11-20T20:00:00Z"}"#,
            r#"{"active":false,"retry_after":"60"}"#,
            r#"{"active":false,"retry_after":-1}"#,
            r#"{"active":false,"retry_after":1.5}"#,
        ] {
            assert_eq!(fault(body).cause, Cause::Entry, "{body}");
        }
        let deep = format!(r#"{{"active":true,"subject":"u","x":{}{}}}"#, "[".repeat(20), "]".repeat(20));
        assert_eq!(fault(&deep).cause, Cause::Entry);
        assert_eq!(fault("\u{feff}{\"active\":true}").cause, Cause::Entry);
    }

    #[test]
    fn i24_no_message_repeats_the_answer() {
        for body in [
            r#"{"active":"hunter2","subject":"u"}"#,
            r#"{"active":true,"subject":"hunter2 "}"#,
            r#"{"active":true,"subject":"u","scopes":["hunter2 "]}"#,
            r#"{"active":true,"subject":"u","valid_from":"hunter2"}"#,
            "hunter2",
        ] {
            assert!(!fault(body).to_string().contains("hunter2"), "{body}");
        }
    }

    #[test]
    fn i24_retry_after_puts_the_answer_off() {
        for (seconds, expected) in [(0, 1), (60, 60), (1_000_000_000, 86_400)] {
            let error = fault(&format!(r#"{{"active":false,"retry_after":{seconds}}}"#));
            assert_eq!(error.cause, Cause::Later(Duration::from_secs(expected)));
        }
    }
}

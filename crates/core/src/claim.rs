//! Claims besides the registered ones.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::invalid::InvalidValue;

pub mod condition;
mod path;
mod role;

pub use path::ClaimPath;
pub use role::Role;

/// The maximum size of a token's own claims, in bytes of JSON with escaped non-ASCII characters.
pub const MAX_CLAIMS: usize = 2048;
const MAX_NAME: usize = 128;
/// A token may have 16 levels of nesting, and the payload itself is the first level.
const MAX_DEPTH: usize = 15;
/// The claims that the gate itself sets (RFC 7519 §4.1, RFC 7800 §3.1, RFC 8693 §4.1, RFC 9068 §2.2). For clients of
/// `kuzzle`, `_id` repeats `sub`.
const RESERVED: [&str; 22] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "sid",
    "gen",
    "account",
    "client_id",
    "scope",
    "typ",
    "cnf",
    "_id",
    "origin_iss",
    "origin_sub",
    "origin_sid",
    "origin_jti",
    "origin_iat",
    "origin_client",
    "act",
];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("the claim {0:?} is reserved, because the gate sets it")]
    Reserved(String),
    #[error("the claim name {0:?} must have 1 to {MAX_NAME} bytes and no control characters")]
    Name(String),
    #[error("the value of the claim {0:?} cannot be written as JSON and read back unchanged")]
    Value(String),
    #[error("the claims together have more than {MAX_CLAIMS} bytes")]
    TooLong,
}

/// Claims for the gate's own tokens, at most 2 KiB together.
///
/// ```
/// use rotogate::claim::OwnClaims;
///
/// let mut claims = OwnClaims::new();
/// claims.insert("tenant", "acme")?;
/// assert_eq!(claims.get("tenant"), Some(&"acme".into()));
/// # Ok::<(), rotogate::InvalidValue>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
// Requirement I42.
pub struct OwnClaims(Map<String, Value>);

impl OwnClaims {
    /// The claim with the roles of our own users: a string or a list of strings.
    pub const ROLES: &str = "roles";

    /// Creates an empty set of claims.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a claim.
    ///
    /// # Errors
    /// The gate sets the claim itself, the name or value is invalid, or the claims are too long together. The claims
    /// are unchanged after an error.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Serialize) -> Result<(), InvalidValue> {
        self.try_insert(name, value).map_err(|error| InvalidValue::new(error.to_string()))
    }

    pub(crate) fn try_insert(&mut self, name: impl Into<String>, value: impl Serialize) -> Result<(), ClaimError> {
        let name = name.into();
        if RESERVED.contains(&name.as_str()) {
            return Err(ClaimError::Reserved(name));
        }
        if !(1..=MAX_NAME).contains(&name.len()) || name.chars().any(char::is_control) {
            return Err(ClaimError::Name(name));
        }
        let Some(value) = serde_json::to_value(value).ok().and_then(|value| stable(&value)) else {
            return Err(ClaimError::Value(name));
        };
        let before = self.0.insert(name.clone(), value);
        if escaped_length(&self.text()) <= MAX_CLAIMS {
            return Ok(());
        }
        match before {
            Some(before) => self.0.insert(name, before),
            None => self.0.remove(&name),
        };
        Err(ClaimError::TooLong)
    }

    /// The value of a claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All claims, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// Returns whether there are no claims.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn text(&self) -> String {
        if self.is_empty() { String::new() } else { serde_json::to_string(&self.0).unwrap_or_default() }
    }

    fn of_text(text: &str) -> Result<Self, ClaimError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let map = serde_json::from_str(text).map_err(|_| ClaimError::Value(String::new()))?;
        Self::of_map(map)
    }

    fn of_map(map: Map<String, Value>) -> Result<Self, ClaimError> {
        let mut claims = Self::default();
        map.into_iter().try_for_each(|(name, value)| claims.try_insert(name, value)).map(|()| claims)
    }
}

/// Returns the value after a JSON round trip, or `None` if it is nested too deeply or a second round trip changes it. A
/// replayed token must have the same bytes as the first one (requirement R3).
fn stable(value: &Value) -> Option<Value> {
    let again = |value: &Value| serde_json::from_str::<Value>(&serde_json::to_string(value).ok()?).ok();
    let once = again(value)?;
    (depth(&once) <= MAX_DEPTH && again(&once)? == once).then_some(once)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The length of the text after its non-ASCII characters are escaped.
fn escaped_length(text: &str) -> usize {
    text.chars().map(|c| if c.is_ascii() { 1 } else { 6 * c.len_utf16() }).sum()
}

/// In binary formats, claims are JSON text, because the store's format cannot represent every value.
impl Serialize for OwnClaims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        let text = self.text();
        if text.is_empty() && !self.is_empty() {
            return Err(S::Error::custom("the claims cannot be written"));
        }
        text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OwnClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Self::of_map(Map::deserialize(deserializer)?).map_err(D::Error::custom);
        }
        Self::of_text(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn i42_reserved_names_and_too_much_are_refused_and_change_nothing() {
        let mut claims = OwnClaims::new();
        for name in RESERVED {
            assert_eq!(claims.try_insert(name, 1), Err(ClaimError::Reserved(name.to_owned())));
        }
        for name in ["", "a\nb", &"x".repeat(MAX_NAME + 1)] {
            assert_eq!(claims.try_insert(name, 1), Err(ClaimError::Name(name.to_owned())));
        }
        claims.try_insert("a", "é").unwrap();
        assert_eq!(claims.try_insert("b", "x".repeat(MAX_CLAIMS)), Err(ClaimError::TooLong));
        assert_eq!(claims.try_insert("a", "é".repeat(400)), Err(ClaimError::TooLong), "six bytes each");
        assert_eq!(claims.get("a"), Some(&json!("é")));
        assert_eq!(claims.iter().count(), 1);
        let deep = (0..MAX_DEPTH + 1).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(claims.try_insert("deep", deep), Err(ClaimError::Value("deep".to_owned())));
        assert!(claims.try_insert("not", f64::NAN).is_ok(), "JSON has null for it");
    }

    #[test]
    fn claims_read_back_the_same_in_both_kinds_of_formats() {
        let mut claims = OwnClaims::new();
        claims.try_insert("roles", ["a", "b"]).unwrap();
        claims.try_insert("n", 0.1 + 0.2).unwrap();
        let json = serde_json::to_string(&claims).unwrap();
        assert_eq!(serde_json::from_str::<OwnClaims>(&json).unwrap(), claims);
        assert_eq!(OwnClaims::of_text(&claims.text()).unwrap(), claims);
        assert_eq!(OwnClaims::of_text("").unwrap(), OwnClaims::new());
        assert!(OwnClaims::of_text(r#"{"sub":"root"}"#).is_err());
        assert!(OwnClaims::of_text("x").is_err());
    }
}

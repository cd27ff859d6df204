//! Paths to a claim in a token.

use std::fmt;

use serde_json::{Map, Value};

use crate::invalid::InvalidValue;

const MAX_PATH: usize = 512;
/// Accepted tokens do not have deeper claims (J10).
const MAX_SEGMENTS: usize = 15;
/// Characters that must be quoted, so that URLs and other path languages are rejected.
const QUOTED_ONLY: &[char] =
    &['"', '\'', '{', '}', '[', ']', '(', ')', '*', '?', '$', '@', '#', '|', '\\', ':', '/', ','];

/// The path of a claim in a token. Dots separate the segments, as in `realm_access.roles`. A segment with a special
/// character must be quoted, as in `resource_access."my.app".roles`. A trailing `{}` selects the names of an object's
/// members. Wildcards and expressions are not supported.
///
/// ```
/// use rotogate::claim::ClaimPath;
///
/// assert!(ClaimPath::parse("realm_access.roles").is_ok());
/// assert!(ClaimPath::parse("\"urn:zitadel:iam:org:project:roles\"{}").is_ok());
/// assert!(ClaimPath::parse("https://example.com/roles").is_err());
/// assert!(ClaimPath::parse("groups[0]").is_err());
/// ```
#[derive(Clone, Debug)]
pub struct ClaimPath {
    text: Box<str>,
    segments: Box<[Box<str>]>,
    of_names: bool,
}

impl ClaimPath {
    /// Parses a path.
    ///
    /// # Errors
    /// The path is invalid.
    pub fn parse(path: &str) -> Result<Self, InvalidValue> {
        let begin = || path.chars().take(MAX_PATH).collect::<String>();
        let wrong = |why| InvalidValue::new(format!("the claim path {:?}: {why}", begin()));
        if path.len() > MAX_PATH {
            return Err(wrong("it is longer than 512 bytes"));
        }
        let (mut rest, of_names) = path.strip_suffix("{}").map_or((path, false), |rest| (rest, true));
        let mut segments = Vec::new();
        loop {
            let (segment, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or_else(|| wrong("a quotation mark is not closed"))?,
                None => {
                    let (segment, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                    if segment.contains(|c: char| QUOTED_ONLY.contains(&c) || c.is_whitespace()) {
                        return Err(wrong(
                            "use dots to separate the segments, and put a segment with a dot, a colon, a slash or \
                             another special character in quotation marks; wildcards are not supported",
                        ));
                    }
                    (segment, after)
                }
            };
            if segment.is_empty() || segment.contains(char::is_control) {
                return Err(wrong("a segment must have at least one character and no control characters"));
            }
            segments.push(segment.into());
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return Err(wrong("only a dot may follow a quoted segment")),
            }
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(wrong("it has more than 15 segments, but a token is never nested that deeply"));
        }
        Ok(Self { text: path.into(), segments: segments.into(), of_names })
    }

    pub(crate) fn is_claim(&self, name: &str) -> bool {
        matches!(&*self.segments, [only] if **only == *name && !self.of_names)
    }

    /// Parses several paths.
    ///
    /// # Errors
    /// The error of the first path that cannot be parsed.
    pub fn list<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>, InvalidValue> {
        paths.into_iter().map(Self::parse).collect()
    }

    /// The segments of the path, in order.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> {
        self.segments.iter().map(|segment| &**segment)
    }

    /// Whether the path ends in `{}`.
    pub const fn is_of_names(&self) -> bool {
        self.of_names
    }

    /// The value at this path.
    pub fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.segments.split_first()?;
        rest.iter().try_fold(claims.get(&**first)?, |value, segment| value.get(&**segment))
    }

    /// Returns whether the value at this path is `wanted`, or contains it as an element.
    pub fn holds(&self, claims: &Map<String, Value>, wanted: &Value) -> bool {
        match self.find(claims) {
            Some(Value::Object(members)) if self.of_names => {
                wanted.as_str().is_some_and(|name| members.contains_key(name))
            }
            Some(Value::Array(values)) if !self.of_names => {
                values.contains(wanted) || wanted.as_array() == Some(values)
            }
            Some(value) => !self.of_names && value == wanted,
            None => false,
        }
    }
}

/// Paths are equal if only their quotes differ.
impl PartialEq for ClaimPath {
    fn eq(&self, other: &Self) -> bool {
        (&self.segments, self.of_names) == (&other.segments, other.of_names)
    }
}

impl Eq for ClaimPath {}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_to_a_value_a_list_or_the_names_of_members() {
        let claims = json!({
            "realm_access": {"roles": ["boss"]},
            "https://example.com/roles": ["x"],
            "resource_access": {"my.app": {"roles": ["y"]}},
            "org": {"admin": {"1": "o"}},
            "n": 7,
        });
        let Value::Object(claims) = claims else { panic!() };
        let holds = |path: &str, wanted: Value| ClaimPath::parse(path).unwrap().holds(&claims, &wanted);
        assert!(holds("realm_access.roles", json!("boss")));
        assert!(holds("\"realm_access\".roles", json!("boss")));
        assert!(!holds("realm_access.roles", json!("bos")));
        assert!(holds("realm_access.roles", json!(["boss"])));
        assert!(!holds("realm_access.roles{}", json!("boss")));
        assert!(holds("\"https://example.com/roles\"", json!("x")));
        assert!(holds("resource_access.\"my.app\".roles", json!("y")));
        assert!(holds("org{}", json!("admin")));
        assert!(!holds("org{}", json!("root")));
        assert!(!holds("org", json!("admin")));
        assert!(holds("n", json!(7)) && !holds("n", json!("7")) && !holds("n{}", json!(7)));
        assert!(!holds("nothing.at.all", json!(null)));
    }

    #[test]
    fn what_is_no_path_or_looks_like_an_expression_is_refused_with_a_reason() {
        let long = "a".repeat(MAX_PATH + 1);
        let deep = vec!["a"; MAX_SEGMENTS + 1].join(".");
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "\"a",
            "a\"b",
            "a{}b",
            "\"a\"b",
            "{}",
            "a:b",
            "a/b",
            "*",
            "a.*",
            "groups[0]",
            "$.a",
            "a b",
            " a",
            "a|b",
            "a?",
            "roles,groups",
            "\"\"",
            "\"a\nb\"",
            "a\u{7f}",
            "\"a\\\"b\"",
            &long,
            &deep,
        ] {
            assert!(ClaimPath::parse(bad).is_err(), "{bad}");
        }
        for good in [
            "a",
            "a-b_c",
            "\"*\"",
            "\"a b\"",
            "\"kubernetes.io\".namespace",
            "größe",
            &vec!["a"; MAX_SEGMENTS].join("."),
        ] {
            assert_eq!(ClaimPath::parse(good).unwrap().to_string(), good);
        }
    }
}

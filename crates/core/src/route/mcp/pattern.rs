//! Patterns for MCP calls, such as `calls = ["tools/call:delete_*"]`.

use std::fmt;

use super::uri::is_escaped_once;
use crate::mcp::Call;

pub(super) const READ: &str = "resources/read";

pub(super) const EXACT: usize = usize::MAX;

/// The calls to which a rule applies: `method:name`, `method:prefix*`, `method`, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpCalls {
    /// `None` matches all calls.
    method: Option<Box<str>>,
    name: NamePattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NamePattern {
    Any,
    Exactly(Box<str>),
    Prefix(Box<str>),
}

impl McpCalls {
    /// Parses a pattern.
    ///
    /// # Errors
    /// A message with the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected \"method:name\", \"method:prefix*\", \"method\" or \"*\"";
        if text == "*" {
            return Ok(Self { method: None, name: NamePattern::Any });
        }
        let (method, name) = match text.split_once(':') {
            Some((method, name)) => (method, Some(name)),
            None => (text, None),
        };
        let is_plain = |text: &str| !text.contains('*') && !text.chars().any(char::is_control);
        let name = match name {
            None => NamePattern::Any,
            Some(name) => match name.strip_suffix('*') {
                Some(prefix) if is_plain(prefix) => NamePattern::Prefix(prefix.into()),
                None if is_plain(name) && !name.is_empty() => NamePattern::Exactly(name.into()),
                Some(_) | None => return Err(EXPECTED.to_owned()),
            },
        };
        if method.is_empty() || !is_plain(method) || method.contains(char::is_whitespace) {
            return Err(EXPECTED.to_owned());
        }
        if method == READ
            && let NamePattern::Exactly(uri) | NamePattern::Prefix(uri) = &name
            && !is_escaped_once(uri)
        {
            return Err("expected a URI in which only spaces and non-ASCII characters are percent-encoded, with \
                        upper-case digits"
                .to_owned());
        }
        Ok(Self { method: Some(method.into()), name })
    }

    /// Whether the pattern is `*`.
    pub const fn is_general(&self) -> bool {
        self.method.is_none()
    }

    pub(super) fn names(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method) && self.name != NamePattern::Any
    }

    /// Ranks a match: an exact match is the closest, then the longest prefix, then the method, then `*`.
    // Requirement M8.
    pub(super) fn closeness(&self, call: &Call<'_>) -> Option<usize> {
        let Some(method) = self.method.as_deref() else { return Some(0) };
        if call.method.as_deref() != Some(method) {
            return None;
        }
        match (&self.name, call.name.as_deref()) {
            (NamePattern::Any, _) => Some(1),
            (NamePattern::Exactly(own), Some(name)) if **own == *name => Some(EXACT),
            (NamePattern::Prefix(own), Some(name)) if name.starts_with(&**own) => Some(2 + own.len()),
            _ => None,
        }
    }
}

impl fmt::Display for McpCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.method, &self.name) {
            (None, _) => f.write_str("*"),
            (Some(method), NamePattern::Any) => f.write_str(method),
            (Some(method), NamePattern::Exactly(name)) => write!(f, "{method}:{name}"),
            (Some(method), NamePattern::Prefix(prefix)) => write!(f, "{method}:{prefix}*"),
        }
    }
}

//! The header names and prefixes in the configuration keys `strip` and `keep`.

use http::HeaderName;

use super::{names, products};

/// A header name or, with a trailing `*`, a prefix.
///
/// ```
/// use rotogate_core::headers::HeaderPattern;
///
/// let pattern = HeaderPattern::parse("x-vouch-*")?;
/// assert!(pattern.matches("X-Vouch-User") && !pattern.matches("x-user"));
/// assert!(HeaderPattern::parse("host").is_err(), "it has a meaning of its own");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPattern {
    name: Box<str>,
    folded: Box<str>,
    is_begin: bool,
}

impl std::fmt::Display for HeaderPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.name, if self.is_begin { "*" } else { "" })
    }
}

impl HeaderPattern {
    /// Parses a pattern such as `x-vouch-user` or `x-vouch-*`.
    ///
    /// # Errors
    /// The problem of the pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        let begin = text.strip_suffix('*');
        let name = begin.unwrap_or(text);
        let header = HeaderName::from_bytes(name.as_bytes());
        let Some(name) = header.ok().filter(|name| !name.as_str().contains('*') && name.as_str().len() > 1) else {
            return Err("expected a header name such as \"x-vouch-user\", or a prefix such as \"x-vouch-*\"".to_owned());
        };
        let folded = names::fold(name.as_str()).into();
        let pattern = Self { name: name.as_str().into(), folded, is_begin: begin.is_some() };
        match names::protocol().find(|name| pattern.matches(name)) {
            Some(name) => Err(format!("{name} has a special meaning")),
            None => Ok(pattern),
        }
    }

    /// Whether the pattern matches a name, in any spelling.
    pub fn matches(&self, name: &str) -> bool {
        names::fold_begins(name, &self.folded) && (self.is_begin || name.len() == self.folded.len())
    }

    pub(super) fn begin(&self) -> &str {
        &self.folded
    }

    pub(super) fn is_spelt(&self, name: &str) -> bool {
        if self.is_begin { name.starts_with(&*self.name) } else { *name == *self.name }
    }

    /// Returns whether the pattern matches a built-in header name of a product.
    pub fn is_of_a_product(&self) -> bool {
        products::overlaps(&self.folded, self.is_begin)
    }
}

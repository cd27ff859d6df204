//! OAuth 2 scopes (RFC 6749 §3.3).

use crate::invalid::InvalidValue;
use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A set of scope tokens, in the order of the grant.
///
/// ```
/// use rotogate::session::Scope;
///
/// let granted = Scope::parse("read write")?;
/// let asked = Scope::parse("write admin")?;
/// assert!(!asked.is_within(&granted));
/// assert_eq!(asked.intersection(&granted).as_str(), "write");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(Box<str>);

/// A scope that no token has. It replaces a misspelt requirement.
pub fn impossible() -> Scope {
    Scope("\u{0}".into())
}

impl Scope {
    /// Parses a space-separated list. Repeated tokens count once.
    ///
    /// # Errors
    /// A character is outside `NQCHAR` of RFC 6749 §3.3.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let token = |t: &&str| t.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'"' && b != b'\\');
        match text.split(' ').all(|t| token(&t)) {
            true => Ok(Self::collect(text.split(' '))),
            false => Err(InvalidValue::new("a scope token may contain visible ASCII characters except \" and \\")),
        }
    }

    pub(crate) fn from_tokens<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        Self::collect(tokens.into_iter())
    }

    /// A client may send thousands of tokens (requirement A23). Many tokens are therefore collected with a set.
    fn collect<'a>(tokens: impl Iterator<Item = &'a str>) -> Self {
        const FEW: usize = 16;
        let (mut seen, mut many): (Vec<&str>, HashSet<&str>) = (Vec::new(), HashSet::new());
        for token in tokens.filter(|token| !token.is_empty()) {
            if seen.len() == FEW && many.is_empty() {
                many.extend(&seen);
            }
            let is_new = if many.is_empty() { !seen.contains(&token) } else { many.insert(token) };
            if is_new {
                seen.push(token);
            }
        }
        Self(seen.join(" ").into())
    }

    /// The scope as a space-separated list.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the scope is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tokens.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|t| !t.is_empty())
    }

    /// Returns whether the scope contains `token`.
    pub fn contains(&self, token: &str) -> bool {
        self.iter().any(|t| t == token)
    }

    /// Returns whether `other` contains every token of this scope.
    pub fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|t| other.contains(t))
    }

    /// The union, with this scope's tokens first.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::collect(self.iter().chain(other.iter()))
    }

    /// The tokens in both scopes, in this scope's order.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self::collect(self.iter().filter(|t| other.contains(t)))
    }
}

crate::debug_with!(Scope, |it, f| write!(f, "{:?}", it.as_str()));

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_orders_and_compares() {
        let s = Scope::parse("read  write read").unwrap();
        assert_eq!(s.as_str(), "read write");
        assert!(Scope::parse("write").unwrap().is_within(&s));
        assert!(!Scope::parse("write admin").unwrap().is_within(&s));
        assert_eq!(s.intersection(&Scope::parse("admin write").unwrap()).as_str(), "write");
        assert!(Scope::parse("").unwrap().is_empty());
        for count in [1, 15, 16, 17, 18, 40, 5000] {
            let once: Vec<_> = (0..count).map(|n| format!("s{n}")).collect();
            let once = once.join(" ");
            assert_eq!(Scope::parse(&format!("{once}  {once} s0")).unwrap().as_str(), once, "{count}");
        }
        for bad in ["a\"b", "a\\b", "a\nb", "caf\u{e9}"] {
            assert!(Scope::parse(bad).is_err(), "{bad:?}");
        }
    }
}

//! An error for an invalid value.

use std::borrow::Cow;
use std::fmt;

/// An error for an invalid claim, scope, password or setting.
///
/// ```
/// use rotogate::InvalidValue;
/// use rotogate::claim::OwnClaims;
///
/// let error: InvalidValue = OwnClaims::new().insert("exp", 1_800_000_000).unwrap_err();
/// assert!(error.to_string().starts_with("the claim \"exp\""));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    key: Option<&'static str>,
    problem: Cow<'static, str>,
}

impl InvalidValue {
    /// Creates an error with this reason.
    pub fn new(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { key: None, problem: problem.into() }
    }

    /// Creates an error for a setting.
    pub fn of_key(key: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { key: Some(key), problem: problem.into() }
    }

    /// The name of the setting, if there is one.
    pub const fn key(&self) -> Option<&'static str> {
        self.key
    }

    /// The reason.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => write!(f, "{key}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for InvalidValue {}

//! Problems of a configuration file.

use std::fmt;

/// A problem in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file name, or `environment NAME`.
    pub source: String,
    /// Line and column, counted from 1. Columns count characters.
    pub position: Option<(usize, usize)>,
    /// The key, such as `routes[1].path`, or an empty string for a problem of the whole file.
    pub key: String,
    /// A description of the problem and its remedy.
    pub message: String,
    /// Whether a check failed only because this process may not read a file.
    pub unchecked: bool,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All problems of a configuration, in file order. There is at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts the problems. Returns `None` if there are none.
    pub fn new(found: Vec<ConfigError>) -> Option<Self> {
        (!found.is_empty()).then(|| Self(found).sorted())
    }

    fn sorted(mut self) -> Self {
        // Problems without a line come last.
        self.0.sort_by_key(|e| (e.position.is_none(), e.position));
        self.0.dedup();
        self
    }

    /// Creates a list with one problem about a whole file.
    pub fn one(source: String, message: String) -> Self {
        Self::single(ConfigError { source, position: None, key: String::new(), message, unchecked: false })
    }

    /// Creates a list with one problem about a whole file. A leading file name in the message is removed.
    pub fn said(path: &std::path::Path, what: &str) -> Self {
        let source = path.display().to_string();
        let message = what.strip_prefix(&format!("{source}: ")).unwrap_or(what).to_owned();
        Self::one(source, message)
    }

    /// Creates a list with one problem.
    pub fn single(error: ConfigError) -> Self {
        Self(vec![error])
    }

    /// Joins two lists of problems.
    pub fn and(mut self, mut others: Self) -> Self {
        self.0.append(&mut others.0);
        self.sorted()
    }

    /// Iterates over the problems.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// The number of problems.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

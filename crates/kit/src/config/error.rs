//! The problems of a configuration file, all reported at once.

use std::fmt;

/// One problem with its position, the key, the value that was found and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or `environment NAME`.
    pub source: String,
    /// Line and column, both counted from 1. Columns are counted in characters.
    pub position: Option<(usize, usize)>,
    /// The key, as in `sessions.access_ttl` or `routes[1].path`; empty if the problem concerns the whole file.
    pub key: String,
    /// The value that was found, what was expected, and the remedy.
    pub message: String,
    /// Whether the key is unchecked. This is the case if this process must not read a file that the gate's user may
    /// read.
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

/// All problems of a configuration, in the order of their positions in the file. The list is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts the problems. `None` if there is no problem.
    pub fn new(found: Vec<ConfigError>) -> Option<Self> {
        (!found.is_empty()).then(|| Self(found).sorted())
    }

    fn sorted(mut self) -> Self {
        // Problems without a line (the whole file, the environment) come last.
        self.0.sort_by_key(|e| (e.position.is_none(), e.position));
        self.0.dedup();
        self
    }

    /// Creates a list with one problem about a file as a whole.
    pub fn one(source: String, message: String) -> Self {
        Self::single(ConfigError { source, position: None, key: String::new(), message, unchecked: false })
    }

    /// Creates a list with one problem about a file as a whole. If the message begins with the file's name, the name is
    /// removed from the message.
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

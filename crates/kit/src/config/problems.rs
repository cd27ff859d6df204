//! Collection of configuration problems.

use std::cell::RefCell;

use super::error::{ConfigError, ConfigErrors};
use super::{ValueOrigin, printable};

/// A collector of problems.
pub struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    lines: Vec<usize>,
    pub(super) found: RefCell<Vec<ConfigError>>,
    pub(super) warned: RefCell<Vec<ConfigError>>,
    replaced: fn(&str) -> Option<&'static str>,
}

impl<'a> Problems<'a> {
    /// Creates a collector for a file with this name and text.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines, found: RefCell::default(), warned: RefCell::default(), replaced: |_| None }
    }

    /// Sets a function that returns advice for removed keys.
    #[must_use]
    pub fn with_removed(self, replaced: fn(&str) -> Option<&'static str>) -> Self {
        Self { replaced, ..self }
    }

    pub(super) fn replaced(&self, key: &str) -> Option<&'static str> {
        (self.replaced)(key)
    }

    /// The text of the file.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the file or variable of a value, and the line and column in the file.
    pub fn place(&self, origin: Option<&ValueOrigin>) -> (String, Option<(usize, usize)>) {
        match origin {
            Some(ValueOrigin::File(span)) => (self.file.to_owned(), Some(self.line_and_column(span.start))),
            Some(ValueOrigin::Env(name)) => (format!("environment {name}"), None),
            None => (self.file.to_owned(), None),
        }
    }

    pub(super) fn line_and_column(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let end = at.min(self.text.len());
        (line, self.text.get(start..end).unwrap_or_default().chars().count() + 1)
    }

    /// Adds a problem. Without an origin, the problem concerns the whole file.
    pub fn add(&self, origin: Option<&ValueOrigin>, key: &str, message: String) {
        self.found.borrow_mut().push(self.placed(origin, key, message));
    }

    pub(super) fn placed(&self, origin: Option<&ValueOrigin>, key: &str, message: String) -> ConfigError {
        let (source, position) = self.place(origin);
        // A line break in a quoted key would look like the start of another problem.
        let key = if key.contains(char::is_control) { printable(key) } else { key.to_owned() };
        ConfigError { source, position, key, message, unchecked: false }
    }

    /// Warnings about allowed but probably unintended settings.
    pub fn warnings(&self) -> Vec<ConfigError> {
        self.warned.borrow().clone()
    }

    pub(super) fn any_under(&self, path: &str) -> bool {
        let under = |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.found.borrow().iter().any(|problem| under(&problem.key))
    }

    /// All problems, or `None` if there are none.
    pub fn into_errors(self) -> Option<ConfigErrors> {
        ConfigErrors::new(self.found.into_inner())
    }
}

//! The problems of a configuration, each with its position.

use std::cell::RefCell;

use super::error::{ConfigError, ConfigErrors};
use super::{ValueOrigin, printable};

/// Collects problems.
pub struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    /// The offset of each line.
    lines: Vec<usize>,
    pub(super) found: RefCell<Vec<ConfigError>>,
    pub(super) warned: RefCell<Vec<ConfigError>>,
    replaced: fn(&str) -> Option<&'static str>,
}

impl<'a> Problems<'a> {
    /// A collector of problems for a file with this name and text.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines, found: RefCell::default(), warned: RefCell::default(), replaced: |_| None }
    }

    /// Sets the function that is called for each unknown key. If an earlier version had the key, the function returns
    /// what the user must do instead.
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

    /// The file or variable of an origin, with line and column.
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

    /// Adds a problem. Without an origin, the problem concerns the file as a whole.
    pub fn add(&self, origin: Option<&ValueOrigin>, key: &str, message: String) {
        self.found.borrow_mut().push(self.placed(origin, key, message));
    }

    pub(super) fn placed(&self, origin: Option<&ValueOrigin>, key: &str, message: String) -> ConfigError {
        let (source, position) = self.place(origin);
        // A quoted key may contain any character, even a line break that would imitate another problem.
        let key = if key.contains(char::is_control) { printable(key) } else { key.to_owned() };
        ConfigError { source, position, key, message, unchecked: false }
    }

    /// The warnings, which are about settings that are allowed but probably not intended.
    pub fn warnings(&self) -> Vec<ConfigError> {
        self.warned.borrow().clone()
    }

    pub(super) fn any_under(&self, path: &str) -> bool {
        let under = |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.found.borrow().iter().any(|problem| under(&problem.key))
    }

    /// All problems; `None` if there are none.
    pub fn into_errors(self) -> Option<ConfigErrors> {
        ConfigErrors::new(self.found.into_inner())
    }
}

//! Reading of TOML configuration files. [`Section`] reads a table.
//!
//! All problems are reported together, because reading continues after a problem. A key that no code reads is reported
//! as unknown.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rotogate_core::private_file;
use rotogate_core::route::WarningKind;

mod error;
mod node;
mod problems;
mod spelling;
pub mod value;

pub use error::{ConfigError, ConfigErrors};
pub use node::{Node, Value, ValueOrigin, parse, parse_sound, printable};
pub use problems::Problems;
pub use spelling::nearest;
use spelling::variable_meant;

/// The table with limits that only tests set.
const FOR_TESTS: &str = "for_tests";

/// The files of a certificate and its private key.
pub type CertificateAndKey = (PathBuf, PathBuf);

/// A table that is read key by key. [`Section::finish`] reports unread keys.
pub struct Section<'a> {
    path: String,
    entries: Option<&'a BTreeMap<String, Node>>,
    origin: Option<&'a ValueOrigin>,
    problems: &'a Problems<'a>,
    asked: Asked,
    /// Keys that were already rejected. `finish` neither reports nor suggests these keys.
    later: RefCell<Vec<&'static str>>,
    /// Whether the kind of this table is invalid. The allowed keys are then unknown.
    is_of_unknown_kind: Cell<bool>,
    /// The keys that were read from the table `for_tests`.
    for_tests: Asked,
}

type Asked = Rc<RefCell<Vec<&'static str>>>;

rotogate_core::debug_with!(Section<'_> { path });

impl<'a> Section<'a> {
    /// Creates the section for the whole file.
    pub fn root(node: &'a Node, problems: &'a Problems<'a>) -> Self {
        Self::new(Some(node), String::new(), problems)
    }

    fn new(node: Option<&'a Node>, path: String, problems: &'a Problems<'a>) -> Self {
        let entries = match node.map(|n| &n.value) {
            Some(Value::Table(table)) => Some(table),
            Some(other) => {
                let message = format!("expected a table, found {}", other.describe());
                problems.add(node.map(|n| &n.origin), &path, message);
                None
            }
            None => None,
        };
        let origin = node.map(|n| &n.key);
        let (asked, later) = (Asked::default(), RefCell::default());
        Self {
            path,
            entries,
            origin,
            problems,
            asked,
            later,
            is_of_unknown_kind: Cell::new(false),
            for_tests: Asked::default(),
        }
    }

    /// The full name of a key.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The full name of the table.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether the table already has a reported problem.
    pub fn is_bad(&self) -> bool {
        self.problems.any_under(&self.path)
    }

    /// Returns whether the key is present.
    pub fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// Reports keys that are not allowed here, with a remedy.
    pub fn misplaced(&self, keys: &[&'static str], remedy: &str) {
        self.blame_present(keys, remedy);
        self.later.borrow_mut().extend(keys);
    }

    /// Reports each of these keys that is present.
    pub fn blame_present(&self, keys: &[&str], message: &str) {
        keys.iter().filter(|key| self.has(key)).for_each(|key| self.blame(key, message));
    }

    /// Reports a problem with a key.
    pub fn blame(&self, key: &str, message: impl Into<String>) {
        self.problems.found.borrow_mut().push(self.problem(key, message.into()));
    }

    fn problem(&self, key: &str, message: String) -> ConfigError {
        let origin = self.entries.and_then(|e| e.get(key)).map(|node| &node.origin);
        self.problems.placed(origin.or(self.origin), &self.name(key), message)
    }

    /// Reports that this process may not read a file.
    pub fn blame_unchecked(&self, key: &str, message: String) {
        let problem = ConfigError { unchecked: true, ..self.problem(key, message) };
        self.problems.found.borrow_mut().push(problem);
    }

    /// Reads the file that a key names.
    pub fn get_file<T>(
        &self,
        key: &'static str,
        path: impl FnOnce(&Value) -> Result<PathBuf, String>,
        read: impl FnOnce(&Path) -> Result<T, String>,
    ) -> Option<T> {
        let path = self.get(key, path)?;
        if let Some(why) = private_file::denied(&path) {
            self.blame_unchecked(key, why);
            return None;
        }
        read(&path).map_err(|message| self.blame(key, message)).ok()
    }

    /// Warns about a key whose value is allowed but probably unintended.
    // Requirement P67.
    pub fn warn(&self, _: WarningKind, key: &str, message: impl Into<String>) {
        self.problems.warned.borrow_mut().push(self.problem(key, message.into()));
    }

    /// Reports a problem with an element of a list.
    pub fn blame_element(&self, key: &str, index: usize, message: impl Into<String>) {
        let Some(Node { value: Value::List(list), .. }) = self.entries.and_then(|e| e.get(key)) else {
            return self.blame(key, message);
        };
        let name = format!("{}[{index}]", self.name(key));
        self.problems.add(list.get(index).map(|n| &n.origin), &name, message.into());
    }

    fn ask(&self, key: &'static str) -> Option<&'a Node> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        self.entries?.get(key)
    }

    /// The value of a key, or `None` if it is absent or invalid.
    pub fn get<T>(&self, key: &'static str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let node = self.ask(key)?;
        match read(&node.value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.blame(key, message);
                None
            }
        }
    }

    /// Like [`Section::get`], for the key that selects the table's kind. If the kind is invalid, other keys are not
    /// reported as unknown.
    pub fn kind<T>(&self, key: &'static str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let kind = self.get(key, read);
        self.is_of_unknown_kind.set(kind.is_none() && self.has(key));
        kind
    }

    /// Like [`Section::get`], but reports an absent key as a problem.
    pub fn require<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.ask(key);
            self.blame(key, format!("missing; expected {expected}"));
            return None;
        }
        self.get(key, read)
    }

    /// Returns a list of scalars. Invalid elements are reported and left out. In an environment variable, commas
    /// separate the elements.
    pub fn list<T>(&self, key: &'static str, read: impl Fn(&Value) -> Result<T, String>) -> Option<Vec<T>> {
        self.indexed(key, read).map(|list| list.into_iter().map(|(_, value)| value).collect())
    }

    /// Like [`Section::list`], with the index of each element.
    pub fn indexed<T>(&self, key: &'static str, read: impl Fn(&Value) -> Result<T, String>) -> Option<Vec<(usize, T)>> {
        let node = self.ask(key)?;
        let element = |(index, value): (usize, &Value)| match read(value) {
            Ok(value) => Some((index, value)),
            Err(message) => {
                self.blame_element(key, index, message);
                None
            }
        };
        match &node.value {
            Value::List(list) => Some(list.iter().map(|n| &n.value).enumerate().filter_map(element).collect()),
            Value::Env(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(
                    parts
                        .map(|part| Value::Env(part.to_owned()))
                        .enumerate()
                        .filter_map(|(i, v)| element((i, &v)))
                        .collect(),
                )
            }
            other => {
                let found = other.describe();
                let advice = match other {
                    Value::Table(_) => String::new(),
                    _ => format!("; write the brackets too, as in [{found}]"),
                };
                self.blame(key, format!("expected a list, found {found}{advice}"));
                None
            }
        }
    }

    /// A list, or a single value.
    pub fn one_or_list<T>(&self, key: &'static str, read: impl Fn(&Value) -> Result<T, String>) -> Option<Vec<T>> {
        match self.entries.and_then(|e| e.get(key)).map(|node| &node.value) {
            None | Some(Value::List(_) | Value::Env(_)) => self.list(key, read),
            Some(_) => self.get(key, read).map(|one| vec![one]),
        }
    }

    /// A table within this table, which may be absent.
    pub fn section(&self, key: &'static str) -> Self {
        Self::new(self.ask(key), self.name(key), self.problems)
    }

    /// The tables of an array of tables (`[[name]]`).
    pub fn sections(&self, key: &'static str) -> Vec<Self> {
        let Some(node) = self.ask(key) else { return Vec::new() };
        let Value::List(list) = &node.value else {
            self.blame(key, format!("expected [[{}]], found {}", self.name(key), node.value.describe()));
            return Vec::new();
        };
        let element = |(index, node)| Self::new(Some(node), format!("{}[{index}]", self.name(key)), self.problems);
        list.iter().enumerate().map(element).collect()
    }

    /// The table `for_tests`, which is empty without the feature `failpoints`.
    pub fn for_tests(&self) -> Self {
        let node = self.entries.filter(|_| cfg!(feature = "failpoints")).and_then(|entries| entries.get(FOR_TESTS));
        Self { asked: Rc::clone(&self.for_tests), ..Self::new(node, self.name(FOR_TESTS), self.problems) }
    }

    /// Like [`Section::get`], but returns `default` if the key is absent or invalid.
    pub fn get_or<T>(&self, key: &'static str, read: impl FnOnce(&Value) -> Result<T, String>, default: T) -> T {
        self.get(key, read).unwrap_or(default)
    }

    /// Like [`Section::get_or`], for an optional field.
    pub fn some_or<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
        default: T,
    ) -> Option<T> {
        Some(self.get_or(key, read, default))
    }

    /// Like [`Section::get`], for a key that only environment variables starting with `prefix` may set.
    pub fn get_of_others<T>(
        &self,
        key: &'static str,
        prefix: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.entries?.get(key)?;
        let is_theirs = matches!(&node.origin, ValueOrigin::Env(name) if name.starts_with(prefix));
        is_theirs.then(|| self.get(key, read)).flatten()
    }

    /// Like [`Section::require`], but returns an empty value if the key is missing. The missing key is still reported
    /// as a problem.
    pub fn required<T: Default>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> T {
        self.require(key, expected, read).unwrap_or_default()
    }

    /// Like [`Section::list`], but returns an empty list if the key is absent.
    pub fn list_or_empty<T>(&self, key: &'static str, read: impl Fn(&Value) -> Result<T, String>) -> Vec<T> {
        self.list(key, read).unwrap_or_default()
    }

    /// A table within this table, if present. `read` must read all keys of the table.
    pub fn table<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> Option<T> {
        if !self.has(key) {
            return None;
        }
        Some(self.inner(key, read))
    }

    /// Like [`Section::table`], but also calls `read` if the table is absent.
    pub fn inner<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> T {
        let section = self.section(key);
        let value = read(&section);
        section.finish();
        value
    }

    /// Reads each table of a list. `read` gets the table and all previous entries. `read` must read all keys of the
    /// table.
    pub fn entries<T>(sections: &[Self], read: impl Fn(&Self, &[T]) -> T) -> Vec<T> {
        let mut all = Vec::new();
        for section in sections {
            let entry = read(section, &all);
            section.finish();
            all.push(entry);
        }
        all
    }

    /// Reads a limit that is a number or a percentage of the limit `of`. The result must not exceed `of`.
    pub fn share_of(&self, key: &'static str, of: (&str, usize), default: value::Share) -> usize {
        let (name, whole) = of;
        let amount = self.get_or(key, value::share, default).to_amount(whole);
        if amount > whole {
            self.blame(key, format!("is {amount}, but {name} is {whole}; expected at most {whole}"));
        }
        amount
    }

    /// A certificate and its private key: `{ cert = "…", key = "…" }`.
    pub fn certificate_and_key(&self, key: &'static str, dir: &Path) -> Option<CertificateAndKey> {
        let file = |pair: &Self, key| pair.required(key, "a PEM file", value::path_in(dir));
        self.table(key, |pair| (file(pair, "cert"), file(pair, "key")))
    }

    /// All entries of a table whose keys the user chooses.
    pub fn free(&self) -> Vec<(&'a str, &'a Value)> {
        self.entries.into_iter().flatten().map(|(key, node)| (key.as_str(), &node.value)).collect()
    }

    /// Rejects keys that only later versions will support.
    pub fn later(&self, keys: &[&'static str]) {
        for key in keys {
            if self.has(key) {
                self.blame(key, "comes in a later version; remove it");
            }
            self.later.borrow_mut().push(key);
        }
    }

    /// Reports unread keys.
    pub fn finish(&self) {
        if self.is_of_unknown_kind.get() {
            return;
        }
        let (asked, later) = (self.asked.borrow(), self.later.borrow());
        let is_tested = cfg!(feature = "failpoints") && !self.for_tests.borrow().is_empty();
        if is_tested {
            self.for_tests().finish();
        }
        for (key, node) in self.entries.into_iter().flatten() {
            if is_tested && key == FOR_TESTS {
                continue;
            }
            if asked.contains(&key.as_str()) || later.contains(&key.as_str()) {
                continue;
            }
            let message = match nearest(key, &asked) {
                _ if let Some(now) = self.problems.replaced(&self.name(key)) => format!("was removed: {now}"),
                _ if let Some(meant) = variable_meant(node, key, &asked) => {
                    format!("unknown key; did you mean {meant}? Two underscores stand between a table and its key")
                }
                Some(near) => format!("unknown key; did you mean {near}?"),
                None if asked.is_empty() => "unknown key".to_owned(),
                None => format!("unknown key; expected one of {}", asked.join(", ")),
            };
            self.problems.add(Some(&node.key), &self.name(&printable(key)), message);
        }
    }
}

#[cfg(test)]
mod tests;

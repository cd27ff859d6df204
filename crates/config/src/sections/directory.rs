//! `[directory]`, or several `[[directories]]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value as Toml};

use super::super::declare::section;
use super::super::print::{Put, put};
use super::super::value;
use super::endpoints::account;
use super::path_in;
use rotogate_directories::{Bounds, SourceSettings};
use rotogate_kit::config::{Section, Value};

mod hashes;
mod http;
#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "sql")]
mod sql;

pub use hashes::{AcceptedHash, HashesConfig};
pub use rotogate_directories::ExpectedHash;

/// `[directory]`, or an entry of `[[directories]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// The name of the table, such as `directories[0]`.
    pub key: String,
    /// The directory's name in logs and metrics.
    pub name: String,
    /// The accounts of the directory. `None`: all accounts that no other directory lists, and users without an account.
    pub accounts: Option<Vec<String>>,
    /// Where the users are stored.
    pub users: UsersConfig,
}

impl DirectoryConfig {
    pub(super) fn names_users_of_issuers(&self) -> bool {
        match &self.users {
            UsersConfig::File { .. } => false,
            UsersConfig::Remote { source, .. } => source.names_users_of_issuers(),
        }
    }
}

/// Where the users are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsersConfig {
    /// A users file.
    File {
        /// The file.
        path: PathBuf,
        /// The settings for imported password hashes.
        hashes: HashesConfig,
    },
    /// Another system.
    Remote {
        /// The system.
        source: SourceSettings,
        /// The limits on requests.
        bounds: Bounds,
    },
}

/// A function that reads the settings of one kind of directory.
type ReadUsers = fn(&Section<'_>, &Path) -> UsersConfig;

const KINDS: &[(&str, Option<(&str, ReadUsers)>)] = &[
    ("file", Some(IN_A_FILE)),
    ("none", None),
    ("http", Some(("http", |section, dir| remote(section, http::read(section, dir), http::TIMEOUT)))),
    #[cfg(feature = "ldap")]
    ("ldap", Some(("ldap", |section, dir| remote(section, ldap::read(section, dir), Bounds::TIMEOUT)))),
    #[cfg(feature = "sql")]
    ("sql", Some(("sql", |section, dir| remote(section, sql::read(section, dir), Bounds::TIMEOUT)))),
];
const IN_A_FILE: (&str, ReadUsers) = ("file", |section, dir| {
    let path = section.get("path", path_in(dir)).unwrap_or_else(|| dir.join(PATH));
    UsersConfig::File { path, hashes: hashes::read_keys(section, dir) }
});

const FEATURES: &[(&str, &str)] = &[("ldap", "ldap"), ("sql", "sql")];

/// The default of `path`.
const PATH: &str = "data/users.toml";

/// Whether `kind` is `"none"`, which means that the gate has no users of its own.
pub(super) fn is_none(root: &Section<'_>) -> bool {
    let is_none = |kind: &Value| Ok(matches!(kind, Value::String(word) if word == "none"));
    !root.has("directories") && root.section("directory").get("kind", is_none).unwrap_or(false)
}

/// Reads `[[directories]]` or, if this list is absent, `[directory]`.
pub(super) fn read(root: &Section<'_>, dir: &Path) -> Vec<DirectoryConfig> {
    if !root.has("directories") {
        return read_one(&root.section("directory"), dir, false).into_iter().collect();
    }
    if root.has("directory") {
        root.section("directory");
        root.blame("directory", "cannot be combined with `[[directories]]`; move it into that list");
    }
    let sections = root.sections("directories");
    let all: Vec<_> = sections.iter().filter_map(|section| read_one(section, dir, true)).collect();
    if sections.is_empty() {
        root.blame("directories", "is empty; expected an entry for each directory");
    }
    check_distinct(&sections, &all);
    all
}

/// `rotogate user` can edit only one users file.
fn check_distinct(sections: &[Section<'_>], all: &[DirectoryConfig]) {
    for (at, (section, one)) in sections.iter().zip(all).enumerate() {
        let before = || all.iter().take(at);
        if let Some(other) = before().find(|other| other.name == one.name) {
            section.blame(
                "name",
                format!("\"{}\" is already the name of `{}`; give each directory its own name", one.name, other.key),
            );
        }
        if one.accounts.is_none()
            && let Some(other) = before().find(|other| other.accounts.is_none())
        {
            let what = format!(
                "missing here and in `{}`, but only one directory may omit `accounts`; set it in one of the two",
                other.key
            );
            section.blame("accounts", what);
        }
        for (index, account) in one.accounts.iter().flatten().enumerate() {
            let has = |other: &&DirectoryConfig| other.accounts.iter().flatten().any(|name| name == account);
            let twice = one.accounts.iter().flatten().take(index).any(|name| name == account);
            if let Some(other) = before().find(has).or_else(|| twice.then_some(one)) {
                section.blame_element("accounts", index, format!("\"{account}\" already belongs to `{}`", other.key));
            }
        }
        let is_file = |one: &DirectoryConfig| matches!(one.users, UsersConfig::File { .. });
        if is_file(one)
            && !section.is_bad()
            && let Some(other) = before().find(|other| is_file(other))
        {
            section.blame(
                "kind",
                format!("is \"file\" here and in `{}`, but a gate can have only one users file", other.key),
            );
        }
    }
}

/// Reads the name of a directory, which is also a label value of metrics.
fn name(value: &Value) -> Result<String, String> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = |text: &str| text.len() <= 64 && text.bytes().all(is_known);
    value::fitting(value, "letters, digits, \"-\", \"_\" and \".\"", fits)
}

fn read_one(section: &Section<'_>, dir: &Path, is_one_of_several: bool) -> Option<DirectoryConfig> {
    let accounts = if is_one_of_several { section.list("accounts", account) } else { None };
    if accounts.as_ref().is_some_and(Vec::is_empty) && !section.is_bad() {
        section.blame(
            "accounts",
            "is empty; list accounts, or remove `accounts` so that this directory has all accounts that no other \
             directory lists",
        );
    }
    let kind = section.kind("kind", value::word_of_build(KINDS, FEATURES)).unwrap_or(Some(IN_A_FILE));
    let Some((word, read_users)) = kind else {
        if is_one_of_several {
            section.blame("kind", "must not be \"none\" in a list of directories; remove this entry");
        }
        section.finish();
        return None;
    };
    let name = section.get_or("name", name, word.to_owned());
    let users = read_users(section, dir);
    section.finish();
    Some(DirectoryConfig { key: section.path().to_owned(), name, accounts, users })
}

fn remote(section: &Section<'_>, source: SourceSettings, timeout: Duration) -> UsersConfig {
    UsersConfig::Remote { source, bounds: read_bounds(section, timeout) }
}

const MINUTE: Duration = Duration::from_secs(60);

section! {
    impl Bounds, read by read_bounds(section, timeout: Duration) {
        /// Time limit for a request to the directory, including connecting.
        reload timeout: Duration = get_or(value::duration_within(Duration::from_millis(100), MINUTE), timeout),
        /// Maximum number of concurrent requests to the directory. Logins may use three quarters of them.
        fixed max_requests: usize = get_or(value::count(1, 10_000), Bounds::MAX_REQUESTS),
        /// How long a request waits if `max_requests` are running. After that, the client gets 503.
        fixed queue_timeout: Duration = get_or(value::duration_within(Duration::ZERO, MINUTE), Bounds::QUEUE_TIMEOUT),
        /// How long the gate caches a user's entry for further refreshes. With 0s, only concurrent refreshes share a
        /// request.
        fixed lookup_cache: Duration = get_or(value::duration_within(Duration::ZERO, MINUTE), Duration::ZERO),
    }
}

pub(super) fn is_another_file(old: &[DirectoryConfig], new: &[DirectoryConfig]) -> bool {
    let is_file = |one: &&DirectoryConfig| matches!(one.users, UsersConfig::File { .. });
    let file = |all: &[DirectoryConfig]| all.iter().find(is_file).map(|one| (one.name.clone(), one.users.clone()));
    file(old) != file(new)
}

/// Prints a single directory as `[directory]`, and several as `[[directories]]`.
pub(super) fn print(directories: &[DirectoryConfig], root: &mut Table) {
    match directories {
        [] => put(root, "directory", Table::from_iter([("kind".to_owned(), Toml::from("none"))])),
        [only] if only.accounts.is_none() => put(root, "directory", print_one(only)),
        several => put(root, "directories", several.iter().map(print_one).collect::<Vec<_>>()),
    }
}

fn print_one(directory: &DirectoryConfig) -> Toml {
    let DirectoryConfig { key: _, name, accounts, users } = directory;
    let mut table = Table::new();
    name.put(&mut table, "name");
    accounts.put(&mut table, "accounts");
    match users {
        UsersConfig::File { path, hashes } => {
            put(&mut table, "kind", "file");
            path.put(&mut table, "path");
            hashes.put(&mut table, "..");
        }
        UsersConfig::Remote { source, bounds } => {
            bounds.put(&mut table, "..");
            match *source {
                SourceSettings::Http(ref settings) => {
                    put(&mut table, "kind", "http");
                    settings.put(&mut table, "..");
                }
                #[cfg(feature = "ldap")]
                SourceSettings::Ldap(ref settings) => {
                    put(&mut table, "kind", "ldap");
                    settings.put(&mut table, "..");
                }
                #[cfg(feature = "sql")]
                SourceSettings::Sql(ref settings) => {
                    put(&mut table, "kind", "sql");
                    settings.put(&mut table, "..");
                }
            }
        }
    }
    table.into()
}

//! Copies users into an SQLite database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::edit::{self, EditError};
use super::entry::UserEntry;
use super::import::{self, ImportDefaults, ImportPlace, ImportProblems, Imported};
use super::{UsersFile, parse};
use crate::sql::table::{self, TableError, TableUser};
use rotogate_core::clock::Timestamp;
use rotogate_core::directory::PasswordMark;
use rotogate_core::password::{Accepted, Cost, CostClass, PasswordHash, Spring};
use rotogate_core::private_file;

/// The users to copy.
#[derive(Debug)]
pub struct UserCopy {
    users: Vec<(ImportPlace, UserEntry)>,
    /// The numbers of users.
    pub imported: Imported,
    /// Whether some hashes are from Spring and need additional configuration.
    needs_spring: bool,
}

const NEEDS_FILE: &str = "password_hash: a database cannot have the secret or the permission that checking this hash \
                          needs (`hashes`, `hash_parameters`), only a users file can: give the user another password \
                          with `rotogate user passwd`";

/// The `[[directories]]` entry that the database replaces.
#[derive(Clone, Copy, Debug)]
pub struct ReplacedEntry<'a> {
    /// The name of the entry.
    pub name: &'a str,
    /// The accounts of the directory.
    pub accounts: Option<&'a [String]>,
}

/// The result of a copy.
#[derive(Debug)]
pub struct Copied {
    /// The `[directory]` section for the configuration.
    pub directory: String,
    /// Warnings about user properties that the table cannot store.
    pub warnings: Vec<String>,
}

impl UserCopy {
    /// Reads all users from the users file.
    ///
    /// # Errors
    /// The file cannot be read, is invalid, or is accessible to others.
    pub fn of_file(file: &UsersFile) -> Result<Self, EditError> {
        let users = parse::read(file).map_err(EditError::File)?.into_entries();
        let mut imported = Imported { users: users.len(), ..Imported::default() };
        for entry in &users {
            if let Ok(hash) = PasswordHash::parse(entry.hash.expose(), file.accepted()) {
                *imported.schemes.entry(hash.scheme()).or_default() += 1;
            }
        }
        let users = users.into_iter().enumerate().map(|(index, entry)| (ImportPlace::User(index), entry)).collect();
        Ok(Self { users, imported, needs_spring: is_set(&file.accepted().spring) })
    }

    /// Reads the users of an import. `accepted` lists the hashes that a users file may contain.
    ///
    /// # Errors
    /// Returns the errors of [`import::import`].
    pub fn of_import(
        name: &str,
        text: &str,
        defaults: &ImportDefaults,
        accepted: &Accepted,
        now: Timestamp,
    ) -> Result<Self, EditError> {
        let (users, imported) = import::read(name, text, defaults, accepted, now)?;
        Ok(Self { users, imported, needs_spring: is_set(&accepted.spring) })
    }

    /// Adds all users to the database, or none. `url` is the database URL for the configuration. `replaced` is the
    /// directory entry to replace.
    ///
    /// # Errors
    /// A user is invalid or already exists, or the database cannot be written.
    pub fn add_to(
        &self,
        (url, path): (&str, &Path),
        replaced: Option<ReplacedEntry<'_>>,
        dry_run: bool,
    ) -> Result<Copied, EditError> {
        let mut problems = ImportProblems::default();
        for (place, entry) in self.users.iter().filter(|(_, entry)| !self.is_checked(entry)) {
            problems.add(*place, format!("{}: {NEEDS_FILE}", entry.username.escape_debug()));
        }
        problems.none()?;
        let rows: Vec<TableUser<'_>> = self.users.iter().map(|(_, entry)| row(entry)).collect();
        let table = add_private(path, &rows, dry_run).map_err(|error| match error {
            TableError::Database(error) => EditError::File(format!("{}: {error}", path.display())),
            TableError::Users(problems) => {
                let mut placed = ImportProblems::default();
                for (index, problem) in problems {
                    if let Some((place, _)) = self.users.get(index) {
                        placed.add(*place, problem);
                    }
                }
                EditError::Import(placed)
            }
        })?;
        let mut warnings = Vec::new();
        if !table.converted.is_empty() {
            warnings.push(format!(
                "profile fields that are booleans, lists or objects are stored as 0, 1 or JSON text: {}",
                table.converted.join(", ")
            ));
        }
        let own = |entry: &UserEntry| Some(PasswordMark::new(entry.hash.expose().as_bytes()));
        match self.users.iter().filter(|(_, entry)| entry.user.password_mark != own(entry)).count() {
            0 => {}
            number => warnings.push(format!(
                "{number} users must log in again: the table has no column `rehashed`, so the sessions of these \
                 users end"
            )),
        }
        let directory = directory(url, &table, replaced);
        Ok(Copied { directory, warnings })
    }

    fn is_checked(&self, entry: &UserEntry) -> bool {
        let hash = entry.hash.expose();
        PasswordHash::parse(hash, &Accepted::default()).is_ok() && !(self.needs_spring && hash.starts_with("{pbkdf2"))
    }
}

fn directory(url: &str, table: &table::UserTable, replaced: Option<ReplacedEntry<'_>>) -> String {
    let text = |text: &str| toml_edit::Value::from(text).to_string();
    let list = |texts: &[String]| toml_edit::Value::from_iter(texts).to_string();
    let mut keys = match replaced {
        None => "[directory]\n".to_owned(),
        Some(ReplacedEntry { name, accounts }) => {
            let accounts = accounts.map(|accounts| format!("accounts = {}\n", list(accounts)));
            format!("[[directories]]\nname = {}\n{}", text(name), accounts.unwrap_or_default())
        }
    };
    keys.push_str(&format!("kind = \"sql\"\nurl = {}\n", text(url)));
    for (key, statement) in table.statements() {
        keys.push_str(&format!("{key} = \"\"\"\n{statement}\"\"\"\n"));
    }
    if !table.profile.is_empty() {
        keys.push_str(&format!("profile = {}\n", list(&table.profile)));
    }
    let hashes = table.hashes.iter().filter_map(|hash| PasswordHash::parse(hash.expose(), &Accepted::default()).ok());
    let hashes = expected(hashes.map(|hash| hash.class()));
    if !hashes.is_empty() {
        keys.push_str(&format!("hashes = {}\n", list(&hashes)));
    }
    keys
}

/// Returns the path of the database file.
///
/// # Errors
/// `url` does not name an SQLite file.
pub fn path_of(url: &str, folder: &Path) -> Result<PathBuf, String> {
    table::sqlite_path(url, folder).ok_or_else(|| format!("{url}: expected sqlite:FILE, such as sqlite:data/users.db"))
}

fn is_set(Spring { iterations, secret }: &Spring) -> bool {
    iterations.is_some() || secret.is_some()
}

fn row(entry: &UserEntry) -> TableUser<'_> {
    TableUser {
        username: &entry.username,
        user: &entry.user,
        hash: &entry.hash,
        valid_from: edit::rfc3339(entry.user.sessions_valid_from),
    }
}

/// A new file is kept only if all rows were added.
fn add_private(path: &Path, rows: &[TableUser<'_>], dry_run: bool) -> Result<table::UserTable, TableError> {
    let failed = |error: std::io::Error| TableError::Database(error.to_string());
    if std::fs::symlink_metadata(path).is_ok() {
        private_file::open_private(path, true).map_err(TableError::Database)?;
        return table::add(Some(path), rows, dry_run);
    }
    if dry_run {
        return table::add(None, rows, true);
    }
    private_file::create_private_dir(path.parent().unwrap_or(Path::new(""))).map_err(failed)?;
    private_file::create_private_new(path, &[]).map_err(failed)?;
    table::add(Some(path), rows, false).inspect_err(|_| drop(std::fs::remove_file(path)))
}

fn expected(classes: impl Iterator<Item = CostClass>) -> Vec<String> {
    let mut dearest: BTreeMap<&str, u32> = BTreeMap::new();
    for class in classes {
        let (scheme, cost, most) = match class {
            CostClass::Argon2(cost) => {
                let usual = Cost::default();
                let passes = u32::try_from(cost.work().div_ceil(usual.memory_kib.into())).unwrap_or(u32::MAX);
                // Every check costs at least as much as the default, so cheaper hashes need no entry.
                if passes <= usual.passes {
                    continue;
                }
                ("argon2", passes, 20)
            }
            CostClass::Bcrypt { cost } => ("bcrypt", cost, 15),
            CostClass::Pbkdf2 { bits: 160, iterations } => ("pbkdf2-sha1", iterations, 5_000_000),
            CostClass::Pbkdf2 { bits: 256, iterations } => ("pbkdf2-sha256", iterations, 5_000_000),
            CostClass::Pbkdf2 { bits: 512, iterations } => ("pbkdf2-sha512", iterations, 5_000_000),
            CostClass::Scrypt { log_n, .. } => ("scrypt", u32::from(log_n).max(10), 16),
            // The table contains no other scheme.
            _ => continue,
        };
        let known = dearest.entry(scheme).or_default();
        *known = (*known).max(cost.min(most));
    }
    dearest.into_iter().map(|(scheme, cost)| format!("{scheme}:{cost}")).collect()
}

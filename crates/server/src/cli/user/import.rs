//! `rotogate user import`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::super::output::Output;
use super::super::{At, CommandResult, Failure};
use super::reload_running_gate;
use rotogate_config::Config;
use rotogate_core::clock::Timestamp;
use rotogate_core::password::FirebaseParameters;
use rotogate_core::private_file;
use rotogate_core::session::Scope;
use rotogate_directories::users::edit::{self, EditError};
use rotogate_directories::users::import::{self, ImportDefaults, ImportPlace, Imported};
use rotogate_directories::users::{UsersFile, audit};

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArguments {
    /// The file with the users. Only its owner may read it. With --to, the default is the users file.
    #[arg(required_unless_present = "to")]
    file: Option<PathBuf>,
    /// Adds the users to this SQLite database instead of the users file, and prints a `[directory]` section for it. The
    /// path is relative to the configuration.
    #[arg(long, value_name = "sqlite:FILE")]
    pub(super) to: Option<String>,
    /// Reports what would be imported, without changing anything.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The file (JSON) with the password hash parameters of the Firebase project; by default those in `[directory]`.
    #[arg(long, value_name = "FILE", requires = "file")]
    firebase: Option<PathBuf>,
    /// The account of users that have no account in the file.
    #[arg(long, requires = "file")]
    account: Option<String>,
    /// The scopes of users that have no scopes in the file, separated by spaces.
    #[arg(long, default_value = "", requires = "file")]
    scopes: String,
}

impl ImportArguments {
    fn defaults(&self, users: Option<&UsersFile>) -> Result<ImportDefaults, Failure> {
        let scopes = Scope::parse(&self.scopes).map_err(Failure::failed)?;
        let firebase = firebase(self.firebase.as_deref(), users)?;
        Ok(ImportDefaults { account: self.account.clone(), scopes, firebase })
    }
}

#[derive(Serialize)]
struct ImportReport {
    users: usize,
    schemes: BTreeMap<&'static str, usize>,
    without_password: usize,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl ImportReport {
    fn new(imported: Imported, dry_run: bool) -> Self {
        let Imported { users, schemes, without_password } = imported;
        Self { users, schemes, without_password, dry_run, database: None, directory: None, warnings: Vec::new() }
    }

    fn text(&self) -> String {
        let of = |(scheme, number): (&&str, &usize)| format!("{number} {scheme}");
        let schemes: Vec<String> = self.schemes.iter().map(of).collect();
        let schemes = if schemes.is_empty() { String::new() } else { format!(": {}", schemes.join(", ")) };
        let done = if self.dry_run { "would be imported; nothing was changed" } else { "imported" };
        let left_out = match self.without_password {
            0 => String::new(),
            number => format!("\n{number} users were left out, because they have no password"),
        };
        let warnings: String = self.warnings.iter().map(|warning| format!("\nwarning: {warning}")).collect();
        let database = match (&self.database, &self.directory) {
            (Some(database), Some(directory)) => format!(
                "\nThe database is {}. In the configuration, replace the directory of the users file with these \
                 lines, and restart the gate:\n\n{}",
                database.display(),
                directory.trim_end()
            ),
            _ => String::new(),
        };
        format!("{} users {done}{schemes}{left_out}{warnings}{database}", self.users)
    }
}

/// The parameters from the option and from the configuration must be equal.
fn firebase(file: Option<&Path>, users: Option<&UsersFile>) -> Result<Option<FirebaseParameters>, Failure> {
    let configured = users.and_then(UsersFile::firebase);
    let Some(path) = file else { return Ok(configured.cloned()) };
    let text = private_file::read_private(path).map_err(Failure::Failed)?;
    let read = FirebaseParameters::from_json(&text);
    let read = read.map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    if configured.is_some_and(|configured| *configured != read) {
        return Err(Failure::Failed(format!(
            "{}: these parameters differ from `hash_parameters` in `[directory]`",
            path.display()
        )));
    }
    Ok(Some(read))
}

/// Waits until a running gate has loaded the users.
pub(super) fn into_file(
    config: &Config,
    file: &UsersFile,
    arguments: &ImportArguments,
    now: Timestamp,
    output: Output,
) -> CommandResult {
    config.file_takes_users_of(arguments.account.as_deref()).map_err(Failure::Failed)?;
    let defaults = arguments.defaults(Some(file))?;
    let path = arguments.file.as_deref().unwrap_or(Path::new(""));
    let text = private_file::read_private(path).map_err(Failure::Failed)?;
    let name = path.to_string_lossy();
    let done = import::import(file, &name, &text, &defaults, now, arguments.dry_run);
    let done = done.map_err(|error| refused(&name, error))?;
    if !arguments.dry_run {
        audit::write_imported_users(done.users);
        reload_running_gate(config)?;
    }
    let mut report = ImportReport::new(done, arguments.dry_run);
    // A dry run does not create the users file.
    let users = if file.path().exists() { edit::list(file).map_err(Failure::failed)? } else { Vec::new() };
    let scopes = users.iter().fold(Scope::default(), |all, listed| all.union(&listed.user.scopes));
    report.warnings.extend(config.unknown_scopes(&scopes));
    output.write(&report, || report.text())
}

/// A running gate does not read the database yet.
#[cfg(feature = "sql")]
pub(super) fn into_database(
    config: &Config,
    url: &str,
    arguments: &ImportArguments,
    now: Timestamp,
    output: Output,
) -> CommandResult {
    use super::super::audit_trail;
    use rotogate_core::password::{Accepted, Legacy};
    use rotogate_directories::users::database::{self, Copied, ReplacedEntry, UserCopy};

    let folder = config.source.file().parent().unwrap_or(Path::new(""));
    let path = database::path_of(url, folder).map_err(Failure::Failed)?;
    let dry_run = arguments.dry_run;
    let _trail = if dry_run { None } else { audit_trail(config)? };
    let file = config.file_directory().map(|_| config.users_file()).transpose().map_err(Failure::Failed)?;
    let (name, copy) = match (&arguments.file, &file) {
        (Some(path), file) => {
            let defaults = arguments.defaults(file.as_ref())?;
            let text = private_file::read_private(path).map_err(Failure::Failed)?;
            // All hash schemes are accepted here. The code below refuses the schemes that a database directory does not
            // support.
            let accepted = Accepted {
                legacy: Legacy::NAMES.iter().map(|(_, scheme)| *scheme).collect(),
                firebase: defaults.firebase.clone(),
                ..file.as_ref().map(|file| file.accepted().clone()).unwrap_or_default()
            };
            let name = path.to_string_lossy().into_owned();
            let copy = UserCopy::of_import(&name, &text, &defaults, &accepted, now);
            (name, copy)
        }
        (None, Some(file)) => (file.path().display().to_string(), UserCopy::of_file(file)),
        (None, None) => {
            let what = "the users are not in a file (`directory.kind`), so give the path of a file to import";
            return Err(Failure::Failed(what.to_owned()));
        }
    };
    let copy = copy.map_err(|error| refused(&name, error))?;
    let listed = config.file_directory().filter(|directory| directory.key != "directory");
    let replaced = listed.map(|one| ReplacedEntry { name: &one.name, accounts: one.accounts.as_deref() });
    let added = copy.add_to((url, &path), replaced, dry_run);
    let Copied { directory, warnings } = added.map_err(|error| refused(&name, error))?;
    if !dry_run {
        audit::write_imported_users(copy.imported.users);
    }
    let (database, directory) = (Some(path), Some(directory));
    let report = ImportReport { database, directory, warnings, ..ImportReport::new(copy.imported, dry_run) };
    output.write(&report, || report.text())
}

#[cfg(not(feature = "sql"))]
pub(super) fn into_database(_: &Config, _: &str, _: &ImportArguments, _: Timestamp, _: Output) -> CommandResult {
    Err(Failure::Failed(rotogate_config::value::needs_feature("--to", "sql")))
}

fn refused(file: &str, error: EditError) -> Failure {
    let problems = match error {
        EditError::Import(problems) => problems,
        EditError::TooMany { there, .. } => {
            let first = if there > 0 { "`rotogate user import --to sqlite:data/users.db`, then " } else { "" };
            return Failure::Failed(format!(
                "{error}; nothing was imported. A database can contain more users: run {first}`rotogate user import \
                 {file} --to sqlite:data/users.db`"
            ));
        }
        other => return Failure::failed(other),
    };
    let at = problems.shown().map(|(place, problem)| {
        let (line, key) = match place {
            ImportPlace::Line(line) => (Some(line), String::new()),
            ImportPlace::User(_) | ImportPlace::Hit(_) => (None, place.to_string()),
        };
        At { file: file.to_owned(), line, key, detail: problem.to_owned() }
    });
    let at: Vec<_> = at.collect();
    let what = match problems.hidden() {
        0 => "nothing was imported:".to_owned(),
        hidden => format!("nothing was imported; the first {} of {} problems:", at.len(), at.len() + hidden),
    };
    Failure::Refused { what, at }
}

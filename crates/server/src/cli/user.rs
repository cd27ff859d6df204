//! `rotogate user`.

use std::path::Path;

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use serde::Serialize;

use super::gate::{self, Reach};
use super::output::Output;
use super::{CommandResult, Failure, admin_client, audit_trail, load, prompt, runtime};
use crate::server::operate::admin::users::UserRequest;
use rotogate_config::{AdminAccess, Config};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::session::Scope;
use rotogate_directories::users::UsersFile;
use rotogate_directories::users::audit::{ChangedUser, UserEvent};
use rotogate_directories::users::edit::{self, EditError, UserKey};
use rotogate_kit::config::printable;

mod import;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Adds a user. Prompts for the password, or reads it from standard input.
    Add {
        #[command(flatten)]
        who: UserArguments,
        /// The `sub` of the user's tokens; random by default.
        #[arg(long)]
        subject: Option<String>,
        /// The scopes that the user's tokens may carry, separated by spaces.
        #[arg(long, default_value = "")]
        scopes: String,
        /// Reads the password from standard input, even if that is a terminal.
        #[arg(long)]
        stdin: bool,
    },
    /// Adds the users of another system with their password hashes, either all users in a file or none.
    ///
    /// The file contains JSON lines, CSV with a header (its name ends with .csv), the JSON of `firebase auth:export`, or
    /// Kuzzle's users as Elasticsearch returns them. Keys and columns: username, password_hash, account, subject, active,
    /// scopes, valid_from, profile (columns: profile.email). The user's next login replaces an imported hash with
    /// argon2id.
    ///
    /// The users file can have up to 2000 users. With --to, the users of FILE or of the users file are added to an
    /// SQLite database, which can have more.
    Import(import::ImportArguments),
    /// Lists the users.
    List,
    /// Removes a user. All sessions of the user end.
    #[command(alias = "delete")]
    Remove {
        #[command(flatten)]
        who: UserArguments,
    },
    /// Sets a user's password. All sessions of the user end.
    Passwd {
        #[command(flatten)]
        who: UserArguments,
        /// Reads the password from standard input, even if that is a terminal.
        #[arg(long)]
        stdin: bool,
    },
    /// Gives a user further scopes. Tokens have them from the next login on.
    AddScope {
        #[command(flatten)]
        who: UserArguments,
        /// The scopes.
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
    },
    /// Takes scopes from a user. Sessions lose them at their next refresh.
    RemoveScope {
        #[command(flatten)]
        who: UserArguments,
        /// The scopes.
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
    },
    /// Disables a user. All sessions of the user end.
    Disable {
        #[command(flatten)]
        who: UserArguments,
        #[command(flatten)]
        gate: gate::GateOptions,
    },
    /// Enables a user again.
    Enable {
        #[command(flatten)]
        who: UserArguments,
    },
}

/// A user, by name.
#[derive(Debug, Args)]
pub(super) struct UserArguments {
    /// The user's name.
    username: String,
    /// The user's account. By default, the user has no account.
    #[arg(long)]
    account: Option<String>,
}

impl UserArguments {
    fn who(&self) -> UserKey<'_> {
        let account = self.account.as_deref().filter(|account| !account.is_empty());
        UserKey { account, username: &self.username }
    }

    fn command(&self, name: &str, rest: &str) -> String {
        let UserKey { account, username } = self.who();
        let account = account.map(|name| format!(" --account {}", for_shell(name, "ACCOUNT"))).unwrap_or_default();
        format!("`rotogate user {name} {}{rest}{account}`", for_shell(username, "NAME"))
    }
}

#[derive(Serialize)]
struct UserChangeReport<'a> {
    username: &'a str,
    account: Option<&'a str>,
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

#[derive(Serialize)]
struct UserRow {
    username: String,
    account: Option<String>,
    subject: String,
    active: bool,
    scopes: String,
}

pub(super) fn run(path: &Path, command: UserCommand, output: Output) -> CommandResult {
    let UserCommand::Disable { who, gate } = &command else { return run_configured(&load(path)?, command, output) };
    match gate.reach(path)? {
        Reach::Gate(gate) => disable_at_gate(&gate, who, output),
        Reach::Configured(config) => run_configured(&config, command, output),
    }
}

fn disable_at_gate(gate: &AdminAccess, who: &UserArguments, output: Output) -> CommandResult {
    let request = UserRequest { user: who.username.clone(), account: who.account.clone() };
    runtime()?.block_on(admin_client::posted(gate, "/v1/users/disable", &request))?;
    let UserRequest { user: username, account } = &request;
    let done = UserChangeReport { username, account: account.as_deref(), done: "disabled", warning: None };
    output.write(&done, || format!("{username} disabled"))
}

fn run_configured(config: &Config, command: UserCommand, output: Output) -> CommandResult {
    let now = SystemTime::new().wall();
    if let UserCommand::Import(arguments) = &command
        && let Some(url) = &arguments.to
    {
        return import::into_database(config, url, arguments, now, output);
    }
    let file = &config.users_file().map_err(Failure::Failed)?;
    let is_change =
        !matches!(command, UserCommand::List | UserCommand::Import(import::ImportArguments { dry_run: true, .. }));
    let _trail = if is_change { audit_trail(config)? } else { None };
    let changed = |who: &UserArguments,
                   edited: Result<(), EditError>,
                   (event, key): (UserEvent, Option<&str>),
                   (done, given): (&'static str, Option<&Scope>)| {
        edited.map_err(|error| not_done(who, file, &error))?;
        let UserKey { account, username } = who.who();
        let key = key.map(str::to_owned);
        ChangedUser { event, name: username, account, subject: None, changed: key }.write();
        // A running gate must apply the change before success is reported.
        reload_running_gate(config)?;
        let warning = given.and_then(|scopes| config.unknown_scopes(scopes)).map(|what| {
            let remove = who.command("remove-scope", " SCOPE");
            format!("{what}. To remove a scope, run {remove}")
        });
        let told = warning.as_ref().map(|warning| format!("\nwarning: {warning}")).unwrap_or_default();
        let changed = UserChangeReport { username, account, done, warning };
        output.write(&changed, || format!("{} {done}{told}", who.username))
    };
    match command {
        UserCommand::List => list(file, output),
        UserCommand::Add { who, subject, scopes, stdin } => {
            config.file_takes_users_of(who.account.as_deref()).map_err(Failure::Failed)?;
            let scopes = Scope::parse(&scopes).map_err(Failure::failed)?;
            let password = prompt::new_password(&who.username, stdin)?;
            let added = edit::add_user(file, who.who(), subject.as_deref(), &scopes, &password, now).map(drop);
            changed(&who, added, (UserEvent::Added, None), ("added", Some(&scopes)))
        }
        UserCommand::Import(arguments) => import::into_file(config, file, &arguments, now, output),
        UserCommand::Remove { who } => {
            changed(&who, edit::remove_user(file, who.who()), (UserEvent::Removed, None), ("removed", None))
        }
        UserCommand::Passwd { who, stdin } => {
            let password = prompt::new_password(&who.username, stdin)?;
            let set = edit::set_password(file, who.who(), &password, now);
            changed(
                &who,
                set,
                (UserEvent::Changed, Some("password")),
                ("has a new password; all earlier sessions have ended", None),
            )
        }
        UserCommand::AddScope { who, scopes } => {
            let named = Scope::parse(&scopes.join(" ")).map_err(Failure::failed)?;
            let added = edit::change_scopes(file, who.who(), &named, true);
            changed(
                &who,
                added,
                (UserEvent::Changed, Some("scopes")),
                ("also has these scopes from the next login on", Some(&named)),
            )
        }
        UserCommand::RemoveScope { who, scopes } => {
            let named = Scope::parse(&scopes.join(" ")).map_err(Failure::failed)?;
            let removed = edit::change_scopes(file, who.who(), &named, false);
            let done = "no longer has these scopes; its sessions lose them at their next refresh";
            changed(&who, removed, (UserEvent::Changed, Some("scopes")), (done, None))
        }
        UserCommand::Disable { who, gate: _ } => {
            let disabled = edit::set_active(file, who.who(), false, now);
            changed(&who, disabled, (UserEvent::Disabled, None), ("disabled", None))
        }
        UserCommand::Enable { who } => {
            let enabled = edit::set_active(file, who.who(), true, now);
            changed(&who, enabled, (UserEvent::Enabled, None), ("enabled", None))
        }
    }
}

/// Returns a placeholder if a shell would interpret the word.
fn for_shell<'a>(word: &'a str, placeholder: &'a str) -> &'a str {
    let is_plain = word.chars().all(|c| c.is_alphanumeric() || "-_.@+:/".contains(c));
    if is_plain { word } else { placeholder }
}

fn list(file: &UsersFile, output: Output) -> CommandResult {
    let users = edit::list(file).map_err(Failure::failed)?;
    let rows = users.into_iter().map(|listed| UserRow {
        username: listed.username,
        account: listed.user.account.as_deref().map(str::to_owned),
        subject: listed.user.subject.to_string(),
        active: listed.user.active,
        scopes: listed.user.scopes.to_string(),
    });
    output.list(&rows.collect::<Vec<_>>(), line)
}

/// The message names the user if the error is about the user.
fn not_done(who: &UserArguments, file: &UsersFile, error: &EditError) -> Failure {
    let account = who.account.as_ref().map(|account| format!(" of the account {account}")).unwrap_or_default();
    let user = printable(&format!("{}{account}", who.username));
    Failure::Failed(match error {
        EditError::Unknown => format!("{user}: {error}; `rotogate user list` lists all users"),
        EditError::Exists(edit::SAME_NAME) => format!(
            "{user}: {error}; nothing was changed. To set another password, run {}; to add scopes, run {}",
            who.command("passwd", ""),
            who.command("add-scope", " SCOPE")
        ),
        EditError::Exists(_) => {
            format!(
                "{user}: {error}; nothing was changed. Choose another `--subject`; `rotogate user list` shows all \
                 subjects"
            )
        }
        EditError::Invalid(_) => format!("{user}: {error}; nothing was changed"),
        EditError::Io(_) => format!("{}: {error}", file.path().display()),
        error => error.to_string(),
    })
}

/// Waits until a running gate uses the change.
fn reload_running_gate(config: &Config) -> CommandResult {
    let asked = runtime()?.block_on(admin_client::send(&config.admin.access(), Method::POST, "/v1/users/reload"));
    let why = match asked {
        Ok(Some(response)) if response.status() == StatusCode::NOT_FOUND => {
            "the gate's version does not support this request".to_owned()
        }
        Ok(Some(_) | None) => return Ok(()),
        Err(failure) => failure.to_string(),
    };
    Err(Failure::Failed(format!(
        "the users file was changed, but the running gate did not confirm the change: {why}. If the gate still runs \
         and the file is valid, the gate reads the file by itself within a second"
    )))
}

fn line(row: &UserRow) -> String {
    let account = row.account.as_deref().map_or(String::new(), |account| format!("{account}/"));
    let active = if row.active { "active" } else { "disabled" };
    format!("{account}{}  sub={}  {active}  scopes=[{}]", row.username, row.subject, row.scopes)
}

//! `rotogate user`.

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use serde::Serialize;

use super::output::Output;
use super::{CommandResult, Failure, admin_client, prompt, runtime};
use crate::config::{Config, DirectoryConfig};
use crate::users::edit::{self, UserKey};
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::session::Scope;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Adds a user; asks for the password, or reads it from standard input.
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
    /// Lists the users.
    List,
    /// Removes a user. All sessions of the user end.
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
    /// Disables a user. All sessions of the user end.
    Disable {
        #[command(flatten)]
        who: UserArguments,
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
    /// The user's account.
    #[arg(long)]
    account: Option<String>,
}

impl UserArguments {
    fn who(&self) -> UserKey<'_> {
        UserKey { account: self.account.as_deref(), username: &self.username }
    }
}

#[derive(Serialize)]
struct ChangeReport<'a> {
    username: &'a str,
    account: Option<&'a str>,
    done: &'static str,
}

#[derive(Serialize)]
struct Row {
    username: String,
    account: Option<String>,
    subject: String,
    active: bool,
    scopes: String,
}

pub(super) fn run(config: &Config, command: Command, output: Output) -> CommandResult {
    let DirectoryConfig::File { path } = &config.directory else {
        let what = "the users are not in a file (directory.kind); change them where they are kept".to_owned();
        return Err(Failure::Failed(what));
    };
    let now = SystemTime::new().wall();
    let changed = |who: &UserArguments, done: &'static str| {
        // A running gate applies the change before this command reports success.
        reload_running_gate(config)?;
        let changed = ChangeReport { username: &who.username, account: who.account.as_deref(), done };
        output.write(&changed, || format!("{} {done}", who.username))
    };
    match command {
        Command::List => {
            let users = edit::list(path).map_err(Failure::of)?;
            let rows: Vec<Row> = users
                .into_iter()
                .map(|listed| Row {
                    username: listed.username,
                    account: listed.user.account.as_deref().map(str::to_owned),
                    subject: listed.user.subject.to_string(),
                    active: listed.user.active,
                    scopes: listed.user.scopes.to_string(),
                })
                .collect();
            output.write(&rows, || table(&rows))
        }
        Command::Add { who, subject, scopes, stdin } => {
            let scopes = Scope::parse(&scopes).map_err(Failure::of)?;
            let password = prompt::new_password(&who.username, stdin)?;
            edit::add_user(path, who.who(), subject.as_deref(), &scopes, &password, now).map_err(Failure::of)?;
            changed(&who, "added")
        }
        Command::Remove { who } => {
            edit::remove_user(path, who.who()).map_err(Failure::of)?;
            changed(&who, "removed")
        }
        Command::Passwd { who, stdin } => {
            let password = prompt::new_password(&who.username, stdin)?;
            edit::set_password(path, who.who(), &password, now).map_err(Failure::of)?;
            changed(&who, "has a new password; the sessions so far are over")
        }
        Command::Disable { who } => {
            edit::set_active(path, who.who(), false, now).map_err(Failure::of)?;
            changed(&who, "disabled")
        }
        Command::Enable { who } => {
            edit::set_active(path, who.who(), true, now).map_err(Failure::of)?;
            changed(&who, "enabled")
        }
    }
}

/// Makes a running gate read the file, and waits until the change counts. Does nothing if none runs.
fn reload_running_gate(config: &Config) -> CommandResult {
    let asked = runtime()?.block_on(admin_client::send(config, Method::POST, "/users/reload"));
    let why = match asked {
        Ok(Some(response)) if response.status() == StatusCode::NOT_FOUND => {
            "its version does not support that".to_owned()
        }
        Ok(Some(_) | None) => return Ok(()),
        Err(failure) => failure.to_string(),
    };
    Err(Failure::Failed(format!(
        "the users file is changed, but the gate that runs did not confirm it: {why}. It reads the file by \
         itself within a second, if the file is sound and it is there"
    )))
}

fn table(rows: &[Row]) -> String {
    rows.iter()
        .map(|row| {
            let account = row.account.as_deref().map_or(String::new(), |account| format!("{account}/"));
            let active = if row.active { "active" } else { "disabled" };
            format!("{account}{}  sub={}  {active}  scopes=[{}]", row.username, row.subject, row.scopes)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

//! The command line. One file a command, each a thin call into the library or the admin listener.
//!
//! Exit codes: 0 done; 1 it could not be done, or nothing matched; 2 the command line or the configuration is wrong.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::config::{self, Config, ConfigError, ConfigErrors, ProcessEnv};

mod check;
mod client;
mod greeting;
mod keys;
mod output;
mod prompt;
mod running;
mod serve;
mod session;
mod store;
mod successor;
mod token;
mod user;

use output::Output;
use successor::Baton;

/// Validates bearer tokens, rotates refresh tokens, and acts on a revocation at the next request.
#[derive(Debug, Parser)]
#[command(name = "rotogate", version, about, propagate_version = true)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, env = "ROTOGATE_CONFIG", default_value = "gateway.toml", value_name = "FILE")]
    config: PathBuf,
    /// Writes JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the gate (the default).
    Serve,
    /// Says everything that a start would refuse: of the configuration, of the files that it names, of its addresses.
    ///
    /// Exit code 2 where something is wrong, 1 where something could not be looked at. Makes no file.
    Check {
        /// Prints the configuration in force as TOML, with every default, secrets masked.
        #[arg(long)]
        print: bool,
        /// Takes warnings for errors: exit code 1.
        #[arg(long)]
        strict: bool,
    },
    /// Users of the users file; a running gate sees changes at once.
    #[command(subcommand)]
    User(user::Command),
    /// Confidential clients.
    #[command(subcommand)]
    Client(client::Command),
    /// Sessions of the running gate, to be seen and ended.
    #[command(subcommand)]
    Session(session::Command),
    /// The keys that tokens are signed with; a running gate sees changes at once.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Tokens, to look into or to make by hand.
    #[command(subcommand)]
    Token(token::Command),
    /// The store.
    #[command(subcommand)]
    Store(store::Command),
}

/// What went wrong, for the person at the terminal.
#[derive(Debug)]
enum Failure {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2.
    Wrong(String),
    /// The configuration, or files that it names: exit code 2, or 1 where nothing but a right to look is missing. At least
    /// one.
    Configuration(Vec<ConfigError>),
    /// Nobody reads any more what is written. That is no failure: `| head` has what it wanted.
    Unread,
}

impl Failure {
    fn of(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    fn configuration(errors: &ConfigErrors) -> Self {
        Self::Configuration(errors.iter().cloned().collect())
    }

    /// A word for programs, and the exit code.
    fn kind(&self) -> (&'static str, u8) {
        match self {
            Self::Failed(_) => ("failed", 1),
            Self::Wrong(_) => ("usage", 2),
            Self::Configuration(at) if at.iter().all(|error| error.unchecked) => ("not_checked", 1),
            Self::Configuration(_) => ("configuration", 2),
            Self::Unread => ("unread", 0),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(text) | Self::Wrong(text) => f.write_str(text),
            Self::Configuration(at) => {
                let lines: Vec<_> = at.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Unread => f.write_str("nobody reads standard output any more"),
        }
    }
}

/// A problem and where it is, for programs.
#[derive(Debug, Serialize)]
struct At {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    detail: String,
}

impl At {
    fn of(error: &ConfigError) -> Self {
        let ConfigError { source, position, key, message, unchecked: _ } = error;
        Self { file: source.clone(), line: position.map(|(line, _)| line), key: key.clone(), detail: message.clone() }
    }
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: Why<'a>,
}

#[derive(Serialize)]
struct Why<'a> {
    code: &'a str,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    at: Vec<At>,
}

type Done = Result<(), Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    let baton = Baton::received();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => match baton.filter(|baton| baton.refused.is_none()) {
            // The program from before knew these arguments.
            Some(baton) => {
                complain(&error.to_string());
                complain(&baton.give_back(&Failure::of(error), None).to_string());
                return ExitCode::from(2);
            }
            None => error.exit(),
        },
    };
    let output = Output { json: arguments.json };
    let path = arguments.config;
    let command = arguments.command.unwrap_or(Command::Serve);
    // What a gate says on standard output is its greeting.
    let is_gate = matches!(command, Command::Serve);
    let done = match command {
        Command::Serve => serve::run(&path, output, baton),
        Command::Check { print, strict } => check::run(&path, print, strict, output),
        Command::User(command) => load(&path).and_then(|config| user::run(&config, command, output)),
        Command::Client(command) => client::run(&command, output),
        Command::Session(command) => load(&path).and_then(|config| session::run(&config, command, output)),
        Command::Keys(command) => load(&path).and_then(|config| keys::run(&config, command, output)),
        Command::Token(command) => load(&path).and_then(|config| token::run(&config, command, output)),
        Command::Store(command) => load(&path).and_then(|config| store::run(&config, command, output)),
    };
    let Err(failure) = done else { return ExitCode::SUCCESS };
    let (code, status) = failure.kind();
    match &failure {
        Failure::Unread => {}
        Failure::Failed(_) | Failure::Wrong(_) | Failure::Configuration(_) if output.json && !is_gate => {
            let at = match &failure {
                Failure::Configuration(at) => at.iter().map(At::of).collect(),
                Failure::Failed(_) | Failure::Wrong(_) | Failure::Unread => Vec::new(),
            };
            // The exit code says it, too.
            let _ = output.write(&Refusal { error: Why { code, detail: failure.to_string(), at } }, String::new);
        }
        Failure::Failed(text) => complain(&format!("rotogate: {text}")),
        Failure::Wrong(_) | Failure::Configuration(_) => complain(&failure.to_string()),
    }
    ExitCode::from(status)
}

fn complain(text: &str) {
    // The exit code says it, too.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn load(path: &std::path::Path) -> Result<Config, Failure> {
    config::load(path, &ProcessEnv).map_err(|errors| Failure::configuration(&errors))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)
}

//! The command line. One file a command, each a thin call into the library or the admin listener.
//!
//! Exit codes: 0 done; 1 it could not be done; 2 the command line or the configuration is wrong.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config, ProcessEnv};

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
    /// Reads the configuration and says everything that is wrong with it.
    Check {
        /// Prints the configuration in force, with every default, secrets masked.
        #[arg(long)]
        print: bool,
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
}

impl Failure {
    fn of(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Failed(text) | Self::Wrong(text)) = self;
        f.write_str(text)
    }
}

type Done = Result<(), Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output { json: arguments.json };
    let path = arguments.config;
    let done = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => load(&path).and_then(|config| serve::run(&path, config, output)),
        Command::Check { print } => load(&path).and_then(|config| check::run(&path, &config, print, output)),
        Command::User(command) => load(&path).and_then(|config| user::run(&config, command, output)),
        Command::Client(command) => client::run(&command, output),
        Command::Session(command) => load(&path).and_then(|config| session::run(&config, command, output)),
        Command::Keys(command) => load(&path).and_then(|config| keys::run(&config, command, output)),
        Command::Token(command) => load(&path).and_then(|config| token::run(&config, command, output)),
        Command::Store(command) => load(&path).and_then(|config| store::run(&config, command, output)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => {
            complain(&format!("rotogate: {text}"));
            ExitCode::from(1)
        }
        Err(Failure::Wrong(text)) => {
            complain(&text);
            ExitCode::from(2)
        }
    }
}

fn complain(text: &str) {
    // The exit code says it, too.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn load(path: &std::path::Path) -> Result<Config, Failure> {
    config::load(path, &ProcessEnv).map_err(|errors| Failure::Wrong(errors.to_string()))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)
}

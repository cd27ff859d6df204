//! The command line, with a file for each command.
//!
//! Exit codes: 0 success; 1 failure, refusal or no match; 2 invalid command line or configuration. With `--json`, every
//! error is a JSON object on standard output.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::log::{self, Logs};
use crate::server::operate::admin::KEPT;
use rotogate_config::{Config, ConfigError, ConfigErrors, OnAuditFailure, ProcessEnv};
use rotogate_core::token::keyring::Keyring;

mod admin_client;
mod api_key;
mod check;
mod client;
mod completions;
mod config_show;
mod events;
mod explain;
mod gate;
mod greeting;
mod init;
mod issuer;
mod keys;
mod man;
mod output;
mod prompt;
mod reload;
mod serve;
mod session;
mod status;
mod store;
mod token;
mod upgrade;
mod user;
mod version;

use output::Output;
use upgrade::Baton;

/// The text is shown in the help and the man pages.
const EXIT_CODES: &str = "Exit codes: 0 the command succeeded; 1 it failed, was refused, or matched nothing; 2 the \
                          command line or the configuration is invalid.";

/// Validates bearer tokens, rotates refresh tokens, and enforces revocations from the next request on.
#[derive(Debug, Parser)]
#[command(
    name = "rotogate",
    version,
    long_version = version::long(),
    about,
    propagate_version = true,
    after_help = EXIT_CODES
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, env = "ROTOGATE_CONFIG", default_value = "gateway.toml", value_name = "FILE")]
    config: PathBuf,
    /// Writes JSON: one object, or one object on each line for a list. Errors also go to standard output.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the gate (the default).
    Serve,
    /// Writes a first gateway.toml with comments. Never replaces a file.
    Init(init::InitOptions),
    /// Reports every problem that would prevent a start: in the configuration, in the files that it names, and in its
    /// addresses.
    ///
    /// The exit code is 2 if something is wrong, and 1 if something could not be examined. Does not create files.
    Check {
        /// Prints the configuration as TOML, with all defaults and masked secrets.
        #[arg(long)]
        print: bool,
        /// Treats warnings as errors: exit code 1.
        #[arg(long)]
        strict: bool,
        /// Also sends requests to the directory, if users are not in a file, and to issuers whose keys are fetched.
        #[arg(long)]
        online: bool,
    },
    /// Shows the configuration: every key, its value, and where the value comes from.
    #[command(subcommand)]
    Config(config_show::ConfigCommand),
    /// Makes the running gate read gateway.toml again, and waits for the result.
    ///
    /// The exit code is 1 if the file is refused, in which case nothing has changed. Names the configuration keys whose
    /// new values need an upgrade.
    Reload(gate::GateOptions),
    /// Makes the running gate replace itself with the program that is now at its path, with all of gateway.toml, and
    /// waits for the result. The gate accepts connections during the upgrade.
    ///
    /// The exit code is 1 if the upgrade is refused. The old program then continues to serve.
    Upgrade,
    /// Searches the last 1000 lines of the audit log.
    Events {
        #[command(flatten)]
        gate: gate::GateOptions,
        #[command(flatten)]
        options: events::EventsOptions,
    },
    /// Shows whether the running gate is ready. The exit code is 1 if it is not ready, or if no gate responds.
    Status(gate::GateOptions),
    /// Manages API keys of the running gate: list, create, rotate, revoke, report leaked ones.
    ApiKey {
        #[command(flatten)]
        gate: gate::GateOptions,
        #[command(subcommand)]
        command: api_key::ApiKeyCommand,
    },
    /// Manages users in the users file. A running gate applies changes at once.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Creates secrets for confidential clients.
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Manages sessions of the running gate: list, show, revoke.
    Session {
        #[command(flatten)]
        gate: gate::GateOptions,
        #[command(subcommand)]
        command: session::SessionCommand,
    },
    /// Manages issuers whose keys the running gate fetches: list, refresh, drop.
    Issuer {
        #[command(flatten)]
        gate: gate::GateOptions,
        #[command(subcommand)]
        command: issuer::IssuerCommand,
    },
    /// Shows rule by rule how the running gate would decide on a request, and how to fix a refusal. Reads the token
    /// from standard input.
    ///
    /// Does not change anything. The exit code is 1 if the request is refused.
    Explain {
        #[command(flatten)]
        gate: gate::GateOptions,
        #[command(flatten)]
        options: explain::ExplainOptions,
    },
    /// Manages the keys that sign tokens. A running gate applies changes at once.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Inspects a token, or mints one by hand.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Backs up, restores, copies or repairs the store.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Prints the hash that the audit log contains instead of the username of a refused login.
    AuditHash {
        /// The username, exactly as it was typed.
        name: String,
    },
    /// Prints the completion script for a shell.
    Completions(completions::CompletionsOptions),
    /// Prints the man page rotogate(1), or writes all man pages into a folder.
    Man(man::ManOptions),
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Failed(String),
    /// Exit code 1. `at` lists the invalid positions in an input file.
    #[error("{what}{}", at.iter().map(|at| format!("\n{at}")).collect::<String>())]
    Refused { what: String, at: Vec<At> },
    #[error("{0}")]
    Usage(String),
    /// Invalid configuration. The exit code is 2, or 1 if the only problem is a missing read permission.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Configuration(Vec<ConfigError>),
    /// An invalid configuration that was not reloaded.
    #[error("{}\nnothing was reloaded: {}", .0, KEPT)]
    NotReloaded(Box<Self>),
    /// Exit code 1. The output already explains the failure.
    #[error("refused")]
    Told,
    /// Standard output was closed, for example by `| head`.
    #[error("standard output is closed")]
    OutputClosed,
}

impl Failure {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    fn configuration(errors: &ConfigErrors) -> Self {
        Self::Configuration(errors.iter().cloned().collect())
    }

    fn at(&self) -> Vec<At> {
        match self {
            Self::Refused { what: _, at } => at.clone(),
            Self::Configuration(at) => at.iter().map(At::new).collect(),
            Self::NotReloaded(why) => why.at(),
            Self::Failed(_) | Self::Usage(_) | Self::Told | Self::OutputClosed => Vec::new(),
        }
    }

    fn not_reloaded(self) -> Self {
        if matches!(self, Self::Configuration(_)) { Self::NotReloaded(Box::new(self)) } else { self }
    }

    fn kind(&self) -> (&'static str, u8) {
        match self {
            Self::Failed(_) => ("failed", 1),
            Self::Refused { .. } => ("refused", 1),
            Self::Usage(_) => ("usage", 2),
            Self::Configuration(at) if at.iter().all(|error| error.unchecked) => ("not_checked", 1),
            Self::Configuration(_) => ("configuration", 2),
            Self::NotReloaded(why) => why.kind(),
            Self::Told => ("refused", 1),
            Self::OutputClosed => ("unread", 0),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct At {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key: String,
    detail: String,
}

impl At {
    fn new(error: &ConfigError) -> Self {
        let ConfigError { source, position, key, message, unchecked: _ } = error;
        Self { file: source.clone(), line: position.map(|(line, _)| line), key: key.clone(), detail: message.clone() }
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, key, detail } = self;
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        write!(f, "{file}{line}: {key}{detail}")
    }
}

#[derive(Serialize)]
struct ErrorReport<'a> {
    error: Why<'a>,
}

#[derive(Serialize)]
struct Why<'a> {
    code: &'a str,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    at: Vec<At>,
}

type CommandResult = Result<(), Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    let baton = Baton::received();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => match baton.filter(|baton| baton.refused.is_none()) {
            // The previous process of an in-place upgrade has already accepted these arguments.
            Some(baton) => {
                print_error(&error.to_string());
                print_error(&baton.roll_back(&Failure::failed(error), None).to_string());
                return ExitCode::from(2);
            }
            None => return command_line(&error),
        },
    };
    let output = Output { json: arguments.json };
    let path = arguments.config;
    let command = arguments.command.unwrap_or(Command::Serve);
    // A gate writes only its greeting to standard output.
    let is_gate = matches!(command, Command::Serve);
    let done = match command {
        Command::Serve => serve::run(&path, output, baton),
        Command::Check { print, strict, online } => {
            check::run(&path, check::CheckOptions { print, strict, online }, output)
        }
        Command::Config(command) => config_show::run(&path, &command, output),
        Command::Reload(gate) => {
            gate.sound(&path).map_err(Failure::not_reloaded).and_then(|gate| reload::run(&gate, output))
        }
        Command::Upgrade => load(&path).and_then(|config| reload::upgrade(&config, output)),
        Command::Events { gate, options } => gate.access(&path).and_then(|gate| events::run(&gate, &options, output)),
        Command::Status(gate) => gate.access(&path).and_then(|gate| status::run(&gate, output)),
        Command::User(command) => user::run(&path, command, output),
        Command::Client(command) => client::run(&command, output),
        Command::ApiKey { gate, command } => gate.access(&path).and_then(|gate| api_key::run(&gate, command, output)),
        Command::Session { gate, command } => gate.access(&path).and_then(|gate| session::run(&gate, command, output)),
        Command::Issuer { gate, command } => gate.access(&path).and_then(|gate| issuer::run(&gate, command, output)),
        Command::Explain { gate, options } => gate.access(&path).and_then(|gate| explain::run(&gate, &options, output)),
        Command::Keys(command) => keys::run(&path, command, output),
        Command::Token(command) => load(&path).and_then(|config| token::run(&config, command, output)),
        Command::Store(command) => store::run(&path, command, output),
        Command::AuditHash { name } => load(&path).and_then(|config| audit_hash(&config, &name, output)),
        Command::Init(options) => init::run(&path, &options, output),
        Command::Completions(options) => completions::run(&options, output),
        Command::Man(options) => man::run(&options, output),
    };
    let Err(failure) = done else { return ExitCode::SUCCESS };
    // A gate also reports the failure on standard error, for the journal.
    report(&failure, output, is_gate)
}

/// Reports a failure as JSON on standard output, or as text on standard error. `both` adds the text to the JSON.
/// Returns the exit code.
fn report(failure: &Failure, output: Output, both: bool) -> ExitCode {
    let (code, status) = failure.kind();
    if matches!(failure, Failure::Told | Failure::OutputClosed) {
        return ExitCode::from(status);
    }
    if output.json {
        let why = Why { code, detail: failure.to_string(), at: failure.at() };
        // The exit code also reports this failure.
        let _ = output.write(&ErrorReport { error: why }, String::new);
    }
    if !output.json || both {
        match failure {
            Failure::Failed(_) | Failure::Refused { .. } => print_error(&format!("rotogate: {failure}")),
            Failure::Usage(_)
            | Failure::Configuration(_)
            | Failure::NotReloaded(_)
            | Failure::Told
            | Failure::OutputClosed => print_error(&failure.to_string()),
        }
    }
    ExitCode::from(status)
}

/// clap also reports requests for help or the version as errors.
fn command_line(error: &clap::Error) -> ExitCode {
    // clap's error does not contain the parsed arguments.
    let json = std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json");
    if json && error.use_stderr() {
        return report(&Failure::Usage(error.render().to_string().trim_end().to_owned()), Output { json }, false);
    }
    // The output may already be closed.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

#[derive(Serialize)]
struct AuditHash<'a> {
    name_hash: &'a str,
}

fn audit_hash(config: &Config, name: &str, output: Output) -> CommandResult {
    let keyring = Keyring::load(&config.issuer.keys).map_err(Failure::failed)?;
    let none = || Failure::Failed("the keyring does not contain a secret for refresh tokens".to_owned());
    let name_hash = keyring.refresh_keys().name_hash(name).ok_or_else(none)?;
    output.write(&AuditHash { name_hash: &name_hash }, || name_hash.clone())
}

/// Opens the audit log until the returned value is dropped.
///
/// # Errors
/// The audit log is unusable, and `audit_log.on_failure` is `refuse`.
fn audit_trail(config: &Config) -> Result<Option<Logs>, Failure> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
    // sudo sets this variable to the name of its caller.
    let by_sudo = std::env::var("SUDO_USER").ok().filter(|_| nix::unistd::getuid().is_root());
    let actor = by_sudo.map_or_else(|| format!("cli:{user}"), |name| format!("cli:{name}"));
    match log::start_for_command(&config.audit_log, actor) {
        Ok(logs) => Ok(logs),
        Err(error) if config.audit_log.on_failure == OnAuditFailure::Refuse => {
            Err(Failure::Failed(format!("{error}; nothing was changed, because of `audit_log.on_failure`")))
        }
        Err(error) => {
            print_error(&format!("rotogate: the change is not in the audit log: {error}"));
            Ok(None)
        }
    }
}

fn print_error(text: &str) {
    // The exit code also reports this failure.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn load(path: &std::path::Path) -> Result<Config, Failure> {
    rotogate_config::load(path, &ProcessEnv).map_err(|errors| Failure::configuration(&errors))
}

fn no_gate_can() -> Failure {
    Failure::Usage("this command needs the whole configuration; access to a running gate is not enough".to_owned())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)
}

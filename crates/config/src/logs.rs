//! `[log]`, `[access_log]` and `[audit_log]` of `gateway.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use rotogate_core::private_file;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs, for people.
    Text,
    /// JSON, for programs.
    Json,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The line format of the application log and the access log. `None` to choose the format by the output.
    pub format: Option<LogFormat>,
    /// The lowest level of events that are logged.
    pub level: Level,
    /// The output.
    pub output: LogOutput,
}

/// The output of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, to which lines are appended.
    File(PathBuf),
}

impl LogOutput {
    /// If the folder of the file is missing, returns an error message with the remedy. The gate does not create folders
    /// for logs.
    pub fn missing_folder(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        let folder = private_file::parent(path);
        let is_missing = folder.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let shown = folder.display();
        is_missing
            .then(|| format!("{}: the folder of this file does not exist. Create it: mkdir -p {shown}", path.display()))
    }
}

impl std::fmt::Display for LogOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// `[access_log]`: the log with a line for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Whether the access log is written.
    pub enabled: bool,
    /// The format of the lines. `None` to choose the format by the output.
    pub format: Option<LogFormat>,
    /// The output.
    pub output: LogOutput,
    /// The maximum number of bytes that wait to be written.
    pub buffer: usize,
    /// The maximum time that a line waits to be written.
    pub flush_interval: Duration,
    /// The share of successful requests that are logged.
    pub sample: Sample,
    /// The routes that have their own rule, by id.
    pub routes: BTreeMap<Box<str>, RouteLog>,
}

/// A share of all requests, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(pub u32);

impl Sample {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);

    /// Decides at random whether the sample includes a request.
    pub fn takes(self) -> bool {
        self == Self::ALL || fastrand::u32(..Self::ALL.0) < self.0
    }
}

/// Which requests of a route are logged, if not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteLog {
    /// Nothing.
    Nothing,
    /// Requests that the gate refused, or whose status is not 2xx or 3xx.
    Errors,
}

/// `[audit_log]`: the log with a line for each security event and each change by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLogConfig {
    /// The output, in which every line is JSON. If `None`, the lines are written to the application log in its format.
    pub output: Option<LogOutput>,
    /// How much of a client's address is written.
    pub addresses: LogAddresses,
    /// The behaviour while no line of the audit log can be written.
    pub on_failure: OnAuditFailure,
}

/// The behaviour while no line of the audit log can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAuditFailure {
    /// The gate continues as usual, and counts the lost lines.
    Continue,
    /// Logins, refreshes, new tokens and changes by operators are refused. Revocations are still accepted.
    Refuse,
}

/// How much of a client's address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAddresses {
    /// The whole address.
    Full,
    /// The first 24 bits of an IPv4 address, or the first 48 bits of an IPv6 address.
    Prefix,
    /// Nothing.
    None,
}

//! `[log]`, `[access_log]` and `[audit_log]` of `gateway.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use rotogate_core::private_file;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The format of the log's lines.
    pub format: LogFormat,
    /// The level of the log: events of this level and above.
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
    /// A file, to append to.
    File(PathBuf),
}

impl LogOutput {
    /// Why the file cannot be created, if its folder is missing, and what to do. The gate creates no folder of logs.
    pub fn missing_folder(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        let folder = private_file::parent(path);
        let is_missing = folder.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let shown = folder.display();
        is_missing.then(|| format!("{}: its folder is missing: mkdir -p {shown}", path.display()))
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

/// `[access_log]`: a line for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Whether it is written.
    pub enabled: bool,
    /// The format of the log's lines.
    pub format: LogFormat,
    /// The output.
    pub output: LogOutput,
    /// The bytes that may wait to be written.
    pub buffer: usize,
    /// How long a line may wait.
    pub flush_interval: Duration,
    /// The share of passed requests that get a line.
    pub sample: Sample,
    /// Routes with a rule of their own, by id.
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

/// The requests of a route that get a line, if not all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteLog {
    /// Nothing.
    Nothing,
    /// Requests that did not pass, or whose status is not 2xx or 3xx.
    Errors,
}

/// `[audit_log]`: a line for each security event and each change by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLogConfig {
    /// The output, where every line is JSON. With `None`, lines go to the output of the application log, in
    /// its format.
    pub output: Option<LogOutput>,
    /// How much of a client's address the lines have.
    pub addresses: LogAddresses,
    /// The behaviour while no line of the audit log can be written.
    pub on_failure: OnAuditFailure,
}

/// The behaviour while no line of the audit log can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAuditFailure {
    /// The gate works as before. Lost lines are counted.
    Continue,
    /// No session begins or continues, no token is issued, and operators can change nothing. Only revocations are never
    /// refused.
    Refuse,
}

/// How much of a client's address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAddresses {
    /// The whole address.
    Full,
    /// The first 24 bits of an IPv4 address, 48 of an IPv6 address.
    Prefix,
    /// Nothing.
    None,
}

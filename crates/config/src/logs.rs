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

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The line format of the application log and the access log. `None` means that the format depends on the output.
    pub format: Option<LogFormat>,
    /// The lowest logged level.
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
    /// Returns an error message if the folder of the file is missing.
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

/// The `[access_log]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Whether the access log is written.
    pub enabled: bool,
    /// The format of the lines. `None` means that the format depends on the output.
    pub format: Option<LogFormat>,
    /// The output.
    pub output: LogOutput,
    /// The maximum number of buffered bytes.
    pub buffer: usize,
    /// The maximum time until a line is written.
    pub flush_interval: Duration,
    /// The share of successful requests that are logged.
    pub sample: Sample,
    /// The logging rules of individual routes, by route id.
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

/// Which requests of a route are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteLog {
    /// Nothing.
    Nothing,
    /// Only requests that the gate refused, or whose status is not 2xx or 3xx.
    Errors,
}

/// The `[audit_log]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLogConfig {
    /// The output, or `None` for the application log.
    pub output: Option<LogOutput>,
    /// How much of a client's address is written.
    pub addresses: LogAddresses,
    /// The behaviour if a line cannot be written.
    pub on_failure: OnAuditFailure,
}

/// The behaviour if a line of the audit log cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAuditFailure {
    /// The gate continues and counts the lost lines.
    Continue,
    /// The gate refuses logins, refreshes, new tokens and changes by operators, but accepts revocations.
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

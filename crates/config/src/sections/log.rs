//! `[log]`, `[access_log]` and `[audit_log]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::Value;
use tracing::Level;

use super::super::declare::section;
use super::super::print::{Print, Words};
use super::super::value;
use super::SECOND;
use crate::logs::{
    AccessLogConfig, AuditLogConfig, LogAddresses, LogConfig, LogFormat, LogOutput, OnAuditFailure, RouteLog, Sample,
};
use rotogate_kit::config::Value as Raw;

const ERRORS: &str = "errors";

section! {
    impl LogConfig, read by pub(super) read_keys(section, dir: &Path) {
        /// Format of the application log and the access log. `"json"`: each line is one flat object, for a log server.
        /// `"text"`: `key=value` pairs. Unset: text; on a terminal, the access log is shortened.
        reload format: Option<LogFormat> = get(value::word_of),
        /// Lowest level to log: `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`. It does not apply to the access
        /// log and to audit events. Write `"debug"` to find a fault, or `"warn"` to save disk space.
        reload level: Level = get_or(value::word_of, Level::INFO),
        /// `"stderr"`, `"stdout"`, or a path, which SIGUSR1 reopens.
        reload output: LogOutput = get_or(read_output(dir), LogOutput::Stderr),
    }
}

section! {
    impl AccessLogConfig, read by pub(super) read_access_keys(section, dir: &Path, log: &LogConfig) {
        /// false: the gate writes no access log. Write `false` if another proxy already writes one.
        reload enabled: bool = get_or(value::boolean, true),
        /// Format of the lines: that of `[log]`.
        no_key format: Option<LogFormat> = by { section.for_tests().get("format", value::word_of).or(log.format) },
        /// `"stderr"`, `"stdout"`, or a path, which SIGUSR1 reopens.
        reload output: LogOutput = get_or(read_output(dir), LogOutput::Stderr),
        /// Size of the buffer for lines that wait to be written. If the buffer is full, further lines are dropped and
        /// counted.
        fixed buffer: usize = get_or(value::size(64 << 10, 1 << 30), 1 << 20),
        /// Maximum time that a line waits to be written.
        fixed flush_interval: Duration = get_or(
            value::duration_within(Duration::from_millis(10), SECOND),
            Duration::from_millis(200)
        ),
        /// Fraction of the requests with status 2xx or 3xx to log, from 0 to 1. Requests with another status are always
        /// logged. Lower it if the log becomes too large.
        reload sample: Sample = get_or(read_sample, Sample::ALL),
        // `[[routes]]` contains these rules.
        no_key routes: BTreeMap<Box<str>, RouteLog> = by { BTreeMap::new() },
    }
}

section! {
    impl AuditLogConfig, read by pub(super) read_audit_keys(section, dir: &Path, log: &LogConfig, access: &AccessLogConfig) {
        /// Separate output for audit events, in JSON. Unset: the application log. Set it if more people may read the
        /// application log than the audit events, or if it is deleted sooner.
        reload output: Option<LogOutput> = get(read_audit_output(dir, log, access)),
        /// `"refuse"`: while the gate cannot write to `output`, logins, refreshes and changes by operators get 503, but
        /// revocations are accepted. Write `"refuse"` if every login must be recorded.
        reload on_failure: OnAuditFailure = get_or(read_on_failure(output.is_some()), OnAuditFailure::Continue),
        /// How much of a client's address is logged: `"full"`, `"prefix"` (/24 and /48) or `"none"`. Shorten it if data
        /// protection demands that.
        reload addresses: LogAddresses = get_or(value::word_of, LogAddresses::Full),
    }
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Words for Level {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::ERROR),
        ("warn", Self::WARN),
        ("info", Self::INFO),
        ("debug", Self::DEBUG),
        ("trace", Self::TRACE),
    ];
}

impl Words for LogAddresses {
    const WORDS: &'static [(&'static str, Self)] =
        &[("full", Self::Full), ("prefix", Self::Prefix), ("none", Self::None)];
}

impl Words for OnAuditFailure {
    const WORDS: &'static [(&'static str, Self)] = &[("continue", Self::Continue), ("refuse", Self::Refuse)];
}

fn read_audit_output(
    dir: &Path,
    log: &LogConfig,
    access: &AccessLogConfig,
) -> impl Fn(&Raw) -> Result<LogOutput, String> {
    let read = read_output(dir);
    move |v| match read(v)? {
        output if output == log.output => {
            Err("is the same as `log.output`; remove it, because the audit log is written there by default".to_owned())
        }
        output if access.enabled && output == access.output => {
            Err("is the same as `access_log.output`; name an output that no other log uses".to_owned())
        }
        output => Ok(output),
    }
}

fn read_on_failure(has_output: bool) -> impl Fn(&Raw) -> Result<OnAuditFailure, String> {
    move |v| match value::word_of(v)? {
        OnAuditFailure::Refuse if !has_output => {
            Err("needs an output that no other log uses: `audit_log.output = \"/var/log/rotogate/audit.log\"`"
                .to_owned())
        }
        word => Ok(word),
    }
}

/// Reads a number from 0 to 1 as millionths.
fn read_sample(v: &Raw) -> Result<Sample, String> {
    let millionths = value::fraction(v)? * f64::from(Sample::ALL.0);
    // The result fits in a `u32`, because the fraction is at most 1.
    Ok(format!("{millionths:.0}").parse().map_or(Sample::ALL, Sample))
}

pub(super) fn read_route(v: &Raw) -> Result<Option<RouteLog>, String> {
    match v {
        Raw::Bool(true) => Ok(None),
        Raw::Bool(false) => Ok(Some(RouteLog::Nothing)),
        Raw::String(word) if word == ERRORS => Ok(Some(RouteLog::Errors)),
        other => Err(format!("expected true, false or \"{ERRORS}\", found {}", other.describe())),
    }
}

pub(super) fn print_route(log: RouteLog) -> Value {
    match log {
        RouteLog::Nothing => false.into(),
        RouteLog::Errors => ERRORS.into(),
    }
}

/// Reads the output of a log. A file name needs a slash, so that a misspelt word is not taken for a file.
fn read_output(dir: &Path) -> impl Fn(&Raw) -> Result<LogOutput, String> {
    move |v| match value::text(v)?.as_str() {
        "stderr" => Ok(LogOutput::Stderr),
        "stdout" => Ok(LogOutput::Stdout),
        path if path.contains('/') => Ok(LogOutput::File(dir.join(path))),
        other => Err(format!(
            "expected \"stderr\", \"stdout\" or a path such as \"/var/log/rotogate/access.log\", found \"{other}\""
        )),
    }
}

impl Print for LogOutput {
    fn print(&self) -> Value {
        match self {
            Self::Stderr => "stderr".into(),
            Self::Stdout => "stdout".into(),
            Self::File(file) => file.print(),
        }
    }
}

impl Print for Sample {
    fn print(&self) -> Value {
        (f64::from(self.0) / f64::from(Self::ALL.0)).into()
    }
}

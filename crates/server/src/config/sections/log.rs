//! `[log]`, `[access_log]` and `[audit_log]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::super::print::{number, path, put, time};
use super::super::raw::{Section, Value as Raw};
use super::super::value;
use super::{SECOND, usize_or};
use crate::log::{
    AccessLogConfig, AuditLogConfig, LogAddresses, LogConfig, LogFormat, LogLevel, LogOutput, OnAuditFailure, RouteLog,
    Sample,
};

/// The default of `access_log.buffer`, in bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// The default of `access_log.flush_interval`.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// The word of a route whose errors alone are written.
const ERRORS: &str = "errors";
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

pub(super) fn read(section: &Section<'_>, dir: &Path) -> LogConfig {
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let levels = levels.map(|level| (level.as_str(), level));
    let log = LogConfig {
        format: section.get("format", value::word(&FORMATS, &[])).unwrap_or(LogFormat::Text),
        level: section.get("level", value::word(&levels, &[])).unwrap_or(LogLevel::Info),
        output: section.get("output", read_output(dir)).unwrap_or(LogOutput::Stderr),
    };
    section.finish();
    log
}

pub(super) fn read_access(section: &Section<'_>, dir: &Path, log: &LogConfig) -> AccessLogConfig {
    let interval = value::duration_within(Duration::from_millis(10), SECOND);
    let access_log = AccessLogConfig {
        enabled: section.get("enabled", value::boolean).unwrap_or(true),
        format: section.get("format", value::word(&FORMATS, &[])).unwrap_or(log.format),
        output: section.get("output", read_output(dir)).unwrap_or(LogOutput::Stderr),
        buffer: usize_or(section.get("buffer", value::size(64 << 10, 1 << 30)), BUFFER_BYTES),
        flush_interval: section.get("flush_interval", interval).unwrap_or(FLUSH_INTERVAL),
        log_user_agent: section.get("log_user_agent", value::boolean).unwrap_or(true),
        sample: section.get("sample", sample).unwrap_or(Sample::ALL),
        // `[[routes]]` has them.
        routes: BTreeMap::new(),
    };
    section.finish();
    access_log
}

pub(super) fn read_audit(
    section: &Section<'_>,
    dir: &Path,
    log: &LogConfig,
    access: &AccessLogConfig,
) -> AuditLogConfig {
    let addresses = [LogAddresses::Full, LogAddresses::Prefix, LogAddresses::None];
    let addresses = addresses.map(|addresses| (addresses.as_str(), addresses));
    let taken = |output: LogOutput| match output {
        output if output == log.output => {
            Err("is log.output: leave it out, and the audit log is written there".to_owned())
        }
        output if access.enabled && output == access.output => {
            Err("is access_log.output: name an output that no other log has".to_owned())
        }
        output => Ok(output),
    };
    let read = read_output(dir);
    let output = section.get("output", |v| read(v).and_then(taken));
    let on_failure = [OnAuditFailure::Continue, OnAuditFailure::Refuse].map(|word| (word.as_str(), word));
    let has_output = output.is_some();
    let on_failure = section.get("on_failure", |v| match value::word(&on_failure, &[])(v)? {
        OnAuditFailure::Refuse if !has_output => {
            Err("needs an output that no other log has: audit_log.output = \"/var/log/rotogate/audit.log\"".to_owned())
        }
        word => Ok(word),
    });
    let audit_log = AuditLogConfig {
        output,
        on_failure: on_failure.unwrap_or(OnAuditFailure::Continue),
        addresses: section.get("addresses", value::word(&addresses, &[])).unwrap_or(LogAddresses::Full),
    };
    section.finish();
    audit_log
}

/// A number from 0 to 1, in millionths.
fn sample(v: &Raw) -> Result<Sample, String> {
    let number = match v {
        Raw::Integer(number) => number.to_string().parse().ok(),
        Raw::OtherNumber(text) | Raw::Env(text) => text.parse().ok(),
        _ => None,
    };
    let part = number.filter(|part: &f64| (0.0..=1.0).contains(part));
    // Within these bounds it is a whole number that fits.
    let millionths = part.and_then(|part| format!("{:.0}", part * f64::from(Sample::ALL.0)).parse().ok());
    millionths.map(Sample).ok_or_else(|| format!("expected a number from 0 to 1, such as 0.1, found {}", v.describe()))
}

/// `access_log` of a route. `None`: everything.
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

/// The output of a log. A file needs a slash, so that a misspelt word is not taken for one.
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

pub(super) fn print(log: &LogConfig) -> Value {
    let LogConfig { format, level, output } = log;
    let mut table = Table::new();
    put(&mut table, "format", print_format(*format));
    put(&mut table, "level", level.as_str());
    put(&mut table, "output", print_output(output));
    table.into()
}

pub(super) fn print_access(log: &AccessLogConfig) -> Value {
    let AccessLogConfig { enabled, format, output, buffer, flush_interval, log_user_agent, sample, routes: _ } = log;
    let mut table = Table::new();
    put(&mut table, "enabled", *enabled);
    put(&mut table, "format", print_format(*format));
    put(&mut table, "output", print_output(output));
    put(&mut table, "buffer", number(*buffer));
    put(&mut table, "flush_interval", time(*flush_interval));
    put(&mut table, "log_user_agent", *log_user_agent);
    put(&mut table, "sample", f64::from(sample.0) / f64::from(Sample::ALL.0));
    table.into()
}

pub(super) fn print_audit(log: &AuditLogConfig) -> Value {
    let AuditLogConfig { output, addresses, on_failure } = log;
    let mut table = Table::new();
    if let Some(output) = output {
        put(&mut table, "output", print_output(output));
    }
    put(&mut table, "addresses", addresses.as_str());
    put(&mut table, "on_failure", on_failure.as_str());
    table.into()
}

fn print_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn print_output(output: &LogOutput) -> Value {
    match output {
        LogOutput::Stderr => "stderr".into(),
        LogOutput::Stdout => "stdout".into(),
        LogOutput::File(file) => path(file),
    }
}

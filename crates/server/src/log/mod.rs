//! The application log and the access log. docs/logs.md describes both.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use rotogate_config::{AccessLogConfig, AuditLogConfig, LogAddresses, LogConfig, LogFormat, LogOutput, OnAuditFailure};
use rotogate_core::api_key::KeyPrefix;
use rotogate_core::clock::SystemTime;
mod access;
mod audit;
mod event;
mod line;
pub(crate) mod recent;
pub(crate) mod refused;
pub(crate) mod request_id;
mod writer;

pub(crate) use access::{AccessLog, AccessLogLine, ConnectionFields, UpstreamFields};
use writer::{AUDIT_IS_FAILING, Sink, WriterCounts};

/// How long the process waits for a slow output before it exits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a panic waits for a slow output.
const PANIC_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// All outputs, including those that no log uses, because a late line may still arrive.
static SINKS: Mutex<Vec<Arc<Sink>>> = Mutex::new(Vec::new());
static ACCESS: ArcSwapOption<&'static AccessLog> = ArcSwapOption::const_empty();
static KEY_PREFIX: OnceLock<KeyPrefix> = OnceLock::new();
static LIVE: OnceLock<Live> = OnceLock::new();

pub(crate) fn hide_keys(prefix: &KeyPrefix) {
    // The prefix changes only at a restart.
    let _ = KEY_PREFIX.set(prefix.clone());
}

/// Removes API keys from a path.
// Requirement K2.
pub(crate) fn without_key(path: &[u8]) -> Cow<'_, [u8]> {
    let redacted = KEY_PREFIX.get().and_then(|prefix| prefix.redacted(std::str::from_utf8(path).ok()?));
    redacted.map_or(Cow::Borrowed(path), |text| Cow::Owned(text.into_bytes()))
}

/// Returns a path without API keys and without the secret folder of a sign-in on the admin page.
// Requirements K2 and P56.
pub(crate) fn without_secrets(path: &str) -> String {
    let hidden = path.split('/').map(|part| if is_secret_folder(part) { "…" } else { part });
    let path = if path.contains("ui/") { hidden.collect::<Vec<_>>().join("/").into() } else { Cow::Borrowed(path) };
    String::from_utf8_lossy(&without_key(path.as_bytes())).into_owned()
}

/// Returns whether a segment of a path can be the secret folder of a sign-in on the admin page.
pub(crate) fn is_secret_folder(segment: &str) -> bool {
    segment.len() == 43 && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

struct Live {
    filter: reload::Handle<EnvFilter, Registry>,
    outputs: Arc<ArcSwap<event::Outputs>>,
    trail: Arc<audit::Trail>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("{output}: cannot be opened for the log: {error} ({key} in gateway.toml)")]
    Open { output: LogOutput, error: io::Error, key: &'static str },
    #[error("the log cannot be set up: {0}")]
    Taken(#[from] TryInitError),
}

#[derive(Debug)]
pub(crate) struct Logs(());

impl Drop for Logs {
    fn drop(&mut self) {
        flush();
    }
}

pub(crate) struct PreparedLogs {
    filter: EnvFilter,
    outputs: event::Outputs,
    audit: (LogAddresses, OnAuditFailure),
    access: Option<AccessLog>,
    /// The outputs, each with the maximum buffered bytes and the flush interval.
    sinks: Vec<(Arc<Sink>, (usize, Duration))>,
}

/// Opens the configured outputs, or reuses them.
///
/// `workers` is the number of threads that serve requests. Lines omit `own_issuer`.
pub(crate) fn prepare(
    log: &LogConfig,
    access: &AccessLogConfig,
    audit: &AuditLogConfig,
    (workers, own_issuer): (usize, &str),
    filter: EnvFilter,
) -> Result<PreparedLogs, LogError> {
    let bounds = (access.buffer, access.flush_interval);
    let mut sinks: Vec<(Arc<Sink>, _)> = Vec::new();
    // Logs with the same output share a thread, so that lines do not mix.
    let mut open = |output: &LogOutput, key| {
        let known = sinks.iter().map(|(sink, _)| Arc::clone(sink)).chain(self::sinks()).find(|s| s.output() == output);
        let opened = match known {
            Some(sink) => Ok(sink),
            None => Sink::open(output.clone(), workers, bounds.0, bounds.1),
        };
        let sink = opened.map_err(|error| LogError::Open { output: output.clone(), error, key })?;
        if !sinks.iter().any(|(known, _)| Arc::ptr_eq(known, &sink)) {
            sinks.push((Arc::clone(&sink), bounds));
        }
        Ok::<_, LogError>(sink)
    };
    let app = open(&log.output, "log.output")?;
    let access_log = match access.enabled {
        true => Some(AccessLog {
            sink: open(&access.output, "access_log.output")?,
            format: access.format.unwrap_or(LogFormat::Text),
            is_short: access.format.is_none() && is_terminal(&access.output),
            sample: access.sample,
            routes: access.routes.clone(),
            own_issuer: own_issuer.to_owned(),
            time: SystemTime::new(),
        }),
        false => None,
    };
    let audit_sink = match &audit.output {
        Some(output) if *output == log.output || (access.enabled && *output == access.output) => {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "another log already uses this output");
            return Err(LogError::Open { output: output.clone(), error, key: "audit_log.output" });
        }
        Some(output) => Some(open(output, "audit_log.output")?),
        None => None,
    };
    // Colors are for terminals without `NO_COLOR` (https://no-color.org).
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|unwanted| unwanted.is_empty());
    let (format, colours) = (log.format.unwrap_or(LogFormat::Text), wanted && is_terminal(&log.output));
    let outputs = event::Outputs { sink: app, format, audit: audit_sink, colours };
    let audit = (audit.addresses, audit.on_failure);
    Ok(PreparedLogs { filter, outputs, audit, access: access_log, sinks })
}

fn is_terminal(output: &LogOutput) -> bool {
    match output {
        LogOutput::Stderr => io::stderr().is_terminal(),
        LogOutput::Stdout => io::stdout().is_terminal(),
        LogOutput::File(_) => false,
    }
}

/// Starts logging. May be called once per process.
pub(crate) fn start(prepared: PreparedLogs) -> Result<Logs, LogError> {
    let PreparedLogs { filter, outputs, audit: (addresses, on_failure), access, sinks } = prepared;
    put_in_force(&outputs, on_failure, access, &sinks);
    let outputs = Arc::new(ArcSwap::from_pointee(outputs));
    let trail = Arc::new(audit::Trail::new(addresses, "system".to_owned()));
    let events = event::EventWriter { outputs: Arc::clone(&outputs), trail: Arc::clone(&trail) };
    let (filter, live) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(events.with_filter(filter)).try_init()?;
    let _ = LIVE.set(Live { filter: live, outputs, trail });
    Ok(Logs(()))
}

/// Opens the audit log for a command. Returns `None` if the log is not a file.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn start_for_command(audit: &AuditLogConfig, actor: String) -> Result<Option<Logs>, LogError> {
    let Some(output @ LogOutput::File(_)) = &audit.output else { return Ok(None) };
    let sink = Sink::open(output.clone(), 0, 0, Duration::ZERO);
    let sink = sink.map_err(|error| LogError::Open { output: output.clone(), error, key: "audit_log.output" })?;
    let outputs = event::Outputs {
        sink: Arc::clone(&sink),
        format: LogFormat::Json,
        audit: Some(Arc::clone(&sink)),
        colours: false,
    };
    put_in_force(&outputs, audit.on_failure, None, &[(sink, (0, Duration::ZERO))]);
    let trail = Arc::new(audit::Trail::new(audit.addresses, actor));
    let events = event::EventWriter { outputs: Arc::new(ArcSwap::from_pointee(outputs)), trail };
    let is_audit = filter_fn(|meta| meta.target() == audit::TARGET);
    tracing_subscriber::registry().with(events.with_filter(is_audit)).try_init()?;
    Ok(Some(Logs(())))
}

/// Replaces the logs.
///
/// # Errors
/// The level cannot be set, and nothing has changed.
pub(crate) fn replace(prepared: PreparedLogs) -> Result<(), String> {
    let PreparedLogs { filter, outputs, audit: (addresses, on_failure), access, sinks } = prepared;
    let Some(live) = LIVE.get() else { return Ok(()) };
    live.filter.reload(filter).map_err(|error| error.to_string())?;
    live.trail.addresses.store(Arc::new(addresses));
    put_in_force(&outputs, on_failure, access, &sinks);
    live.outputs.store(Arc::new(outputs));
    Ok(())
}

fn put_in_force(
    outputs: &event::Outputs,
    on_failure: OnAuditFailure,
    access: Option<AccessLog>,
    used: &[(Arc<Sink>, (usize, Duration))],
) {
    let mut sinks = SINKS.lock();
    for (sink, (buffer, interval)) in used {
        sink.set(*buffer, *interval);
        if !sinks.iter().any(|known| Arc::ptr_eq(known, sink)) {
            sinks.push(Arc::clone(sink));
        }
    }
    if let Some(audit) = &outputs.audit {
        audit.set_audit(on_failure);
    }
    // Each access log is leaked, so that lines can refer to it without a reference count. Changes are rare.
    ACCESS.store(access.map(|access| Arc::new(&*Box::leak(Box::new(access)))));
    let is_used = |sink: &&Arc<Sink>| used.iter().any(|(used, _)| Arc::ptr_eq(used, sink));
    sinks.iter().filter(|sink| !is_used(sink)).for_each(|sink| sink.retire());
    // If the new output also fails, the next audit line sets the flag again.
    AUDIT_IS_FAILING.store(false, Ordering::SeqCst);
}

pub(crate) fn access() -> Option<&'static AccessLog> {
    ACCESS.load().as_deref().copied()
}

/// Returns the filter from `ROTOGATE_LOG`, or else from `level`. The filter does not affect the audit trail.
///
/// # Errors
/// `ROTOGATE_LOG` is invalid.
pub(crate) fn filter(level: Level) -> Result<EnvFilter, String> {
    let filter = EnvFilter::builder().with_env_var("ROTOGATE_LOG").with_default_directive(level.into()).from_env();
    let filter = filter.map_err(|error| format!("ROTOGATE_LOG: {error}"))?;
    let trail = format!("{}=trace", audit::TARGET)
        .parse()
        .map_err(|error| format!("the log filter of the audit trail is invalid: {error}"))?;
    Ok(filter.add_directive(trail))
}

fn sinks() -> Vec<Arc<Sink>> {
    SINKS.lock().clone()
}

pub(crate) fn reopen() {
    sinks().iter().for_each(|sink| sink.reopen());
}

/// Waits up to [`FLUSH_TIMEOUT`] for all writes.
pub(crate) fn flush() {
    sinks().iter().for_each(|sink| sink.flush(FLUSH_TIMEOUT));
}

/// Waits up to [`PANIC_FLUSH_TIMEOUT`] for all writes.
pub(crate) fn flush_after_panic() {
    sinks().iter().for_each(|sink| sink.flush(PANIC_FLUSH_TIMEOUT));
}

/// With [`OnAuditFailure::Refuse`], the flag is set while the audit log cannot be written.
pub(crate) fn audit_is_failing() -> &'static Arc<AtomicBool> {
    &AUDIT_IS_FAILING
}

/// Waits until the audit log is written, but at most for [`FLUSH_TIMEOUT`].
pub(crate) async fn flush_audit() {
    let Some(sink) = LIVE.get().and_then(|live| live.outputs.load().audit.clone()) else { return };
    // The task fails only while the runtime stops.
    let _ = tokio::task::spawn_blocking(move || sink.flush(FLUSH_TIMEOUT)).await;
}

pub(crate) fn counts() -> [(&'static str, [u64; 3]); 3] {
    use std::sync::atomic::Ordering::Relaxed;
    let (own, sinks): (Vec<_>, Vec<_>) = sinks().into_iter().partition(|sink| sink.is_audit());
    let sum = |sinks: &[Arc<Sink>], of: fn(&Sink) -> &WriterCounts| {
        sinks.iter().map(|sink| of(sink)).fold([0; 3], |[written, dropped, errors], counts| {
            [
                written + counts.written.load(Relaxed),
                dropped + counts.dropped.load(Relaxed),
                errors + counts.errors.load(Relaxed),
            ]
        })
    };
    [
        ("app", sum(&sinks, Sink::app_counts)),
        ("access", sum(&sinks, Sink::access_counts)),
        ("audit", sum(&own, Sink::app_counts)),
    ]
}

#[cfg(test)]
mod tests;

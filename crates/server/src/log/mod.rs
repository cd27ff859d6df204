//! The logs of the server: the application log, from `tracing`, and the access log. docs/logs.md describes both.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use rotogate::clock::SystemTime;
mod access;
mod audit;
mod event;
mod exchange;
mod line;
pub(crate) mod recent;
pub(crate) mod request_id;
mod settings;
mod writer;

pub(crate) use access::{AccessLog, AccessLogLine, ConnectionFields, UpstreamInfo};
pub(crate) use exchange::{ExchangeEnd, ExchangeProgress, TunnelEnd};
pub use settings::{AccessLogConfig, AuditLogConfig, LogAddresses, LogConfig, LogFormat, LogLevel, LogOutput};
use writer::{Counts, Sink};

/// How long the process waits at its end for a slow output.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a panic waits for a slow output.
const PANIC_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// The open outputs, for a signal, a panic and the end of the process.
static SINKS: Mutex<Vec<Arc<Sink>>> = Mutex::new(Vec::new());
static ACCESS: OnceLock<AccessLog> = OnceLock::new();
/// What the application log shows.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
/// The output of the audit trail, if it has one of its own.
static AUDIT: OnceLock<Arc<Sink>> = OnceLock::new();

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("{output}: cannot be opened for the log: {error} ({key} in gateway.toml)")]
    Open { output: LogOutput, error: io::Error, key: &'static str },
    #[error("the log cannot be set up: {0}")]
    Taken(#[from] TryInitError),
}

/// Flushes all logs when dropped.
#[derive(Debug)]
pub(crate) struct Logs(());

impl Drop for Logs {
    fn drop(&mut self) {
        flush();
    }
}

/// Opens the configured logs, and from then on writes `tracing` events. Once in a process.
///
/// `workers` is the number of threads that serve requests. Lines about tokens of `own_issuer` do not name the issuer.
pub(crate) fn start(
    log: &LogConfig,
    access: &AccessLogConfig,
    audit: &AuditLogConfig,
    workers: usize,
    own_issuer: &str,
    filter: EnvFilter,
) -> Result<Logs, LogError> {
    let AccessLogConfig { enabled, format, output, buffer, flush_interval, log_user_agent } = access;
    let open = |output: &LogOutput, workers, key| {
        Sink::open(output.clone(), workers, *buffer, *flush_interval).map_err(|error| LogError::Open {
            output: output.clone(),
            error,
            key,
        })
    };
    // One thread writes to one output, so that lines do not mix.
    let is_shared = *enabled && *output == log.output;
    let app = open(&log.output, if is_shared { workers } else { 0 }, "log.output")?;
    let mut sinks = vec![Arc::clone(&app)];
    if *enabled {
        let sink = if is_shared { Arc::clone(&app) } else { open(output, workers, "access_log.output")? };
        if !is_shared {
            sinks.push(Arc::clone(&sink));
        }
        let access = AccessLog {
            sink,
            format: *format,
            user_agent: *log_user_agent,
            own_issuer: own_issuer.to_owned(),
            time: SystemTime::new(),
        };
        let _ = ACCESS.set(access);
    }
    // Colours are for a terminal without `NO_COLOR` (https://no-color.org), not for a file or a journal.
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|unwanted| unwanted.is_empty());
    let is_terminal = match log.output {
        LogOutput::Stderr => io::stderr().is_terminal(),
        LogOutput::Stdout => io::stdout().is_terminal(),
        LogOutput::File(_) => false,
    };
    let own = |output: &LogOutput| {
        if *output == log.output || (*enabled && *output == access.output) {
            let taken = io::Error::new(io::ErrorKind::AlreadyExists, "another log is written there");
            return Err(LogError::Open { output: output.clone(), error: taken, key: "audit_log.output" });
        }
        open(output, 0, "audit_log.output")
    };
    let audit_sink = audit.output.as_ref().map(own).transpose()?;
    if let Some(sink) = &audit_sink {
        sinks.push(Arc::clone(sink));
        let _ = AUDIT.set(Arc::clone(sink));
    }
    let events = event::Events {
        sink: app,
        format: log.format,
        trail: audit::Trail::new(audit.addresses),
        audit: audit_sink,
        colours: wanted && is_terminal,
    };
    *SINKS.lock().unwrap_or_else(PoisonError::into_inner) = sinks;
    let (filter, live) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(events.with_filter(filter)).try_init()?;
    let _ = FILTER.set(live);
    Ok(Logs(()))
}

/// The access log, if it is enabled.
pub(crate) fn access() -> Option<&'static AccessLog> {
    ACCESS.get()
}

/// What the application log shows at this level, or as `ROTOGATE_LOG` says. No level hides the audit trail.
///
/// # Errors
/// `ROTOGATE_LOG` is wrong.
pub(crate) fn filter(level: LogLevel) -> Result<EnvFilter, String> {
    let level = level.as_str().parse().map_err(|error| format!("log.level: {error}"))?;
    let filter = EnvFilter::builder().with_env_var("ROTOGATE_LOG").with_default_directive(level).from_env();
    let filter = filter.map_err(|error| format!("ROTOGATE_LOG: {error}"))?;
    let trail = format!("{}=trace", audit::TARGET).parse().map_err(|error| format!("the audit trail: {error}"))?;
    Ok(filter.add_directive(trail))
}

/// Shows this level from now on.
///
/// # Errors
/// As [`filter`].
pub(crate) fn set_level(level: LogLevel) -> Result<(), String> {
    let Some(live) = FILTER.get() else { return Ok(()) };
    live.reload(filter(level)?).map_err(|error| error.to_string())
}

fn sinks() -> Vec<Arc<Sink>> {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Reopens the log files after a rotation.
pub(crate) fn reopen() {
    sinks().iter().for_each(|sink| sink.reopen());
}

/// Waits until everything is written, but at most [`FLUSH_TIMEOUT`].
pub(crate) fn flush() {
    sinks().iter().for_each(|sink| sink.flush(FLUSH_TIMEOUT));
}

/// The same after a panic, which may end the process; at most [`PANIC_FLUSH_TIMEOUT`].
pub(crate) fn flush_after_panic() {
    sinks().iter().for_each(|sink| sink.flush(PANIC_FLUSH_TIMEOUT));
}

/// For each log: lines written, lines dropped, failed writes.
pub(crate) fn counts() -> [(&'static str, [u64; 3]); 3] {
    use std::sync::atomic::Ordering::Relaxed;
    let (own, sinks): (Vec<_>, Vec<_>) =
        sinks().into_iter().partition(|sink| AUDIT.get().is_some_and(|audit| Arc::ptr_eq(audit, sink)));
    let sum = |sinks: &[Arc<Sink>], of: fn(&Sink) -> &Counts| {
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

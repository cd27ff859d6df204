//! `rotogate serve`.

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::output::Output;
use super::upgrade::{Baton, Program};
use super::{CommandResult, Failure, greeting, runtime, upgrade};
use crate::log::LogError;
use crate::server::{self, Order, Server, ShutdownKind};
use rotogate_config::{Config, ConfigError, ProcessEnv};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_kit::file_stamp::{CHECK_INTERVAL, ChangeDetector};

pub(super) fn run(path: &Path, output: Output, baton: Option<Baton>) -> CommandResult {
    // After an in-place upgrade, the variables are already set.
    if baton.is_none() {
        exec_with_allocator_settings();
    }
    let program = Program::current(baton.as_ref())?;
    let mut sockets = None;
    let is_serving = AtomicBool::new(false);
    // The logs outlive the server, so that the last lines are written.
    let mut logs = None;
    let ended = start(path, output, &program, baton.as_ref(), &mut sockets, &is_serving, &mut logs);
    match (ended, baton) {
        (Ok(ShutdownKind::Stopped), _) => Ok(()),
        (Ok(ShutdownKind::Upgrade(state)), _) => {
            crate::log::flush();
            Err(upgrade::replace_process(&program, state))
        }
        (Err(failure), Some(baton)) if baton.refused.is_none() && !is_serving.load(Ordering::Relaxed) => {
            if tracing::dispatcher::has_been_set() {
                tracing::error!(error = %failure, "in-place upgrade failed; the previous program keeps running");
            } else {
                super::print_error(&format!("rotogate: {failure}"));
            }
            crate::log::flush();
            Err(baton.roll_back(&failure, sockets))
        }
        (Err(failure), _) => Err(failure),
    }
}

/// Adds duplicates of the passed sockets to `sockets`. They stay open until the gate serves.
fn start(
    path: &Path,
    output: Output,
    program: &Program,
    baton: Option<&Baton>,
    sockets: &mut Option<Vec<TcpListener>>,
    is_serving: &AtomicBool,
    logs: &mut Option<crate::log::Logs>,
) -> Result<ShutdownKind, Failure> {
    let passed = server::passed_sockets().map_err(Failure::failed)?;
    if baton.is_some() {
        let again = passed.iter().map(TcpListener::try_clone).collect::<Result<_, _>>();
        *sockets = Some(again.map_err(Failure::failed)?);
    }
    let refused = baton.and_then(|baton| Some((baton, baton.refused.as_deref()?)));
    let config = match refused {
        None => rotogate_config::load(path, &ProcessEnv),
        Some((former, _)) => rotogate_config::parse(&former.config, path, &ProcessEnv),
    };
    let config = config.map_err(|errors| Failure::configuration(&errors))?;
    keep_memory_private()?;
    *logs = Some(log(&config)?);
    allow_many_files();
    for name in config.source.passed_over() {
        tracing::debug!(name, "environment variable ignored, because an orchestrator sets it");
    }
    if let Some((former, reason)) = refused {
        former.restore_process_name();
        server::refuse_upgrade(reason);
        tracing::error!(reason, "in-place upgrade failed; this program keeps running");
    }
    runtime()?.block_on(async {
        // A signal without a handler would kill the process, so handlers must exist before readiness is reported.
        let signals = Signals::new().map_err(Failure::failed)?;
        let greeted = greeting::Greeting::new(&config);
        let (watched, hash) = (config.server.watch, config.hash());
        let plan = server::prepare(&config).await.map_err(|errors| Failure::configuration(&errors))?;
        warn(&plan.warnings);
        let server = Server::bind(config, plan, passed).await.map_err(Failure::failed)?;
        match greeted.write(&server, output) {
            // The gate starts even if the greeting cannot be written, unless the greeting contains an initial password.
            Err(failure) if server.parts().first_user.is_none() => tracing::warn!("{failure}"),
            Err(Failure::OutputClosed) => return Err(Failure::Failed("standard output cannot be written".to_owned())),
            written => written?,
        }
        tracing::info!(
            target: "rotogate::audit",
            event = "process_start",
            version = env!("CARGO_PKG_VERSION"),
            config.hash = hash,
            "process started"
        );
        notify_manager(NotifyState::Ready);
        is_serving.store(true, Ordering::Relaxed);
        *sockets = None;
        let held = server.bound_addresses();
        let (tx, rx) = mpsc::channel(1);
        let watched = watched.then(|| WatchedConfig::new(path));
        tokio::spawn(signals.forward_to(path.to_owned(), watched, program.clone(), held, tx));
        server.run(rx).await.map_err(Failure::failed)
    })
}

fn warn(warnings: &[ConfigError]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Free memory is returned after 10 ms (requirement A15). Without huge pages, a gate with a thousand issuers needs half
/// the memory.
const ALLOCATOR_SETTINGS: [(&str, &str); 2] = [("MIMALLOC_PURGE_DELAY", "10"), ("MIMALLOC_ALLOW_THP", "0")];

/// mimalloc reads its settings from the environment at the first allocation. The program therefore executes itself
/// once, with these settings added to its environment. Values set by the operator are kept.
fn exec_with_allocator_settings() {
    use std::os::unix::process::CommandExt;
    let missing: Vec<_> = ALLOCATOR_SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    let mut arguments = std::env::args_os();
    let (false, Ok(program), Some(name)) = (missing.is_empty(), std::env::current_exe(), arguments.next()) else {
        return;
    };
    // If `exec` fails, the allocator keeps free memory longer.
    let _ = std::process::Command::new(program).arg0(name).args(arguments).envs(missing).exec();
}

fn notify_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "NOTIFY_SOCKET not writable; service manager not notified");
    }
}

/// Disables core dumps and debugging by the same user, because the memory contains keys and passwords (requirement O3).
fn keep_memory_private() -> CommandResult {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let failed = |error| Failure::Failed(format!("core dumps cannot be switched off: {error}"));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(failed)?;
    Ok(())
}

/// Each connection is an open file, and the usual soft limit is only 1024.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let bounds = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: bounds.maximum, ..bounds }) {
        tracing::warn!(
            %error,
            bound = bounds.current,
            "limit of open files not raised, although each connection needs an open file. Raise `LimitNOFILE=` of the \
             service, or `ulimit -n`"
        );
    }
}

fn log(config: &Config) -> Result<crate::log::Logs, Failure> {
    let filter = crate::log::filter(config.log.level).map_err(Failure::Usage)?;
    let lines = (config.server.workers.get(), config.issuer.url.as_str());
    let logs = crate::log::prepare(&config.log, &config.access_log, &config.audit_log, lines, filter);
    let logs = logs.and_then(crate::log::start).map_err(|error| match error {
        LogError::Open { output, error, key } => {
            let other = || format!("{output}: cannot be opened for the log: {error}");
            Failure::Configuration(vec![config.blame(key, output.missing_folder().unwrap_or_else(other))])
        }
        LogError::Taken(_) => Failure::failed(error),
    })?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(
            target: "rotogate::panic",
            location,
            text = fixed_text(panic.payload()),
            "panic: a bug in rotogate. Report this line"
        );
        crate::log::flush_after_panic();
    }));
    Ok(logs)
}

/// Returns the message of a panic if it is a constant. Formatted messages may contain client input or secrets
/// (requirement A6).
fn fixed_text(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(not shown)")
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// SIGUSR1: reopen the log files.
    user1: Signal,
    /// SIGUSR2: in-place upgrade.
    user2: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Turns signals into `Order` values until the gate stops.
    async fn forward_to(
        mut self,
        config: PathBuf,
        mut watched: Option<WatchedConfig>,
        program: Program,
        held: Vec<SocketAddr>,
        orders: mpsc::Sender<Order>,
    ) {
        loop {
            let order = tokio::select! {
                _ = self.terminate.recv() => Some(Order::Stop),
                _ = self.interrupt.recv() => Some(Order::Stop),
                _ = self.hangup.recv() => {
                    crate::log::reopen();
                    reload(&config).await
                }
                () = WatchedConfig::changed(&mut watched) => reload(&config).await,
                _ = self.user1.recv() => {
                    crate::log::reopen();
                    None
                }
                _ = self.user2.recv() => prepare_upgrade(config.clone(), program.clone(), held.clone()).await,
            };
            let Some(order) = order else { continue };
            if matches!(order, Order::Stop) {
                notify_manager(NotifyState::Stopping);
            }
            // A stop can still cancel a waiting upgrade.
            let is_last = matches!(order, Order::Stop);
            if orders.send(order).await.is_err() || is_last {
                return;
            }
        }
    }
}

/// The watched configuration file (`server.watch`).
struct WatchedConfig {
    path: PathBuf,
    detector: ChangeDetector,
    text: Vec<u8>,
}

impl WatchedConfig {
    fn new(path: &Path) -> Self {
        let detector = ChangeDetector::new([path.to_owned()], SystemTime::new().wall());
        // A missing file has an empty text, so a new file counts as a change.
        Self { path: path.to_owned(), detector, text: std::fs::read(path).unwrap_or_default() }
    }

    /// The future never resolves if the file is not watched.
    async fn changed(watched: &mut Option<Self>) {
        let Some(Self { path, detector, text }) = watched else { return std::future::pending().await };
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            if !detector.poll_changed([path.clone()], SystemTime::new().wall()) {
                continue;
            }
            // The file may be missing briefly while an editor replaces it.
            match std::fs::read(&*path) {
                Ok(now) if now != *text => {
                    *text = now;
                    return;
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

async fn reload(path: &Path) -> Option<Order> {
    Some(match server::read_again(path).await {
        Ok(config) => {
            warn(&config.warnings);
            Order::Reload(Box::new(config))
        }
        Err(_) => Order::RefusedReload,
    })
}

async fn prepare_upgrade(config: PathBuf, program: Program, held: Vec<SocketAddr>) -> Option<Order> {
    let checked = tokio::task::spawn_blocking(move || program.check(&config, &held)).await;
    match checked {
        Ok(Ok(wanted)) => Some(Order::Upgrade(wanted)),
        Ok(Err(error)) => {
            server::refuse_upgrade(&error.to_string());
            tracing::error!(%error, "in-place upgrade refused: the new program would not start; this program keeps running");
            None
        }
        Err(error) => {
            server::refuse_upgrade(&error.to_string());
            tracing::error!(%error, "in-place upgrade refused: the check failed to run; this program keeps running");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a6_a_panic_shows_no_text_that_was_put_together() {
        let caught = |f: fn()| std::panic::catch_unwind(f).unwrap_err();
        assert_eq!(fixed_text(caught(|| panic!("fixed")).as_ref()), "fixed");
        let sent = caught(|| panic!("{}", std::hint::black_box("a\nsecret")));
        assert_eq!(fixed_text(sent.as_ref()), "(not shown)");
    }
}

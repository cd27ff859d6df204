//! `rotogate serve`.

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use super::output::Output;
use super::successor::{Baton, Program};
use super::{Done, Failure, greeting, runtime, successor};
use crate::config::{self, Config, ConfigErrors, ProcessEnv};
use crate::server::{self, Ended, Order, Prepared, Server};

pub(super) fn run(path: &Path, output: Output, baton: Option<Baton>) -> Done {
    // Whoever hands over has it in the environment already.
    if baton.is_none() {
        begin_anew_with_purging();
    }
    let program = Program::of_start(baton.as_ref())?;
    let mut sockets = None;
    let is_serving = AtomicBool::new(false);
    // What is said until the very end is written.
    let mut logs = None;
    let ended = start(path, output, &program, baton.as_ref(), &mut sockets, &is_serving, &mut logs);
    match (ended, baton) {
        (Ok(Ended::Stopped), _) => Ok(()),
        (Ok(Ended::HandedOver(handover)), _) => {
            crate::log::flush();
            Err(successor::become_it(&program, handover))
        }
        (Err(failure), Some(baton)) if baton.refused.is_none() && !is_serving.load(Ordering::Relaxed) => {
            if tracing::dispatcher::has_been_set() {
                tracing::error!(error = %failure, "this program cannot take over; the one before it goes on");
            } else {
                super::complain(&format!("rotogate: {failure}"));
            }
            crate::log::flush();
            Err(baton.give_back(&failure, sockets))
        }
        (Err(failure), _) => Err(failure),
    }
}

/// Starts a gate, and runs it to its end. `sockets` gets those that were passed once more, for as long as nobody is served.
fn start(
    path: &Path,
    output: Output,
    program: &Program,
    baton: Option<&Baton>,
    sockets: &mut Option<Vec<TcpListener>>,
    is_serving: &AtomicBool,
    logs: &mut Option<crate::log::Logs>,
) -> Result<Ended, Failure> {
    let passed = server::passed_sockets().map_err(Failure::of)?;
    if baton.is_some() {
        let again = passed.iter().map(TcpListener::try_clone).collect::<Result<_, _>>();
        *sockets = Some(again.map_err(Failure::of)?);
    }
    let refused = baton.and_then(|baton| Some((baton, baton.refused.as_deref()?)));
    let config = match refused {
        None => config::load(path, &ProcessEnv),
        Some((former, _)) => config::parse(&former.config, path, &ProcessEnv),
    };
    let config = config.map_err(|errors| Failure::configuration(&errors))?;
    keep_memory_private()?;
    *logs = Some(log(&config)?);
    allow_many_files();
    for name in config.source.passed_over() {
        tracing::debug!(name, "an environment variable of an orchestrator was passed over");
    }
    if let Some((former, reason)) = refused {
        former.take_name();
        tracing::warn!(target: "rotogate::audit", event = "process.upgrade_refused", reason);
        tracing::error!(reason, "what was started anew failed; this gate goes on as it was");
    }
    runtime()?.block_on(async {
        // Before anybody is told that the gate is there: a signal without a handler would end it in the middle.
        let signals = Signals::new().map_err(Failure::of)?;
        let greeted = greeting::Greeting::new(&config);
        let prepared = server::prepare(&config).await.map_err(|errors| Failure::configuration(&errors))?;
        warn(&prepared);
        let server = Server::bind(config, prepared, passed).await.map_err(Failure::of)?;
        match greeted.write(&server, output) {
            // Nobody has to read it where nothing was made.
            Err(failure) if server.assembled().first_user.is_none() => tracing::warn!("{failure}"),
            Err(Failure::Unread) => return Err(Failure::Failed("standard output cannot be written".to_owned())),
            written => written?,
        }
        tell_manager(NotifyState::Ready);
        is_serving.store(true, Ordering::Relaxed);
        *sockets = None;
        let held = server.addresses().into_iter().chain(server.admin_address()).collect();
        let (orders, told) = mpsc::channel(1);
        tokio::spawn(signals.obey(path.to_owned(), program.clone(), held, orders));
        server.run(told).await.map_err(Failure::of)
    })
}

fn warn(prepared: &Prepared) {
    for warning in &prepared.warnings {
        tracing::warn!("{warning}");
    }
}

/// The allocator gives free memory back after 10 ms, so that a flood leaves nothing behind (requirement A15); by default it
/// waits for a later request to do so, and keeps what was free before. It reads this from the environment with the first
/// allocation, and no safe function changes it later. So the program executes itself once: the same process, with its
/// files, under one more variable. What an operator has set stays.
fn begin_anew_with_purging() {
    use std::os::unix::process::CommandExt;
    const DELAY: &str = "MIMALLOC_PURGE_DELAY";
    let mut arguments = std::env::args_os();
    let (None, Ok(program), Some(name)) = (std::env::var_os(DELAY), std::env::current_exe(), arguments.next()) else {
        return;
    };
    // It comes back only if it fails, and then free memory is kept for longer.
    let _ = std::process::Command::new(program).arg0(name).args(arguments).env(DELAY, "10").exec();
}

/// Tells systemd, if that is who started us (sd_notify(3)).
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "NOTIFY_SOCKET is set and cannot be written to; the service manager was not told");
    }
}

/// The memory holds keys and passwords: no core dump, and no other process of the same user looks into it (requirement
/// O3).
fn keep_memory_private() -> Done {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let failed = |error| Failure::Failed(format!("core dumps cannot be switched off: {error}"));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(failed)?;
    Ok(())
}

/// Every connection is a file, and the soft bound of most systems, 1024, is for programs that use `select`.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let bounds = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: bounds.maximum, ..bounds }) {
        tracing::warn!(%error, bound = bounds.current, "the number of open files stays bounded as it was");
    }
}

/// Opens the logs.
fn log(config: &Config) -> Result<crate::log::Logs, Failure> {
    let filter = EnvFilter::builder()
        .with_env_var("ROTOGATE_LOG")
        .with_default_directive(
            config.log.level.as_str().parse().map_err(|error| Failure::Failed(format!("log.level: {error}")))?,
        )
        .from_env()
        .map_err(|error| Failure::Wrong(format!("ROTOGATE_LOG: {error}")))?;
    let logs = crate::log::start(
        &config.log,
        &config.access_log,
        config.server.workers.get(),
        &config.issuer.url,
        crate::log::with_audit(filter),
    )
    .map_err(Failure::of)?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(target: "rotogate::panic", location, text = fixed_text(panic.payload()), "a panic: a bug");
        crate::log::flush_after_panic();
    }));
    Ok(logs)
}

/// The message of a panic, if it is a text from the program itself. One put together at run time may hold a piece of
/// what a client sent, a line end or a secret (requirement A6).
fn fixed_text(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(not shown)")
}

/// What an operator, or a service manager, sends.
struct Signals {
    /// SIGTERM and SIGINT: stop.
    terminate: Signal,
    interrupt: Signal,
    /// SIGHUP: read gateway.toml again.
    hangup: Signal,
    /// SIGUSR1: open the log files again, which somebody renamed.
    user1: Signal,
    /// SIGUSR2: start anew, perhaps as another version, with the same sockets.
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

    /// Makes orders of them until the gate is told to stop, or has ended. What cannot be done leaves it as it is.
    async fn obey(mut self, config: PathBuf, program: Program, held: Vec<SocketAddr>, orders: mpsc::Sender<Order>) {
        loop {
            let order = tokio::select! {
                _ = self.terminate.recv() => Some(Order::Stop),
                _ = self.interrupt.recv() => Some(Order::Stop),
                _ = self.hangup.recv() => {
                    crate::log::reopen();
                    reload(&config).await
                }
                _ = self.user1.recv() => {
                    crate::log::reopen();
                    None
                }
                _ = self.user2.recv() => hand_over(config.clone(), program.clone(), held.clone()).await,
            };
            let Some(order) = order else { continue };
            if matches!(order, Order::Stop) {
                tell_manager(NotifyState::Stopping);
            }
            // Not a takeover: whoever waits for that may still be told to stop.
            let is_last = matches!(order, Order::Stop);
            if orders.send(order).await.is_err() || is_last {
                return;
            }
        }
    }
}

async fn reload(path: &Path) -> Option<Order> {
    let refused = |errors: ConfigErrors| {
        tracing::error!(%errors, "the configuration is wrong; the old one stays in force");
        None
    };
    let config = match config::load(path, &ProcessEnv) {
        Ok(config) => config,
        Err(errors) => return refused(errors),
    };
    match server::prepare(&config).await {
        Ok(prepared) => {
            warn(&prepared);
            Some(Order::Reload(Box::new(config)))
        }
        Err(errors) => refused(errors),
    }
}

async fn hand_over(config: PathBuf, program: Program, held: Vec<SocketAddr>) -> Option<Order> {
    let checked = tokio::task::spawn_blocking(move || program.check(&config, &held)).await;
    match checked {
        Ok(Ok(wanted)) => Some(Order::HandOver(wanted)),
        Ok(Err(error)) => {
            tracing::error!(%error, "what is to be started would not start; this gate goes on");
            None
        }
        Err(error) => {
            tracing::error!(%error, "what is to be started was not checked; this gate goes on");
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

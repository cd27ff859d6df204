//! `rotogate serve`.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use super::output::Output;
use super::{Done, Failure, greeting, runtime, successor};
use crate::config::{self, Config, ProcessEnv};
use crate::server::{Ended, Order, Server};

pub(super) fn run(path: &Path, config: Config, output: Output) -> Done {
    keep_memory_private()?;
    let _logs = log(&config)?;
    allow_many_files();
    let ended = runtime()?.block_on(async {
        // Before anybody is told that the gate is there: a signal without a handler would end it in the middle.
        let signals = Signals::new().map_err(Failure::of)?;
        let greeted = greeting::Greeting::new(&config);
        let server = Server::bind(config).await.map_err(Failure::of)?;
        match greeted.write(&server, output) {
            // Nobody has to read it where nothing was made.
            Err(failure) if server.assembled().first_user.is_none() => tracing::warn!("{failure}"),
            written => written?,
        }
        tell_manager(NotifyState::Ready);
        let (orders, told) = mpsc::channel(1);
        tokio::spawn(signals.obey(path.to_owned(), orders));
        server.run(told).await.map_err(Failure::of)
    })?;
    match ended {
        Ended::Stopped => Ok(()),
        Ended::HandedOver(sockets) => {
            crate::log::flush();
            Err(successor::become_it(sockets))
        }
    }
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
    let logs = crate::log::start(config, crate::log::with_audit(filter)).map_err(Failure::of)?;
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
    async fn obey(mut self, config: PathBuf, orders: mpsc::Sender<Order>) {
        loop {
            let order = tokio::select! {
                _ = self.terminate.recv() => Some(Order::Stop),
                _ = self.interrupt.recv() => Some(Order::Stop),
                _ = self.hangup.recv() => {
                    crate::log::reopen();
                    reload(&config)
                }
                _ = self.user1.recv() => {
                    crate::log::reopen();
                    None
                }
                _ = self.user2.recv() => hand_over(config.clone()).await,
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

fn reload(path: &Path) -> Option<Order> {
    match config::load(path, &ProcessEnv) {
        Ok(config) => Some(Order::Reload(Box::new(config))),
        Err(errors) => {
            tracing::error!(%errors, "the configuration is wrong; the old one stays in force");
            None
        }
    }
}

async fn hand_over(config: PathBuf) -> Option<Order> {
    let checked = tokio::task::spawn_blocking(move || successor::check(&config)).await;
    match checked {
        Ok(Ok(())) => {
            tracing::info!("starting anew; connections wait meanwhile");
            Some(Order::HandOver)
        }
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

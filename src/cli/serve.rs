//! `rotogate serve`.

use std::any::Any;
use std::io::IsTerminal;

use sd_notify::NotifyState;
use tracing_subscriber::EnvFilter;

use super::output::Output;
use super::{Done, Failure, greeting, runtime};
use crate::config::{Config, LogFormat};
use crate::server::Server;

pub(super) fn run(config: Config, output: Output) -> Done {
    keep_memory_private()?;
    log(&config)?;
    allow_many_files();
    runtime()?.block_on(async {
        // Before anybody is told that the gate is there: a signal without a handler would end it in the middle.
        let stop = stop_signal()?;
        let greeted = greeting::Greeting::new(&config);
        let server = Server::bind(config).await.map_err(Failure::of)?;
        greeted.write(&server, output)?;
        tell_manager(NotifyState::Ready);
        let stop = async {
            stop.await;
            tell_manager(NotifyState::Stopping);
        };
        server.run(stop).await.map_err(Failure::of)
    })
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
        tracing::warn!(%error, bound = ?bounds.current, "the number of open files stays bounded as it was");
    }
}

/// Logs go to standard error: standard output is for what a person or a program asked for.
fn log(config: &Config) -> Done {
    let filter = EnvFilter::builder()
        .with_env_var("ROTOGATE_LOG")
        .with_default_directive(
            config.log.level.as_str().parse().map_err(|error| Failure::Failed(format!("log.level: {error}")))?,
        )
        .from_env()
        .map_err(|error| Failure::Wrong(format!("ROTOGATE_LOG: {error}")))?;
    // Colours are for a terminal that wants them (https://no-color.org), not for a file or a journal.
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|unwanted| unwanted.is_empty());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        // By default a line that cannot be written is reported on standard error, which panics where it is gone too.
        .log_internal_errors(false);
    let done = match config.log.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    done.map_err(|error| Failure::Failed(format!("the log cannot be set up: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(target: "rotogate::panic", ?location, message = fixed_text(panic.payload()), "a panic: a bug");
    }));
    Ok(())
}

/// The message of a panic, if it is a text from the program itself. One put together at run time may hold a piece of
/// what a client sent, a line end or a secret (requirement A6).
fn fixed_text(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(not shown)")
}

/// Ends at SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::of)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::of)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
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

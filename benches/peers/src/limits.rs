//! The open files that the machine allows, and what follows from them.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Idle connections and all others of a gateway, where the machine allows as many.
const MOST_IDLE: usize = 10_000;
const MOST_CONNECTIONS: usize = 12_000;
/// Open files of a gateway or of the load beside those of connections.
const OTHERS: usize = 60;
/// For all of them.
const ENOUGH: u64 = 32_768;
/// Fewer than this are too few for most rows.
const LEAST: u64 = 1024;

/// What each gateway is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open files of a process.
    pub files: usize,
    /// Connections of clients. Each may have one to the upstream beside it.
    pub connections: usize,
    /// Connections without a request under way, in the rows that have them.
    pub idle: usize,
}

impl Limits {
    fn of(files: usize) -> Self {
        let connections = (files.saturating_sub(OTHERS) / 2).min(MOST_CONNECTIONS);
        // The load has those to the gateway, and up to as many from it, as the upstream.
        let idle = (files / 5).saturating_mul(2).min(MOST_IDLE);
        let step = if idle >= 1000 { 1000 } else { 100 };
        Self { files, connections, idle: idle / step * step }
    }

    /// Those of this machine.
    pub fn get() -> Self {
        static LIMITS: LazyLock<Limits> = LazyLock::new(|| {
            let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
            Limits::of(files.unwrap_or(usize::MAX))
        });
        *LIMITS
    }
}

impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { files, connections, idle } = self;
        write!(
            f,
            "Each process may open {files} files here, so HAProxy's `maxconn` and rotogate's `max_connections` are \
             {connections}, and rows with idle connections have {idle}."
        )
    }
}

/// Takes as many open files as the machine allows and the bench needs. What this process starts inherits them.
pub fn raise() -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let files = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    ensure!(
        files >= LEAST,
        "the machine allows a process {files} open files, and the bench needs {LEAST}: raise the hard limit (ulimit -Hn)"
    );
    if current.is_some_and(|current| current < files) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_open_files() {
        let of = |files| {
            let Limits { connections, idle, .. } = Limits::of(files);
            (connections, idle)
        };
        assert_eq!(of(usize::MAX), (MOST_CONNECTIONS, MOST_IDLE));
        assert_eq!(of(20_000), (9_970, 8_000));
        assert_eq!(of(4_096), (2_018, 1_000));
        assert_eq!(of(1024), (482, 400));
    }
}

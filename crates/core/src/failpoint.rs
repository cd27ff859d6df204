//! Points where a test can stop the process or inject a fault. The environment variable `ROTOGATE_FAILPOINT` lists
//! them, separated by `;`, and is read once. The points exist only with the feature `failpoints`, which releases do not
//! have.
//!
//! - `after-commit:N`: the process aborts after the store's Nth commit, before the commit is acknowledged.
//! - `ack-before-commit`: the store acknowledges before it commits. This is a deliberate bug that a crash test must
//!   find.
//! - `wall-clock:FILE`: the wall clock is ahead by the milliseconds in the file, or behind if the number is negative.
//! - `sweep-every:MS`: the interval of the sweep.
//! - `panic-at:PATH`: a request for this path ends the process with a panic that cannot be caught.
//! - `slow-sync:MS`: each sync of the store's disk takes this much longer.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A test can kill the process during this pause.
const PAUSE: Duration = Duration::from_millis(30);

static COMMITS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Active {
    after_commit: Option<u64>,
    ack_before_commit: bool,
    wall_clock: Option<PathBuf>,
    sweep_every: Option<Duration>,
    slow_sync: Option<Duration>,
    panic_at: Option<String>,
}

/// Aborts the process at the chosen commit, before the commit is acknowledged.
pub fn after_commit() {
    let done = COMMITS.fetch_add(1, Ordering::SeqCst) + 1;
    if active().after_commit == Some(done) {
        std::process::abort();
    }
}

/// Returns whether the store acknowledges before it commits.
pub fn ack_before_commit() -> bool {
    active().ack_before_commit
}

/// Delays the commit after an early acknowledgement.
pub fn pause() {
    std::thread::sleep(PAUSE);
}

pub(crate) fn shifted(wall: u64) -> u64 {
    /// The last valid number in the file, used while a test rewrites the file.
    static LAST: AtomicI64 = AtomicI64::new(0);
    let Some(file) = &active().wall_clock else { return wall };
    let said = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let ahead: i64 = match said {
        Some(ahead) => ahead,
        None => LAST.load(Ordering::SeqCst),
    };
    LAST.store(ahead, Ordering::SeqCst);
    wall.saturating_add_signed(ahead)
}

/// The sweep interval from the failpoint `sweep-every`, or else `usual`.
pub fn sweep_every(usual: Duration) -> Duration {
    active().sweep_every.unwrap_or(usual)
}

/// Panics at the chosen path.
#[expect(clippy::panic, reason = "that is the fault")]
pub fn at_request(path: &str) {
    /// A second panic during unwinding ends the process.
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            panic!("failpoint: the second panic");
        }
    }
    if active().panic_at.as_deref() == Some(path) {
        let _again = Again;
        panic!("failpoint: the first panic");
    }
}

/// Delays a sync of the store.
pub fn before_sync() {
    if let Some(longer) = active().slow_sync {
        std::thread::sleep(longer);
    }
}

fn active() -> &'static Active {
    static ACTIVE: OnceLock<Active> = OnceLock::new();
    ACTIVE.get_or_init(|| parse(&std::env::var("ROTOGATE_FAILPOINT").unwrap_or_default()))
}

fn parse(text: &str) -> Active {
    let mut active = Active::default();
    for one in text.split(';') {
        match one.split_once(':') {
            Some(("after-commit", count)) => active.after_commit = count.parse().ok(),
            Some(("wall-clock", file)) => active.wall_clock = Some(file.into()),
            Some(("sweep-every", millis)) => active.sweep_every = millis.parse().ok().map(Duration::from_millis),
            Some(("panic-at", path)) => active.panic_at = Some(path.to_owned()),
            Some(("slow-sync", millis)) => active.slow_sync = millis.parse().ok().map(Duration::from_millis),
            None if one == "ack-before-commit" => active.ack_before_commit = true,
            Some(_) | None => {}
        }
    }
    active
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_others_ignored() {
        assert_eq!(parse("after-commit:12"), Active { after_commit: Some(12), ..Active::default() });
        assert_eq!(parse("ack-before-commit"), Active { ack_before_commit: true, ..Active::default() });
        let both = Active {
            wall_clock: Some("/a/b".into()),
            sweep_every: Some(Duration::from_millis(5)),
            slow_sync: Some(Duration::from_millis(20)),
            panic_at: Some("/x".to_owned()),
            ..Active::default()
        };
        assert_eq!(parse("wall-clock:/a/b;sweep-every:5;slow-sync:20;panic-at:/x"), both);
        for other in ["", "after-commit", "after-commit:x", "before-mint:3"] {
            assert_eq!(parse(other), Active::default(), "{other}");
        }
    }
}

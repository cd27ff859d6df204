//! Points where a test may stop the process: `ROTOGATE_FAILPOINT`, read once. Only with the feature `failpoints`, which
//! no release has.
//!
//! - `after-commit:N`: the process aborts after the store's Nth commit, before anybody is told of it.
//! - `ack-before-commit`: the store answers before it commits: a planted fault, which a crash test must find.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Long enough for a killer to strike between the answer and the commit.
const PAUSE: Duration = Duration::from_millis(30);

static COMMITS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failpoint {
    None,
    AfterCommit(u64),
    AckBeforeCommit,
}

/// To be called after each commit that is not yet acknowledged.
pub fn after_commit() {
    let done = COMMITS.fetch_add(1, Ordering::SeqCst) + 1;
    if active() == Failpoint::AfterCommit(done) {
        std::process::abort();
    }
}

/// Is the store to answer before it commits?
pub fn ack_before_commit() -> bool {
    active() == Failpoint::AckBeforeCommit
}

/// The time between such an answer and the commit.
pub fn pause() {
    std::thread::sleep(PAUSE);
}

fn active() -> Failpoint {
    static ACTIVE: OnceLock<Failpoint> = OnceLock::new();
    *ACTIVE.get_or_init(|| std::env::var("ROTOGATE_FAILPOINT").map_or(Failpoint::None, |text| parse(&text)))
}

fn parse(text: &str) -> Failpoint {
    // Names that are not the store's are somebody else's.
    match text.split_once(':') {
        Some(("after-commit", count)) => count.parse().map_or(Failpoint::None, Failpoint::AfterCommit),
        None if text == "ack-before-commit" => Failpoint::AckBeforeCommit,
        Some(_) | None => Failpoint::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_others_ignored() {
        assert_eq!(parse("after-commit:12"), Failpoint::AfterCommit(12));
        assert_eq!(parse("ack-before-commit"), Failpoint::AckBeforeCommit);
        for other in ["", "after-commit", "after-commit:x", "before-mint:3"] {
            assert_eq!(parse(other), Failpoint::None, "{other}");
        }
    }
}

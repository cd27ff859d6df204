//! How long refusals take. A source that checks passwords itself may refuse an unknown user sooner than a wrong
//! password; so each refusal takes as long as the slowest recent one (requirement A2).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A refusal counts for one to two of these.
const WINDOW: Duration = Duration::from_secs(60);

/// The slowest recent refusals.
#[derive(Debug, Default)]
pub(super) struct SlowestRefusal(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    begun: Option<Instant>,
    current: Duration,
    previous: Duration,
}

impl SlowestRefusal {
    /// Notes a refusal that took this long. Returns how much longer it must take.
    pub(super) fn missing(&self, took: Duration, now: Instant) -> Duration {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = windows.begun.map_or(Duration::MAX, |begun| now.saturating_duration_since(begun));
        if age >= WINDOW {
            let previous = if age < WINDOW * 2 { windows.current } else { Duration::ZERO };
            *windows = Windows { begun: Some(now), current: Duration::ZERO, previous };
        }
        windows.current = windows.current.max(took);
        windows.current.max(windows.previous).saturating_sub(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a2_a_refusal_takes_as_long_as_the_slowest_of_the_last_minute() {
        let millis = Duration::from_millis;
        let slowest = SlowestRefusal::default();
        let begun = Instant::now();
        assert_eq!(slowest.missing(millis(200), begun), Duration::ZERO);
        assert_eq!(slowest.missing(millis(5), begun), millis(195));
        assert_eq!(slowest.missing(millis(5), begun + WINDOW), millis(195), "of the window before");
        assert_eq!(slowest.missing(millis(5), begun + WINDOW * 2), Duration::ZERO, "the slow one is forgotten");
        assert_eq!(slowest.missing(millis(300), begun + WINDOW * 2), Duration::ZERO);
        assert_eq!(slowest.missing(millis(100), begun + WINDOW * 2), millis(200));
        assert_eq!(slowest.missing(millis(5), begun + WINDOW * 9), Duration::ZERO, "after a pause, too");
    }
}

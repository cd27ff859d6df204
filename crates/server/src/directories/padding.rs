//! How long refusals take. A source that checks passwords itself may refuse an unknown user sooner than a wrong
//! password; so each refusal takes as long as the slowest recent one (requirement A2).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A refusal counts for one to two of these in which there are refusals.
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
    pub(super) fn noted(&self, took: Duration, now: Instant) -> Duration {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = windows.begun.map_or(Duration::MAX, |begun| now.saturating_duration_since(begun));
        if age >= WINDOW {
            // However long ago: a pause would make the next refusal tell.
            *windows = Windows { begun: Some(now), current: Duration::ZERO, previous: windows.current };
        }
        windows.current = windows.current.max(took);
        windows.missing(took)
    }

    /// How much longer a refusal must take that is faster than others by its nature, and so says nothing of them.
    pub(super) fn missing(&self, took: Duration) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).missing(took)
    }
}

impl Windows {
    fn missing(&self, took: Duration) -> Duration {
        self.current.max(self.previous).saturating_sub(took)
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
        assert_eq!(slowest.noted(millis(200), begun), Duration::ZERO);
        assert_eq!(slowest.noted(millis(5), begun), millis(195));
        assert_eq!(slowest.noted(millis(5), begun + WINDOW), millis(195), "of the window before");
        assert_eq!(slowest.noted(millis(5), begun + WINDOW * 2), Duration::ZERO, "the slow one is forgotten");
        assert_eq!(slowest.noted(millis(300), begun + WINDOW * 2), Duration::ZERO);
        assert_eq!(slowest.noted(millis(100), begun + WINDOW * 2), millis(200));
        assert_eq!(slowest.noted(millis(5), begun + WINDOW * 9), millis(295), "a pause forgets nothing");
        assert_eq!(slowest.missing(millis(1)), millis(299), "of a name that is nobody's");
        assert_eq!(slowest.noted(millis(5), begun + WINDOW * 10), Duration::ZERO, "which was not noted");
    }
}

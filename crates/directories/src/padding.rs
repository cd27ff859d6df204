//! Padding of refusals. Without padding, a fast refusal would reveal that a user does not exist (requirement A2).
//!
//! Old measurements expire only at a successful login. Otherwise, anyone could lower the padding with fast refusals
//! (requirement I61).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The length of a window. A measurement applies in its window and the next one. A new window begins only at a
/// successful login.
const WINDOW: Duration = Duration::from_secs(2 * 3600);

#[derive(Debug, Default)]
pub(super) struct SlowestCheck(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    begun: Option<Instant>,
    current: Duration,
    previous: Duration,
}

impl SlowestCheck {
    pub(super) fn accepted(&self, took: Duration, now: Instant) {
        let mut windows = self.0.lock();
        let age = windows.begun.map_or(Duration::MAX, |begun| now.saturating_duration_since(begun));
        if age >= WINDOW {
            // Measurements expire only at a login. Without measurements, the next refusal could reveal whether the user
            // exists.
            *windows = Windows { begun: Some(now), current: Duration::ZERO, previous: windows.current };
        }
        windows.current = windows.current.max(took);
    }

    /// Records the duration of a refusal, and returns the remaining time to wait.
    pub(super) fn refused(&self, took: Duration) -> Duration {
        let mut windows = self.0.lock();
        windows.current = windows.current.max(took);
        windows.missing(took)
    }

    /// Returns how long a refusal without a password check must still be delayed. This refusal does not change
    /// the measurements.
    pub(super) fn missing(&self, took: Duration) -> Duration {
        self.0.lock().missing(took)
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

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn a2_a_refusal_takes_as_long_as_the_slowest_of_the_last_hours() {
        let slowest = SlowestCheck::default();
        let begun = Instant::now();
        assert_eq!(slowest.refused(millis(200)), Duration::ZERO);
        assert_eq!(slowest.refused(millis(5)), millis(195));
        slowest.accepted(millis(50), begun);
        assert_eq!(slowest.refused(millis(5)), millis(195), "of the window before");
        slowest.accepted(millis(50), begun + WINDOW);
        assert_eq!(slowest.refused(millis(5)), millis(45), "the slow check is forgotten; the login counts");
        assert_eq!(slowest.missing(millis(1)), millis(49), "of a name that is nobody's");
        slowest.accepted(millis(300), begun + WINDOW);
        assert_eq!(slowest.refused(millis(100)), millis(200));
        slowest.accepted(millis(50), begun + WINDOW * 9);
        assert_eq!(slowest.refused(millis(5)), millis(295), "a pause forgets nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn i61_refusals_however_fast_many_and_far_apart_do_not_wear_the_measure_out() {
        let slowest = SlowestCheck::default();
        slowest.accepted(millis(200), Instant::now());
        for pause in [0, 61, 61, 24 * 3600, 24 * 3600, 24 * 3600] {
            tokio::time::advance(Duration::from_secs(pause)).await;
            assert_eq!(slowest.refused(Duration::ZERO), millis(200));
        }
    }
}

//! Counters that all nodes share: rate limits (GCRA), and remembered names.

use std::time::Duration;

/// A rate limit, by the store's clock. The state is the time at which the whole burst is available again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedCounter {
    /// The counter's id, a digest. If the input could be guessed, the digest uses a key that the store does not
    /// have.
    pub name: [u8; 16],
    /// How long it takes until one more attempt is available.
    pub every: Duration,
    /// How many attempts are admitted at once after a pause.
    pub burst: u32,
}

impl SharedCounter {
    /// How long it takes until the whole burst is available again.
    pub fn depth(&self) -> Duration {
        self.every.saturating_mul(self.burst)
    }
}

/// The result of an attempt with several counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Whether only the caller's own counter was used, because the name is remembered.
    pub is_known: bool,
    /// The index of the refusing counter, and how long to wait. A refused attempt does not count.
    pub refused: Option<(usize, Duration)>,
}

/// An operation on a [`SharedCounter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterUse {
    /// Takes an attempt, or returns the time until the next one is available.
    Take,
    /// Counts an attempt that has already happened, and may overdraw the counter by one.
    Charge,
    /// Returns how long the counter stays overdrawn, without changing it.
    Look,
    /// Makes a taken attempt available again.
    GiveBack,
}

impl CounterUse {
    /// Returns the counter's new state, or `None` if unchanged, and the wait in microseconds.
    ///
    /// `full_at` is the current state, and `now` is the store's time.
    pub fn apply(self, counter: &SharedCounter, full_at: u64, now: u64) -> (Option<u64>, u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (every, depth) = (micros(counter.every).max(1), micros(counter.depth()).max(1));
        // Caps a value from a clock that was ahead.
        let full_at = full_at.min(now.saturating_add(depth).saturating_add(every));
        let from = full_at.max(now);
        let next = from.saturating_add(every);
        match self {
            Self::Take => match next.saturating_sub(now).saturating_sub(depth) {
                0 => (Some(next), 0),
                wait => (None, wait),
            },
            Self::Charge if from - now <= depth => (Some(next), 0),
            Self::Charge => (None, 0),
            Self::Look => (None, full_at.saturating_sub(depth).saturating_sub(now)),
            Self::GiveBack => ((full_at > now).then(|| full_at.saturating_sub(every)), 0),
        }
    }
}

//! Counters of attempts that all nodes share: rates (GCRA), and names that are remembered for a while.

use std::time::Duration;

/// A rate of attempts, by the store's time. Its state is one moment: when the whole burst is earned again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedCounter {
    /// The name of the counter: a digest, never a user's name or an address. If the digested text could be guessed, the
    /// digest uses a key that the store does not have.
    pub name: [u8; 16],
    /// The time that earns one attempt.
    pub every: Duration,
    /// The number of attempts that are admitted at once.
    pub burst: u32,
}

impl SharedCounter {
    /// The time that earns the whole burst.
    pub fn depth(&self) -> Duration {
        self.every.saturating_mul(self.burst)
    }
}

/// The result of an attempt with several counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Whether the caller's name is remembered, so that only the caller's counter was asked.
    pub is_known: bool,
    /// The index of the counter that refuses, and how long it refuses. After a refusal, no counter has counted the
    /// attempt.
    pub refused: Option<(usize, Duration)>,
}

/// An operation on a [`SharedCounter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterUse {
    /// Takes one attempt, if an attempt is left; otherwise returns the time until one is earned.
    Take,
    /// Counts an attempt that has happened already. An attempt beyond the burst puts the counter into debt, which never
    /// exceeds one attempt.
    Charge,
    /// Returns how long the counter is in debt, and changes nothing.
    Look,
    /// Gives back one attempt that was taken.
    GiveBack,
}

impl CounterUse {
    /// The next state of a counter, and how long to wait, in microseconds. `full_at` is the state, `now` the store's
    /// time. `None` leaves the state unchanged.
    pub fn apply(self, counter: &SharedCounter, full_at: u64, now: u64) -> (Option<u64>, u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (every, depth) = (micros(counter.every).max(1), micros(counter.depth()).max(1));
        // A later `full_at` was written under a clock that was ahead, so it is capped.
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

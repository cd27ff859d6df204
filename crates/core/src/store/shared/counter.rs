//! Counters of attempts that all nodes share: rate limits (GCRA), and names that are remembered for a while.

use std::time::Duration;

/// A limit on the rate of attempts, measured by the store's time. Its state is the moment at which the whole burst is
/// available again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedCounter {
    /// The name of the counter. It is a digest, never a user's name or an address. If the digested input could be
    /// guessed, the digest is keyed with a key that the store does not have.
    pub name: [u8; 16],
    /// The time after which one more attempt becomes available.
    pub every: Duration,
    /// The number of attempts that are admitted at once after a pause.
    pub burst: u32,
}

impl SharedCounter {
    /// The time after which the whole burst is available again.
    pub fn depth(&self) -> Duration {
        self.every.saturating_mul(self.burst)
    }
}

/// The result of an attempt with several counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Whether the caller's name is remembered. If so, only the caller's own counter was used.
    pub is_known: bool,
    /// The index of the counter that refused the attempt, and how long to wait. After a refusal, none of the counters
    /// has counted the attempt.
    pub refused: Option<(usize, Duration)>,
}

/// An operation on a [`SharedCounter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterUse {
    /// Takes one attempt if an attempt is available. Otherwise returns the time until the next attempt is available.
    Take,
    /// Counts an attempt that has already happened. An attempt beyond the burst puts the counter into debt, by at most
    /// one attempt.
    Charge,
    /// Returns how long the counter stays in debt, without changing it.
    Look,
    /// Returns one attempt that was taken before.
    GiveBack,
}

impl CounterUse {
    /// Returns the next state of a counter, and how long to wait, in microseconds. `full_at` is the present state and
    /// `now` is the store's time. `None` means that the state stays unchanged.
    pub fn apply(self, counter: &SharedCounter, full_at: u64, now: u64) -> (Option<u64>, u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (every, depth) = (micros(counter.every).max(1), micros(counter.depth()).max(1));
        // A later `full_at` was written while the clock was ahead, so it is capped.
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

//! Counters of attempts that all nodes share: rates (GCRA), and what is remembered for a while.

use std::time::Duration;

/// A rate of attempts, by the store's time. Its state is one moment: when the whole burst is earned again.
///
/// ```
/// use std::time::Duration;
/// use rotogate::store::SharedCounter;
///
/// let logins = SharedCounter { name: [7; 16], every: Duration::from_secs(30), burst: 10 };
/// assert_eq!(logins.depth(), Duration::from_secs(300), "the time that earns the whole burst");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedCounter {
    /// What is counted: a digest, never a name or an address. One that could be guessed is under a key that the store does not
    /// have.
    pub name: [u8; 16],
    /// The time that earns one attempt.
    pub every: Duration,
    /// The number of attempts at once.
    pub burst: u32,
}

impl SharedCounter {
    /// The time that earns the whole burst.
    pub fn depth(&self) -> Duration {
        self.every.saturating_mul(self.burst)
    }
}

/// What came of an attempt with several counters.
///
/// ```
/// use rotogate::store::Admitted;
///
/// /// Whether the attempt may be made.
/// fn may(admitted: &Admitted) -> bool {
///     admitted.refused.is_none()
/// }
/// assert!(may(&Admitted { is_known: true, refused: None }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The caller's name is remembered, and its counter alone was asked.
    pub is_known: bool,
    /// Which of the counters refuses, and for how long. None of them has counted then.
    pub refused: Option<(usize, Duration)>,
}

/// What is done with a [`SharedCounter`].
///
/// ```
/// use rotogate::store::CounterUse;
///
/// /// Whether it can be refused.
/// fn asks(how: CounterUse) -> bool {
///     match how {
///         CounterUse::Take | CounterUse::Look => true,
///         CounterUse::Charge | CounterUse::GiveBack => false,
///     }
/// }
/// assert!(asks(CounterUse::Take));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterUse {
    /// Takes one attempt, if there is one. Answers how long it is until there is one.
    Take,
    /// Counts an attempt that has happened. One beyond the burst puts the counter into debt, which never exceeds one
    /// attempt.
    Charge,
    /// Answers how long the counter is in debt, and changes nothing.
    Look,
    /// Gives back one that was taken.
    GiveBack,
}

impl CounterUse {
    /// The next state of a counter, in microseconds, and how long to wait. `full_at` is the state, `now` the store's time.
    /// The state remains if there is no next one.
    pub fn apply(self, counter: &SharedCounter, full_at: u64, now: u64) -> (Option<u64>, u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (every, depth) = (micros(counter.every).max(1), micros(counter.depth()).max(1));
        // One that is full later was counted under a clock that was ahead.
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

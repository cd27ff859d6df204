//! Detects that the process was suspended, by a signal or together with its machine.
//!
//! While the process was suspended, the client of a waiting request may have continued at another gate. Its refresh
//! token is then superseded, although it was not stolen. A request that arrived before the process resumed therefore
//! gets a fault. A request that is read shortly afterwards also gets a fault, because it may have waited in the
//! system's buffers. Later requests are accepted.
//!
//! A task calls [`beat`](Standstill::beat) while the process runs. A missing beat means that the process was suspended.
//! The missing beat is detected with the monotonic clock or, on systems whose monotonic clock stops while the machine
//! is suspended, with the wall clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Engine;
use crate::clock::{TimeSource, Timestamp};
use crate::fault::Fault;
use crate::store::Staleness;

/// The longest suspension that is ignored. It equals the time limit of a store operation, for which clients wait
/// anyway.
const LONGEST: Duration = Duration::from_secs(2);
/// The number of beats after a suspension by which all requests that were waiting have been read.
const READ_BY: u64 = 2;
const NEVER: u64 = u64::MAX;

/// The arrival time of a request, as the number of beats before the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival(u64);

/// The clocks at one moment, in ms.
#[derive(Clone, Copy, Debug)]
struct ClockReading {
    monotonic: u64,
    wall: u64,
}

impl ClockReading {
    fn now(time: &dyn TimeSource) -> Self {
        let monotonic = u64::try_from(time.monotonic().as_millis()).unwrap_or(u64::MAX);
        Self { monotonic, wall: Timestamp::as_millis(time.wall()) }
    }

    /// The time since `other`.
    fn since(self, other: Self) -> Duration {
        let by = |now: u64, then: u64| now.saturating_sub(then);
        Duration::from_millis(by(self.monotonic, other.monotonic).max(by(self.wall, other.wall)))
    }
}

/// Detects suspensions of the process.
#[derive(Debug)]
pub(super) struct Standstill {
    /// `None` if only this gate uses the store, because clients cannot continue elsewhere.
    longest: Option<Duration>,
    beats: AtomicU64,
    monotonic: AtomicU64,
    wall: AtomicU64,
    /// The number of the beat that followed the last suspension.
    stood_at: AtomicU64,
}

impl Standstill {
    pub(super) fn new(staleness: Option<Staleness>) -> Self {
        Self {
            longest: staleness.map(|staleness| staleness.limit.min(LONGEST)),
            beats: AtomicU64::new(0),
            monotonic: AtomicU64::new(0),
            wall: AtomicU64::new(0),
            stood_at: AtomicU64::new(NEVER),
        }
    }

    fn arrival(&self) -> Arrival {
        Arrival(self.beats.load(Ordering::Acquire))
    }

    /// Returns whether the beat is late by more than the longest ignored suspension.
    fn is_overdue(&self, now: ClockReading) -> bool {
        let last =
            ClockReading { monotonic: self.monotonic.load(Ordering::Acquire), wall: self.wall.load(Ordering::Acquire) };
        let is_begun = self.beats.load(Ordering::Acquire) > 0;
        is_begun && self.longest.is_some_and(|longest| now.since(last) > longest)
    }

    /// Counts a beat. Returns true if the process was suspended before it.
    fn beat(&self, now: ClockReading) -> bool {
        let stood_still = self.is_overdue(now);
        let number = self.beats.load(Ordering::Acquire) + 1;
        // This value is set before the clocks below. Until the clocks are set, `is_overdue` still reports that this
        // beat is late.
        if stood_still {
            self.stood_at.store(number, Ordering::Release);
        }
        self.monotonic.store(now.monotonic, Ordering::Release);
        self.wall.store(now.wall, Ordering::Release);
        self.beats.store(number, Ordering::Release);
        stood_still
    }

    /// Returns whether the request may have waited while the process was suspended.
    fn may_have_waited(&self, arrived: Arrival, now: ClockReading) -> bool {
        let stood_at = self.stood_at.load(Ordering::Acquire);
        self.is_overdue(now) || (stood_at != NEVER && arrived.0 < stood_at.saturating_add(READ_BY))
    }
}

impl Engine {
    /// The arrival time of a request that was read just now.
    pub fn arrival(&self) -> Arrival {
        self.standstill.arrival()
    }

    /// The interval at which [`beat`](Self::beat) must be called, or `None` if that is not necessary.
    pub fn beats_every(&self) -> Option<Duration> {
        self.standstill.longest.map(|longest| longest / 4)
    }

    /// Records that the process is running.
    pub fn beat(&self) {
        if self.standstill.beat(ClockReading::now(self.clock.source().as_ref())) {
            tracing::warn!(
                "the process stood still, so requests that waited get 503. Give the machine more CPU time, and do not \
                 suspend it"
            );
        }
    }

    /// Returns a fault for a request that may have waited while the process was suspended.
    pub(super) fn is_recent(&self, arrived: Arrival) -> Result<(), Fault> {
        let waited = self.standstill.longest.is_some()
            && self.standstill.may_have_waited(arrived, ClockReading::now(self.clock.source().as_ref()));
        if waited { Err(Fault::StoodStill) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Staleness = Staleness::deny_after(Duration::from_secs(2));

    fn at(monotonic: u64, wall: u64) -> ClockReading {
        ClockReading { monotonic, wall }
    }

    /// A detector that got a beat every half second, from the start to 10 s.
    fn running() -> Standstill {
        let standstill = Standstill::new(Some(S));
        for n in 0..=20 {
            assert!(!standstill.beat(at(n * 500, n * 500)));
        }
        standstill
    }

    #[test]
    fn c9_what_was_read_before_a_standstill_or_just_after_may_have_waited() {
        let standstill = running();
        let before = standstill.arrival();
        assert!(!standstill.may_have_waited(before, at(12_000, 12_000)));
        // The process wakes, and the request is judged before the first beat.
        assert!(standstill.may_have_waited(before, at(12_001, 12_001)));
        assert!(standstill.may_have_waited(standstill.arrival(), at(12_001, 12_001)), "as may what is read then");
        assert!(standstill.beat(at(20_000, 20_000)));
        let first = standstill.arrival();
        assert!(!standstill.beat(at(20_500, 20_500)));
        let second = standstill.arrival();
        assert!(!standstill.beat(at(21_000, 21_000)));
        let third = standstill.arrival();
        let now = at(21_000, 21_000);
        let waited = |arrival| standstill.may_have_waited(arrival, now);
        assert_eq!([before, first, second, third].map(waited), [true, true, true, false]);
    }

    #[test]
    fn c9_either_clock_shows_a_standstill() {
        for woken in [at(60_000, 10_000), at(10_000, 60_000)] {
            let standstill = running();
            assert!(standstill.may_have_waited(standstill.arrival(), woken));
            assert!(standstill.beat(woken));
        }
        let standstill = running();
        assert!(!standstill.beat(at(10_500, 0)), "a wall clock that steps back shows none");
    }

    #[test]
    fn c9_a_gate_alone_and_one_that_has_not_begun_to_beat_hold_nothing() {
        let alone = Standstill::new(None);
        alone.beat(at(0, 0));
        assert!(!alone.beat(at(99_000, 99_000)) && !alone.may_have_waited(Arrival(0), at(99_000, 99_000)));
        let fresh = Standstill::new(Some(S));
        assert!(!fresh.may_have_waited(fresh.arrival(), at(99_000, 99_000)));
        // With a short staleness, a short suspension also counts.
        let short = Standstill::new(Some(Staleness::deny_after(Staleness::SHORTEST)));
        short.beat(at(0, 0));
        assert!(short.beat(at(501, 501)));
    }
}

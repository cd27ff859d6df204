//! Detects that the process was suspended. Meanwhile, the client of a waiting request may have refreshed at another
//! gate. The request's refresh token is then superseded, although it was not stolen. Requests that arrived before the
//! process resumed, or shortly afterwards, therefore fail. A task calls [`beat`](Standstill::beat) while the process
//! runs. If no beat arrives for too long, by the monotonic clock or by the wall clock, the process was suspended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Engine;
use crate::clock::{TimeSource, Timestamp};
use crate::fault::Fault;
use crate::store::Staleness;

/// The longest ignored suspension, which equals the time limit of a store operation.
const LONGEST: Duration = Duration::from_secs(2);
/// Requests that arrived during a suspension have been read within this many beats.
const READ_BY: u64 = 2;
const NEVER: u64 = u64::MAX;

/// The arrival time of a request, as a number of beats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival(u64);

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

    fn since(self, other: Self) -> Duration {
        let by = |now: u64, then: u64| now.saturating_sub(then);
        Duration::from_millis(by(self.monotonic, other.monotonic).max(by(self.wall, other.wall)))
    }
}

#[derive(Debug)]
pub(super) struct Standstill {
    /// `None` without a shared store.
    longest: Option<Duration>,
    beats: AtomicU64,
    monotonic: AtomicU64,
    wall: AtomicU64,
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

    fn is_overdue(&self, now: ClockReading) -> bool {
        let last =
            ClockReading { monotonic: self.monotonic.load(Ordering::Acquire), wall: self.wall.load(Ordering::Acquire) };
        let is_begun = self.beats.load(Ordering::Acquire) > 0;
        is_begun && self.longest.is_some_and(|longest| now.since(last) > longest)
    }

    fn beat(&self, now: ClockReading) -> bool {
        let stood_still = self.is_overdue(now);
        let number = self.beats.load(Ordering::Acquire) + 1;
        // `stood_at` comes first, because `is_overdue` returns true only until `monotonic` and `wall` are updated.
        if stood_still {
            self.stood_at.store(number, Ordering::Release);
        }
        self.monotonic.store(now.monotonic, Ordering::Release);
        self.wall.store(now.wall, Ordering::Release);
        self.beats.store(number, Ordering::Release);
        stood_still
    }

    fn may_have_waited(&self, arrived: Arrival, now: ClockReading) -> bool {
        if self.is_overdue(now) {
            return true;
        }
        // A late beat stores `stood_at` before the clocks, so it must be loaded after them.
        let stood_at = self.stood_at.load(Ordering::Acquire);
        stood_at != NEVER && arrived.0 < stood_at.saturating_add(READ_BY)
    }
}

impl Engine {
    /// The arrival time of a request that was just read.
    pub fn arrival(&self) -> Arrival {
        self.standstill.arrival()
    }

    /// The interval at which to call [`beat`](Self::beat), or `None` to never call it.
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
        assert!(!standstill.beat(at(10_500, 0)), "a wall clock that steps back is not a standstill");
    }

    #[test]
    fn c9_a_gate_alone_and_one_that_has_not_begun_to_beat_hold_nothing() {
        let alone = Standstill::new(None);
        alone.beat(at(0, 0));
        assert!(!alone.beat(at(99_000, 99_000)) && !alone.may_have_waited(Arrival(0), at(99_000, 99_000)));
        let fresh = Standstill::new(Some(S));
        assert!(!fresh.may_have_waited(fresh.arrival(), at(99_000, 99_000)));
        // With a short staleness limit, even a short suspension is detected.
        let short = Standstill::new(Some(Staleness::deny_after(Staleness::SHORTEST)));
        short.beat(at(0, 0));
        assert!(short.beat(at(501, 501)));
    }
}

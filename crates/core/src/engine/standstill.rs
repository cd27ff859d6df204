//! Detects that the process stood still: stopped by a signal, or with its machine suspended.
//!
//! The client of a request that waited meanwhile may have continued at another gate. Its refresh token is then
//! superseded, which is no sign of theft. So a request that arrived before the process ran again is answered with a
//! fault, and so is a request that is read in the first moments after: it may have waited in the buffers of the system.
//! Later requests are accepted.
//!
//! A task [beats](Standstill::beat) while the process runs. A missing beat is a standstill, by the monotonic clock, which
//! counts suspensions, or by the wall clock where it does not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Engine;
use crate::clock::{TimeSource, Timestamp};
use crate::fault::Fault;
use crate::store::Staleness;

/// The longest standstill that is ignored: the time limit of a store operation, which clients wait for anyway.
const LONGEST: Duration = Duration::from_secs(2);
/// Within this many beats after a standstill, all requests that waited for the process have been read.
const READ_BY: u64 = 2;
const NEVER: u64 = u64::MAX;

/// The arrival of a request, as the number of beats before the arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival(u64);

/// The clocks of a moment, in ms.
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

/// The detector of standstills.
#[derive(Debug)]
pub(super) struct Standstill {
    /// `None` if no other gate uses the store, so that no client can have continued elsewhere.
    longest: Option<Duration>,
    beats: AtomicU64,
    monotonic: AtomicU64,
    wall: AtomicU64,
    /// The number of the beat that came after a standstill.
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

    /// Is the beat overdue by more than the longest standstill without effect?
    fn is_overdue(&self, now: ClockReading) -> bool {
        let last =
            ClockReading { monotonic: self.monotonic.load(Ordering::Acquire), wall: self.wall.load(Ordering::Acquire) };
        let is_begun = self.beats.load(Ordering::Acquire) > 0;
        is_begun && self.longest.is_some_and(|longest| now.since(last) > longest)
    }

    /// Counts a beat. True if the process stood still before it.
    fn beat(&self, now: ClockReading) -> bool {
        let stood_still = self.is_overdue(now);
        let number = self.beats.load(Ordering::Acquire) + 1;
        // Stored before the count rises, because the beat counts as overdue until the count rises.
        if stood_still {
            self.stood_at.store(number, Ordering::Release);
        }
        self.monotonic.store(now.monotonic, Ordering::Release);
        self.wall.store(now.wall, Ordering::Release);
        self.beats.store(number, Ordering::Release);
        stood_still
    }

    /// May the request have waited while the process stood still?
    fn may_have_waited(&self, arrived: Arrival, now: ClockReading) -> bool {
        let stood_at = self.stood_at.load(Ordering::Acquire);
        self.is_overdue(now) || (stood_at != NEVER && arrived.0 < stood_at.saturating_add(READ_BY))
    }
}

impl Engine {
    /// The arrival of a request that was read just now.
    pub fn arrival(&self) -> Arrival {
        self.standstill.arrival()
    }

    /// How often [`beat`](Self::beat) is called; `None` if it need not be.
    pub fn beats_every(&self) -> Option<Duration> {
        self.standstill.longest.map(|longest| longest / 4)
    }

    /// Records that the process runs.
    pub fn beat(&self) {
        if self.standstill.beat(ClockReading::now(self.clock.source().as_ref())) {
            tracing::warn!(
                "the process stood still, so requests that waited get 503. Give the machine more CPU time, and do not \
                 suspend it"
            );
        }
    }

    /// Returns a fault for a request that may have waited during a standstill.
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

    /// A detector that has beaten each half second, from the start to 10 s.
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
        // With a short staleness, a short standstill counts.
        let short = Standstill::new(Some(Staleness::deny_after(Staleness::SHORTEST)));
        short.beat(at(0, 0));
        assert!(short.beat(at(501, 501)));
    }
}

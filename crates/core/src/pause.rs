//! Pauses that a service requests with `Retry-After`.
//!
//! A 503 response pauses all requests to the service. Any other response may concern only one caller, so it pauses only
//! that caller's requests.
//!
//! All callers pause if the service refuses a second caller without accepting a request in between. During this pause,
//! one request a second tests the service.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use parking_lot::Mutex;

/// The maximum pause.
pub const MAX_PAUSE: Duration = Duration::from_secs(60);
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The maximum number of callers whose requests are paused individually.
const MAX_ASKERS: usize = 1024;

/// A service's reaction to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceAnswer {
    /// The service accepted the request.
    Answered,
    /// The service failed without requesting a pause.
    Failed,
    /// The service asked for a pause of this length.
    Busy(Duration),
    /// The service asked this caller for a pause of this length. The status is not 503.
    BusyForAsker(Duration),
}

impl ServiceAnswer {
    /// Classifies a failure by the pause that the service requested.
    pub fn fault(wait: Option<Duration>, may_be_of_asker: bool) -> Self {
        match wait {
            None => Self::Failed,
            Some(wait) if may_be_of_asker => Self::BusyForAsker(wait),
            Some(wait) => Self::Busy(wait),
        }
    }
}

/// The pauses of one service. All times are monotonic.
#[derive(Debug, Default)]
pub struct ServicePauses {
    state: Mutex<PauseState>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct PauseState {
    until: Duration,
    /// During a pause for all callers, the time from which a single request may be sent.
    probe_from: Option<Duration>,
    askers: HashMap<u64, Duration>,
    /// The last refused caller, or `None` after the service has accepted a request.
    refused: Option<(u64, Duration)>,
}

impl ServicePauses {
    /// Checks whether this caller's request may be sent now.
    ///
    /// # Errors
    /// The remaining pause.
    pub fn admit(&self, asker: impl Hash, now: Duration) -> Result<(), Duration> {
        self.look(asker, now, true)
    }

    /// Like [`Self::admit`], but the caller does not send the request yet.
    ///
    /// # Errors
    /// The remaining pause.
    pub fn foresee(&self, asker: impl Hash, now: Duration) -> Result<(), Duration> {
        self.look(asker, now, false)
    }

    fn look(&self, asker: impl Hash, now: Duration, is_sent: bool) -> Result<(), Duration> {
        let asker = self.hasher.hash_one(asker);
        let mut state = self.state.lock();
        if let Some(until) = state.askers.get(&asker).filter(|until| now < **until) {
            return Err(*until - now);
        }
        if now >= state.until {
            return Ok(());
        }
        match state.probe_from {
            Some(from) if now >= from => {
                if is_sent {
                    state.probe_from = Some(now + MIN_PAUSE);
                }
                Ok(())
            }
            Some(_) | None => Err(state.until - now),
        }
    }

    /// Records how the service answered this caller's request.
    pub fn note(&self, asker: impl Hash, answer: ServiceAnswer, now: Duration) {
        let asker = self.hasher.hash_one(asker);
        let end = |wait: Duration| now + wait.clamp(MIN_PAUSE, MAX_PAUSE);
        let mut state = self.state.lock();
        match answer {
            ServiceAnswer::Failed => {}
            ServiceAnswer::Answered => {
                state.refused = None;
                // Only a pause with probes ends here. After a 503, this response may be to an earlier request.
                if state.probe_from.take().is_some() {
                    state.until = Duration::ZERO;
                }
            }
            ServiceAnswer::Busy(wait) => {
                state.until = state.until.max(end(wait));
                state.probe_from = None;
            }
            ServiceAnswer::BusyForAsker(wait) => state.refuse(asker, end(wait), now),
        }
    }
}

impl PauseState {
    fn refuse(&mut self, asker: u64, until: Duration, now: Duration) {
        if self.askers.len() >= MAX_ASKERS {
            self.askers.retain(|_, until| now < *until);
        }
        if self.askers.len() < MAX_ASKERS {
            self.askers.insert(asker, until);
        }
        let other = self.refused.filter(|(other, until)| *other != asker && now < *until);
        self.refused = Some((asker, until));
        let is_busy = now < self.until && self.probe_from.is_none();
        if other.is_some() && !is_busy {
            self.until = self.until.max(until);
            self.probe_from.get_or_insert(now + MIN_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pauses(answers: &[(&str, ServiceAnswer, u64)]) -> ServicePauses {
        let pauses = ServicePauses::default();
        answers.iter().for_each(|(asker, answer, now)| pauses.note(asker, *answer, at(*now)));
        pauses
    }

    use ServiceAnswer::{Answered, Busy, BusyForAsker, Failed};

    #[test]
    fn d12_a_fault_of_the_service_pauses_the_questions_of_all_for_a_minute_at_most() {
        let busy = pauses(&[("ada", Busy(at(30)), 100)]);
        for asker in ["ada", "bob"] {
            assert_eq!(busy.admit(asker, at(110)), Err(at(20)));
            assert_eq!(busy.admit(asker, at(130)), Ok(()));
        }
        assert_eq!(pauses(&[("ada", Busy(at(86_400)), 100)]).admit("bob", at(100)), Err(MAX_PAUSE));
        assert_eq!(pauses(&[("ada", Busy(at(0)), 100)]).admit("bob", at(100)), Err(MIN_PAUSE));
        assert_eq!(pauses(&[("ada", Failed, 100)]).admit("ada", at(100)), Ok(()));
        let busy = pauses(&[("ada", Busy(at(30)), 100), ("bob", Answered, 101)]);
        assert_eq!(busy.admit("bob", at(102)), Err(at(28)));
        let busy =
            pauses(&[("ada", Busy(at(30)), 100), ("a", BusyForAsker(at(2)), 101), ("b", BusyForAsker(at(2)), 101)]);
        assert_eq!(busy.admit("bob", at(105)), Err(at(25)));
    }

    #[test]
    fn d12_an_asker_who_is_refused_alone_holds_up_nobody_else() {
        let one = pauses(&[("eve", BusyForAsker(at(30)), 100), ("eve", BusyForAsker(at(30)), 101)]);
        assert_eq!(one.admit("eve", at(111)), Err(at(20)));
        assert!((0..100).all(|asker| one.admit(asker, at(111)).is_ok()));
        let several: Vec<_> =
            (0..50).flat_map(|_| [("eve", BusyForAsker(at(30)), 100), ("ada", Answered, 100)]).collect();
        let several = pauses(&[&several[..], &[("mallory", BusyForAsker(at(30)), 100)]].concat());
        assert_eq!((several.admit("bob", at(101)), several.admit("mallory", at(101))), (Ok(()), Err(at(29))));
    }

    #[test]
    fn d12_two_who_are_refused_pause_the_others_until_one_of_them_is_answered() {
        let both = pauses(&[("eve", BusyForAsker(at(30)), 100), ("mallory", BusyForAsker(at(40)), 100)]);
        assert_eq!(both.admit("bob", at(100)), Err(at(40)));
        assert_eq!(both.foresee("bob", at(101)), Ok(()));
        assert_eq!(both.admit("eve", at(101)), Err(at(29)));
        assert_eq!((both.admit("bob", at(101)), both.admit("ada", at(101))), (Ok(()), Err(at(39))));
        both.note("bob", BusyForAsker(at(30)), at(101));
        assert_eq!((both.admit("ada", at(101)), both.admit("ada", at(102))), (Err(at(39)), Ok(())));
        both.note("ada", Answered, at(102));
        assert_eq!((both.admit("carol", at(102)), both.admit("carol", at(102))), (Ok(()), Ok(())));
        assert_eq!(both.admit("mallory", at(102)), Err(at(38)));
    }

    #[test]
    fn d12_the_pauses_of_single_askers_are_bounded() {
        let many = ServicePauses::default();
        for asker in 0..10 * MAX_ASKERS {
            many.note(asker, BusyForAsker(at(30)), at(100));
            many.note(asker, Answered, at(100));
        }
        assert_eq!(many.state.lock().askers.len(), MAX_ASKERS);
        many.note("late", BusyForAsker(at(30)), at(130));
        assert_eq!(many.state.lock().askers.len(), 1);
    }
}

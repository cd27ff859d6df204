//! A circuit breaker. After several consecutive faults, requests to the source pause so that it can recover.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::metrics::Label;
use super::{Cause, SourceError};

const MAX_FAULTS: u32 = 5;
/// The pause doubles with each failed attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reported {
    #[default]
    Good,
    Failing(Cause),
    Open(Cause),
}

#[derive(Debug, Default)]
struct State {
    faults: u32,
    /// While the circuit is open: the time of the next attempt, and the pause that follows it.
    open: Option<(Instant, Duration)>,
    is_probing: bool,
    reported: Reported,
}

#[derive(Debug)]
pub(super) struct Circuit {
    of: Label,
    state: Mutex<State>,
}

impl Circuit {
    pub(super) fn new(of: Label) -> Self {
        Self { of, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Returns how long the circuit stays open, or `None` if it is closed.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let state = self.state();
        let (until, pause) = state.open?;
        match until.saturating_duration_since(now) {
            Duration::ZERO => state.is_probing.then_some(pause),
            rest => Some(rest),
        }
    }

    /// The first request after a pause decides whether the circuit closes.
    ///
    /// # Errors
    /// Returns how long the circuit stays open.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        if let Some(rest) = self.rest(now) {
            return Err(rest);
        }
        let mut state = self.state();
        state.is_probing = state.open.is_some();
        Ok(())
    }

    pub(super) fn answered(&self) {
        let mut state = self.state();
        let before = std::mem::take(&mut *state);
        drop(state);
        if before.reported != Reported::Good {
            let Label { directory, kind } = &self.of;
            tracing::info!(directory, kind, "directory responds again");
        }
    }

    /// Each change of the cause is logged once.
    pub(super) fn failed(&self, error: &SourceError, now: Instant) {
        let mut state = self.state();
        state.faults = state.faults.saturating_add(1);
        match state.open {
            // The request began before the circuit opened, so its failure does not change the pause.
            Some((until, _)) if now < until => {}
            Some((_, pause)) => state.open = Some((now + pause, (pause * 2).min(LAST_PAUSE))),
            None if state.faults >= MAX_FAULTS => state.open = Some((now + FIRST_PAUSE, FIRST_PAUSE * 2)),
            None => {}
        }
        state.is_probing = false;
        let is_open = state.open.is_some();
        let now = if is_open { Reported::Open(error.cause) } else { Reported::Failing(error.cause) };
        let is_changed = std::mem::replace(&mut state.reported, now) != now;
        drop(state);
        if is_changed {
            let (Label { directory, kind }, cause) = (&self.of, error.cause.word());
            if is_open {
                tracing::error!(
                    directory,
                    kind,
                    cause,
                    %error,
                    "directory fails repeatedly, so the gate sends it few requests until it responds"
                );
            } else if error.cause == Cause::Credentials {
                // An operator must act, because the fault does not disappear by itself.
                tracing::error!(
                    directory,
                    kind,
                    cause,
                    %error,
                    "directory refuses the gate's credentials, so logins and refreshes get 503. Correct `bind_dn` \
                     and its password, the database URL, or the hook's secret"
                );
            } else {
                tracing::warn!(directory, kind, cause, %error, "directory fails, so logins and refreshes get 503");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fault() -> SourceError {
        SourceError::new(Cause::Timeout, "no answer")
    }

    #[tokio::test(start_paused = true)]
    async fn i22_after_five_faults_the_source_is_left_alone_for_one_to_thirty_seconds() {
        let circuit = Circuit::new(Label { directory: "test".to_owned(), kind: "fake" });
        let mut now = Instant::now();
        for _ in 0..4 {
            circuit.admit(now).unwrap();
            circuit.failed(&fault(), now);
        }
        circuit.admit(now).unwrap();
        circuit.failed(&fault(), now);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            let pause = SECOND * pause;
            assert_eq!(circuit.admit(now), Err(pause));
            now += pause;
            circuit.admit(now).expect("one attempt");
            assert!(circuit.admit(now).is_err(), "only one at a time");
            circuit.failed(&fault(), now);
        }
        now += SECOND * 30;
        circuit.admit(now).unwrap();
        circuit.answered();
        circuit.admit(now).unwrap();
        circuit.failed(&fault(), now);
        assert_eq!(circuit.rest(now), None, "the count began again");
    }

    #[tokio::test(start_paused = true)]
    async fn faults_from_before_it_opened_do_not_prolong_the_pause() {
        let circuit = Circuit::new(Label { directory: "test".to_owned(), kind: "fake" });
        let now = Instant::now();
        for _ in 0..64 {
            circuit.failed(&fault(), now);
        }
        assert_eq!(circuit.rest(now), Some(SECOND));
    }
}

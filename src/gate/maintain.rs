//! What a gate does beside requests, each in a task of its own, so that a store that hangs delays nothing else: engine
//! time, confirmations, the sweep, and the revocations of other gates. The tasks end with the gate.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use super::nodes;
use super::running::Running;
use crate::clock::ClockState;
use crate::engine::Freshness;
use crate::engine::confirm::FLUSH_EVERY;
use crate::fault::Chain;
use crate::store::{Feed, StoreError, WriteOutcome};

/// How often engine time follows the wall clock.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How often expired records are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How often a shared store is checked.
const STORE_CHECK_EVERY: Duration = Duration::from_secs(20);
/// How often a condition that lasts is logged again.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Starts the tasks. With a feed, it returns once everything that other gates had revoked is known.
///
/// # Errors
/// The store does not answer.
pub(super) async fn begin(gate: &Arc<Running>, feed: Option<Box<dyn Feed>>) -> Result<(), StoreError> {
    if let Some(mut feed) = feed {
        gate.engine.join().await?;
        loop {
            let step = feed.next().await?;
            gate.engine.take_step(&step).await?;
            // After a loss, a token may pass only once the other gates have written back what they know.
            if step.complete.is_some() && gate.engine.is_restored().await {
                break;
            }
        }
        tokio::spawn(follow(Arc::downgrade(gate), feed));
        tokio::spawn(nodes::look(Arc::downgrade(gate)));
        tokio::spawn(pay(Arc::downgrade(gate)));
        tokio::spawn(beat(Arc::downgrade(gate)));
        tokio::spawn(watch_store(Arc::downgrade(gate)));
    }
    tokio::spawn(tick(Arc::downgrade(gate)));
    tokio::spawn(advance(Arc::downgrade(gate)));
    tokio::spawn(flush(Arc::downgrade(gate)));
    tokio::spawn(sweep(Arc::downgrade(gate)));
    Ok(())
}

pub(super) fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Takes over what other gates revoke.
async fn follow(gate: Weak<Running>, mut feed: Box<dyn Feed>) {
    let (mut failing, mut not_restored) = (Seldom::default(), Seldom::default());
    loop {
        let step = feed.next().await;
        let Some(gate) = gate.upgrade() else { return };
        match step {
            Ok(step) => {
                // A part of the store may fail while another brings entries.
                if step.complete.is_some() {
                    failing = Seldom::default();
                }
                match gate.engine.take_step(&step).await {
                    Ok(()) => not_restored = Seldom::default(),
                    Err(error) if not_restored.is_due(gate.engine.clock().source().monotonic()) => tracing::error!(
                        error = ?Chain(&error),
                        "the store has lost writes, and what this gate knows was not written back yet; retrying"
                    ),
                    Err(_) => {}
                }
            }
            Err(error) if failing.is_due(gate.engine.clock().source().monotonic()) => tracing::error!(
                error = ?Chain(&error),
                "the store cannot be followed: revocations of other gates do not come here; retrying"
            ),
            Err(_) => {}
        }
    }
}

/// Writes revocations again that the shared store did not acknowledge.
async fn pay(gate: Weak<Running>) {
    let mut ticks = every(TICK_EVERY);
    let mut unpaid = Seldom::default();
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        let engine = &gate.engine;
        match engine.pay().await {
            Ok(0) => {}
            Ok(revocations) => {
                unpaid = Seldom::default();
                tracing::info!(revocations, "revocations that the store had not acknowledged were written");
            }
            Err(error) if unpaid.is_due(engine.clock().source().monotonic()) => tracing::error!(
                error = ?Chain(&error),
                "revocations not written: they hold at this gate; retrying"
            ),
            Err(_) => {}
        }
    }
}

/// Shows that the process runs.
async fn beat(gate: Weak<Running>) {
    let Some(period) = gate.upgrade().and_then(|gate| gate.engine.beats_every()) else { return };
    let mut ticks = every(period);
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        gate.engine.beat();
    }
}

/// Sees whether the shared store is still fit for one. That it answers at all is what the feed shows.
async fn watch_store(gate: Weak<Running>) {
    let mut ticks = every(STORE_CHECK_EVERY);
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        let unfit = match gate.engine.store().check().await {
            Err(error) if error.outcome() == WriteOutcome::Refused => Some(error.to_string()),
            // Unknown: as it was.
            Err(_) => continue,
            Ok(()) => None,
        };
        let before = gate.unfit_store.swap(unfit.clone().map(Arc::new));
        match (before, unfit) {
            (None, Some(why)) => tracing::error!(why, "the store is not fit any more: this gate is not ready"),
            (Some(_), None) => tracing::info!("the store is fit again"),
            _ => {}
        }
    }
}

/// Moves engine time, and says what is wrong with it.
async fn tick(gate: Weak<Running>) {
    let mut ticks = every(TICK_EVERY);
    let mut wrong = Seldom::default();
    let mut before = Freshness::Fresh;
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        let clock = gate.engine.clock();
        gate.faults.tell_counts(clock.source().monotonic());
        match clock.tick() {
            ClockState::Jumped if wrong.is_due(clock.source().monotonic()) => tracing::error!(
                "the wall clock jumped more than an hour ahead of the monotonic clock: it is not followed, nothing is swept \
                 or minted. Correct it; if it is correct, restart the gate"
            ),
            ClockState::Skewed if wrong.is_due(clock.source().monotonic()) => tracing::error!(
                wall = %clock.wall().rfc3339(),
                store = %clock.now().rfc3339(),
                "the wall clock differs from the time of the store by more than the leeway: nothing is minted. Correct it"
            ),
            ClockState::Jumped | ClockState::Skewed => {}
            ClockState::Good | ClockState::Behind => wrong = Seldom::default(),
        }
        let now = gate.engine.freshness();
        if now != before {
            match now {
                Freshness::Fresh => tracing::info!("the store was heard of again: tokens are accepted and minted"),
                // `restore` says it.
                Freshness::Restoring => {}
                Freshness::Degraded => tracing::error!(
                    "the store was not heard of for longer than the staleness: no token is minted; tokens are accepted for \
                     now"
                ),
                Freshness::Stale => tracing::error!(
                    "the store was not heard of for longer than the staleness: no token is accepted or minted"
                ),
            }
            before = now;
        }
    }
}

/// Moves long connections to tokens that other gates issued.
async fn advance(gate: Weak<Running>) {
    let mut ticks = every(TICK_EVERY);
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        gate.engine.advance_expiring_lines().await;
    }
}

/// Writes the generations that were seen in use.
async fn flush(gate: Weak<Running>) {
    let mut ticks = every(FLUSH_EVERY);
    let mut unwritten = Seldom::default();
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        let engine = &gate.engine;
        match engine.flush_confirmations().await {
            Ok(()) => unwritten = Seldom::default(),
            Err(error) if unwritten.is_due(engine.clock().source().monotonic()) => tracing::error!(
                error = ?Chain(&error),
                "confirmations not written; kept and retried"
            ),
            Err(_) => {}
        }
        engine.catch_up().await;
    }
}

/// Removes what has ended.
async fn sweep(gate: Weak<Running>) {
    let sweep_every = SWEEP_EVERY;
    #[cfg(feature = "failpoints")]
    let sweep_every = crate::failpoint::sweep_every(sweep_every);
    loop {
        tokio::time::sleep(sweep_every).await;
        let Some(gate) = gate.upgrade() else { return };
        let engine = &gate.engine;
        // With a clock that jumped ahead, a sweep would remove live records.
        if !engine.may_sweep() {
            continue;
        }
        let now = engine.clock().now();
        let listed = engine.revocations().sweep(now);
        match engine.store().sweep(now).await {
            Ok(swept) => {
                tracing::debug!(sessions = swept.sessions, revocations = swept.revocations, listed, "swept");
            }
            Err(error) => tracing::error!(error = ?Chain(&error), "store sweep failed; next attempt in a minute"),
        }
        #[cfg(feature = "relay")]
        sweep_relays(&gate).await;
    }
}

#[cfg(feature = "relay")]
async fn sweep_relays(gate: &Running) {
    // All relays of a gate have one store.
    let Some(relay) = gate.relays.first() else { return };
    if let Err(error) = relay.sweep(&gate.engine).await {
        tracing::error!(error = ?Chain(&error), "relay records not swept; next attempt in a minute");
    }
}

/// Rate limit of a log message: at once, then once a minute for as long as the condition lasts.
#[derive(Default)]
struct Seldom {
    /// The monotonic time of the last message; `None` before the first.
    said: Option<Duration>,
}

impl Seldom {
    fn is_due(&mut self, now: Duration) -> bool {
        let is_due = self.said.is_none_or(|said| now >= said + SAY_AGAIN_AFTER);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }
}

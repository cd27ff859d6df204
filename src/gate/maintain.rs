//! The background tasks of a gate. The tasks end when the gate is dropped. Each is a separate task, so that a hanging
//! store delays only the tasks that wait for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use super::nodes;
use super::running::Running;
use crate::relay::record::{EXCHANGES, KEPT_REPLIES, TOKEN_USES, VAULTS};
use rotogate_core::clock::ClockState;
use rotogate_core::counters::Seldom;
use rotogate_core::engine::api_keys::API_KEYS;
use rotogate_core::engine::confirm::FLUSH_EVERY;
use rotogate_core::engine::used::USED_ASSERTIONS;
use rotogate_core::engine::{Freshness, Unpaid};
use rotogate_core::fault::Chain;
use rotogate_core::store::rows::Space;
use rotogate_core::store::{Feed, StoreError, WriteOutcome};

const TICK_EVERY: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const STORE_CHECK_EVERY: Duration = Duration::from_secs(20);

/// The spaces of all parts. A gate sweeps each of them.
pub const SPACES: [Space; 6] = [API_KEYS, USED_ASSERTIONS, EXCHANGES, KEPT_REPLIES, TOKEN_USES, VAULTS];

/// Starts the tasks. If the store has a feed, first waits until all revocations of other gates are known.
///
/// # Errors
/// The store does not respond.
pub(super) async fn begin(gate: &Arc<Running>, feed: Option<Box<dyn Feed>>) -> Result<(), StoreError> {
    if let Some(mut feed) = feed {
        gate.engine.join().await?;
        loop {
            let step = feed.next().await?;
            gate.engine.take_step(&step).await?;
            // If the store has lost data, the other gates must first write their revocations again.
            if step.complete.is_some() && gate.engine.is_restored().await {
                break;
            }
        }
        tokio::spawn(follow(Arc::downgrade(gate), feed));
        tokio::spawn(each(every(nodes::LOOK_EVERY), Arc::downgrade(gate), nodes::look));
        if let Some(period) = gate.engine.beats_every() {
            tokio::spawn(each(every(period), Arc::downgrade(gate), beat));
        }
        tokio::spawn(each(every(STORE_CHECK_EVERY), Arc::downgrade(gate), watch_store));
    }
    tokio::spawn(each(every(TICK_EVERY), Arc::downgrade(gate), pay));
    tokio::spawn(each(every(TICK_EVERY), Arc::downgrade(gate), tick));
    tokio::spawn(each(every(TICK_EVERY), Arc::downgrade(gate), advance));
    tokio::spawn(each(every(TICK_EVERY), Arc::downgrade(gate), ask_about_browsers));
    tokio::spawn(each(every(FLUSH_EVERY), Arc::downgrade(gate), flush));
    tokio::spawn(each(every(FLUSH_EVERY), Arc::downgrade(gate), flush_uses));
    let sweep_every = SWEEP_EVERY;
    #[cfg(feature = "failpoints")]
    let sweep_every = rotogate_core::failpoint::sweep_every(sweep_every);
    let mut sweeps = every(sweep_every);
    // A gate that has just started has nothing to sweep.
    sweeps.reset();
    tokio::spawn(each(sweeps, Arc::downgrade(gate), sweep));
    Ok(())
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Calls `act` at each tick until the gate is dropped. `S` is state that lasts from one call to the next.
async fn each<S: Default>(mut ticks: Interval, gate: Weak<Running>, act: impl AsyncFn(Arc<Running>, &mut S)) {
    let mut state = S::default();
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        act(gate, &mut state).await;
    }
}

async fn follow(gate: Weak<Running>, mut feed: Box<dyn Feed>) {
    let (mut not_followed, mut not_restored) = (StoreFaults::default(), Seldom::default());
    loop {
        let step = feed.next().await;
        let Some(gate) = gate.upgrade() else { return };
        match step {
            Ok(step) => {
                // If a part of the store has failed, the step is incomplete, but may contain entries.
                if step.complete.is_some() {
                    not_followed = StoreFaults::default();
                }
                match gate.engine.take_step(&step).await {
                    Ok(()) => not_restored = Seldom::default(),
                    Err(error) if not_restored.is_due(gate.engine.clock().source().monotonic()) => tracing::error!(
                        error = ?Chain(&error),
                        "the store has lost writes, and this gate could not yet write back \
                         the revocations that it knows; retrying"
                    ),
                    Err(_) => {}
                }
            }
            Err(error) => not_followed.log(
                &gate,
                &error,
                "this gate cannot receive changes from the store at the moment, so it learns of other gates' \
                 revocations late; retrying",
                "this gate does not receive changes from the store, so it does not learn of other gates' \
                 revocations; retrying",
            ),
        }
    }
}

enum Severity {
    /// A shared store is unreachable, but the gate's data are still fresh, so a restart is harmless (requirement C45).
    Late,
    Failing,
}

#[derive(Default)]
struct StoreFaults {
    late: Seldom,
    failing: Seldom,
}

impl StoreFaults {
    fn due(&mut self, gate: &Running) -> Option<Severity> {
        let now = gate.engine.clock().source().monotonic();
        let is_shared = gate.engine.beats_every().is_some();
        if is_shared && matches!(gate.engine.freshness(), Freshness::Fresh | Freshness::Restoring) {
            self.late.is_due(now).then_some(Severity::Late)
        } else {
            self.failing.is_due(now).then_some(Severity::Failing)
        }
    }

    fn heed<T>(&mut self, gate: &Running, result: Result<T, StoreError>, late: &str, failing: &str) -> Option<T> {
        match result {
            Ok(done) => {
                *self = Self::default();
                Some(done)
            }
            Err(error) => {
                self.log(gate, &error, late, failing);
                None
            }
        }
    }

    fn log(&mut self, gate: &Running, error: &StoreError, late: &str, failing: &str) {
        match self.due(gate) {
            Some(Severity::Late) => tracing::warn!(error = ?Chain(error), "{late}"),
            Some(Severity::Failing) => tracing::error!(error = ?Chain(error), "{failing}"),
            None => {}
        }
    }
}

async fn pay(gate: Arc<Running>, unpaid: &mut Seldom) {
    let engine = &gate.engine;
    match engine.pay().await {
        Ok(0) => {}
        Ok(revocations) => {
            *unpaid = Seldom::default();
            tracing::info!(revocations, "all pending revocations are now in the store");
        }
        Err(error) if unpaid.is_due(engine.clock().source().monotonic()) => {
            let Unpaid { total, lost_at_end, named } = engine.unpaid();
            tracing::error!(
                error = ?Chain(&error),
                revocations = total,
                lost_at_end,
                of = named,
                "revocations could not be written to the store. This gate enforces and retries them, but it loses \
                 `lost_at_end` of them if it stops. Repair the store before you stop the gate"
            );
        }
        Err(_) => {}
    }
}

async fn beat(gate: Arc<Running>, (): &mut ()) {
    gate.engine.beat();
}

/// Only the store's settings are checked, because the feed already shows whether the store is reachable.
async fn watch_store(gate: Arc<Running>, (): &mut ()) {
    let unfit = match gate.engine.store().check().await {
        Err(error) if error.outcome() == WriteOutcome::Refused => Some(error.to_string()),
        // If the check fails, the last result stays valid.
        Err(_) => return,
        Ok(()) => None,
    };
    let before = gate.unfit_store.swap(unfit.clone().map(Arc::new));
    match (before, unfit) {
        (None, Some(why)) => {
            tracing::error!(why, "the store's settings are no longer suitable, so this gate is not ready");
        }
        (Some(_), None) => tracing::info!("the store's settings are suitable again"),
        _ => {}
    }
}

async fn tick(gate: Arc<Running>, (wrong, before): &mut (Seldom, Option<Freshness>)) {
    let clock = gate.engine.clock();
    gate.faults.tell_counts(clock.source().monotonic());
    match clock.tick() {
        ClockState::Jumped if clock.follows_store() && wrong.is_due(clock.source().monotonic()) => tracing::error!(
            "the store's clock jumped more than an hour ahead of the monotonic clock, so the gate ignores the \
             store's clock, and neither mints tokens nor removes expired records. Correct the store's clock. If it \
             is right, restart the gate"
        ),
        ClockState::Jumped if wrong.is_due(clock.source().monotonic()) => tracing::error!(
            "the wall clock jumped more than an hour ahead of the monotonic clock, so the gate ignores the wall \
             clock, and neither mints tokens nor removes expired records. Correct the wall clock. If it is right, \
             restart the gate"
        ),
        ClockState::Skewed if wrong.is_due(clock.source().monotonic()) => tracing::error!(
            wall = %clock.wall().rfc3339(),
            store = %clock.now().rfc3339(),
            "the wall clock differs from the store's time by more than the leeway, so the gate does not mint tokens. \
             Correct the wall clock"
        ),
        ClockState::Behind if wrong.is_due(clock.source().monotonic()) => tracing::error!(
            wall = %clock.wall().rfc3339(),
            store = %clock.persisted_at_start().rfc3339(),
            "the store was last written at a time that the wall clock has not reached yet, so the gate does not mint \
             tokens until then. Correct the wall clock. If it is right, run `rotogate store reset-clock`"
        ),
        ClockState::Good => match clock.wall_is_behind() {
            Some(by) if wrong.is_due(clock.source().monotonic()) => tracing::warn!(
                wall = %clock.wall().rfc3339(),
                engine = %clock.now().rfc3339(),
                behind_s = by.as_secs(),
                "the wall clock is behind the gate's own time, because it was set back or was ahead before. The gate \
                 continues with its own time, but after a restart it mints no tokens until the wall clock has \
                 reached that time. Correct the wall clock"
            ),
            Some(_) => {}
            None => *wrong = Seldom::default(),
        },
        ClockState::Jumped | ClockState::Skewed | ClockState::Behind => {}
    }
    let now = gate.engine.freshness();
    if now != before.replace(now).unwrap_or(Freshness::Fresh) {
        match now {
            Freshness::Fresh => tracing::info!("the store responds again: tokens are accepted and minted"),
            Freshness::Restoring => {}
            Freshness::Degraded => tracing::error!(
                "no news from the store for longer than the configured staleness, so the gate accepts tokens for \
                 now, but does not mint any. Check the store, the network, and the CPU time of this machine"
            ),
            Freshness::Stale => tracing::error!(
                "no news from the store for longer than the configured staleness, so the gate neither accepts nor \
                 mints tokens. Check the store, the network, and the CPU time of this machine"
            ),
        }
    }
}

/// Other gates may have issued newer tokens for long-lived connections.
async fn advance(gate: Arc<Running>, (): &mut ()) {
    gate.engine.advance_expiring_lines().await;
}

async fn ask_about_browsers(gate: Arc<Running>, (): &mut ()) {
    // The result is `None` after all handles of the gate were dropped.
    if let Some(gate) = gate.in_force() {
        gate.ask_about_browsers().await;
    }
}

async fn flush(gate: Arc<Running>, unwritten: &mut StoreFaults) {
    let engine = &gate.engine;
    let written = engine.flush_confirmations().await;
    unwritten.heed(
        &gate,
        written,
        "the store cannot record which sessions use their new tokens at the moment; the gate keeps the changes and \
         retries",
        "the store did not record which sessions use their new tokens; the gate keeps the changes and retries",
    );
    engine.catch_up().await;
}

/// This is a separate task, because each token needs a read.
async fn flush_uses(gate: Arc<Running>, unwritten: &mut StoreFaults) {
    unwritten.heed(
        &gate,
        gate.flush_uses().await,
        "the store cannot record which providers' tokens are used at the moment; the gate keeps the changes and \
         retries",
        "the store did not record which providers' tokens are used; the gate keeps the changes and retries",
    );
}

async fn sweep(gate: Arc<Running>, unswept: &mut (StoreFaults, StoreFaults)) {
    let engine = &gate.engine;
    // If the clock has jumped ahead, a sweep would remove live records.
    if !engine.may_sweep() {
        return;
    }
    if let Some(gate) = gate.in_force() {
        gate.sweep_exchanges();
    }
    let now = engine.clock().now();
    let listed = engine.revocations().sweep(now);
    let swept = unswept.0.heed(
        &gate,
        engine.store().sweep(now).await,
        "expired records cannot be removed from the store at the moment; next attempt in a minute",
        "expired records could not be removed from the store; next attempt in a minute",
    );
    if let Some(swept) = swept {
        tracing::debug!(sessions = swept.sessions, revocations = swept.revocations, listed, "swept");
    }
    if let Some(store) = &gate.rows {
        let mut rows = Ok(0);
        for space in SPACES {
            rows = store.sweep_rows(space, now).await;
            // A store that fails is not asked once more for each space.
            if rows.is_err() {
                break;
            }
        }
        unswept.1.heed(
            &gate,
            rows.and(gate.count_kept_replies().await),
            "expired rows cannot be removed from the store at the moment; next attempt in a minute",
            "expired rows could not be removed from the store; next attempt in a minute",
        );
    }
    write_key_uses(&gate, &mut unswept.1).await;
}

async fn write_key_uses(gate: &Running, unwritten: &mut StoreFaults) {
    let Some(keys) = &gate.api_keys else { return };
    if let Err(error) = keys.write_uses(&gate.engine).await
        && unwritten.due(gate).is_some()
    {
        tracing::warn!(
            ?error,
            "the last uses of API keys could not be written to the store; the next use of each API key will be written"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::gate::{Gate, NewSession};
    use rotogate_core::client::Client;
    use rotogate_core::credential::Credential;
    use rotogate_core::token::Keyring;

    /// Another id would lose the rows that stores have.
    #[test]
    fn the_ids_of_spaces_never_change() {
        let spaces = SPACES.map(|space| (space.id(), space.name(), Space::is_lasting(space.id()), space.is_copied()));
        let expected = [
            (1, "API keys", true, true),
            (65, "used assertions", false, true),
            (129, "records of exchanged tokens", false, false),
            (66, "kept replies", false, true),
            (67, "tokens of kept replies", false, true),
            (68, "provider tokens of sessions", false, true),
        ];
        assert_eq!(spaces, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn r28_a_proof_of_delivery_is_in_the_store_within_its_bound() {
        let gate = Gate::builder().issuer("https://gate.test").keys(Keyring::ephemeral().unwrap());
        let gate = gate.client(Client::public("web")).build().await.unwrap();
        for _ in 0..3 {
            let first = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
            let second = gate.sessions().refresh(first.refresh_token.unwrap().expose()).await.unwrap();
            let access = Credential::new(second.access_token.expose());
            gate.0.checker.check(access, || gate.0.shown(None::<IpAddr>), &mut ()).unwrap();
            // docs/sessions.md promises a write within 200 ms.
            tokio::time::sleep(Duration::from_millis(201)).await;
            let record = gate.sessions().get(first.session.unwrap()).await.unwrap().unwrap();
            assert!(record.confirmed);
        }
    }
}

//! Our Token Status Lists: how a gate begins to publish them, and the task that keeps them up to date.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::maintain::every;
use super::running::Running;
use rotogate_core::counters::Seldom;
use rotogate_core::engine::StatusFollower;
use rotogate_core::fault::Chain;

/// How often the lists are brought up to date, which bounds the delay of a change.
const UPDATE_EVERY: Duration = Duration::from_secs(1);

/// Starts the task, if lists are published.
pub(super) fn begin(gate: &Arc<Running>) {
    if gate.engine.status_lists().is_some() {
        tokio::spawn(update(Arc::downgrade(gate)));
    }
}

async fn update(gate: Weak<Running>) {
    let mut ticks = every(UPDATE_EVERY);
    let (mut follower, mut failing) = (StatusFollower::default(), Seldom::default());
    loop {
        ticks.tick().await;
        let Some(gate) = gate.upgrade() else { return };
        match gate.engine.follow_status(&mut follower).await {
            Ok(()) => failing = Seldom::default(),
            Err(error) if failing.is_due(gate.engine.clock().source().monotonic()) => {
                tracing::error!(error = ?Chain(&error), "the status lists cannot be brought up to date; retrying");
            }
            Err(_) => {}
        }
    }
}

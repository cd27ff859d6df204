//! Streams whose permit has decisions: the decision points are asked again while the stream lasts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Inner, PolicyDecision, UNAVAILABLE};
use rotogate_core::denial::Denial;
use rotogate_core::lease::StreamEnd;
use rotogate_core::policy::OwedDecision;
use rotogate_core::task::TaskGuard;

/// The shortest time between two questions about a stream.
const LEAST: Duration = Duration::from_secs(5);
/// The number of consecutive faults that ends a stream.
const MAX_FAULTS: u32 = 3;

impl Inner {
    /// Asks again about the stream of a permit, for as long as the returned value lives. `None` if the permit has no
    /// decisions.
    // Requirement K30.
    pub(in crate::gate) fn ask_again(self: &Arc<Self>, decisions: &[OwedDecision]) -> Option<StreamEnd> {
        if decisions.is_empty() {
            return None;
        }
        let ended: Arc<Mutex<Option<Denial>>> = Arc::default();
        let (tells, gate, decisions) = (Arc::clone(&ended), Arc::clone(self), decisions.to_vec());
        // The task ends with its stream, so a short reply leaves no task behind (requirements A11, A12).
        let task = TaskGuard::spawn(async move {
            let mut faults = 0;
            loop {
                tokio::time::sleep(gate.asked_every(&decisions)).await;
                // The rules in force decide what is asked, as for a new request.
                let now = gate.successor().unwrap_or_else(|| Arc::clone(&gate));
                let end = now.stream_end(&decisions, &mut faults).await;
                if end.is_some() {
                    *tells.lock() = end;
                    return;
                }
            }
        });
        Some(Arc::new(move || {
            let _ = &task;
            *ended.lock()
        }))
    }

    fn asked_every(&self, decisions: &[OwedDecision]) -> Duration {
        let points = decisions.iter().filter_map(|one| self.decision_point(&one.rule.point));
        points.map(|point| point.rules.allow).min().unwrap_or_default().max(LEAST)
    }

    async fn stream_end(self: &Arc<Self>, decisions: &[OwedDecision], faults: &mut u32) -> Option<Denial> {
        for one in decisions {
            match self.decide(one, false).await {
                Ok(PolicyDecision::Permit) => {}
                Ok(PolicyDecision::Deny | PolicyDecision::StepUp(_)) => return Some(Denial::DecisionDenied),
                Err(_) => {
                    *faults += 1;
                    return (*faults >= MAX_FAULTS).then_some(UNAVAILABLE);
                }
            }
        }
        *faults = 0;
        None
    }
}

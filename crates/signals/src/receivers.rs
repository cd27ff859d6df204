//! All receivers of a gate. A reload replaces receivers whose configuration differs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::outbox::{Counted, Outbox, Sent};
use super::receiver::ReceiverPlan;
use super::record::StreamRecord;
use super::{ReceiverGate, StreamGate, supervised};
use rotogate_core::clock::Timestamp;
use rotogate_core::random::{NoRandomness, random};
use rotogate_core::task::TaskGuard;

/// The receivers of a gate. Clones share them.
#[derive(Clone)]
pub struct Receivers(Arc<SharedReceivers>);

struct SharedReceivers {
    gate: Arc<dyn ReceiverGate>,
    run: [u8; 16],
    all: Mutex<Vec<RunningReceiver>>,
}

struct RunningReceiver {
    plan: ReceiverPlan,
    record: StreamRecord<Sent>,
    counted: Arc<Counted>,
    task: TaskGuard,
}

impl fmt::Debug for Receivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receivers(…)")
    }
}

/// The metrics of one receiver at this gate.
#[derive(Clone, Debug)]
pub struct ReceiverFigures {
    /// The name of the receiver.
    pub name: Arc<str>,
    /// The events by their results: sent, refused, dropped.
    pub results: [(&'static str, u64); 3],
    /// The number of waiting events.
    pub waiting: u64,
    /// How long the oldest waiting event has waited. `None` if another gate sends.
    pub lag: Option<Duration>,
}

/// The record of a receiver. If the audience changes, this is another receiver, which gets events about sessions that
/// end from then on.
pub(crate) fn record(gate: &Arc<dyn ReceiverGate>, plan: &ReceiverPlan, run: [u8; 16]) -> StreamRecord<Sent> {
    let gate: Arc<dyn StreamGate> = Arc::<dyn ReceiverGate>::clone(gate);
    StreamRecord::new(gate, &["event receiver", &plan.settings.name, &plan.settings.audience], run)
}

impl Receivers {
    /// An empty set of receivers.
    ///
    /// # Errors
    /// The system returns no random bytes.
    pub fn new(gate: Arc<dyn ReceiverGate>) -> Result<Self, NoRandomness> {
        Ok(Self(Arc::new(SharedReceivers { gate, run: *random::<16>()?, all: Mutex::default() })))
    }

    /// Starts new and changed receivers, keeps unchanged ones, and ends all receivers that are not in `plans`. Needs a
    /// tokio runtime.
    pub fn replace(&self, plans: Vec<ReceiverPlan>) {
        let mut all = self.0.all.lock();
        let mut old = std::mem::take(&mut *all);
        for plan in plans {
            match old.iter().position(|known| known.plan.fingerprint == plan.fingerprint) {
                Some(place) => all.push(old.swap_remove(place)),
                None => {
                    let record = record(&self.0.gate, &plan, self.0.run);
                    let counted = Arc::<Counted>::default();
                    let parts = (Arc::clone(&self.0.gate), record.clone(), plan.clone(), Arc::clone(&counted));
                    let begin = move || {
                        let (gate, record, plan, counted) = parts.clone();
                        Outbox::new(gate, record, (plan, counted)).run()
                    };
                    all.push(RunningReceiver { plan, record, counted, task: TaskGuard::spawn(supervised(begin)) });
                }
            }
        }
    }

    /// The metrics of each receiver.
    pub fn figures(&self) -> Vec<ReceiverFigures> {
        let now = self.0.gate.now();
        let of_one = |one: &RunningReceiver| {
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let Counted { sent, refused, dropped, waiting, oldest, is_sender } = &*one.counted;
            let lag = match read(oldest) {
                0 => Duration::ZERO,
                since => now.since(Timestamp::from_millis(since)),
            };
            ReceiverFigures {
                name: Arc::clone(&one.plan.settings.name),
                results: [("sent", read(sent)), ("refused", read(refused)), ("dropped", read(dropped))],
                waiting: read(waiting),
                lag: is_sender.load(Ordering::Relaxed).then_some(lag),
            }
        };
        self.0.all.lock().iter().map(of_one).collect()
    }

    /// Ends all receivers, and lets another gate send to them at once.
    pub async fn close(&self) {
        let all = std::mem::take(&mut *self.0.all.lock());
        for receiver in all {
            drop(receiver.task);
            if let Err(error) = receiver.record.release().await {
                let receiver = &*receiver.plan.settings.name;
                tracing::warn!(receiver, %error, "event receiver not released: another gate sends in 15 s");
            }
        }
    }
}

#[cfg(test)]
mod tests;

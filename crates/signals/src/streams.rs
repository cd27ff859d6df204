//! All streams of a gate. A reload replaces streams whose configuration differs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::record::{Known, StreamRecord};
use super::stream::Stream;
use super::{Delivery, StreamGate, StreamPlan, supervised};
use rotogate_core::engine::StreamWatch;
use rotogate_core::random::{NoRandomness, are_equal, random};
use rotogate_core::store::StoreError;
use rotogate_core::task::TaskGuard;
use rotogate_core::token::verify::StreamNotice;

/// The streams of a gate. Clones share them.
#[derive(Clone)]
pub struct Streams(Arc<Shared>);

struct Shared {
    gate: Arc<dyn StreamGate>,
    run: [u8; 16],
    all: Mutex<Vec<RunningStream>>,
}

struct RunningStream {
    plan: StreamPlan,
    record: StreamRecord,
    is_alive: Arc<AtomicBool>,
    task: TaskGuard,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streams(…)")
    }
}

impl Streams {
    /// An empty set of streams.
    ///
    /// # Errors
    /// The system returns no random bytes.
    pub fn new(gate: Arc<dyn StreamGate>) -> Result<Self, NoRandomness> {
        Ok(Self(Arc::new(Shared { gate, run: *random::<16>()?, all: Mutex::default() })))
    }

    /// Starts new and changed streams, keeps unchanged ones, and ends all streams that are not in `plans`. Needs a
    /// tokio runtime.
    // Requirement S29.
    pub fn replace(&self, plans: Vec<StreamPlan>) {
        let mut all = self.0.all.lock();
        let mut old = std::mem::take(&mut *all);
        for plan in plans {
            match old.iter().position(|known| is_same(&known.plan, &plan)) {
                Some(place) => all.push(old.swap_remove(place)),
                None => all.push(self.begin(plan)),
            }
        }
    }

    fn begin(&self, plan: StreamPlan) -> RunningStream {
        let record = StreamRecord::new(Arc::clone(&self.0.gate), &plan.settings.record_parts(), self.0.run);
        let is_alive = Arc::<AtomicBool>::default();
        let parts = (Arc::clone(&self.0.gate), record.clone(), plan.clone(), Arc::clone(&is_alive));
        let begin = move || {
            let (gate, record, plan, is_alive) = parts.clone();
            Stream::new(gate, record, (plan, is_alive)).run()
        };
        RunningStream { plan, record, is_alive, task: TaskGuard::spawn(supervised(begin)) }
    }

    /// The issuer's name for each stream, and whether the stream is enabled and its last verification event arrived.
    pub fn alive(&self) -> Vec<(Arc<str>, bool)> {
        let all = self.0.all.lock();
        let of = |one: &RunningStream| (Arc::clone(&one.plan.settings.issuer), one.is_alive.load(Ordering::Relaxed));
        all.iter().map(of).collect()
    }

    /// Ends all streams at this gate, and lets another gate take them at once. They still exist at the transmitters.
    pub async fn close(&self) {
        let all = std::mem::take(&mut *self.0.all.lock());
        for stream in all {
            drop(stream.task);
            if let Err(error) = stream.record.release().await {
                let issuer = &*stream.plan.settings.issuer;
                tracing::warn!(issuer, %error, "event stream not released: another gate takes it in 15 s");
            }
        }
    }
}

/// Whether two plans are equal. Compares the tokens for pushes, too, because the fingerprint does not contain them.
fn is_same(one: &StreamPlan, other: &StreamPlan) -> bool {
    use secrecy::ExposeSecret;
    let token = |plan: &StreamPlan| match &plan.settings.delivery {
        Delivery::Push(_, token) => token.expose_secret().as_bytes().to_vec(),
        Delivery::Poll => Vec::new(),
    };
    one.fingerprint == other.fingerprint && are_equal(&token(one), &token(other))
}

#[async_trait]
impl StreamWatch for Streams {
    // Requirement S21.
    async fn hears(&self, issuer: &str, notice: &StreamNotice) -> Result<bool, StoreError> {
        let of = |stream: &&RunningStream| *stream.plan.settings.issuer == *issuer;
        let found = self.0.all.lock().iter().find(of).map(|one| (one.record.clone(), Arc::clone(&one.is_alive)));
        let Some((record, is_alive)) = found else { return Ok(true) };
        let now = self.0.gate.now();
        let is_good = AtomicBool::new(true);
        let change = |known: &mut Known| match notice {
            // The transmitter sent this event without a request.
            StreamNotice::Verification { state: None } => false,
            StreamNotice::Verification { state: Some(state) } => {
                let asked = known.asked.as_ref();
                let is_asked = asked.is_some_and(|(asked, _)| are_equal(asked.as_bytes(), state.as_bytes()));
                is_good.store(is_asked, Ordering::Relaxed);
                if is_asked {
                    (known.asked, known.is_verified, known.verified) = (None, true, now);
                }
                is_asked
            }
            StreamNotice::Updated { status } => {
                let is_paused = **status != *"enabled";
                std::mem::replace(&mut known.is_paused, is_paused) != is_paused
            }
        };
        let known = record.change(change).await?;
        let is_alive_now = known.is_some_and(|known| known.is_alive());
        if is_good.load(Ordering::Relaxed) && is_alive_now != is_alive.swap(is_alive_now, Ordering::Relaxed) {
            tracing::info!(issuer, is_alive = is_alive_now, "event stream: its transmitter says how it is");
        }
        Ok(is_good.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! One stream. The gate creates, verifies and watches it, and polls it if events are fetched. Each step does the work
//! that is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::record::{Known, RENEW, StreamRecord};
use super::transmitter::{Acknowledged, Transmitter};
use super::wire::{Configuration, Polled};
use super::{Delivery, NotTaken, StreamError, StreamGate, StreamPlan, StreamSettings};
use rotogate_core::clock::Timestamp;
use rotogate_core::random::{jittered, random};

/// How soon a requested verification event must arrive.
// Requirement S21.
const DUE: Duration = Duration::from_secs(120);
/// The longest time before the next request, if a verification event did not arrive.
const AGAIN: Duration = Duration::from_secs(300);
/// The pause after a poll that was answered at once without new events.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// After this number of failures in a row, the metadata is read again: the transmitter may have moved its endpoints.
const FIND_AFTER: u32 = 3;
/// A lasting failure is logged once in this number of attempts.
const LOG_EVERY: u32 = 10;

pub(crate) struct Stream {
    settings: StreamSettings,
    keeper: Keeper,
    transmitter: Transmitter,
    in_use: Option<Configuration>,
    /// The acknowledgements for the next poll.
    said: Acknowledged,
    status_at: Timestamp,
    /// Whether the gate has already asked to enable the paused stream.
    is_tried: bool,
    failures: u32,
}

/// Keeps the stream for this gate, by its record.
struct Keeper {
    issuer: Arc<str>,
    gate: Arc<dyn StreamGate>,
    record: StreamRecord,
    known: Known,
    is_alive: Arc<AtomicBool>,
}

impl Keeper {
    /// Takes or keeps the stream, unless another gate has it. Also checks whether a verification event is overdue.
    // Requirement S18.
    async fn hold(&mut self) -> Result<bool, StreamError> {
        let (known, is_held) = self.record.hold().await?;
        self.known = known;
        if is_held {
            self.judge_verification().await?;
        }
        self.is_alive.store(self.known.is_alive(), Ordering::Relaxed);
        Ok(is_held)
    }

    // Requirement S21.
    async fn judge_verification(&mut self) -> Result<(), StreamError> {
        let now = self.gate.now();
        let is_overdue = |known: &Known| known.asked.as_ref().is_some_and(|(_, at)| now >= at.plus(DUE));
        if !is_overdue(&self.known) {
            return Ok(());
        }
        let fail = |known: &mut Known| {
            let fails = is_overdue(known);
            if fails {
                (known.asked, known.is_verified, known.verified) = (None, false, now);
            }
            fails
        };
        self.change(fail).await?;
        if !self.known.is_verified {
            let issuer = &*self.issuer;
            tracing::error!(issuer, "no verification event in 2 minutes: events of this issuer may not arrive");
        }
        Ok(())
    }

    async fn change(&mut self, change: impl Fn(&mut Known) -> bool) -> Result<(), StreamError> {
        if let Some(known) = self.record.change(change).await? {
            self.is_alive.store(known.is_alive(), Ordering::Relaxed);
            self.known = known;
        }
        Ok(())
    }
}

impl Stream {
    pub(crate) fn new(
        gate: Arc<dyn StreamGate>,
        record: StreamRecord,
        (plan, is_alive): (StreamPlan, Arc<AtomicBool>),
    ) -> Self {
        Self {
            keeper: Keeper {
                issuer: Arc::clone(&plan.settings.issuer),
                gate,
                record,
                known: Known::default(),
                is_alive,
            },
            settings: plan.settings.clone(),
            transmitter: Transmitter::new(plan),
            in_use: None,
            said: Acknowledged::default(),
            status_at: Timestamp::ZERO,
            is_tried: false,
            failures: 0,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let wait = self.step().await;
            tokio::time::sleep(wait).await;
        }
    }

    /// Does the work that is due. Returns the pause before the next step.
    pub(crate) async fn step(&mut self) -> Duration {
        let issuer = &*self.settings.issuer.clone();
        match Box::pin(self.try_step()).await {
            Ok(wait) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!(issuer, "event stream in use again");
                }
                wait
            }
            Err(error) => {
                if self.failures.is_multiple_of(LOG_EVERY) {
                    tracing::warn!(issuer, %error, "event stream cannot be used just now; the gate tries again");
                }
                let wait = Duration::from_secs(1 << self.failures.min(6)).min(MAX_BACKOFF);
                self.failures += 1;
                // The acknowledgements are kept. A fault of the gate or of its store says nothing about the endpoints.
                if self.failures.is_multiple_of(FIND_AFTER)
                    && matches!(error, StreamError::Fetch(_) | StreamError::Answer { .. })
                {
                    self.in_use = None;
                }
                wait - jittered(wait / 4)
            }
        }
    }

    pub(crate) async fn try_step(&mut self) -> Result<Duration, StreamError> {
        let is_held = self.keeper.hold().await?;
        if !is_held {
            (self.in_use, self.said) = (None, Acknowledged::default());
            return Ok(RENEW);
        }
        self.begin().await?;
        self.look_at_status().await?;
        self.verify().await?;
        match (&self.settings.delivery, self.in_use.as_ref().and_then(|stream| stream.poll_url.clone())) {
            (Delivery::Poll, Some(url)) => self.poll(&url).await,
            (Delivery::Poll, None) | (Delivery::Push(..), _) => Ok(RENEW),
        }
    }

    async fn discover(&mut self) -> Result<(), StreamError> {
        let metadata = self.transmitter.discover().await?;
        // Noted before an event can arrive.
        self.keeper.gate.note_critical_members(&self.settings.issuer, metadata.critical_members);
        Ok(())
    }

    /// Creates the stream, or continues with the existing one.
    async fn begin(&mut self) -> Result<(), StreamError> {
        if self.in_use.is_some() {
            return Ok(());
        }
        self.discover().await?;
        let stream = self.transmitter.stream(self.keeper.known.stream_id.as_deref()).await?;
        let issuer = &*self.settings.issuer;
        let is_missing = |wanted: &&str| {
            stream.delivered.as_ref().is_some_and(|delivered| !delivered.iter().any(|one| one == wanted))
        };
        let missing: Vec<_> = self.settings.events.iter().map(|one| &**one).filter(is_missing).collect();
        tracing::info!(issuer, stream = stream.stream_id, not_delivered = missing.join(" "), "event stream in use");
        let id = stream.stream_id.clone();
        self.keeper
            .change(|known| {
                let is_other = known.stream_id.as_ref() != Some(&id);
                if is_other {
                    *known = Known { stream_id: Some(id.clone()), ..Known::default() };
                }
                is_other
            })
            .await?;
        (self.in_use, self.status_at) = (Some(stream), Timestamp::ZERO);
        Ok(())
    }

    /// Asks whether the stream is enabled. If not, requests once to enable it.
    async fn look_at_status(&mut self) -> Result<(), StreamError> {
        let now = self.keeper.gate.now();
        let Some(stream) = self.in_use.as_ref().filter(|_| now >= self.status_at) else { return Ok(()) };
        let (id, issuer) = (stream.stream_id.clone(), Arc::clone(&self.settings.issuer));
        self.status_at = now.plus(self.settings.verify_every.min(AGAIN));
        let is_paused = match self.transmitter.status(&id).await {
            Ok(Some(("enabled", _))) => {
                self.status_at = now.plus(self.settings.verify_every);
                self.is_tried = false;
                false
            }
            Ok(Some((status, reason))) => {
                tracing::warn!(%issuer, status, reason, "event stream is not enabled at its transmitter");
                let is_first = !std::mem::replace(&mut self.is_tried, true);
                !(is_first && matches!(self.transmitter.enable(&id).await, Ok("enabled")))
            }
            // The transmitter no longer has the stream, so the next step creates it again.
            Ok(None) => {
                self.in_use = None;
                return self.keeper.change(|known| known.stream_id.take().is_some()).await;
            }
            Err(error) => {
                // Events of the stream may arrive nevertheless.
                tracing::warn!(%issuer, %error, "event stream: its status is not known");
                // The endpoint may have moved. A failure is seen here, or by the next request.
                let _ = self.discover().await;
                return Ok(());
            }
        };
        self.keeper.change(|known| std::mem::replace(&mut known.is_paused, is_paused) != is_paused).await
    }

    /// Requests a verification event, if one is due.
    // Requirement S21.
    async fn verify(&mut self) -> Result<(), StreamError> {
        let Some(stream) = &self.in_use else { return Ok(()) };
        let every = self.settings.verify_every;
        let every = if self.keeper.known.is_verified { every } else { every.min(AGAIN) };
        let every = every.max(Duration::from_secs(stream.min_verification_interval));
        let (now, is_new) = (self.keeper.gate.now(), self.keeper.known.verified == Timestamp::ZERO);
        if self.keeper.known.asked.is_some() || (!is_new && now < self.keeper.known.verified.plus(every)) {
            return Ok(());
        }
        let id = stream.stream_id.clone();
        let bytes = random::<16>().map_err(|error| StreamError::Access(error.to_string()))?;
        let state: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // Stored first, so that every gate knows the `state` before the event can arrive.
        self.keeper
            .change(|known| {
                (known.asked, known.verified) = (Some((state.clone(), now)), now);
                true
            })
            .await?;
        if let Err(error) = self.transmitter.ask_verification(&id, &state).await {
            let issuer = &*self.settings.issuer;
            tracing::warn!(issuer, %error, "event stream: no verification event could be asked for");
            let _ = self.discover().await;
        }
        Ok(())
    }

    /// Fetches events, judges them, and keeps their acknowledgements for the next poll.
    // Requirement S17: the next poll acknowledges an event once the event's effect is durable.
    async fn poll(&mut self, url: &str) -> Result<Duration, StreamError> {
        let began = Instant::now();
        let said = std::mem::take(&mut self.said);
        let polled = match self.await_events(url, &said).await {
            Ok(Some(polled)) => polled,
            Ok(None) => return Ok(PAUSE),
            Err(error) => {
                // The transmitter may not have received the acknowledgements, so the next poll repeats them.
                self.said = said;
                return Err(error);
            }
        };
        let is_new = polled.sets.iter().any(|(jti, _)| !said.taken.contains(jti) && !said.refused.contains_key(jti));
        let mut is_undecided = false;
        for (jti, set) in polled.sets {
            match self.keeper.gate.take(&self.settings.issuer, &self.settings.audience, set).await {
                Ok(()) => self.said.taken.push(jti),
                Err(NotTaken::Refused(flaw)) => {
                    let why = json!({ "err": flaw.word(), "description": flaw.what() });
                    self.said.refused.insert(jti, why);
                }
                Err(NotTaken::Undecided) => is_undecided = true,
            }
        }
        match (is_undecided, is_new) {
            (true, _) => Err(StreamError::Undecided),
            (false, true) => Ok(Duration::ZERO),
            // The transmitter answers polls at once, or sends acknowledged events again.
            (false, false) => Ok(PAUSE.saturating_sub(began.elapsed())),
        }
    }

    /// Sends a poll, and renews the lease while the transmitter delays its answer. `None` if another gate has taken
    /// the stream, or the stream no longer exists.
    async fn await_events(&mut self, url: &str, said: &Acknowledged) -> Result<Option<Polled>, StreamError> {
        let Self { keeper, transmitter, in_use, .. } = self;
        let mut answer = std::pin::pin!(transmitter.poll(url, said));
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer?,
                () = tokio::time::sleep(RENEW) => if !keeper.hold().await? { return Ok(None) },
            }
        };
        if answer.is_none() {
            *in_use = None;
            keeper.change(|known| known.stream_id.take().is_some()).await?;
        }
        Ok(answer)
    }
}

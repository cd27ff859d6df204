//! The events for one receiver, in order. What was sent is a position in the revocations of the store, so an event is as
//! durable as the revocation, and needs no write of its own. A position is kept after its events were taken: after a kill
//! they are sent again, and none is lost. The store forgets a revocation before a long outage of the receiver ends, so events
//! that wait for minutes are moved to rows of their own, and read again when their turn comes.

mod lease;
mod rows;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::lease::Lease;
use self::rows::Rows;
use super::receiver::{Event, Pushed, Pusher, ReceiverPlan};
use super::record::{LEASE, RENEW, StreamRecord};
use super::{ReceiverGate, StreamError};
use rotogate_core::clock::Timestamp;
use rotogate_core::engine::ended::{End, EndPlace, EndedBatch};
use rotogate_core::random::jittered;
use rotogate_core::store::Cursor;

/// How often the outbox reads new revocations.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long an event waits for its receiver before it is dropped.
// Requirement S25.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most events that wait in memory.
pub(crate) const MAX_WAITING: usize = 10_000;
/// The most events that wait in rows. Further ones are dropped and counted.
pub(crate) const MAX_STORED: u64 = 1_000_000;
/// How long an event waits in memory before it is moved to a row. The store forgets a revocation after an hour at the
/// earliest.
pub(crate) const SAVE_EVERY: Duration = Duration::from_secs(300);
/// How long events are sent before new revocations are read, and the reverse: a slow receiver holds up no reading, and a
/// long reading no event.
pub(crate) const TURN: Duration = Duration::from_secs(60);
/// The longest pause after a failure.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(600);
/// How often an event that the receiver rejects is sent.
pub(crate) const TRIES: u32 = 5;
/// How often the position is stored while there are no events to send.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// A lasting failure is logged once in this number of attempts.
const LOG_EVERY: u32 = 10;

/// The progress of a receiver, which all gates share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The position up to which revocations were sent; `None` before the first reading.
    cursor: Option<Vec<u8>>,
    /// The time of the last adoption of the data to which the position belongs.
    adopted: Timestamp,
    /// The numbers of the rows with the events that wait before this position: the first, and the one after the last.
    #[serde(default)]
    rows: (u64, u64),
    /// How many events the rows have.
    #[serde(default)]
    events: u64,
}

/// Figures of one receiver, of this gate.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) sent: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) waiting: AtomicU64,
    /// Whether this gate sends.
    pub(crate) is_sender: AtomicBool,
    /// The time since which the oldest event waits, in milliseconds; 0 if no event waits.
    pub(crate) oldest: AtomicU64,
}

/// The entries of the outbox, in the order of the revocations.
enum Waiting {
    Event {
        end: End,
        read: Timestamp,
    },
    /// Everything before this entry was sent, so this position can be stored.
    Position(Cursor),
}

pub(crate) struct Outbox {
    gate: Arc<dyn ReceiverGate>,
    plan: ReceiverPlan,
    record: StreamRecord<Sent>,
    pusher: Pusher,
    pub(crate) counted: Arc<Counted>,
    lease: Lease,
    /// The position up to which revocations were read.
    read: Option<Cursor>,
    kept_at: Timestamp,
    batch: Option<(EndedBatch, EndPlace, Cursor)>,
    /// The events of the first row, then those that no row has.
    waiting: VecDeque<Waiting>,
    rows: Rows,
    /// When events were last moved to rows.
    saved_at: Timestamp,
    /// How many events were dropped after their time.
    too_old: u64,
    /// How often the first event failed, and when it is tried again.
    failures: u32,
    next_try: Timestamp,
}

impl Outbox {
    pub(crate) fn new(
        gate: Arc<dyn ReceiverGate>,
        record: StreamRecord<Sent>,
        (plan, counted): (ReceiverPlan, Arc<Counted>),
    ) -> Self {
        Self {
            lease: Lease::new(Arc::clone(&gate), record.clone()),
            gate,
            pusher: Pusher::new(plan.clone()),
            plan,
            record,
            counted,
            read: None,
            kept_at: Timestamp::ZERO,
            batch: None,
            waiting: VecDeque::new(),
            rows: Rows::default(),
            saved_at: Timestamp::ZERO,
            too_old: 0,
            failures: 0,
            next_try: Timestamp::ZERO,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let pause = match self.step().await {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                // This is a fault of the store. Failures of the receiver have their own pause.
                Err(error) => {
                    if failures.is_multiple_of(LOG_EVERY) {
                        let receiver = &*self.plan.settings.name;
                        tracing::warn!(receiver, %error, "event receiver: the store does not answer; the gate tries again");
                    }
                    failures += 1;
                    READ_EVERY * failures.min(10)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads revocations and sends events. Returns the pause before the next step.
    pub(crate) async fn step(&mut self) -> Result<Duration, StreamError> {
        if !self.hold().await? {
            return Ok(RENEW);
        }
        self.read().await?;
        let until = self.gate.now().plus(TURN);
        while self.lease.renew().await? && self.send_first().await? && self.gate.now() < until {}
        let long_ago = self.gate.now().minus(SAVE_EVERY);
        let is_old = matches!(self.waiting.front(), Some(Waiting::Event { read, .. }) if *read <= long_ago);
        if is_old && (self.saved_at <= long_ago || self.is_full()) {
            self.save().await?;
        }
        self.count_waiting();
        Ok(if self.batch.is_some() && !self.is_full() { Duration::ZERO } else { READ_EVERY })
    }

    /// Whether further revocations are read later.
    fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Whether this gate sends. A gate that takes over continues from the stored position. Only the head of a step does
    /// this, because it replaces the waiting events.
    async fn hold(&mut self) -> Result<bool, StreamError> {
        if self.read.is_some() && self.lease.renew().await? {
            return Ok(true);
        }
        (self.read, self.batch, self.rows) = (None, None, Rows::default());
        self.waiting.clear();
        match self.lease.take().await? {
            Some(known) => self.read = self.begin(known).await?,
            None => self.count_waiting(),
        }
        Ok(self.read.is_some())
    }

    /// Finds the events that wait, and where to read on. A new receiver hears of what ends from now on. `None` if
    /// another gate has taken over.
    async fn begin(&mut self, known: Sent) -> Result<Option<Cursor>, StreamError> {
        self.rows = Rows::known(&known);
        self.saved_at = self.gate.now();
        if !self.next_row().await? {
            return Ok(None);
        }
        match known.cursor {
            Some(cursor) if known.adopted == self.lease.adopted => Ok(Some(Cursor::new(cursor))),
            // Positions from before a loss of the store are meaningless, so all revocations are sent again. The
            // receiver recognises a repeated event by its `jti`.
            Some(_) => Ok(Some(Cursor::default())),
            None => {
                let reading = self.gate.ended_since(Cursor::default());
                let Some((_, end)) = self.lease.during(reading).await? else { return Ok(None) };
                Ok(self.keep(&end).await?.then_some(end))
            }
        }
    }

    /// Removes the first waiting event.
    fn pop_event(&mut self) {
        self.waiting.pop_front();
        self.rows.loaded = self.rows.loaded.map(|events| events.saturating_sub(1));
    }

    /// Stores the position. Returns false if another gate sends.
    async fn keep(&mut self, cursor: &Cursor) -> Result<bool, StreamError> {
        let cursor = Some(cursor.as_bytes().to_vec());
        let rows = (self.rows.first, self.rows.next);
        let sent = Sent { cursor, adopted: self.lease.adopted, rows, events: self.rows.events() };
        let change = |known: &mut Sent| std::mem::replace(known, sent.clone()) != sent;
        let is_kept = self.record.change_own(change).await?;
        self.kept_at = self.gate.now();
        Ok(is_kept)
    }

    /// Reads ended sessions for a while. A batch that is not complete then goes on in the next step.
    async fn read(&mut self) -> Result<(), StreamError> {
        let now = self.gate.now();
        if self.batch.is_none()
            && let Some(read) = &self.read
        {
            let reading = self.gate.ended_since(read.clone());
            let Some((batch, end)) = self.lease.during(reading).await? else { return Ok(()) };
            self.batch = (end != *read).then_some((batch, EndPlace::default(), end));
        }
        let (clients, until) = (&self.plan.settings.clients, now.plus(TURN));
        while !self.is_full()
            && self.gate.now() < until
            && let Some((batch, place, end)) = &mut self.batch
        {
            let reading = self.gate.next_ends(batch, clients, *place);
            let Some((ends, next)) = self.lease.during(reading).await? else { return Ok(()) };
            let is_quiet = ends.is_empty() && self.waiting.is_empty();
            self.waiting.extend(ends.into_iter().map(|end| Waiting::Event { end, read: now }));
            match next {
                Some(next) => *place = next,
                None => {
                    let end = std::mem::take(end);
                    if !is_quiet || now >= self.kept_at.plus(KEEP_EVERY) {
                        self.waiting.push_back(Waiting::Position(end.clone()));
                    }
                    (self.read, self.batch) = (Some(end), None);
                }
            }
        }
        Ok(())
    }

    /// Sends the first waiting event, or stores the position. Returns false if this must be repeated later.
    // Requirement S25.
    async fn send_first(&mut self) -> Result<bool, StreamError> {
        let now = self.gate.now();
        if !self.next_row().await? {
            return Ok(false);
        }
        let Some(first) = self.waiting.front() else { return Ok(false) };
        let (end, read) = match first {
            Waiting::Event { end, read } => (end, *read),
            Waiting::Position(cursor) => {
                let cursor = cursor.clone();
                let is_kept = self.keep(&cursor).await?;
                if is_kept {
                    self.waiting.pop_front();
                }
                return Ok(is_kept);
            }
        };
        if now >= read.plus(KEPT_FOR) {
            if self.too_old.is_multiple_of(MAX_WAITING as u64) {
                let receiver = &*self.plan.settings.name;
                tracing::error!(receiver, "event receiver: events dropped that had waited for 24 hours");
            }
            self.too_old += 1;
            self.counted.dropped.fetch_add(1, Ordering::Relaxed);
            self.pop_event();
            return Ok(true);
        }
        if now < self.next_try {
            return Ok(false);
        }
        let receiver = Arc::clone(&self.plan.settings.name);
        let issuer = self.gate.issuer();
        let event = Event::of_end(end, &issuer, &self.plan.settings, read);
        match self.pusher.push(&event, &issuer).await {
            Ok(Pushed::Taken) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!(%receiver, "event receiver takes events again");
                }
                self.counted.sent.fetch_add(1, Ordering::Relaxed);
                self.pop_event();
                return Ok(true);
            }
            Ok(Pushed::Refused(why)) if self.failures + 1 >= TRIES => {
                tracing::error!(%receiver, why, "event receiver refuses an event, which is skipped");
                self.counted.refused.fetch_add(1, Ordering::Relaxed);
                self.failures = 0;
                self.pop_event();
                return Ok(true);
            }
            Ok(Pushed::Refused(why)) => self.fail(&why),
            Err(error) => self.fail(&error.to_string()),
        }
        Ok(false)
    }

    fn fail(&mut self, error: &str) {
        if self.failures.is_multiple_of(LOG_EVERY) {
            let receiver = &*self.plan.settings.name;
            tracing::warn!(receiver, error, "event receiver does not take an event; the gate tries again");
        }
        let pause = Duration::from_secs(1 << self.failures.min(10)).min(MAX_PAUSE);
        self.failures += 1;
        self.next_try = self.gate.now().plus(pause - jittered(pause / 4));
    }

    fn count_waiting(&self) {
        let events = self.waiting.iter().filter_map(|one| match one {
            Waiting::Event { read, .. } => Some(*read),
            Waiting::Position(_) => None,
        });
        let oldest = events.clone().next().map_or(0, Timestamp::as_millis);
        self.counted.waiting.store(events.count() as u64 + self.rows.stored, Ordering::Relaxed);
        self.counted.oldest.store(oldest, Ordering::Relaxed);
        self.counted.is_sender.store(self.read.is_some(), Ordering::Relaxed);
    }
}

/// A push must end before another gate may take over.
const _: () = assert!(RENEW.as_secs() + 10 < LEASE.as_secs());

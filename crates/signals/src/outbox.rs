//! The events for one receiver, in order. The progress is a position in the revocations of the store, so an event is as
//! durable as its revocation, and needs no separate write. The gate stores a position after the receiver has accepted the
//! events before it: after a kill, events are sent again, and no event is lost. The store forgets a revocation before a long
//! outage of the receiver ends, so events that wait for minutes are written to separate rows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::receiver::{Event, Pushed, Pusher, ReceiverPlan};
use super::record::{LEASE, RENEW, StreamRecord};
use super::{ReceiverGate, StreamError};
use rotogate_core::clock::Timestamp;
use rotogate_core::engine::ended::{EndPlace, EndedBatch};
use rotogate_core::random::jittered;
use rotogate_core::store::Cursor;

/// How often the outbox reads new revocations.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long an event waits for its receiver before it is dropped.
// Requirement S25.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most events that wait in memory. Further events wait as revocations in the store, until the store forgets these.
pub(crate) const MAX_WAITING: usize = 10_000;
/// How often waiting events are written to the store. The store forgets a revocation after an hour at the earliest.
pub(crate) const SAVE_EVERY: Duration = Duration::from_secs(300);
/// The most bytes of events in a row.
const MAX_ROW: usize = 60_000;
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
}

/// Events that wait, each with the time when it was read.
type Row = Vec<(Event, Timestamp)>;

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
        event: Event,
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
    counted: Arc<Counted>,
    held_at: Timestamp,
    /// The position up to which revocations were read.
    read: Option<Cursor>,
    adopted: Timestamp,
    kept_at: Timestamp,
    batch: Option<(EndedBatch, EndPlace, Cursor)>,
    waiting: VecDeque<Waiting>,
    /// The number of the first row, how many events of each row still wait, and the time of the last write. These events
    /// are the oldest.
    first_row: u64,
    rows: VecDeque<usize>,
    saved_at: Timestamp,
    /// How often the first event failed, and when it is tried again.
    failures: u32,
    next_try: Timestamp,
}

impl Outbox {
    pub(crate) fn new(gate: Arc<dyn ReceiverGate>, record: StreamRecord<Sent>, plan: ReceiverPlan) -> Self {
        Self {
            gate,
            pusher: Pusher::new(plan.clone()),
            plan,
            record,
            counted: Arc::default(),
            held_at: Timestamp::ZERO,
            read: None,
            adopted: Timestamp::ZERO,
            kept_at: Timestamp::ZERO,
            batch: None,
            waiting: VecDeque::new(),
            first_row: 0,
            rows: VecDeque::new(),
            saved_at: Timestamp::ZERO,
            failures: 0,
            next_try: Timestamp::ZERO,
        }
    }

    pub(crate) fn counted(&self) -> Arc<Counted> {
        Arc::clone(&self.counted)
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
        while self.waiting.front().is_some() && self.hold().await? {
            if !self.send_first().await? {
                break;
            }
        }
        let long_ago = self.gate.now().minus(SAVE_EVERY);
        if self.saved_at <= long_ago
            && matches!(self.waiting.front(), Some(Waiting::Event { read, .. }) if *read <= long_ago)
        {
            self.save().await?;
        }
        self.count_waiting();
        Ok(if self.batch.is_some() && self.waiting.is_empty() { Duration::ZERO } else { READ_EVERY })
    }

    /// Whether this gate sends. A gate that takes over continues from the stored position.
    async fn hold(&mut self) -> Result<bool, StreamError> {
        let now = self.gate.now();
        if self.read.is_some() && now < self.held_at.plus(RENEW) && self.adopted == self.gate.adopted() {
            return Ok(true);
        }
        let (known, is_held) = self.record.hold().await?;
        if !is_held {
            (self.read, self.batch) = (None, None);
            self.waiting.clear();
            self.count_waiting();
            return Ok(false);
        }
        self.held_at = now;
        if self.read.is_none() || self.adopted != self.gate.adopted() {
            (self.read, self.batch) = (None, None);
            self.adopted = self.gate.adopted();
            self.read = Some(self.begin(known).await?);
        }
        Ok(true)
    }

    /// Reads the waiting events, and the position from which to continue. A new receiver gets events about sessions
    /// that end from now on.
    async fn begin(&mut self, known: Sent) -> Result<Cursor, StreamError> {
        self.waiting.clear();
        self.rows.clear();
        (self.first_row, self.saved_at) = (known.rows.0, self.gate.now());
        for number in known.rows.0..known.rows.1 {
            let events = self.row(number).read().await?.unwrap_or_else(|| {
                let receiver = &*self.plan.settings.name;
                tracing::error!(receiver, "event receiver: the store has lost events that waited");
                Vec::new()
            });
            self.rows.push_back(events.len());
            self.waiting.extend(events.into_iter().map(|(event, read)| Waiting::Event { event, read }));
        }
        self.drop_rows().await?;
        match known.cursor {
            Some(cursor) if known.adopted == self.adopted => Ok(Cursor::new(cursor)),
            // Positions from before a loss of the store are meaningless, so all revocations are sent again. The
            // receiver recognises a repeated event by its `jti`.
            Some(_) => Ok(Cursor::default()),
            None => {
                let (_, end) = self.gate.ended_since(Cursor::default()).await?;
                self.keep(&end).await?;
                Ok(end)
            }
        }
    }

    fn row(&self, number: u64) -> StreamRecord<Row> {
        self.record.beside(&number.to_string())
    }

    /// Writes the waiting events to rows, up to the last position, and stores that position.
    // Requirement S25.
    async fn save(&mut self) -> Result<(), StreamError> {
        self.saved_at = self.gate.now();
        let positions = self.waiting.iter().enumerate().rev().filter_map(|(place, one)| match one {
            Waiting::Position(cursor) => Some((place, cursor.clone())),
            Waiting::Event { .. } => None,
        });
        let Some((place, cursor)) = { positions }.next() else { return Ok(()) };
        let events = self.waiting.iter().take(place).filter_map(|one| match one {
            Waiting::Event { event, read } => Some((event.clone(), *read)),
            Waiting::Position(_) => None,
        });
        let (mut rows, mut size) = (Vec::<Row>::new(), MAX_ROW);
        for event in events.skip(self.rows.iter().sum()) {
            let length = serde_json::to_vec(&event).map_or(MAX_ROW, |text| text.len() + 1);
            size += length;
            match rows.last_mut() {
                Some(row) if size <= MAX_ROW => row.push(event),
                Some(_) | None => {
                    size = length;
                    rows.push(vec![event]);
                }
            }
        }
        let (next, adopted) = (self.first_row + self.rows.len() as u64, self.adopted);
        for (number, row) in (next..).zip(&rows) {
            // Another gate that took over writes rows of its own.
            if !self.hold().await? || self.adopted != adopted {
                return Ok(());
            }
            self.row(number).write(row).await?;
        }
        self.rows.extend(rows.iter().map(Vec::len));
        self.keep(&cursor).await?;
        // These positions are kept.
        let later = self.waiting.split_off(place + 1);
        self.waiting.retain(|one| matches!(one, Waiting::Event { .. }));
        self.waiting.extend(later);
        Ok(())
    }

    /// Removes the rows whose events were all sent or dropped.
    async fn drop_rows(&mut self) -> Result<(), StreamError> {
        let done = self.rows.iter().take_while(|events| **events == 0).count();
        if done == 0 {
            return Ok(());
        }
        let first = self.first_row + done as u64;
        self.record.change(|known: &mut Sent| std::mem::replace(&mut known.rows.0, first) != first).await?;
        for number in self.first_row..first {
            self.row(number).forget().await?;
        }
        self.first_row = first;
        self.rows.drain(..done);
        Ok(())
    }

    /// Removes the first waiting event.
    async fn pop_event(&mut self) -> Result<bool, StreamError> {
        self.waiting.pop_front();
        if let Some(events) = self.rows.front_mut() {
            *events -= 1;
        }
        self.drop_rows().await?;
        Ok(true)
    }

    async fn keep(&mut self, cursor: &Cursor) -> Result<(), StreamError> {
        let rows = (self.first_row, self.first_row + self.rows.len() as u64);
        let sent = Sent { cursor: Some(cursor.as_bytes().to_vec()), adopted: self.adopted, rows };
        let change = |known: &mut Sent| std::mem::replace(known, sent.clone()) != sent;
        self.record.change(change).await?;
        self.kept_at = self.gate.now();
        Ok(())
    }

    async fn read(&mut self) -> Result<(), StreamError> {
        let now = self.gate.now();
        if self.batch.is_none()
            && let Some(read) = &self.read
        {
            let (batch, end) = self.gate.ended_since(read.clone()).await?;
            self.batch = (end != *read).then_some((batch, EndPlace::default(), end));
        }
        let clients = &self.plan.settings.clients;
        while self.waiting.len() < MAX_WAITING
            && let Some((batch, place, end)) = &mut self.batch
        {
            let (ends, next) = self.gate.next_ends(batch, clients, *place).await?;
            let issuer = self.gate.issuer();
            let is_quiet = ends.is_empty() && self.waiting.is_empty();
            for end in &ends {
                let event = Event::of_end(end, &issuer, &self.plan.settings, now);
                self.waiting.push_back(Waiting::Event { event, read: now });
            }
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
        let Some(first) = self.waiting.front() else { return Ok(false) };
        let (event, read) = match first {
            Waiting::Event { event, read } => (event, *read),
            Waiting::Position(cursor) => {
                let cursor = cursor.clone();
                self.keep(&cursor).await?;
                self.waiting.pop_front();
                return Ok(true);
            }
        };
        if now >= read.plus(KEPT_FOR) {
            if self.counted.dropped.fetch_add(1, Ordering::Relaxed).is_multiple_of(MAX_WAITING as u64) {
                let receiver = &*self.plan.settings.name;
                tracing::error!(receiver, "event receiver: events dropped that had waited for 24 hours");
            }
            return self.pop_event().await;
        }
        if now < self.next_try {
            return Ok(false);
        }
        let receiver = Arc::clone(&self.plan.settings.name);
        match self.pusher.push(event, (&self.gate.issuer(), now)).await {
            Ok(Pushed::Taken) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!(%receiver, "event receiver takes events again");
                }
                self.counted.sent.fetch_add(1, Ordering::Relaxed);
                return self.pop_event().await;
            }
            Ok(Pushed::Refused(why)) if self.failures + 1 >= TRIES => {
                tracing::error!(%receiver, why, "event receiver refuses an event, which is skipped");
                self.counted.refused.fetch_add(1, Ordering::Relaxed);
                self.failures = 0;
                return self.pop_event().await;
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
            if self.waiting.len() >= MAX_WAITING {
                tracing::error!(
                    receiver,
                    "event receiver: 10 000 events wait; further ones are lost after an hour or more"
                );
            }
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
        self.counted.waiting.store(events.count() as u64, Ordering::Relaxed);
        self.counted.oldest.store(oldest, Ordering::Relaxed);
        self.counted.is_sender.store(self.read.is_some(), Ordering::Relaxed);
    }
}

/// A push must end before another gate may take over.
const _: () = assert!(RENEW.as_secs() + 10 < LEASE.as_secs());

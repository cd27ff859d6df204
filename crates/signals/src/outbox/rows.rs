//! The rows with the events that have waited for minutes. Only the first row is in memory.

use std::sync::atomic::Ordering;

use super::super::StreamError;
use super::super::record::StreamRecord;
use super::{MAX_STORED, Outbox, Sent, Waiting};
use rotogate_core::clock::Timestamp;
use rotogate_core::engine::ended::End;

/// The most bytes of events in a row.
const MAX_ROW: usize = 60_000;

/// Ends that wait, each with the time when it was read.
type Row = Vec<(End, Timestamp)>;

/// The rows of one receiver. Their events are older than those that no row has. The record of the receiver names a row
/// with the position after its last event: after a kill before that, its revocations are read again, and the row is
/// overwritten.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// The number of the first row, and the one after the last.
    pub(super) first: u64,
    pub(super) next: u64,
    /// How many events of the first row wait, if the row is in memory.
    pub(super) loaded: Option<usize>,
    /// How many events wait in the other rows.
    pub(super) stored: u64,
}

impl Rows {
    /// The rows that the record of the receiver names.
    pub(super) fn known(sent: &Sent) -> Self {
        let (first, next) = sent.rows;
        Self { first, next: next.max(first), loaded: None, stored: sent.events }
    }

    /// How many events wait in rows.
    pub(super) fn events(&self) -> u64 {
        self.stored + self.loaded.unwrap_or(0) as u64
    }
}

impl Outbox {
    fn row(&self, number: u64) -> StreamRecord<Row> {
        self.record.beside(&number.to_string())
    }

    /// Removes the first row once all of its events were sent or dropped, and reads the next row. Returns false if
    /// another gate sends.
    pub(super) async fn next_row(&mut self) -> Result<bool, StreamError> {
        if self.rows.loaded == Some(0) {
            let (first, events) = (self.rows.first + 1, self.rows.stored);
            let change = |known: &mut Sent| {
                let before = known.clone();
                (known.rows, known.events) = ((first, known.rows.1.max(first)), events);
                *known != before
            };
            if !self.record.change_own(change).await? {
                return Ok(false);
            }
            self.row(self.rows.first).forget().await?;
            (self.rows.first, self.rows.loaded) = (first, None);
            // After a kill the record may count events of rows that it does not name.
            self.rows.stored = if first == self.rows.next { 0 } else { events };
        }
        if self.rows.loaded.is_none() && self.rows.first < self.rows.next {
            let events = self.row(self.rows.first).read().await?.unwrap_or_else(|| {
                let receiver = &*self.plan.settings.name;
                tracing::error!(receiver, "event receiver: the store has lost events that waited");
                Vec::new()
            });
            self.rows.loaded = Some(events.len());
            self.rows.stored = self.rows.stored.saturating_sub(events.len() as u64);
            events.into_iter().rev().for_each(|(end, read)| self.waiting.push_front(Waiting::Event { end, read }));
        }
        Ok(true)
    }

    /// Moves the events that no row has to rows, and keeps the last position.
    // Requirement S25.
    pub(super) async fn save(&mut self) -> Result<(), StreamError> {
        self.saved_at = self.gate.now();
        let last = self.waiting.iter().rposition(|one| matches!(one, Waiting::Position(_)));
        let mut place = 0_usize..;
        self.waiting.retain(|one| place.next() == last || matches!(one, Waiting::Event { .. }));
        let from = self.rows.loaded.unwrap_or(0);
        let mut is_logged = false;
        while self.lease.renew().await? {
            let row = match self.waiting.get(from) {
                None => return self.next_row().await.map(drop),
                Some(Waiting::Position(cursor)) => {
                    let cursor = cursor.clone();
                    if !self.keep(&cursor).await? {
                        break;
                    }
                    self.waiting.remove(from);
                    continue;
                }
                Some(Waiting::Event { .. }) => self.row_from(from),
            };
            let number = row.len() as u64;
            if self.rows.events() + number <= MAX_STORED {
                // Another gate that took over writes rows of its own.
                if !self.row(self.rows.next).write(&row, &self.record).await? {
                    break;
                }
                self.rows.next += 1;
                self.rows.stored += number;
            } else {
                self.counted.dropped.fetch_add(number, Ordering::Relaxed);
                if !std::mem::replace(&mut is_logged, true) {
                    let receiver = &*self.plan.settings.name;
                    tracing::error!(receiver, "event receiver: 1 000 000 events wait; further ones are dropped");
                }
            }
            self.waiting.drain(from..from + row.len());
        }
        Ok(())
    }

    /// The events from this place on that fit in a row, up to a position.
    fn row_from(&self, from: usize) -> Row {
        let (mut row, mut size) = (Row::new(), 0);
        for one in self.waiting.iter().skip(from) {
            let Waiting::Event { end, read } = one else { break };
            let event = (end.clone(), *read);
            size += serde_json::to_vec(&event).map_or(MAX_ROW, |text| text.len() + 1);
            if size > MAX_ROW && !row.is_empty() {
                break;
            }
            row.push(event);
        }
        row
    }
}

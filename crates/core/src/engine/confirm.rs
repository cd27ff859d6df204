//! Confirms the delivery of tokens. A request with an access token of a new generation shows that its client has
//! received the new pair, so the previous refresh token can no longer be exchanged. This module notes the generation in
//! memory. It writes the notes to the store in batches, without delaying the request.
//!
//! A note is durable within [`FLUSH_EVERY`] plus the time of a commit (requirement R28), unless the store fails or the
//! process ends first. Losing a note is safe, because the generation in use then counts as not delivered. The first
//! generation has no previous refresh token, so its delivery is not noted. A session that is never refreshed therefore
//! costs only the write that creates it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::Engine;
use crate::session::{Generation, SessionId};
use crate::store::{Store, StoreError};

/// How long a note can wait to be written together with others. docs/sessions.md states this value.
pub const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// The maximum number of notes that one flush writes.
const MAX_FLUSHED_NOTES: usize = 4096;
/// The maximum number of notes in one write. A write keeps a processor busy and blocks other writers while it processes
/// its notes, so a flush makes several short writes.
const NOTES_PER_WRITE: usize = 256;
/// The maximum number of pending notes. Further notes are dropped.
const MAX_PENDING_NOTES: usize = 1_000_000;

/// Generations that requests have confirmed and whose notes are not yet in the store.
#[derive(Debug, Default)]
pub struct Confirmations {
    pending: DashMap<SessionId, Generation, foldhash::quality::RandomState>,
    /// The number of notes, or slightly more, because the exact number would need a lock on the whole map.
    number: AtomicUsize,
}

impl Confirmations {
    /// Notes that a token of this generation was used. The first generation is not noted.
    pub fn seen(&self, session: SessionId, generation: Generation) {
        if generation <= Generation::FIRST || self.number.load(Ordering::Relaxed) >= MAX_PENDING_NOTES {
            return;
        }
        match self.pending.entry(session) {
            Entry::Occupied(mut seen) => {
                let latest = generation.max(*seen.get());
                seen.insert(latest);
            }
            Entry::Vacant(place) => {
                place.insert(generation);
                self.number.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns whether a note of this generation or a later one waits to be written.
    pub fn has(&self, session: SessionId, generation: Generation) -> bool {
        self.pending.get(&session).is_some_and(|seen| *seen >= generation)
    }

    /// Writes the pending notes. Passes each written batch to `marked`, with the sessions whose records the batch
    /// changed. A note that could not be written stays for the next call.
    ///
    /// # Errors
    /// The errors of the store.
    async fn flush(
        &self,
        store: &dyn Store,
        marked: impl Fn(&[(SessionId, Generation)], Vec<SessionId>),
    ) -> Result<(), StoreError> {
        loop {
            let mut notes: Vec<_> =
                self.pending.iter().take(MAX_FLUSHED_NOTES).map(|note| (*note.key(), *note.value())).collect();
            // Sorted, because sessions that began at about the same time are stored next to each other.
            notes.sort_unstable();
            for batch in notes.chunks(NOTES_PER_WRITE) {
                marked(batch, store.confirm(batch.to_vec()).await?);
                for (session, generation) in batch {
                    // A note of a later generation, added in the meantime, stays.
                    if self.pending.remove_if(session, |_, seen| seen <= generation).is_some() {
                        self.number.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            }
            if notes.len() < MAX_FLUSHED_NOTES {
                return Ok(());
            }
        }
    }
}

impl Engine {
    /// Writes the confirmed generations. The next call retries those that could not be written.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn flush_confirmations(&self) -> Result<(), StoreError> {
        let written = |seen: &[(SessionId, Generation)], marked| {
            self.last_refreshes.confirm(seen, self.clock.now());
            self.written.confirm(seen, marked);
        };
        self.confirmations.flush(self.store.as_ref(), written).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::MemoryStore;

    const SECOND: Generation = Generation::new(2);

    fn id(n: u64) -> SessionId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&n.to_be_bytes());
        SessionId::new(Timestamp::from_secs(1), random)
    }

    #[test]
    fn the_latest_generation_seen_is_the_one_that_waits() {
        let notes = Confirmations::default();
        for generation in [2, 5, 3] {
            notes.seen(id(1), Generation::new(generation));
        }
        assert!(notes.has(id(1), Generation::new(5)) && notes.has(id(1), Generation::new(4)));
        assert!(!notes.has(id(1), Generation::new(6)) && !notes.has(id(2), SECOND));
    }

    #[test]
    fn the_first_generation_which_replaces_none_needs_no_note() {
        let notes = Confirmations::default();
        notes.seen(id(1), Generation::FIRST);
        assert!(notes.pending.is_empty() && notes.number.load(Ordering::Relaxed) == 0);
        notes.seen(id(1), SECOND);
        assert!(notes.has(id(1), SECOND));
    }

    #[tokio::test]
    async fn more_notes_than_one_batch_holds_are_written_in_several() {
        let notes = Confirmations::default();
        for n in 0..(MAX_FLUSHED_NOTES as u64 + NOTES_PER_WRITE as u64 + 1) {
            notes.seen(id(n), SECOND);
        }
        notes.flush(&MemoryStore::new("https://gate.test", Duration::ZERO), |_, _| {}).await.unwrap();
        assert!(notes.pending.is_empty());
        assert_eq!(notes.number.into_inner(), 0);
    }

    #[test]
    fn memory_is_bounded_while_the_store_is_away() {
        let notes = Confirmations::default();
        for n in 0..=MAX_PENDING_NOTES as u64 {
            notes.seen(id(n), SECOND);
        }
        assert_eq!(notes.pending.len(), MAX_PENDING_NOTES);
        assert!(notes.has(id(0), SECOND) && !notes.has(id(MAX_PENDING_NOTES as u64), SECOND));
    }
}

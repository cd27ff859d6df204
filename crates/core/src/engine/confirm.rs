//! Confirmation of delivery. A request with an access token of a new generation shows that its holder has received it,
//! so the previous refresh token may no longer be exchanged. This module notes the generation and writes the notes to
//! the store in batches, off the request's path.
//!
//! A note is durable within [`FLUSH_EVERY`] plus the time of a commit (requirement R28), unless the store fails or the
//! process ends before. A lost note errs on the safe side: the generation in use counts as never delivered. The first
//! generation has no previous refresh token, so its delivery is not noted: a session that is never refreshed costs no
//! write besides its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::Engine;
use crate::session::{Generation, SessionId};
use crate::store::{Store, StoreError};

/// How long a note waits before it is written with others. docs/sessions.md states this value.
pub const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// The most notes of one flush.
const MAX_FLUSHED_NOTES: usize = 4096;
/// The most notes of one write. A write occupies a processor and blocks other writers while it processes its notes, so
/// a flush makes several short writes.
const NOTES_PER_WRITE: usize = 256;
/// The most pending notes. Further notes are dropped.
const MAX_PENDING_NOTES: usize = 1_000_000;

/// Generations that requests have confirmed, and whose notes are not in the store yet.
#[derive(Debug, Default)]
pub struct Confirmations {
    pending: DashMap<SessionId, Generation, foldhash::quality::RandomState>,
    /// The number of notes, or slightly more: the exact number would need a lock on the whole map.
    number: AtomicUsize,
}

impl Confirmations {
    /// Notes that a token of this generation was used, unless it is the first.
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

    /// Is there an unwritten note of this generation, or of a later one?
    pub fn has(&self, session: SessionId, generation: Generation) -> bool {
        self.pending.get(&session).is_some_and(|seen| *seen >= generation)
    }

    /// Writes the pending notes, and passes the written notes on, with the sessions that the notes changed. A note that
    /// could not be written stays, and the next call tries it again.
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
            // Sorted, because sessions that began about the same time are neighbours in a store.
            notes.sort_unstable();
            for batch in notes.chunks(NOTES_PER_WRITE) {
                marked(batch, store.confirm(batch.to_vec()).await?);
                for (session, generation) in batch {
                    // The note of a later generation, added meanwhile, stays.
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

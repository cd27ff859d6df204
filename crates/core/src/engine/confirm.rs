//! Writes to the store which new tokens have arrived, in batches, at intervals of [`FLUSH_EVERY`] (requirement R28).

use std::time::Duration;

use super::Engine;
use crate::session::confirm::{Confirmations, MAX_FLUSHED_NOTES};
use crate::session::{Generation, SessionId};
use crate::store::{Store, StoreError};

/// How often the notes are written to the store. docs/sessions.md states this value.
pub const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// A long write would block other writers.
const NOTES_PER_WRITE: usize = 256;

/// Writes the pending notes in batches. After each batch, calls `marked` with the notes and the sessions whose records
/// changed.
///
/// # Errors
/// The errors of the store.
async fn flush(
    confirmations: &Confirmations,
    store: &dyn Store,
    marked: impl Fn(&[(SessionId, Generation)], Vec<SessionId>),
) -> Result<(), StoreError> {
    loop {
        let notes = confirmations.unwritten();
        for batch in notes.chunks(NOTES_PER_WRITE) {
            marked(batch, store.confirm(batch.to_vec()).await?);
            confirmations.forget(batch);
        }
        if notes.len() < MAX_FLUSHED_NOTES {
            return Ok(());
        }
    }
}

impl Engine {
    /// Writes the confirmed generations. The next call retries failed writes.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn flush_confirmations(&self) -> Result<(), StoreError> {
        let written = |seen: &[(SessionId, Generation)], marked| {
            self.last_refreshes.confirm(seen, self.clock.now());
            self.written.confirm(seen, marked);
        };
        flush(&self.confirmations, self.store.as_ref(), written).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn more_notes_than_one_batch_holds_are_written_in_several() {
        let notes = Confirmations::default();
        for n in 0..(MAX_FLUSHED_NOTES as u64 + NOTES_PER_WRITE as u64 + 1) {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&n.to_be_bytes());
            notes.seen(SessionId::new(Timestamp::from_secs(1), random), Generation::new(2));
        }
        flush(&notes, &MemoryStore::new("https://gate.test", Duration::ZERO), |_, _| {}).await.unwrap();
        assert!(notes.unwritten().is_empty());
    }
}

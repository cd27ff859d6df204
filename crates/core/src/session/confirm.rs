//! Which new tokens have arrived. A request with an access token shows that its client has the new refresh token. The
//! previous one then becomes invalid. The gate notes the token's generation in memory, and the engine writes the notes
//! to the store. If the store or the process fails, notes can be lost. Losing a note is safe, because the generation
//! then counts as not delivered.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;

use super::{Generation, SessionId};

/// How many notes [`Confirmations::unwritten`] returns at once.
pub(crate) const MAX_FLUSHED_NOTES: usize = 4096;
/// The maximum number of pending notes. Further notes are dropped.
const MAX_PENDING_NOTES: usize = 1_000_000;
/// The maximum number of pending notes about other issuers' tokens. Further notes are dropped.
const MAX_PENDING_USES: usize = 100_000;

/// The SHA-256 digest of a token.
pub type TokenDigest = [u8; 32];

/// Confirmed generations that are not yet in the store.
#[derive(Debug, Default)]
pub struct Confirmations {
    pending: DashMap<SessionId, Generation, foldhash::quality::RandomState>,
    /// The approximate length of `pending`. The exact length would need a lock on the map.
    number: AtomicUsize,
    uses: Mutex<HashSet<TokenDigest, foldhash::quality::RandomState>>,
    notes_uses: AtomicBool,
}

/// Returns the digest of a token.
pub fn token_digest(token: &str) -> TokenDigest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

impl Confirmations {
    /// Enables [`used`](Self::used), for a relay that stores responses.
    pub fn note_uses(&self) {
        self.notes_uses.store(true, Ordering::Relaxed);
    }

    /// Notes that a token of another issuer was used.
    pub fn used(&self, token: &str) {
        if self.notes_uses.load(Ordering::Relaxed) {
            let mut uses = self.uses.lock();
            if uses.len() < MAX_PENDING_USES {
                uses.insert(token_digest(token));
            }
        }
    }

    /// Returns some of the uses that are not yet in the store. They stay noted until they are written, so that the last
    /// flush of a process also writes what an earlier one has begun to write.
    pub fn unwritten_uses(&self) -> Vec<TokenDigest> {
        self.uses.lock().iter().take(MAX_FLUSHED_NOTES).copied().collect()
    }

    /// Forgets uses that are in the store.
    pub fn forget_uses(&self, written: &[TokenDigest]) {
        let mut uses = self.uses.lock();
        for token in written {
            uses.remove(token);
        }
    }

    /// Notes that a token of this generation was used. Ignores the first generation.
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

    /// Returns whether this or a later generation waits to be written.
    pub fn has(&self, session: SessionId, generation: Generation) -> bool {
        self.pending.get(&session).is_some_and(|seen| *seen >= generation)
    }

    /// Returns some of the notes that are not yet in the store, sorted by session, because sessions that began at about
    /// the same time are stored close together. They stay pending until they are forgotten.
    pub(crate) fn unwritten(&self) -> Vec<(SessionId, Generation)> {
        let mut notes: Vec<_> =
            self.pending.iter().take(MAX_FLUSHED_NOTES).map(|note| (*note.key(), *note.value())).collect();
        notes.sort_unstable();
        notes
    }

    /// Forgets notes that are in the store, unless a later generation of the session was seen meanwhile.
    pub(crate) fn forget(&self, written: &[(SessionId, Generation)]) {
        for (session, generation) in written {
            if self.pending.remove_if(session, |_, seen| seen <= generation).is_some() {
                self.number.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

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

    #[test]
    fn i72_a_use_stays_noted_until_the_store_has_it() {
        let notes = Confirmations::default();
        notes.used("a");
        assert!(notes.unwritten_uses().is_empty(), "no relay asks");
        notes.note_uses();
        ["a", "b"].iter().for_each(|token| notes.used(token));
        let begun = notes.unwritten_uses();
        notes.used("c");
        assert_eq!((begun.len(), notes.unwritten_uses().len()), (2, 3), "the write may fail, or the process may stop");
        notes.forget_uses(&begun);
        assert_eq!(notes.unwritten_uses(), [token_digest("c")]);
    }

    #[test]
    fn a_written_note_is_forgotten_but_not_a_later_generation() {
        let notes = Confirmations::default();
        [(id(1), SECOND), (id(2), SECOND)].into_iter().for_each(|(session, seen)| notes.seen(session, seen));
        let written = notes.unwritten();
        notes.seen(id(2), Generation::new(3));
        notes.forget(&written);
        assert_eq!(notes.unwritten(), [(id(2), Generation::new(3))]);
        assert_eq!(notes.number.into_inner(), 1);
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

//! Where sessions and revocations are kept. The engine knows nothing of what is behind [`Store`]; whatever is, passes
//! the same conformance suite (`store::conformance`, with the feature `test-util`).
//!
//! An `Ok` of a method that writes means *durable*: the process may be killed right after, and the write holds. The
//! memory store is the exception, and says so at start.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::revocation::list::Filling;
use crate::revocation::{Revocation, RevocationList};
use crate::session::profile::OnTooMany;
use crate::session::{Generation, RevokedBecause, Session, SessionId};

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(feature = "redb")]
mod highwater;
pub mod memory;
#[cfg(feature = "redb")]
pub mod redb;
mod rules;

pub use crate::fault::StoreError;
pub use memory::MemoryStore;
#[cfg(feature = "redb")]
pub use redb::RedbStore;

/// What a compare-and-swap found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The record is the new one, and durable.
    Swapped,
    /// Somebody else changed it: this is what it is now, or `None` if it is gone.
    Changed(Option<Box<Session>>),
    /// Sessions as old as this one became invalid meanwhile: by subject, client or all.
    NoLongerValid,
}

/// How many live sessions a subject may have, and what becomes of one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectBound {
    /// So many, the new one among them.
    pub most: u32,
    /// A session that was not refreshed for so long is over.
    pub idle_ttl: Duration,
    /// What becomes of one more.
    pub on_too_many: OnTooMany,
}

impl SubjectBound {
    /// As many as begin.
    pub const NONE: Self = Self { most: u32::MAX, idle_ttl: Duration::MAX, on_too_many: OnTooMany::EndOldest };
}

/// What came of an insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The session is there, and durable; so is the end of those of its subject that had to give way: these are their
    /// entries.
    Inserted(Vec<Revocation>),
    /// Sessions as old as this one became invalid meanwhile, up to and including this moment.
    NoLongerValid(Timestamp),
    /// Its subject has as many live sessions as it may, and none of them gives way.
    TooMany,
}

/// A place in the store's sequence of revocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// Whose sessions to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Everyone's.
    All,
    /// One subject's.
    Subject(Box<str>),
}

/// One page of sessions, in the order of their ids (the oldest first).
#[derive(Clone, Debug)]
pub struct Page {
    /// The sessions.
    pub sessions: Vec<Session>,
    /// Where the next page begins, if there is one: pass it as `after`.
    pub next: Option<SessionId>,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sessions past their end.
    pub sessions: u64,
    /// Revocations that nothing can match any more.
    pub revocations: u64,
}

/// Sessions and revocations, kept. **For one gate in one process:** a gate reads the revocations in force when it starts
/// and then its own alone, so that another one on the same store goes on with tokens that were revoked here. Passing the
/// conformance suite does not change that. A store that other processes may write to says so: [`Store::is_shared`].
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The record of a session.
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError>;

    /// A new session. In the same transaction it is checked against the not-before of its subject, its client and all, and
    /// its subject's live sessions are counted: those that are neither revoked nor expired, idle for too long, or older than
    /// a not-before. What there is too much of gives way, the oldest first, as if it were revoked because of
    /// [`RevokedBecause::TooMany`]; or else nothing is written.
    ///
    /// No more than some thousand give way at once: where the bound was lowered, later inserts end the rest.
    ///
    /// # Errors
    /// Also when there is a session of that id.
    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError>;

    /// Puts `record` in the place of the one whose revision is `expected`, together with `revocation`, in one
    /// transaction. In it the not-before of subject, client and all are checked again. A session that was revoked is
    /// `Changed`, whatever its revision.
    ///
    /// # Errors
    /// Also when the new record's revision is not above `expected`, or its subject or client are not the old one's.
    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError>;

    /// Merges `entry` into what is known of its target. When it ends a session, `because` is written into its record,
    /// whose revision goes up, in the same transaction; this is unconditional, and repeating it changes nothing more: the
    /// first reason stays. A raised minimum leaves the record alone.
    ///
    /// `until` is raised to the end of everything that the entry can match: a session's latest access token, the longest
    /// session of a subject, the longest of all for a client or for all; plus the `leeway` that the store was given.
    /// Gives back the entry as it is now, merged.
    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError>;

    /// All entries written after `cursor`, in order, and where they end. [`Cursor::default`] gives every live entry. An
    /// entry that was merged moves to the end: it comes again, and only there.
    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError>;

    /// A list of every live entry, and where they end: what a gate needs before it serves. The default goes through
    /// [`revocations_since`](Self::revocations_since), which holds them all twice for a moment.
    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        let (entries, end) = self.revocations_since(Cursor::default()).await?;
        let mut list = Filling::expecting(entries.len());
        entries.iter().for_each(|entry| list.add(entry));
        Ok((list.finish(), end))
    }

    /// Marks generations as seen in use, where they still are the current ones of a live session. Touches that one field
    /// and the revision.
    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<(), StoreError>;

    /// A page of at most `limit` sessions (1 to 1000) with ids after `after`.
    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError>;

    /// Removes sessions and revocations that ended more than an hour before `now`, in steps small enough not to hold up
    /// writers, and remembers `now` as the last time known.
    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError>;

    /// The last engine time that the store remembers; [`Timestamp::ZERO`] for a new one. Every write that carries a time
    /// raises it.
    async fn last_known_time(&self) -> Result<Timestamp, StoreError>;

    /// May other processes write to it as well? No gate is built on such a store.
    fn is_shared(&self) -> bool {
        false
    }

    /// Is the store able to write? For readiness.
    async fn check(&self) -> Result<(), StoreError>;
}

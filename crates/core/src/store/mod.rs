//! Stores of sessions and revocations. The engine uses a store only through [`Store`]. Every implementation passes the
//! same conformance suite (`store::conformance`, with the feature `test-util`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::revocation::RevocationList;
use crate::revocation::list::ListFilling;
use crate::session::{Generation, RevokedBecause, Session, SessionId};

#[cfg(any(test, feature = "test-util"))]
pub mod agreement;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(feature = "store-kit")]
pub mod copy;
#[cfg(feature = "store-kit")]
pub mod kit;
pub mod memory;
pub mod owed;
pub mod relay;
#[cfg(feature = "store-kit")]
pub mod reset_clock;
pub mod rules;
mod shared;

pub use crate::fault::{StoreError, WriteOutcome};
pub use crate::revocation::{Effect, Revocation, Target};
pub use memory::MemoryStore;
pub use shared::InspectedServer;
pub use shared::{
    Admitted, CounterUse, Feed, FeedStep, Follow, Heard, LiveRow, NODE_HEARD_WITHIN, NODE_KEPT, NodeRow, NodeSeen,
    Restoration, SharedCounter, SharedStore, Staleness,
};
pub use shared::{count_each, round_trip};

/// The result of a compare-and-swap.
///
/// ```
/// use rotogate::session::Session;
/// use rotogate::store::{MemoryStore, Store, SubjectBound, Swap};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// # let id = gate.sessions().start(NewSession::new("ada", "web")).await?.session.ok_or("it has an id")?;
/// # let session = gate.sessions().get(id).await?.ok_or("it has a record")?;
/// # let store = MemoryStore::for_a_trial("https://api.example.com", rotogate::Gate::DEFAULT_LEEWAY);
/// store.insert(session.clone(), SubjectBound::NONE).await?;
/// let read = session.revision;
/// let next = Session { confirmed: true, revision: read + 1, ..session };
/// assert_eq!(store.compare_and_swap(read, next.clone(), None).await?, Swap::Swapped);
/// // Another writer that read the same revision gets the current record.
/// assert_eq!(store.compare_and_swap(read, next.clone(), None).await?, Swap::Changed(Some(Box::new(next))));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The new record is stored and durable.
    Swapped,
    /// Another writer changed the record. Contains the current record, or `None` if the record was removed.
    Changed(Option<Box<Session>>),
    /// Since the record was read, a not-before for the session's subject, its client or everyone was raised, and it
    /// covers this session.
    NoLongerValid,
}

/// How many live sessions a subject may have, and what happens to a further session.
///
/// ```
/// use std::time::Duration;
/// use rotogate::store::{Inserted, MemoryStore, Store, SubjectBound};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// # let id = gate.sessions().start(NewSession::new("ada", "web")).await?.session.ok_or("it has an id")?;
/// # let session = gate.sessions().get(id).await?.ok_or("it has a record")?;
/// # let store = MemoryStore::for_a_trial("https://api.example.com", rotogate::Gate::DEFAULT_LEEWAY);
/// let idle_ttl = Duration::from_secs(3600);
/// let none = SubjectBound { most: 0, idle_ttl, ends_oldest: false };
/// assert_eq!(store.insert(session.clone(), none).await?, Inserted::TooMany);
/// assert_eq!(store.insert(session, SubjectBound { most: 1, ..none }).await?, Inserted::Inserted(Vec::new()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectBound {
    /// The maximum number of live sessions, including the new session.
    pub most: u32,
    /// A session that was not refreshed for this long counts as ended.
    pub idle_ttl: Duration,
    /// Whether a further session ends the oldest one. If false, the further session is refused.
    pub ends_oldest: bool,
}

impl SubjectBound {
    /// No limit on the number of sessions.
    pub const NONE: Self = Self { most: u32::MAX, idle_ttl: Duration::MAX, ends_oldest: true };
}

/// The result of an insert.
///
/// ```
/// use rotogate::store::Inserted;
///
/// /// The number of sessions that were ended for the new one, or `None` if the new one was not stored.
/// fn gave_way(inserted: &Inserted) -> Option<usize> {
///     match inserted {
///         Inserted::Inserted(ended) => Some(ended.len()),
///         Inserted::NoLongerValid(_) | Inserted::TooMany => None,
///     }
/// }
/// assert_eq!(gave_way(&Inserted::TooMany), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The session is stored and durable. The list has the revocation entries of the subject's older sessions that were
    /// ended to make room for it. These entries are also durable.
    Inserted(Vec<Revocation>),
    /// The new session was not stored, because a not-before at this moment covers it.
    NoLongerValid(Timestamp),
    /// The subject already has as many live sessions as allowed, and the bound does not allow an older session to be
    /// ended.
    TooMany,
}

/// A position in the store's sequence of revocations. Only the store that made the cursor can interpret it.
///
/// ```
/// use rotogate::store::{Cursor, MemoryStore, Store};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let store = MemoryStore::for_a_trial("https://api.example.com", rotogate::Gate::DEFAULT_LEEWAY);
/// let (all, end) = store.revocations_since(Cursor::default()).await?;
/// let (since, _) = store.revocations_since(end).await?;
/// assert!(all.is_empty() && since.is_empty(), "nothing was revoked, then or later");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor(Box<[u8]>);

impl Cursor {
    /// A position, in the store's own format. [`Cursor::default`] is the beginning of the sequence in every store.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes that were passed to [`Self::new`], which are empty for the beginning.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The cursor for the entry with this number, in a store that numbers its entries from 1. 0 is the beginning.
    pub fn from_place(place: u64) -> Self {
        if place == 0 { Self::default() } else { Self::new(place.to_be_bytes()) }
    }

    /// The number of the entry at this position, in a store that numbers its entries.
    ///
    /// # Errors
    /// Another kind of store made the cursor.
    pub fn place(&self) -> Result<u64, StoreError> {
        match *self.0 {
            [] => Ok(0),
            _ => <[u8; 8]>::try_from(&*self.0).map(u64::from_be_bytes).map_err(|_| {
                StoreError::new("this position in the revocations belongs to another kind of store")
                    .with_outcome(WriteOutcome::Refused)
            }),
        }
    }
}

/// The sessions to list.
///
/// ```
/// use rotogate::store::Filter;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// gate.sessions().start(NewSession::new("ada", "web")).await?;
/// gate.sessions().start(NewSession::new("bob", "web")).await?;
/// let page = gate.sessions().list(Filter::Subject("ada".into()), None, 50).await?;
/// assert_eq!(page.sessions.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All sessions.
    All,
    /// One subject's sessions.
    Subject(Box<str>),
}

/// One page of sessions, in the order of their ids (oldest first).
///
/// ```
/// use rotogate::store::{Filter, Page};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let mut after = None;
/// loop {
///     let Page { sessions, next, .. } = gate.sessions().list(Filter::All, after, 100).await?;
///     sessions.iter().for_each(|session| println!("{} {}", session.id, session.subject));
///     after = next;
///     if after.is_none() { break }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Page {
    /// The sessions.
    pub sessions: Vec<Session>,
    /// Pass this as `after` for the next page, if there is one.
    pub next: Option<SessionId>,
}

/// The result of a sweep.
///
/// ```
/// use rotogate::clock::Timestamp;
/// use rotogate::store::{MemoryStore, Store, Swept};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let store = MemoryStore::for_a_trial("https://api.example.com", rotogate::Gate::DEFAULT_LEEWAY);
/// let swept = store.sweep(Timestamp::from_secs(1_800_000_000)).await?;
/// assert_eq!(swept, Swept { sessions: 0, revocations: 0 }, "nothing has ended");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The number of removed sessions, which had ended.
    pub sessions: u64,
    /// The number of removed revocations, which no valid token can match any more.
    pub revocations: u64,
}

/// A store of sessions and revocations. **Most stores are for one gate in one process.** Only `PostgresStore` and
/// `RedisStore` are for several gates. A gate reads the revocations from the store when it starts. Afterwards it knows
/// only the revocations that it makes itself. A second gate on the same store would therefore still accept tokens that
/// this gate has revoked.
///
/// ```
/// use std::sync::Arc;
/// use rotogate::store::{MemoryStore, Store};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let store = MemoryStore::for_a_trial("https://api.example.com", rotogate::Gate::DEFAULT_LEEWAY);
/// // The readiness probe uses this handle. The gate has its own handle. `store::rules` explains how to write a store.
/// let store: Arc<dyn Store> = Arc::new(store);
/// let builder = rotogate::Gate::builder().shared_store(Arc::clone(&store));
/// assert!(store.check().await.is_ok(), "it can write");
/// # let _ = builder;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Loads the record of a session.
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError>;

    /// Inserts a new session. The same transaction checks it against the not-befores of its subject, its client and
    /// everyone, and counts the subject's live sessions. A session is not live if it is revoked, expired, idle for too
    /// long, or older than a not-before. If the subject has too many and the bound ends old sessions, the excess
    /// sessions are revoked, oldest first, with the reason [`RevokedBecause::TooMany`]. Otherwise nothing is written.
    ///
    /// One insert ends at most about a thousand sessions. If more must end because the bound was lowered, later inserts
    /// end the rest.
    ///
    /// # Errors
    /// The store returns an error, or a session with that id exists already.
    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError>;

    /// Replaces the record whose revision is `expected` with `record`, and writes `revocation` in the same transaction.
    /// The transaction checks the not-befores of subject, client and everyone again. For a revoked session the result
    /// is always `Changed`, whatever its revision.
    ///
    /// # Errors
    /// The store returns an error, or the new record's revision is not higher than `expected`, or its subject or client
    /// differs from the old record's.
    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError>;

    /// Merges `entry` with the stored entry of its target. If the entry ends a session, the same transaction writes
    /// `because` into the session's record and raises the record's revision. There is no precondition. A repeated call
    /// changes nothing more, so the first reason stays. An entry that only raises a session's minimum generation leaves
    /// the record unchanged.
    ///
    /// The entry's `until` is raised to the latest expiry of everything that the entry can match, plus the store's
    /// `leeway`. For a session, this is the expiry of its last access token. For a subject, it is the end of the
    /// subject's longest session. For a client or for everyone, it is the end of the longest of all sessions. Returns
    /// the merged entry.
    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError>;

    /// Returns all entries written after `cursor`, one for each target, and the cursor after the last of them. With
    /// [`Cursor::default`] it returns every live entry. A merge moves an entry to the end of the sequence, and only the
    /// merged entry is returned.
    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError>;

    /// Returns a list of all live entries, and the cursor after the last of them. A gate loads this list before it
    /// serves requests. The default implementation uses [`revocations_since`](Self::revocations_since), which briefly
    /// keeps all entries in memory twice.
    #[doc(hidden)]
    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        let (entries, end) = self.revocations_since(Cursor::default()).await?;
        let mut list = ListFilling::expecting(entries.len());
        entries.iter().for_each(|entry| list.add(entry));
        Ok((list.finish(), end))
    }

    /// Marks these generations as seen in use. A generation is marked only if it is still the current generation of a
    /// live session. Only the field `confirmed` changes, and the revision rises by one.
    ///
    /// Returns the sessions that this call marked. It may leave some out if the request had to be repeated, but it
    /// never lists a session whose record this call did not change.
    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError>;

    /// Returns a page of at most `limit` sessions (1 to 1000) whose ids come after `after`.
    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError>;

    /// Removes sessions and revocations that ended more than an hour before `now`, in steps small enough not to delay
    /// writers, and remembers `now` as the last known time.
    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError>;

    /// The last engine time that the store remembers, or [`Timestamp::ZERO`] for a new store. Every write that contains
    /// a time raises it.
    async fn last_known_time(&self) -> Result<Timestamp, StoreError>;

    /// The store's further operations, if other processes write to the store as well.
    #[doc(hidden)]
    fn shared(&self) -> Option<&dyn SharedStore> {
        None
    }

    /// The file in which revocations that the store did not accept survive a restart. `None` if only the process
    /// remembers such revocations.
    #[doc(hidden)]
    fn owed_file(&self) -> Option<&Arc<owed::OwedFile>> {
        None
    }

    /// Checks that the store can write. The readiness probe uses this.
    async fn check(&self) -> Result<(), StoreError>;

    /// Makes a durable write that does not change any record, to test the store for an explanation. A store whose
    /// [`check`](Self::check) already makes such a write keeps this default.
    #[doc(hidden)]
    async fn probe(&self) -> Result<(), StoreError> {
        self.check().await
    }
}

//! Stores of sessions and revocations.
//!
//! Every implementation passes the conformance suite in `store::conformance`.

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
#[cfg(feature = "store-kit")]
pub mod reset_clock;
pub mod rows;
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
    /// A not-before written after the read of the record invalidates the session.
    NoLongerValid,
}

/// The limit on live sessions per subject.
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
    /// A session that was not refreshed for this long is not counted as live.
    pub idle_ttl: Duration,
    /// Whether the oldest session is revoked when a new session exceeds the limit. If false, the new session is
    /// refused.
    pub ends_oldest: bool,
}

impl SubjectBound {
    /// No limit.
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
    /// The session is stored and durable. The list contains the revocations of older sessions that were revoked to make
    /// room. They are also durable.
    Inserted(Vec<Revocation>),
    /// The session was not stored, because this not-before covers it.
    NoLongerValid(Timestamp),
    /// The session was not stored, because the subject has reached the limit and [`SubjectBound::ends_oldest`] is
    /// false.
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
    /// Creates a cursor from bytes in the store's own format. In every store, [`Cursor::default`] is the start of the
    /// sequence.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes in the store's own format. They are empty at the start of the sequence.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The cursor for the entry with this number. 0 is the beginning, and entries are numbered from 1.
    pub fn from_place(place: u64) -> Self {
        if place == 0 { Self::default() } else { Self::new(place.to_be_bytes()) }
    }

    /// The number of the entry at this cursor.
    ///
    /// # Errors
    /// Another kind of store made the cursor.
    pub fn place(&self) -> Result<u64, StoreError> {
        match *self.0 {
            [] => Ok(0),
            _ => <[u8; 8]>::try_from(&*self.0).map(u64::from_be_bytes).map_err(|_| {
                StoreError::new("this cursor into the revocations was created by another kind of store")
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

/// One page of sessions, oldest first.
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
    /// The `after` argument for the next page. `None` after the last page.
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
    /// The number of removed sessions.
    pub sessions: u64,
    /// The number of removed revocations.
    pub revocations: u64,
}

/// A store of sessions and revocations. **Most stores are for one gate in one process.** Only `PostgresStore` and
/// `RedisStore` are for several gates. From any other store, a gate reads revocations only when it starts. A second
/// gate on the same store would therefore still accept tokens that this gate has revoked.
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

    /// Inserts a new session. The same transaction checks the session against the not-befores and counts the subject's
    /// live sessions. A session is not live if it is revoked, expired, idle for too long, or older than a not-before.
    /// If there are too many, `bound` decides: the oldest are revoked with [`RevokedBecause::TooMany`], or nothing is
    /// written.
    ///
    /// One insert revokes at most about a thousand sessions. Later inserts revoke the rest.
    ///
    /// # Errors
    /// The store fails, or a session with this id exists already.
    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError>;

    /// Replaces the record whose revision is `expected` with `record`, and writes `revocation` in the same transaction.
    /// The transaction also checks the not-befores of the subject, the client and the whole gate. If the stored session
    /// is revoked, the result is always `Changed`.
    ///
    /// # Errors
    /// The store fails, the new revision is not higher than `expected`, or the subject or the client differs.
    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError>;

    /// Merges `entry` with the stored entry of its target. If the entry revokes a session, the same transaction writes
    /// `because` into the session's record. A repeated call changes nothing, so the first reason stays. An entry that
    /// only raises a session's minimum generation leaves the record unchanged.
    ///
    /// The store raises `until` to the latest expiry of any matching session or token, plus the store's `leeway`.
    /// Returns the merged entry.
    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError>;

    /// Returns the entries written after `cursor`, one for each target, and the cursor after the last of them.
    /// [`Cursor::default`] selects every live entry. A merge moves the entry to the end of the sequence.
    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError>;

    /// Returns a list of all live entries, and the cursor after the last of them.
    #[doc(hidden)]
    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        let (entries, end) = self.revocations_since(Cursor::default()).await?;
        let mut list = ListFilling::expecting(entries.len());
        entries.iter().for_each(|entry| list.add(entry));
        Ok((list.finish(), end))
    }

    /// Marks these generations as confirmed, which means that one of their tokens was used. A generation is marked
    /// only if it is still the current generation of a live session. Only the field `confirmed` changes, and the
    /// revision rises by one.
    ///
    /// Returns the sessions that this call changed. The list may be incomplete after a retry.
    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError>;

    /// Returns a page of at most `limit` sessions (1 to 1000) whose ids come after `after`.
    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError>;

    /// Removes sessions and revocations whose tokens all expired more than an hour before `now`. Works in small steps,
    /// so that writers do not wait. Also raises the last known time to `now`.
    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError>;

    /// The last engine time that the store remembers, or [`Timestamp::ZERO`] for a new store. Every write that
    /// contains a time raises this value.
    async fn last_known_time(&self) -> Result<Timestamp, StoreError>;

    /// The operations for a store to which other processes also write.
    #[doc(hidden)]
    fn shared(&self) -> Option<&dyn SharedStore> {
        None
    }

    /// The file for revocations that the store did not accept. `None` for memory only.
    #[doc(hidden)]
    fn owed_file(&self) -> Option<&Arc<owed::OwedFile>> {
        None
    }

    /// Checks that the store can write. The readiness probe uses this.
    async fn check(&self) -> Result<(), StoreError>;

    /// Tests the store with a durable write that does not change any record.
    #[doc(hidden)]
    async fn probe(&self) -> Result<(), StoreError> {
        self.check().await
    }
}

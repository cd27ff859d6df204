//! Operations of a store that several gates share.
//!
//! A gate accepts a token only while it knows every revocation that was acknowledged more than [`Staleness::limit`]
//! ago. Each complete [`FeedStep`] proves that the gate is up to date. The gate reads its own monotonic clock, **then**
//! requests the revocation log's last position, and applies all entries up to it. No clocks are compared, and a slow
//! response only makes the proof older.
//!
//! **A store that loses writes.** A server may lack acknowledged writes after a failover or a crash. The first gate
//! that notices the loss gives the data a new *history* id, which shows the loss to the other gates. Each gate writes
//! back the revocations that it knows and its recent records. No tokens are issued until all gates have finished, or a
//! time limit has passed.
//!
//! A token may still have a later generation than its session's record. A gate that knows every revocation since the
//! session began can continue the session from the token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Cursor, Revocation, Store, StoreError};
use crate::clock::{TimeSource, Timestamp};
use crate::session::{Session, SessionId};

mod counter;
mod inspected;
mod row;

pub use counter::{Admitted, CounterUse, SharedCounter};
pub use inspected::InspectedServer;
pub use inspected::round_trip;
pub use row::{LiveRow, NODE_HEARD_WITHIN, NODE_KEPT, NodeRow, NodeSeen};

/// A store that several processes write to, each with its own handle.
///
/// Writes are sent again if their response is missing. The store recognises a repeated write and does not apply it
/// twice.
#[async_trait]
pub trait SharedStore: Store {
    /// Returns the creation stamp for a new session, or for a token without a session.
    ///
    /// The stamp is later than `after` and every acknowledged not-before, and not earlier than the store's time. Later
    /// [`stamp_not_before`](Self::stamp_not_before) calls return no earlier time.
    ///
    /// Returns `None` if `after` is ahead of the store's time by more than the leeway. A clock is then wrong.
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Returns the time for a new not-before. The time is at least the latest creation stamp of all nodes.
    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError>;

    /// Returns the time for a new not-before that results from a changed file. Every node reads the file itself.
    ///
    /// The first node gets a new stamp, like that of [`stamp_not_before`](Self::stamp_not_before). For a day, the other
    /// nodes get the same stamp. `name` identifies the changed object, and `state` is its new state.
    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError>;

    /// Counts an attempt across all nodes. Returns how long to wait if the counter refuses the attempt.
    ///
    /// A write that is sent again right away counts once. The counter's state expires once the counter is full again.
    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError>;

    /// Counts an attempt with several counters, or with none if one of them refuses.
    ///
    /// If the name of `caller` is remembered, only the counter of that caller counts the attempt.
    async fn admit(
        &self,
        caller: Option<SharedCounter>,
        counters: Vec<(SharedCounter, CounterUse)>,
    ) -> Result<Admitted, StoreError> {
        let is_known = match &caller {
            Some(caller) => self.remembers(caller.name).await?,
            None => false,
        };
        let own = caller.filter(|_| is_known).map(|caller| vec![(caller, CounterUse::Take)]);
        Ok(Admitted { is_known, refused: count_each(self, own.unwrap_or(counters)).await? })
    }

    /// Remembers a name for all nodes. A repeated call restarts the lifetime.
    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError>;

    /// Returns whether the name is [remembered](Self::remember).
    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError>;

    /// The nodes that contacted the store within the last [`NODE_HEARD_WITHIN`].
    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.nodes_within(NODE_HEARD_WITHIN).await
    }

    /// The nodes whose feeds have contacted the store during the last `within`. A node is remembered for [`NODE_KEPT`].
    /// With more than a thousand nodes, a node may be forgotten after an hour.
    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError>;

    /// Loads a session that is about to be revoked. The request overtakes other requests that wait for the store.
    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.load(id).await
    }

    /// Waits until everything that this handle has read is as durable as an acknowledged write. Another request's write
    /// may be readable before it is acknowledged.
    async fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Follows the revocations that any node writes, starting at `from`.
    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError>;

    /// Adopts the current data after a [loss](FeedStep::lost).
    ///
    /// The first node that adopts the data gives it a new history id. Operations of other nodes then fail until those
    /// nodes have adopted the data too.
    async fn adopt(&self) -> Result<(), StoreError>;

    /// Writes back acknowledged records of this node that the store may have lost.
    ///
    /// A record is written only if it is later than the stored one, by generation and then by revision. Sessions that
    /// were revoked, or changed since the adoption, are skipped. A record that another node wrote back does not count
    /// as changed.
    ///
    /// Returns the number of records that were written.
    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError>;

    /// Reports that this node has finished writing back, and returns the progress of all nodes.
    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError>;

    /// Returns whether the session's record is older than the last adoption. If so, a token with a later generation
    /// does not indicate a further loss.
    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError>;

    /// Returns the session's record if its last write was a swap by this handle with an unknown outcome.
    ///
    /// No token of the session was used after that swap, so the client is repeating its refresh.
    async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let _ = id;
        Ok(None)
    }

    /// Call this when the gate returns the tokens of a swap with an unknown outcome. If the client repeats the refresh
    /// after this call, the gate treats that as reuse.
    fn resolved(&self, id: SessionId) {
        let _ = id;
    }
}

/// Counts an attempt with each counter in turn. If a counter refuses, this function undoes the earlier counts, and
/// returns the counter's index and the wait.
///
/// # Errors
/// The store fails.
pub async fn count_each<S: SharedStore + ?Sized>(
    store: &S,
    counters: Vec<(SharedCounter, CounterUse)>,
) -> Result<Option<(usize, Duration)>, StoreError> {
    let mut taken = Vec::new();
    for (place, (counter, how)) in counters.into_iter().enumerate() {
        if let Some(wait) = store.count(counter, how).await? {
            for counter in taken {
                store.count(counter, CounterUse::GiveBack).await?;
            }
            return Ok(Some((place, wait)));
        }
        if how == CounterUse::Take {
            taken.push(counter);
        }
    }
    Ok(None)
}

/// How far the nodes have progressed in writing back lost data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// When the data was last adopted, by the store's clock. [`Timestamp::ZERO`] means never.
    pub adopted: Timestamp,
    /// Whether all nodes have finished writing back, or the `patience` time has passed.
    pub is_complete: bool,
}

/// How a node follows a store.
#[derive(Clone)]
pub struct Follow {
    /// The node's clocks.
    pub time: Arc<dyn TimeSource>,
    /// How often the node contacts the store.
    pub every: Duration,
    /// The node's own row, sent with each request.
    pub row: Arc<LiveRow>,
}

/// Delivers the revocations that all nodes write.
#[async_trait]
pub trait Feed: fmt::Debug + Send {
    /// Waits for the next step. While the store responds, a complete step comes about every [`Follow::every`].
    ///
    /// # Errors
    /// The store does not respond. The next call pauses, then continues at the same position.
    async fn next(&mut self) -> Result<FeedStep, StoreError>;
}

/// One step of a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedStep {
    /// The entries, in the order in which the node applies them. An entry may be delivered more than once.
    pub entries: Vec<Revocation>,
    /// The proof that the node knows everything acknowledged before its request, or `None` if more entries follow.
    pub complete: Option<Heard>,
    /// Whether the store has lost acknowledged writes. No step is complete until the node calls [`SharedStore::adopt`].
    pub lost: bool,
}

/// When the request of a complete step was sent, and when its response arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The node's [monotonic clock](TimeSource::monotonic) before the request.
    pub asked: Duration,
    /// The node's monotonic clock after the response.
    pub answered: Duration,
    /// The store's time, as reported in the response.
    pub store_time: Timestamp,
}

/// How long a gate operates without a response from a shared store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// A revocation by another gate may be unknown to this gate for at most this long. If the store does not respond
    /// for longer, tokens are no longer issued.
    pub limit: Duration,
    /// How long tokens are accepted without a response from the store. Equal to [`limit`](Self::limit), unless the
    /// operator prefers availability.
    pub served: Duration,
}

impl Staleness {
    /// The shortest [`limit`](Self::limit).
    pub const SHORTEST: Duration = Duration::from_millis(500);
    /// The longest [`limit`](Self::limit).
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// Refuses all tokens once the store has not responded for longer than `limit`.
    pub const fn deny_after(limit: Duration) -> Self {
        Self { limit, served: limit }
    }

    /// Returns whether both times are in the range that a gate accepts.
    pub fn is_sound(&self) -> bool {
        (Self::SHORTEST..=Self::LONGEST).contains(&self.limit) && self.served >= self.limit
    }

    /// The interval between two requests to the store, a quarter of [`limit`](Self::limit).
    pub fn every(&self) -> Duration {
        self.limit / 4
    }

    /// The shortest usable [`limit`](Self::limit) for this round-trip time. The limit covers one round trip, one
    /// interval between requests, and a reserve.
    pub fn needed_for(round_trip: Duration) -> Duration {
        (round_trip * 4).max(Self::SHORTEST)
    }
}

impl Default for Staleness {
    fn default() -> Self {
        Self::deny_after(Duration::from_secs(2))
    }
}

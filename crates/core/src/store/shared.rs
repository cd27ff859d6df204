//! The further operations of a store that several gates share: stamps that all gates agree on, and a feed of the other
//! gates' revocations.
//!
//! A gate on a shared store accepts a token only while it knows every revocation that was acknowledged more than
//! [`Staleness::limit`] ago. Each complete [`FeedStep`] proves this again. The node reads its own monotonic clock,
//! **then** asks the store for the end of its revocations, and applies everything up to that end. Every revocation that
//! was acknowledged before the clock reading has then been applied. No clocks are compared, and a slow reply only makes
//! the proof older.
//!
//! **A store that loses writes.** A server that fails over to a replica or recovers from a crash may lack writes that
//! it had acknowledged. The first node that notices the loss gives the data a new *history* id, by which all other
//! nodes notice the loss as well. Each node writes back the revocations that it knows and the records that it wrote
//! recently. No token is issued until all nodes have done so, or have had enough time to do so. If a session's token
//! then still has a later generation than the session's record, the session continues from that token, at a gate that
//! knows every revocation since the session began.

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

/// A store that several processes write to. Each process has its own handle.
///
/// Every write may be sent again if its reply is missing. The store recognises a repeated write and does not apply it
/// twice.
#[async_trait]
pub trait SharedStore: Store {
    /// Returns a creation stamp for a session, or for a token without a session, that is about to begin. The stamp is
    /// later than `after` and than every not-before whose write was acknowledged by any node, and not earlier than the
    /// store's time. Every later [`stamp_not_before`](Self::stamp_not_before), on any node, is at or after the stamp.
    /// Returns `None` if `after` is further ahead of the store's time than the leeway, which means that a clock is
    /// wrong.
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Returns a moment for a not-before that is at or after every creation stamped so far by any node.
    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError>;

    /// Returns a moment for a not-before that follows from a change. Every node detects this change by itself, in a
    /// file that all nodes read. The first node gets a new stamp, as from [`stamp_not_before`](Self::stamp_not_before).
    /// For a day, the other nodes get the same stamp. `name` identifies the changed object, and `state` its new state.
    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError>;

    /// Counts an attempt across all nodes. Returns how long to wait if the counter refuses the attempt. The counter's
    /// state expires once the counter is full again. An attempt that is sent twice in a row counts once. If another
    /// attempt came in between, it may count twice.
    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError>;

    /// Counts an attempt with several counters, in their order. Either all of them count the attempt, or none does
    /// because one of them refuses. If the name of `caller` is remembered, only the caller's own counter counts the
    /// attempt. A store may do this in one round trip. Repeated attempts count as in [`count`](Self::count).
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

    /// Remembers a name for this long, for all nodes. A repeated call restarts the lifetime.
    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError>;

    /// Returns whether the name is [remembered](Self::remember).
    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError>;

    /// The nodes whose feeds requested the end of the revocations within [`NODE_HEARD_WITHIN`], by the store's time. A
    /// node that has stopped is still listed for that time.
    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.nodes_within(NODE_HEARD_WITHIN).await
    }

    /// The nodes whose feeds contacted the store within this time. A node is remembered for [`NODE_KEPT`]. While there
    /// are more than a thousand nodes, a node may be forgotten after an hour.
    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError>;

    /// Loads a session that is about to be revoked. Requests that are already waiting for the store do not delay this
    /// one.
    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.load(id).await
    }

    /// Waits until everything that this handle has read is as durable as an acknowledged write. This matters because
    /// another request's write may be readable before it is acknowledged.
    async fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Follows the revocations that any node writes, starting at `from`.
    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError>;

    /// Adopts the data in its present state, after a feed reported that writes were [lost](FeedStep::lost), or because
    /// the node noticed the loss itself. The first node that adopts the data gives it a new history id, which the other
    /// nodes take over. From then on, every operation of a node with another history id fails and changes nothing,
    /// until that node has adopted the data as well.
    async fn adopt(&self) -> Result<(), StoreError>;

    /// Writes back records that the store may have lost: records that this node wrote and that the store had
    /// acknowledged. A record is written only if it is later than the stored one (by generation, then by revision). In
    /// addition, no node may have changed the session since the data was adopted, and no revocation may end the
    /// session. A record that another node wrote back does not count as changed. If two nodes write back the same
    /// session, the later record therefore stays, whatever the order of the writes. Returns the number of records that
    /// were written because the store lacked them.
    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError>;

    /// Reports that this node has written back what it knows, and queries whether the other nodes have done the same.
    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError>;

    /// Returns whether the session's record is older than the last adoption. Such a record survived the loss, or was
    /// written back. A token with a later generation than such a record does not indicate a further loss.
    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError>;

    /// Returns the session's record if the record's last write was a swap by this handle that failed with an unknown
    /// outcome, and if none of the session's tokens has been confirmed since. In this case the client is repeating its
    /// own refresh, and no other client has the tokens.
    async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let _ = id;
        Ok(None)
    }

    /// Notes that the client has received the tokens of a swap whose outcome was unknown. If the refresh is repeated
    /// later, it is a reuse, not a retry.
    fn resolved(&self, id: SessionId) {
        let _ = id;
    }
}

/// Counts an attempt with one counter after the other. If a counter refuses, this gives back what it took from the
/// earlier counters, and returns the index of the refusing counter and how long to wait.
///
/// # Errors
/// The store returns an error.
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

/// How far the nodes have written back the writes that a store lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// When the data was last adopted, by the store's clock, or [`Timestamp::ZERO`] if it never was.
    pub adopted: Timestamp,
    /// Whether every node that was in contact before the loss has written back what it knows, or has had the `patience`
    /// time to do so. If a node returns later, its operations are refused until it has adopted the data.
    pub is_complete: bool,
}

/// How a node follows a store.
#[derive(Clone)]
pub struct Follow {
    /// The node's clocks.
    pub time: Arc<dyn TimeSource>,
    /// How often the node requests the end of the store's revocations.
    pub every: Duration,
    /// The row that the node sends about itself with each request.
    pub row: Arc<LiveRow>,
}

/// Delivers the revocations that nodes write to a shared store.
#[async_trait]
pub trait Feed: fmt::Debug + Send {
    /// Waits for the next step. While the store responds, the next complete step comes within about [`Follow::every`].
    ///
    /// # Errors
    /// The store does not respond. The next call pauses, tries again, and continues at the same position.
    async fn next(&mut self) -> Result<FeedStep, StoreError>;
}

/// One step of a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedStep {
    /// Entries, in the order in which they may be applied. The same entry may be delivered again.
    pub entries: Vec<Revocation>,
    /// The proof that the node knows everything that was acknowledged before its request, or `None` if more entries
    /// follow.
    pub complete: Option<Heard>,
    /// Whether the store has lost writes that it had acknowledged, or another node has noticed a loss. The node must
    /// then call [`SharedStore::adopt`]. Until then, no step is complete.
    pub lost: bool,
}

/// The proof that a step is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The node's [monotonic clock](TimeSource::monotonic) before the request.
    pub asked: Duration,
    /// The node's monotonic clock after the reply.
    pub answered: Duration,
    /// The store's time, as reported in the reply.
    pub store_time: Timestamp,
}

/// How long a gate continues without hearing from a shared store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// The longest time for which a revocation that was acknowledged at another gate may be unknown at this gate. If
    /// the store is silent for longer, no token is issued.
    pub limit: Duration,
    /// How long requests with a token are still accepted while the store is silent. This is equal to
    /// [`limit`](Self::limit), unless the operator prefers availability.
    pub served: Duration,
}

impl Staleness {
    /// The shortest [`limit`](Self::limit).
    pub const SHORTEST: Duration = Duration::from_millis(500);
    /// The longest [`limit`](Self::limit).
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// Refuses all tokens once the store has been silent for longer than `limit`.
    pub const fn deny_after(limit: Duration) -> Self {
        Self { limit, served: limit }
    }

    /// Returns whether both times are in the range that a gate accepts.
    pub fn is_sound(&self) -> bool {
        (Self::SHORTEST..=Self::LONGEST).contains(&self.limit) && self.served >= self.limit
    }

    /// The interval between two requests of a node to the store: a fraction of [`limit`](Self::limit).
    pub fn every(&self) -> Duration {
        self.limit / 4
    }

    /// The shortest usable [`limit`](Self::limit) for a store with this round-trip time. A proof is one round trip old
    /// when it arrives, and the next request follows a quarter of the limit later. The rest of the limit is a reserve
    /// for slow round trips.
    pub fn needed_for(round_trip: Duration) -> Duration {
        (round_trip * 4).max(Self::SHORTEST)
    }
}

impl Default for Staleness {
    fn default() -> Self {
        Self::deny_after(Duration::from_secs(2))
    }
}

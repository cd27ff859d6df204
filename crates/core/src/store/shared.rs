//! The further operations of a store that several gates share: stamps that all gates agree on, and a feed of the other
//! gates' revocations.
//!
//! A gate on a shared store accepts a token only while it knows every revocation that was acknowledged more than
//! [`Staleness::limit`] ago. Each complete [`FeedStep`] proves this again: the node reads its own monotonic clock,
//! **then** asks the store for the end of its revocations, and applies everything up to that end. So every revocation
//! that was acknowledged before the clock was read is then applied. No clocks are compared, and a slow answer only
//! makes the proof older.
//!
//! **A store that loses writes.** A server that fails over to a replica, or comes back from a crash, may lack writes
//! that it had acknowledged. The first node that notices gives the data a new *history*, by which all other nodes
//! notice the loss. Each node writes back the revocations that it knows and the records that it wrote lately. No token
//! is issued until all nodes have done so, or have had enough time. A session whose token is still ahead of its record
//! then continues from that token, at a gate that knows every revocation since the session began.

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

/// A store that several processes write to. Each process has a handle of its own.
///
/// Every write may be sent again after a missing reply: the store recognises a repeated write, and changes nothing
/// more.
#[async_trait]
pub trait SharedStore: Store {
    /// A creation stamp for a session, or for a token without a session, that is about to begin. It is later than
    /// `after` and than every not-before whose write was acknowledged, by any node, and no earlier than the store's
    /// time. Every later [`stamp_not_before`](Self::stamp_not_before), on any node, is at or after it. `None` if
    /// `after` is further ahead of the store's time than the leeway: a clock is wrong.
    async fn stamp_creation(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// A moment for a not-before: at or after every creation that was stamped so far, by any node.
    async fn stamp_not_before(&self) -> Result<Timestamp, StoreError>;

    /// A moment for a not-before that follows from a change which every node detects by itself, in a file that all
    /// nodes read. The first node gets a new stamp, as from [`stamp_not_before`](Self::stamp_not_before); for a day,
    /// the other nodes get the same stamp. `name` identifies the changed object, `state` its new state.
    async fn stamp_change(&self, name: [u8; 16], state: [u8; 16]) -> Result<Timestamp, StoreError>;

    /// Counts an attempt among all nodes. Returns how long to wait if the counter refuses. The state expires once the
    /// counter is full again. An attempt that is sent twice in a row counts once; if another attempt came in between,
    /// it may count twice.
    async fn count(&self, counter: SharedCounter, how: CounterUse) -> Result<Option<Duration>, StoreError>;

    /// Counts an attempt with several counters, in their order: with all of them, or with none if one of them refuses.
    /// If the name of `caller` is remembered, only the caller's own counter takes the attempt. A store may do this in
    /// one round trip. Repetitions count as with [`count`](Self::count).
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

    /// Remembers a name for this long, for all nodes. A repeated call restarts the time.
    async fn remember(&self, name: [u8; 16], lifetime: Duration) -> Result<(), StoreError>;

    /// Is the name [remembered](Self::remember)?
    async fn remembers(&self, name: [u8; 16]) -> Result<bool, StoreError>;

    /// The nodes that were heard of within [`NODE_HEARD_WITHIN`], by the store's time, because their feeds asked for
    /// the end of the revocations. A node that has ended is still listed for that time.
    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.nodes_within(NODE_HEARD_WITHIN).await
    }

    /// The nodes that were heard of within this time, as far as they are remembered: for [`NODE_KEPT`], or at least for an
    /// hour while there are more than a thousand.
    async fn nodes_within(&self, within: Duration) -> Result<Vec<NodeSeen>, StoreError>;

    /// Loads a session that is about to be revoked: requests that already wait for the store do not delay this one.
    async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.load(id).await
    }

    /// Waits until everything that this handle has read is as durable as an acknowledged write. Another request's write
    /// may be readable before it is acknowledged.
    async fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Follows the revocations that any node writes, from `from` on.
    async fn follow(&self, from: Cursor, follow: Follow) -> Result<Box<dyn Feed>, StoreError>;

    /// Adopts the data in its present state, after a feed reported that writes were [lost](FeedStep::lost), or because
    /// the node noticed the loss itself. The first node gives the data a new history, which the other nodes adopt. From
    /// then on, every operation of a node with another history fails and does nothing, until this node adopts the data,
    /// too.
    async fn adopt(&self) -> Result<(), StoreError>;

    /// Writes records back that the store may have lost: records that this node wrote and that were acknowledged. A
    /// record is written only if it is later than the stored one (by generation, then revision), if no node has changed
    /// the session since the data was adopted, and if no revocation ends the session. A record that another node wrote
    /// back does not count as changed: if two nodes write a session back, the later record stays, in whatever order
    /// they write. Returns the number of written records, which the store lacked.
    async fn restore(&self, records: Vec<Session>) -> Result<usize, StoreError>;

    /// Reports that this node has written back its knowledge, and asks whether the other nodes have done the same.
    async fn restoration(&self, patience: Duration) -> Result<Restoration, StoreError>;

    /// Does the session's record date from before the last adoption, because it was kept or written back? A token ahead
    /// of such a record is no sign of a further loss.
    async fn predates_loss(&self, id: SessionId) -> Result<bool, StoreError>;

    /// The session's record, if the last write of it was a swap of this handle that ended with an error, in doubt, and
    /// no token of it was confirmed since. Then the client repeats its own refresh, and no other client has the tokens.
    async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let _ = id;
        Ok(None)
    }

    /// Notes that the client now has the tokens of a swap in doubt. A later repeat of the refresh is a reuse, not a
    /// retry.
    fn resolved(&self, id: SessionId) {
        let _ = id;
    }
}

/// Counts an attempt with one counter after the other, and gives back what it took if one refuses. Returns the place of
/// that counter, and how long to wait.
///
/// # Errors
/// The errors of the store.
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

/// How far the nodes have written back the lost writes of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// When the data was adopted last, by the store's clock; [`Timestamp::ZERO`] if it never was.
    pub adopted: Timestamp,
    /// Whether every node that was heard of before the loss has written back its knowledge, or has had the `patience`
    /// as time for it. The operations of a node that returns later are refused until it has adopted the data.
    pub is_complete: bool,
}

/// How a node follows a store.
#[derive(Clone)]
pub struct Follow {
    /// The node's clocks.
    pub time: Arc<dyn TimeSource>,
    /// How often the node asks for the end of the revocations.
    pub every: Duration,
    /// The row about itself that the node sends with each question.
    pub row: Arc<LiveRow>,
}

/// The revocations of a shared store, as nodes write them.
#[async_trait]
pub trait Feed: fmt::Debug + Send {
    /// Waits for the next step. While the store answers, the next complete step comes within about [`Follow::every`].
    ///
    /// # Errors
    /// The store does not answer. The next call pauses, tries again, and continues at the same position.
    async fn next(&mut self) -> Result<FeedStep, StoreError>;
}

/// One step of a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedStep {
    /// Entries, in the order in which they may be applied. An entry may come again.
    pub entries: Vec<Revocation>,
    /// The proof that the node knows everything that was acknowledged before it asked; `None` if more entries follow.
    pub complete: Option<Heard>,
    /// The store has lost writes that it had acknowledged, or another node has noticed a loss. The node must call
    /// [`SharedStore::adopt`]; until then no step is complete.
    pub lost: bool,
}

/// The proof of a complete step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The node's [monotonic clock](TimeSource::monotonic) before the question.
    pub asked: Duration,
    /// The node's monotonic clock after the answer.
    pub answered: Duration,
    /// The store's time in the answer.
    pub store_time: Timestamp,
}

/// How long a gate continues without news from a shared store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// The longest time for which a revocation that was acknowledged at another gate may be unknown at this gate.
    /// Without news for longer, no token is issued.
    pub limit: Duration,
    /// The longest time without news for which requests with a token pass: [`limit`](Self::limit), unless the operator
    /// prefers availability.
    pub served: Duration,
}

impl Staleness {
    /// The shortest [`limit`](Self::limit).
    pub const SHORTEST: Duration = Duration::from_millis(500);
    /// The longest [`limit`](Self::limit).
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// No token passes for longer than `limit` without news of the store.
    pub const fn deny_after(limit: Duration) -> Self {
        Self { limit, served: limit }
    }

    /// Are both times in the range that a gate accepts?
    pub fn is_sound(&self) -> bool {
        (Self::SHORTEST..=Self::LONGEST).contains(&self.limit) && self.served >= self.limit
    }

    /// How often a node asks: a few times within [`limit`](Self::limit).
    pub fn every(&self) -> Duration {
        self.limit / 4
    }

    /// The shortest [`limit`](Self::limit) for a store at this round-trip time. A proof is one round trip old when it
    /// arrives, and the next question follows a quarter of the limit later. The rest of the limit is a reserve for slow
    /// round trips.
    pub fn needed_for(round_trip: Duration) -> Duration {
        (round_trip * 4).max(Self::SHORTEST)
    }
}

impl Default for Staleness {
    fn default() -> Self {
        Self::deny_after(Duration::from_secs(2))
    }
}

//! The row that each node sends about itself whenever it contacts the store, for the other nodes and for operators.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::fault::StoreError;

/// A node that has not contacted the store for this long does not count as running.
pub const NODE_HEARD_WITHIN: Duration = Duration::from_secs(300);
/// A node is remembered for this long, which is one hour longer than a day. A day is the longest default lifetime of
/// access tokens.
pub const NODE_KEPT: Duration = Duration::from_secs(25 * 3600);

/// The row that a node sends about itself. The row does not contain secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRow {
    /// The name of the node, for people.
    pub node: Box<str>,
    /// The key ids (`kid`) with which the node can verify access tokens.
    pub kids: Vec<Box<str>>,
    /// The key id (`kid`) with which the node signs.
    pub signing: Box<str>,
    /// The ids of the secrets with which the node can verify refresh tokens.
    pub refresh_keys: Vec<u8>,
    /// Digests that distinguish these secrets from other secrets with the same ids. Empty in rows from versions that
    /// did not send them.
    pub refresh_prints: Vec<Box<str>>,
    /// The id of the secret with which the node makes refresh tokens. `None` in rows from versions that did not send
    /// it.
    pub refresh_current: Option<u8>,
    /// The time since which the node has these keys, in milliseconds since 1970 by the store's clock.
    pub keys_since: u64,
    /// A fingerprint of all keys and their uses. Nodes with equal keys have equal fingerprints.
    pub keyring: Box<str>,
    /// A digest of the users file, if the users are in a file.
    pub users: Option<Box<str>>,
}

impl NodeRow {
    /// Encodes the row for a store. Later versions may add members.
    ///
    /// # Errors
    /// Does not fail for a row that a gate made.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|error| StoreError::caused_by("a node's row cannot be written", error))
    }

    /// Decodes the bytes of [`encode`](Self::encode), from this version or another one.
    ///
    /// # Errors
    /// The bytes are not such a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| StoreError::caused_by("a node's row cannot be read", error))
    }
}

/// A node that has contacted the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// The last row that the node sent.
    pub row: NodeRow,
    /// The time, by the store's clock, at which the node last read the feed.
    pub beat: Timestamp,
}

/// A node's own row, which its feed sends with each request.
#[derive(Debug, Default)]
pub struct LiveRow(ArcSwap<NodeRow>);

impl LiveRow {
    /// The present row.
    pub fn get(&self) -> Arc<NodeRow> {
        self.0.load_full()
    }

    /// Changes the row. The closure may run more than once.
    pub fn change(&self, change: impl Fn(&mut NodeRow)) {
        self.0.rcu(|row| {
            let mut row = NodeRow::clone(row);
            change(&mut row);
            row
        });
    }
}

//! The row that each node sends about itself when it contacts the store.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::fault::StoreError;

/// A node without contact for this long does not count as running.
pub const NODE_HEARD_WITHIN: Duration = Duration::from_secs(300);
/// How long a node's row is kept: an hour longer than the longest default lifetime of access tokens.
pub const NODE_KEPT: Duration = Duration::from_secs(25 * 3600);

/// A node's row about itself, without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRow {
    /// The node's human-readable name.
    pub node: Box<str>,
    /// The `kid` of every key that verifies access tokens.
    pub kids: Vec<Box<str>>,
    /// The `kid` of the key that signs.
    pub signing: Box<str>,
    /// The ids of the secrets that verify refresh tokens.
    pub refresh_keys: Vec<u8>,
    /// Digests of the refresh secrets, because two secrets may have the same id. Empty in rows of older versions.
    pub refresh_prints: Vec<Box<str>>,
    /// The id of the secret for new refresh tokens. `None` in rows of older versions.
    pub refresh_current: Option<u8>,
    /// When the node got these keys, in milliseconds since 1970 by the store's clock.
    pub keys_since: u64,
    /// A fingerprint of all keys and their uses.
    pub keyring: Box<str>,
    /// A digest of the users file, if the users are in a file.
    pub users: Option<Box<str>>,
}

impl NodeRow {
    /// Encodes the row for a store. Later versions may add members.
    ///
    /// # Errors
    /// The encoding never fails for a row that a gate made.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|error| StoreError::caused_by("a node's row cannot be written", error))
    }

    /// Decodes a row of any version.
    ///
    /// # Errors
    /// The bytes are not a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| StoreError::caused_by("a node's row cannot be read", error))
    }
}

/// A node that has contacted the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// The node's last row.
    pub row: NodeRow,
    /// When the node last read the feed, by the store's clock.
    pub beat: Timestamp,
}

/// A node's own row, sent with each request of the feed.
#[derive(Debug, Default)]
pub struct LiveRow(ArcSwap<NodeRow>);

impl LiveRow {
    /// The current row.
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

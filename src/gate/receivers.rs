//! The operations that receivers of security events need: ended sessions, and the keys that sign their events.

use std::sync::Arc;

use serde_json::Value;

use super::Gate;
use rotogate_core::clock::Timestamp;
use rotogate_core::engine::ended::{End, EndPlace, EndedBatch};
use rotogate_core::store::{Cursor, StoreError};

#[cfg(feature = "program")]
impl Gate {
    /// The ends that were written after this position, and the position after the last of them.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn ended_since(&self, after: Cursor) -> Result<(EndedBatch, Cursor), StoreError> {
        self.0.engine.ended_since(after).await
    }

    /// The next ended sessions of these clients, and the position of the following ones; `None` at the end.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn next_ends(
        &self,
        batch: &EndedBatch,
        clients: &[Box<str>],
        place: EndPlace,
    ) -> Result<(Vec<End>, Option<EndPlace>), StoreError> {
        self.0.engine.next_ends(batch, clients, place).await
    }

    /// When the data of the store was adopted last. An adoption invalidates earlier positions.
    pub fn adopted(&self) -> Timestamp {
        self.0.engine.adopted()
    }

    /// Publishes these keys (RFC 7517) beside those of the keyring. The gate accepts no token that these keys signed.
    // Requirement S27.
    pub fn publish_event_keys(&self, keys: Vec<Value>) {
        self.0.running.event_keys.store(Arc::new(keys));
    }

    /// Does the key ring have this key? Such a key signs access tokens, and must not sign events.
    // Requirement S27.
    pub fn signs_with(&self, key: &Value) -> bool {
        let keys = self.0.engine.keyring().jwks();
        keys["keys"].as_array().is_some_and(|all| all.iter().any(|own| !own["n"].is_null() && own["n"] == key["n"]))
    }
}

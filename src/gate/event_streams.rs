//! What the streams of security events need of a gate: `rotogate-signals`.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::Gate;
use crate::dialect::events::Notice;
use rotogate_core::clock::Timestamp;
use rotogate_core::engine::{ExpectedEvents, Origin};
use rotogate_core::fault::Error;
use rotogate_core::store::relay::RelayStore;
use rotogate_core::token::verify::{EventProtocol, SentNotice};

impl Gate {
    /// Judges a security event token that the gate itself fetched from the issuer with this name, and puts its effect in
    /// force: durable when this returns.
    ///
    /// # Errors
    /// The event is refused, or nothing was decided.
    pub async fn take_event(&self, issuer: &str, audience: &[Box<str>], token: SecretString) -> Result<(), Error> {
        // The rules may have been replaced since this gate was made.
        let gate = self.0.running.in_force().unwrap_or_else(|| Arc::clone(&self.0));
        let protocol = EventProtocol::SecurityEvents;
        let read = gate.checker.verify_notice(SentNotice { protocol, issuer, audience, token: token.expose_secret() });
        let (issuer, audience) = (issuer.into(), audience.into());
        let notice = Notice { protocol, issuer, audience, is_authenticated: true, token: Ok(token) };
        gate.take_notice(&notice, read, &Origin::default()).await
    }

    /// The time of the engine, on which all gates of a store agree.
    pub fn engine_time(&self) -> Timestamp {
        self.0.engine.clock().now()
    }

    /// Names what knows the states of verification events. The first call counts.
    pub fn expect_events(&self, expected: Arc<dyn ExpectedEvents>) {
        let _ = self.0.running.expected_events.set(expected);
    }

    /// The store of records besides sessions, if the gate has one.
    pub fn records(&self) -> Option<Arc<dyn RelayStore>> {
        self.0.running.records.clone()
    }

    /// The seal of a record under each secret of the keyring, the current one first.
    pub fn record_seals(&self, message: &[u8]) -> Vec<Vec<u8>> {
        let seals = self.0.engine.keyring().refresh_keys().relay_secrets(message);
        seals.iter().map(|seal| seal.as_ref().to_vec()).collect()
    }
}

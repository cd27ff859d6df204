//! Whether the caller of a long connection may still be there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use http::request::Parts;
use secrecy::{ExposeSecret, SecretString};

use super::Inner;
use crate::credential::{self, Credential, Places};
use crate::denial::Denial;

/// The token that a connection was opened with, to be looked at again. In the extensions of a request with a token that
/// asks for an upgrade, on a route that passes upgrades.
#[derive(Clone)]
pub struct Lease {
    gate: Arc<Inner>,
    token: Arc<SecretString>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease(…)")
    }
}

impl Lease {
    /// Takes the token of a request that is for an upgrade. To be called before credentials are removed.
    pub(super) fn of(gate: &Arc<Inner>, parts: &Parts, places: Places<'_>) -> Option<Self> {
        if !parts.headers.contains_key(UPGRADE) {
            return None;
        }
        let found = credential::extract_from(&parts.headers, parts.uri.query(), places).ok()??;
        Some(Self { gate: Arc::clone(gate), token: Arc::new(SecretString::from(found.token.into_owned())) })
    }

    /// Is the token good now?
    ///
    /// # Errors
    /// Why it is not: it expired, or was revoked.
    pub fn check(&self) -> Result<(), Denial> {
        let credential = Credential::new(self.token.expose_secret());
        self.gate.checker.check(credential, self.gate.engine.confirmations()).map(drop)
    }

    /// Waits until it is not, or the gate is about to stop, and says why. Looks every so often.
    pub async fn ended(&self, every: Duration) -> &'static str {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.gate.closed() => return "closing",
            }
            if let Err(denial) = self.check() {
                return denial.reason();
            }
        }
    }
}

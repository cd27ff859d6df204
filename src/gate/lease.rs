//! Whether the caller of a long connection may still be there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use http::request::Parts;
use secrecy::{ExposeSecret, SecretString};

use super::Inner;
use crate::clock::Timestamp;
use crate::credential::{self, Credential, Places};
use crate::denial::Denial;
use crate::session::lineage::Line;
use crate::verified::Verified;

/// What a connection hangs on: the token that it was opened with, and the session behind it. In the extensions of a
/// request with a token that asks for an upgrade, on a route that passes upgrades.
///
/// A rotation carries it on, to the end of the new token's life, also where it ends the old token. A reissue ends what
/// hangs on a generation that it abandons; a revocation ends all that it matches. No connection outlives
/// [`GateBuilder::max_stream`](super::GateBuilder::max_stream).
#[derive(Clone)]
pub struct Lease {
    gate: Arc<Inner>,
    token: Arc<SecretString>,
    verified: Arc<Verified>,
    line: Option<Arc<Line>>,
    opened: Timestamp,
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
        Self::new(gate, &found.token).ok()
    }

    /// Begins with a token that is good now.
    pub(super) fn new(gate: &Arc<Inner>, token: &str) -> Result<Self, Denial> {
        let verified = gate.checker.check(Credential::new(token), gate.engine.confirmations())?;
        let line = verified.token().session.map(|(id, generation)| gate.engine.lineage().begin(id, generation));
        let token = Arc::new(SecretString::from(token.to_owned()));
        let opened = gate.engine.clock().now();
        Ok(Self { gate: Arc::clone(gate), token, verified, line, opened })
    }

    /// Is it good now?
    ///
    /// # Errors
    /// Why it is not: it expired, or was revoked.
    pub fn check(&self) -> Result<(), Denial> {
        if let Some(carried) = self.carried() {
            return carried;
        }
        let credential = Credential::new(self.token.expose_secret());
        match self.gate.checker.check(credential, self.gate.engine.confirmations()) {
            Ok(_) => Ok(()),
            // A rotation that came in between carries first and revokes then.
            Err(denial) => self.carried().unwrap_or(Err(denial)),
        }
    }

    /// Has the connection lasted as long as any may?
    pub fn is_over(&self) -> bool {
        self.gate.engine.clock().now() >= self.opened.plus(self.gate.max_stream)
    }

    fn carried(&self) -> Option<Result<(), Denial>> {
        let (generation, expires) = self.line.as_ref()?.carried()?;
        Some(self.gate.checker.check_carried(&self.verified, generation, expires))
    }

    /// Does it say no less than another: is it of another session, or of the same, no earlier?
    #[cfg(feature = "kuzzle")]
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        match (&self.line, &other.line) {
            (Some(own), Some(other)) if own.session() == other.session() => own.generation() >= other.generation(),
            _ => true,
        }
    }

    /// Waits until it is good no more, the connection is over, or the gate is about to stop, and says why. Looks every so
    /// often.
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
            if self.is_over() {
                return "max_stream";
            }
        }
    }
}

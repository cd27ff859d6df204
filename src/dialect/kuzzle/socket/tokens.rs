//! The tokens of a connection: the token that is linked to it, and the tokens of its upstream connections.

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::super::super::socket::SocketGate;
use super::super::words;
use super::{ANONYMOUS_TIMEOUT, CloseReason, Session, Stream};
use rotogate_core::denial::Denial;
use rotogate_core::lease::{Lease, LeaseEnd};

/// The token of a connection, for messages without one.
pub(super) struct LinkedToken {
    pub(super) token: SecretString,
    pub(super) by_cookie: bool,
    /// The token's lease, or why the token has no lease: the token was bad when it arrived, or a fault left the check
    /// undecided.
    pub(super) lease: Result<Lease, Denial>,
}

impl LinkedToken {
    pub(super) fn new(gate: &dyn SocketGate, token: SecretString, by_cookie: bool) -> Self {
        let lease = gate.lease(token.expose_secret(), true);
        Self { token, by_cookie, lease }
    }

    /// A token that the gate has just issued.
    pub(super) fn issued(gate: &dyn SocketGate, token: SecretString) -> Self {
        let lease = gate.lease(token.expose_secret(), false);
        Self { token, by_cookie: false, lease }
    }

    /// Is the token not good? An undecided token is checked again (requirement R15).
    fn is_dead(&mut self, gate: &dyn SocketGate) -> bool {
        if self.lease.as_ref().is_err_and(Denial::is_undecided) {
            self.lease = gate.lease(self.token.expose_secret(), false);
        }
        match &self.lease {
            Ok(lease) => matches!(lease.end(), Some(LeaseEnd::Denied(_))),
            Err(denial) => !denial.is_undecided(),
        }
    }
}

impl<S: Stream> Session<S> {
    /// Closes the upstream connections of tokens that are no longer good, and notifies the client. While a token cannot
    /// be checked, the connection stays, and the token's upstream connection sends nothing (requirement R15): a client that
    /// is notified drops its token.
    pub(super) async fn look(&mut self) -> Result<(), CloseReason> {
        // The SDK reconnects, and opens its subscriptions again.
        if self.upstreams.iter().filter_map(|upstream| upstream.caller.as_ref()).any(|caller| caller.lease.is_over()) {
            return Err(CloseReason::With(CloseCode::Restart));
        }
        self.is_unjudged |= self.gate.has_new_rules();
        if self.is_unjudged {
            match self.judge() {
                Ok(()) => self.is_unjudged = false,
                // The lease is judged again later (requirement R15).
                Err(denial) if denial.is_undecided() => {}
                Err(_) => return Err(CloseReason::With(CloseCode::Restart)),
            }
        }
        let before = self.upstreams.len();
        self.upstreams.retain_mut(|upstream| {
            let end = upstream.caller.as_ref().and_then(|caller| caller.lease.end());
            upstream.is_undecided = matches!(end, Some(LeaseEnd::Undecided(_)));
            !matches!(end, Some(LeaseEnd::Denied(_)))
        });
        let is_unlinked = self.linked.take_if(|linked| linked.is_dead(&*self.gate)).is_some();
        let is_somebody = self.linked.is_some() || self.upstreams.iter().any(|upstream| upstream.caller.is_some());
        self.anonymous = (!is_somebody).then(|| self.anonymous.unwrap_or_else(Instant::now));
        // On a route that requires no token, the connection needs no token either.
        if self.anonymous.is_some_and(|since| since.elapsed() > ANONYMOUS_TIMEOUT) && self.gate.judge(None).is_err() {
            return Err(CloseReason::With(CloseCode::Policy));
        }
        // A client that logged in on another connection has no linked token on this one, and must still be notified.
        if is_unlinked || self.upstreams.len() < before {
            self.send(words::token_expired()).await?;
        }
        Ok(())
    }

    /// Judges the connection and its upstream connections by the rules in force. Messages from the upstream pass
    /// without a call that could be judged.
    ///
    /// # Errors
    /// Why the connection must end. An undecided denial counts only if no other denial applies.
    fn judge(&self) -> Result<(), Denial> {
        if !self.gate.is_served() {
            return Err(Denial::NoRoute);
        }
        let mut undecided = Ok(());
        for upstream in &self.upstreams {
            match self.gate.judge(upstream.caller.as_ref().map(|caller| &caller.lease)) {
                Ok(()) => {}
                Err(denial) if denial.is_undecided() => undecided = Err(denial),
                Err(denial) => return Err(denial),
            }
        }
        undecided
    }
}

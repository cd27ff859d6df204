use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::super::super::socket::SocketGate;
use super::super::words;
use super::{ANONYMOUS_TIMEOUT, CloseReason, Session, Stream};
use rotogate_core::denial::Denial;
use rotogate_core::lease::{Lease, LeaseEnd};

/// This token applies to messages without a token.
pub(super) struct LinkedToken {
    pub(super) token: SecretString,
    pub(super) by_cookie: bool,
    /// Whether the client sent the token. If not, the gate has just issued the token.
    is_presented: bool,
    /// The token's lease, or why the token is invalid or could not be checked.
    pub(super) lease: Result<Lease, Denial>,
}

impl LinkedToken {
    pub(super) fn new(gate: &dyn SocketGate, token: SecretString, by_cookie: bool) -> Self {
        let lease = gate.lease(token.expose_secret(), true);
        Self { token, by_cookie, is_presented: true, lease }
    }

    pub(super) fn issued(gate: &dyn SocketGate, token: SecretString) -> Self {
        let lease = gate.lease(token.expose_secret(), false);
        Self { token, by_cookie: false, is_presented: false, lease }
    }

    /// A token that could not be checked before is checked again (requirement R15).
    fn is_dead(&mut self, gate: &dyn SocketGate) -> bool {
        if self.lease.as_ref().is_err_and(Denial::is_undecided) {
            self.lease = gate.lease(self.token.expose_secret(), self.is_presented);
        }
        match &self.lease {
            Ok(lease) => matches!(lease.end(), Some(LeaseEnd::Denied(_))),
            Err(denial) => !denial.is_undecided(),
        }
    }
}

impl<S: Stream> Session<S> {
    /// Closes the upstream connections of tokens that are no longer valid, and notifies the client. While a token
    /// cannot be checked, its upstream messages wait (requirement R15). In the meantime, the client is not notified,
    /// because it would drop its token.
    pub(super) async fn look(&mut self) -> Result<(), CloseReason> {
        if self.upstreams.iter().filter_map(|upstream| upstream.caller.as_ref()).any(|caller| caller.lease.is_over()) {
            return Err(CloseReason::With(CloseCode::Restart));
        }
        self.is_unjudged |= self.gate.has_new_rules();
        if self.is_unjudged {
            match self.judge() {
                Ok(()) => self.is_unjudged = false,
                // The connection is checked again later (requirement R15).
                Err(denial) if denial.is_undecided() => {}
                Err(_) => return Err(CloseReason::With(CloseCode::Restart)),
            }
        }
        let has_dropped = self.drop_upstreams(|upstream| {
            let end = upstream.caller.as_ref().and_then(|caller| caller.lease.end());
            upstream.is_undecided = matches!(end, Some(LeaseEnd::Undecided(_)));
            matches!(end, Some(LeaseEnd::Denied(_)))
        });
        let is_unlinked = self.linked.take_if(|linked| linked.is_dead(&*self.gate)).is_some();
        let is_somebody = self.linked.is_some() || self.upstreams.iter().any(|upstream| upstream.caller.is_some());
        self.anonymous = (!is_somebody).then(|| self.anonymous.unwrap_or_else(Instant::now));
        // If the route does not require a token, the connection does not need one.
        if self.anonymous.is_some_and(|since| since.elapsed() > ANONYMOUS_TIMEOUT) && self.gate.judge(None).is_err() {
            return Err(CloseReason::With(CloseCode::Policy));
        }
        // A client that logged in on another connection has not linked its token to this one, but must be notified.
        if is_unlinked || has_dropped {
            if self.has_lost_calls {
                return Ok(());
            }
            // In front of a server, the server itself tells its clients that a token has expired. Here, another
            // connection may have refreshed the token. A client that reconnects checks its token.
            if self.kuzzle.relay {
                return Err(CloseReason::With(CloseCode::Restart));
            }
            self.send(words::token_expired()).await?;
        }
        Ok(())
    }

    /// Checks the connections against the current rules. Messages from the upstream are not calls, so the gate does not
    /// authorise each of them.
    ///
    /// # Errors
    /// The connection must end. A denial because of a fault is returned only if there is no other denial.
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

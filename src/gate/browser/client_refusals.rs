//! Pauses refreshes at a provider while the provider rejects the gate's client credentials.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::relay::{ProviderReply, oauth};
use rotogate_core::oauth_error::OAuthError;

/// The length of the first pause. Each further refusal doubles the pause.
const FIRST: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// The pause in refreshes after a provider has refused the gate's credentials (`invalid_client`), because every further
/// refresh would be refused as well. A reload of the configuration starts without a pause, because it may bring other
/// credentials.
#[derive(Debug, Default)]
pub(in crate::gate) struct ClientRefusals(Mutex<Option<Paused>>);

#[derive(Clone, Copy, Debug)]
struct Paused {
    /// When the refusal arrived.
    since: Instant,
    until: Instant,
    delay: Duration,
}

impl ClientRefusals {
    fn paused(&self) -> std::sync::MutexGuard<'_, Option<Paused>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Checks whether a refresh may be sent to the provider now. After a pause, one refresh is sent, and the others
    /// wait for another pause.
    ///
    /// # Errors
    /// The time until the pause ends.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        match &mut *self.paused() {
            Some(paused) if now < paused.until => Err(paused.until - now),
            Some(paused) => {
                paused.until = now + paused.delay;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Records the provider's response. The response was received at `now`, for a refresh that was sent at `sent`.
    pub(super) fn note(&self, reply: &ProviderReply, sent: Instant, now: Instant) {
        let mut paused = self.paused();
        let error = oauth::error(reply);
        let is_refusal = match error.as_deref().map(OAuthError::read) {
            // Whatever the status of this refusal is, it concerns only one refresh token or one user.
            Some(OAuthError::Grant | OAuthError::User) => false,
            Some(OAuthError::Client) => error.as_deref() != Some("unauthorized_client"),
            _ => reply.status == 401,
        };
        match *paused {
            _ if !is_refusal => *paused = None,
            // If the refresh was sent before the pause began, its response does not extend the pause.
            Some(known) if sent < known.since => {}
            known => {
                let delay = known.map_or(FIRST, |known| (known.delay * 2).min(LONGEST));
                *paused = Some(Paused { since: now, until: now + delay, delay });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn reply(status: u16, error: &str) -> ProviderReply {
        let body = Zeroizing::new(format!("{{\"error\":\"{error}\"}}").into_bytes());
        ProviderReply { status, retry_after: None, challenge: None, dpop_nonce: None, body }
    }

    #[test]
    fn b40_a_provider_that_refuses_the_gate_is_asked_once_a_pause_which_grows_to_a_minute() {
        let (refusals, begun) = (ClientRefusals::default(), Instant::now());
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(refusals.admit(begun), Ok(()));
        // Two refreshes that were under way at the same time begin only one pause.
        for _ in 0..2 {
            refusals.note(&reply(400, "invalid_client"), begun, after(1));
        }
        assert_eq!(refusals.admit(after(2)), Err(Duration::from_secs(4)));
        let (mut asked, mut last) = (Vec::new(), 1);
        for second in 2..300 {
            if refusals.admit(after(second)).is_ok() {
                assert!(refusals.admit(after(second)).is_err(), "one asks");
                refusals.note(&reply(401, ""), after(second), after(second));
                asked.push(second - last);
                last = second;
            }
        }
        assert_eq!(asked, [5, 10, 20, 40, 60, 60, 60]);
        // Any other response shows that the provider accepts the gate's credentials again.
        refusals.note(&reply(400, "invalid_grant"), after(300), after(300));
        assert_eq!(refusals.admit(after(300)), Ok(()));
        // A refusal that ends one session does not pause the refreshes of other sessions.
        refusals.note(&reply(401, "invalid_grant"), after(300), after(300));
        assert_eq!(refusals.admit(after(300)), Ok(()));
        refusals.note(&reply(401, ""), after(300), after(301));
        assert_eq!(refusals.admit(after(302)), Err(Duration::from_secs(4)), "it begins anew");
    }
}

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::relay::{ProviderReply, oauth};
use rotogate_core::oauth_error::OAuthError;

/// Each further refusal doubles the pause.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// Pauses refreshes after the provider has refused the gate's credentials (`invalid_client`). A reload ends the pause,
/// because the credentials may have changed.
#[derive(Debug, Default)]
pub(in crate::gate) struct ClientRefusals(Mutex<Option<Paused>>);

#[derive(Clone, Copy, Debug)]
struct Paused {
    since: Instant,
    until: Instant,
    delay: Duration,
}

impl ClientRefusals {
    fn paused(&self) -> std::sync::MutexGuard<'_, Option<Paused>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// After a pause, one refresh is sent, and all others wait again.
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

    pub(super) fn note(&self, reply: &ProviderReply, sent: Instant, now: Instant) {
        let mut paused = self.paused();
        let error = oauth::error(reply);
        let is_refusal = match error.as_deref().map(OAuthError::read) {
            // Whatever the status, these codes refuse one refresh token or user, not the client.
            Some(OAuthError::Grant | OAuthError::User) => false,
            Some(OAuthError::Client) => error.as_deref() != Some("unauthorized_client"),
            _ => reply.status == 401,
        };
        match *paused {
            _ if !is_refusal => *paused = None,
            // A refresh that was sent before the pause does not extend the pause.
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
        // Concurrent refreshes begin only one pause.
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
        // Any other response shows that the provider accepts the gate's credentials.
        refusals.note(&reply(400, "invalid_grant"), after(300), after(300));
        assert_eq!(refusals.admit(after(300)), Ok(()));
        // A refusal that ends one session does not pause other sessions' refreshes.
        refusals.note(&reply(401, "invalid_grant"), after(300), after(300));
        assert_eq!(refusals.admit(after(300)), Ok(()));
        refusals.note(&reply(401, ""), after(300), after(301));
        assert_eq!(refusals.admit(after(302)), Err(Duration::from_secs(4)), "it begins anew");
    }
}

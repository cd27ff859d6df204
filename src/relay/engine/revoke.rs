//! The end of a token: its revocation, and what the relay has of it.

use secrecy::ExposeSecret;

use super::flight::Flown;
use super::{Answer, Core, MAX_RETRY_AFTER, RETRY_AFTER, RelaySettings, Source};
use crate::fault::StoreError;
use crate::relay::provider::ProviderReply;
use crate::store::relay::RelayState;

/// Header, payload, signature.
const JWS_PARTS: usize = 3;

impl Core {
    pub(super) async fn revoke(&self, flown: &Flown) -> Answer {
        let RelaySettings { rules, provider, sealer: _ } = &*flown.settings;
        let sent = tokio::time::timeout(rules.timeout, provider.revoke(&flown.presented.request)).await;
        let (accepted, reply) = match sent {
            Ok(Ok(sent)) => sent,
            // A client repeats it, which changes nothing more.
            Ok(Err(error)) => {
                tracing::warn!(endpoint = self.endpoint, %error, "relay: a revocation was not passed on");
                return Answer::unavailable(RETRY_AFTER, "provider_unreachable");
            }
            Err(_) => return Answer::unavailable(RETRY_AFTER, "provider_unreachable"),
        };
        if accepted && let Err(error) = self.forget(flown).await {
            return self.store_failed(error);
        }
        if !accepted && reply.status >= 500 {
            return Answer::unavailable(reply.retry_after.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER), "provider_busy");
        }
        Answer::Reply(reply, Source::Asked)
    }

    async fn forget(&self, flown: &Flown) -> Result<(), StoreError> {
        // The presented token may be an access token itself.
        let presented = flown.presented.token.expose_secret();
        if presented.split('.').count() == JWS_PARTS {
            self.end_tokens.end(presented).await?;
        }
        for keys in &flown.keys {
            let Some(record) = self.store.load_relay(keys.id()).await? else { continue };
            let reply = (record.state == RelayState::Done).then(|| keys.open(&record)).flatten();
            let reply = reply.as_deref().and_then(|bytes| ProviderReply::decode(bytes));
            if let Some(token) = reply.and_then(|reply| flown.settings.provider.access_token(&reply)) {
                self.end_tokens.end(&token).await?;
            }
            self.store.remove_relay(keys.id(), None).await?;
        }
        Ok(())
    }
}

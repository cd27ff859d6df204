//! Revocation of a token, at the provider and in the relay's store.

use secrecy::ExposeSecret;

use super::flight::Presentation;
use super::{Core, MAX_RETRY_AFTER, RETRY_AFTER, RelayAnswer, RelaySettings, Source};
use crate::relay::provider::ProviderReply;
use crate::relay::record::RelayState;
use rotogate_core::fault::StoreError;
use rotogate_core::session::confirm::token_digest;

/// The number of parts of a JWS: header, payload and signature.
const JWS_PARTS: usize = 3;

impl Core {
    pub(super) async fn revoke(&self, presentation: &Presentation) -> RelayAnswer {
        let RelaySettings { rules, provider, sealer: _ } = &*presentation.settings;
        let sent = tokio::time::timeout(rules.timeout, provider.revoke(&presentation.presented.request)).await;
        let (accepted, reply) = match sent {
            Ok(Ok(sent)) => sent,
            // The client may retry, because a revocation is idempotent.
            Ok(Err(error)) => {
                if let Some(others) = self.is_due("not_revoked") {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        %error,
                        others,
                        "relay: a revocation could not be forwarded to the provider"
                    );
                }
                return RelayAnswer::unavailable(RETRY_AFTER, "provider_unreachable");
            }
            Err(_) => return RelayAnswer::unavailable(RETRY_AFTER, "provider_unreachable"),
        };
        if accepted && let Err(error) = self.forget(presentation).await {
            return self.store_failed(error);
        }
        if !accepted && reply.status >= 500 {
            return RelayAnswer::unavailable(
                reply.retry_after.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER),
                "provider_busy",
            );
        }
        RelayAnswer::Reply(reply, Source::Asked)
    }

    async fn forget(&self, presentation: &Presentation) -> Result<(), StoreError> {
        // The presented token may be an access token instead of a refresh token.
        let presented = presentation.presented.token.expose_secret();
        if presented.split('.').count() == JWS_PARTS {
            self.end_tokens.end(presented, true).await?;
        }
        for keys in &presentation.keys {
            let Some(record) = self.record(keys.id()).await? else { continue };
            let reply = (record.state == RelayState::Done).then(|| keys.open(&record)).flatten();
            let reply = reply.as_deref().and_then(|bytes| ProviderReply::decode(bytes));
            if let Some(token) = reply.and_then(|reply| presentation.settings.provider.access_token(&reply)) {
                self.end_tokens.end(&token, false).await?;
            }
            self.remove_record(keys.id(), None).await?;
        }
        // An attempt keeps its reply before it replaces its record. An attempt that keeps its reply from now on finds
        // that the record was removed.
        self.forget_kept(presentation).await?;
        self.used(&presentation.settings, &token_digest(presented)).await
    }
}

//! Replies whose access token only the issuer can read, by introspection.

use super::flight::Presentation;
use super::kept::Keeping;
use super::{Core, RelaySettings};
use crate::relay::provider::ProviderReply;
use crate::relay::record::RelayRecord;
use crate::relay::seal::RelayKeys;

impl Core {
    /// Returns whether the gate can read the reply's access token without its issuer.
    pub(super) fn is_readable(&self, presentation: &Presentation, reply: &ProviderReply) -> bool {
        let access = presentation.settings.provider.access_token(reply);
        access.is_some_and(|access| self.end_tokens.claims(&access).is_some())
    }

    pub(super) async fn learn(&self, presentation: &Presentation, reply: &ProviderReply) {
        let RelaySettings { rules, provider, sealer: _ } = &*presentation.settings;
        let is_wanted = rules.lost_response_window > rules.grace && presentation.presented.keep_until.is_none();
        if is_wanted && let Some(access) = provider.access_token(reply) {
            self.end_tokens.learn(&access).await;
        }
    }

    /// Keeps a reply whose access token only its issuer can read. The record with the reply is durable, so the client
    /// can get the reply again while the issuer is asked.
    pub(super) async fn keep_learned(
        &self,
        presentation: &Presentation,
        keys: &RelayKeys,
        intent: &RelayRecord,
        reply: &ProviderReply,
    ) {
        self.learn(presentation, reply).await;
        if self.keep_until_used(presentation, keys, reply, None).await != Keeping::Kept {
            return;
        }
        // A revocation removes the record first, and then the kept reply.
        let is_ours = |record: RelayRecord| (record.owner, record.attempt) == (intent.owner, intent.attempt);
        let record = self.record(keys.id()).await;
        if record.is_ok_and(|record| !record.is_some_and(is_ours)) {
            self.unkeep(presentation, keys, reply).await;
        }
    }
}

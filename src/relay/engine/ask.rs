//! Claims a token, sends the single request to the provider, and stores its outcome.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::flight::{End, Presentation, Sending};
use super::kept::Keeping;
use super::look::Before;
use super::{Core, LEASE_MARGIN, MAX_RETRY_AFTER, RETRY_AFTER, RelayRules, RelaySettings};
use crate::relay::provider::{Meaning, ProviderReply, SendError};
use crate::relay::record::{RelayRecord, RelayState};
use crate::relay::seal::{NotSealed, Params, RelayKeys};
use rotogate_core::fault::{Chain, Fault};
use rotogate_core::session::confirm::token_digest;
use rotogate_core::store::StoreError;
use rotogate_core::store::rows::RowVersion;

/// The grace period of a reply without a new refresh token. It is short, because the token remains valid at the
/// provider.
const GRACE_WITHOUT_ROTATION: Duration = Duration::from_secs(10);

impl Core {
    /// Sends the presented token to the provider, or the refresh token of the reply that is kept for it.
    pub(super) async fn attempt(&self, presentation: &Arc<Presentation>, attempt: Sending) -> Result<End, NotSealed> {
        let before = match attempt {
            Sending::Renewal(kept) => return self.renew(presentation, kept).await,
            Sending::Exchange(before) => before,
        };
        // Records durably, before the token is sent, that the client has received the reply with this token.
        let token = token_digest(presentation.presented.token.expose_secret());
        if let Err(error) = self.used(&presentation.settings, &token).await {
            return Ok(self.store_end(error));
        }
        self.send_once(presentation, before).await
    }

    /// Claims the token, sends it to the provider once, and stores the reply.
    pub(super) async fn send_once(
        &self,
        presentation: &Presentation,
        before: Option<Before>,
    ) -> Result<End, NotSealed> {
        let keys = match &before {
            Some(before) => presentation.keys.get(before.place).ok_or(NotSealed)?,
            None => presentation.current()?,
        };
        let RelaySettings { rules, provider, sealer: _ } = &*presentation.settings;
        if let Err(wait) = self.sends.take(keys.id()) {
            return Ok(End::TooMany(wait));
        }
        let before = before.map(|before| before.record);
        // A `Dead` record shows that the provider refused another presenter. It is not an attempt of this presenter.
        let unknown = before.as_ref().filter(|record| record.state != RelayState::Dead);
        let intent = self.intent(rules, keys, &presentation.presented.params, unknown)?;
        match self.claim(keys, before.as_ref(), &intent).await {
            Ok(true) => {}
            Ok(false) => return Ok(End::Again),
            Err(error) => {
                let fault = Fault::Store(error);
                if let Some(others) = self.is_due("no_intent") {
                    let error = Chain(&fault);
                    tracing::error!(
                        endpoint = self.endpoint,
                        ?error,
                        others,
                        "relay: the gate could not record in the store that it would send a token, so it did not \
                         send the token"
                    );
                }
                return Ok(End::Unavailable(fault.retry_after(), fault.reason()));
            }
        }
        if let Some(renewed) = &presentation.renews {
            match self.is_still_kept(renewed).await {
                Ok(true) => {}
                Ok(false) => {
                    self.undo(keys, &intent, unknown).await;
                    return Ok(End::Again);
                }
                Err(error) => {
                    self.undo(keys, &intent, unknown).await;
                    return Ok(self.store_end(error));
                }
            }
        }
        // The intent to send the token is durable, so the token now counts as sent.
        let sent = tokio::time::timeout(rules.timeout, provider.send(&presentation.presented.request)).await;
        let reply = match sent {
            Ok(Ok(reply)) => reply,
            Ok(Err(SendError::NotSent(why))) => {
                if let Some(others) = self.is_due("not_reached") {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        why,
                        others,
                        "relay: the provider could not be reached, so the token was not sent"
                    );
                }
                self.undo(keys, &intent, unknown).await;
                return Ok(End::Unavailable(RETRY_AFTER, "provider_unreachable"));
            }
            Ok(Err(SendError::Lost(why))) => return Ok(self.unknown(rules, keys, &intent, &why).await),
            Err(_) => return Ok(self.unknown(rules, keys, &intent, "timed out").await),
        };
        Ok(self.act_on(presentation, keys, &intent, unknown, reply).await)
    }

    /// Makes the record that is stored before the token is sent.
    fn intent(
        &self,
        rules: &RelayRules,
        keys: &RelayKeys,
        params: &Params,
        unknown: Option<&RelayRecord>,
    ) -> Result<RelayRecord, NotSealed> {
        let now = self.clock.now();
        let lease = now.plus(rules.timeout).plus(LEASE_MARGIN);
        let intent = RelayRecord {
            state: RelayState::Pending,
            attempt: unknown.map_or(1, |record| record.attempt.saturating_add(1)),
            owner: self.owner,
            since: now,
            lease,
            until: lease.plus(rules.grace),
            params: keys.params(params),
            sealed: Vec::new(),
            version: RowVersion::default(),
        };
        keys.seal(intent, &[])
    }

    /// Stores the intent. Returns false if another request has claimed the token first.
    async fn claim(
        &self,
        keys: &RelayKeys,
        before: Option<&RelayRecord>,
        intent: &RelayRecord,
    ) -> Result<bool, StoreError> {
        match before {
            Some(old) => self.replace_record(keys.id(), old.version, intent).await,
            None => self.insert_record(keys.id(), intent).await,
        }
    }

    /// Handles the provider's reply according to its meaning.
    async fn act_on(
        &self,
        presentation: &Presentation,
        keys: &RelayKeys,
        intent: &RelayRecord,
        unknown: Option<&RelayRecord>,
        reply: ProviderReply,
    ) -> End {
        let RelaySettings { rules, provider, sealer: _ } = &*presentation.settings;
        let (token, address) = (&presentation.presented.token, presentation.presented.address);
        match provider.read(token.expose_secret(), &reply) {
            Meaning::Granted { rotates, lifetime } => {
                self.limits.record_valid(address);
                let mut grace = lifetime.map_or(rules.grace, |lifetime| rules.grace.min(lifetime / 2));
                if !rotates {
                    grace = grace.min(GRACE_WITHOUT_ROTATION);
                } else if let Some(until) = presentation.presented.keep_until {
                    grace = until.since(self.clock.now());
                }
                if let Some(renewed) = &presentation.renews {
                    self.keep_renewed(renewed, RelayState::Done, &reply, rotates, grace).await;
                    if !self.remove(keys, intent).await {
                        self.forget_renewed(renewed, &reply).await;
                    }
                    return End::Renewed(reply);
                }
                let keeping = match rotates {
                    true => self.keep_until_used(presentation, keys, &reply, None).await,
                    false => Keeping::NotKept,
                };
                let is_revoked = !self.keep(keys, intent, RelayState::Done, &reply, grace).await;
                if is_revoked {
                    self.unkeep(presentation, keys, &reply).await;
                } else if keeping == Keeping::Unreadable {
                    self.keep_learned(presentation, keys, intent, &reply).await;
                }
                End::Reply(reply)
            }
            Meaning::Dead => {
                self.limits.record_forged(address);
                if let Some(renewed) = &presentation.renews {
                    self.keep_renewed(renewed, RelayState::Dead, &reply, false, rules.grace).await;
                    self.remove(keys, intent).await;
                    return End::Reply(reply);
                }
                self.keep(keys, intent, RelayState::Dead, &reply, rules.grace).await;
                End::Reply(reply)
            }
            refused @ (Meaning::Refused | Meaning::Again) => {
                if refused == Meaning::Refused {
                    self.limits.record_refused(address);
                }
                self.undo(keys, intent, unknown).await;
                End::Reply(reply)
            }
            Meaning::Busy => {
                self.undo(keys, intent, unknown).await;
                End::Unavailable(reply.retry_after.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER), "provider_busy")
            }
            Meaning::Unclear => self.unknown(rules, keys, intent, &format!("status {}", reply.status)).await,
        }
    }

    /// Replaces the intent in the store with the reply. Returns false if a revocation has removed the intent. If the
    /// store fails, the client still gets the reply, because the new tokens already exist.
    async fn keep(
        &self,
        keys: &RelayKeys,
        intent: &RelayRecord,
        state: RelayState,
        reply: &ProviderReply,
        grace: Duration,
    ) -> bool {
        let now = self.clock.now();
        let record = RelayRecord { state, since: now, until: now.plus(grace), ..intent.clone() };
        let sealed = reply.encode().ok_or(NotSealed).and_then(|bytes| keys.seal(record, &bytes));
        match sealed {
            Ok(record) if grace > Duration::ZERO => self.swap(keys, intent, &record).await,
            Ok(_) => self.remove(keys, intent).await,
            Err(error) => {
                tracing::error!(
                    endpoint = self.endpoint,
                    %error,
                    "relay: the provider's reply could not be encrypted for the store, so a retry of the client does \
                     not get it again"
                );
                true
            }
        }
    }

    /// Records that the provider may have rotated the token. The store keeps this record as long as a record with a
    /// reply.
    async fn unknown(&self, rules: &RelayRules, keys: &RelayKeys, intent: &RelayRecord, why: &str) -> End {
        if let Some(others) = self.is_due("no_reply") {
            let (endpoint, attempt) = (&self.endpoint, intent.attempt);
            tracing::warn!(
                endpoint,
                why,
                attempt,
                others,
                "relay: the token was sent to the provider, but no usable reply arrived"
            );
        }
        let now = self.clock.now();
        let until = now.plus(rules.grace);
        let record = RelayRecord { state: RelayState::Unknown, since: now, until, ..intent.clone() };
        if let Ok(record) = keys.seal(record, &[]) {
            self.swap(keys, intent, &record).await;
        }
        End::Unavailable(RETRY_AFTER, "relay_unknown")
    }

    /// Restores the earlier record, because this attempt did not rotate the token.
    async fn undo(&self, keys: &RelayKeys, intent: &RelayRecord, unknown: Option<&RelayRecord>) {
        let Some(unknown) = unknown else {
            self.remove(keys, intent).await;
            return;
        };
        let (attempt, until) = (unknown.attempt, unknown.until);
        let record =
            RelayRecord { state: RelayState::Unknown, attempt, since: self.clock.now(), until, ..intent.clone() };
        if let Ok(record) = keys.seal(record, &[]) {
            self.swap(keys, intent, &record).await;
        }
    }

    /// Replaces the intent. Returns false if a revocation has removed the intent.
    async fn swap(&self, keys: &RelayKeys, intent: &RelayRecord, record: &RelayRecord) -> bool {
        match self.replace_record(keys.id(), intent.version, record).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!(
                    endpoint = self.endpoint,
                    "relay: a revocation has already removed the record of a token"
                );
                return false;
            }
            Err(error) => self.not_stored(&error),
        }
        true
    }

    pub(super) fn not_stored(&self, error: &StoreError) {
        tracing::error!(
            endpoint = self.endpoint,
            error = ?Chain(error),
            "relay: the outcome of sending a token to the provider could not be stored"
        );
    }

    /// Removes the intent. Returns false if a revocation has removed it.
    async fn remove(&self, keys: &RelayKeys, intent: &RelayRecord) -> bool {
        let removed = self.remove_record(keys.id(), Some(intent.version)).await;
        if let Err(error) = &removed {
            tracing::error!(
                endpoint = self.endpoint,
                error = ?Chain(error),
                "relay: the record of a token could not be removed from the store"
            );
        }
        removed.unwrap_or(true)
    }

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

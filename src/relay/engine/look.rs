//! The first step: reads the record of a token.

use std::time::Duration;

use super::flight::Presentation;
use super::kept::Kept;
use super::{AfterUnknown, Core, RelayAnswer, Source};
use crate::relay::provider::ProviderReply;
use crate::relay::record::{RelayRecord, RelayState};
use crate::relay::seal::RelayKeys;
use secrecy::ExposeSecret;

use rotogate_core::clock::Timestamp;
use rotogate_core::fault::StoreError;
use rotogate_core::session::confirm::token_digest;

/// The record that the intent will replace, and the index of its keys.
pub(super) struct Before {
    pub(super) place: usize,
    pub(super) record: RelayRecord,
}

/// The state of a token in the store.
pub(super) enum Known {
    Answer(RelayAnswer),
    /// An attempt is pending. Its lease ends after this time.
    Pending(Duration),
    /// The token may be sent.
    Ask(Option<Before>),
    /// This reply is kept for the token, and the reply's own tokens were not used.
    Renew(Kept),
}

impl Core {
    /// Reads the state of a token from the store.
    pub(super) async fn known(&self, presentation: &Presentation) -> Result<Known, StoreError> {
        if let Some(known) = self.recorded(presentation).await? {
            return Ok(known);
        }
        let kept = self.kept(presentation).await?;
        Ok(kept.map_or(Known::Ask(None), Known::Renew))
    }

    /// Implements [`Relay::stored`](super::Relay::stored).
    pub(super) async fn stored(&self, presentation: &Presentation) -> Result<Option<ProviderReply>, RelayAnswer> {
        match self.known(presentation).await.map_err(|error| self.store_failed(error))? {
            Known::Answer(RelayAnswer::Reply(reply, _)) if self.is_granted(presentation, &reply) => Ok(Some(reply)),
            Known::Renew(kept) if !self.has_ended(&kept) => Ok(Some(kept.reply)),
            // A refresh would get the same answer, and the client must not take the token for dead.
            Known::Answer(answer @ RelayAnswer::Unavailable { .. }) => Err(answer),
            Known::Pending(left) => Err(RelayAnswer::unavailable(left, "relay_pending")),
            Known::Answer(_) | Known::Renew(_) => Ok(None),
            Known::Ask(_) => {
                let token = token_digest(presentation.presented.token.expose_secret());
                let used = self.used(&presentation.settings, &token).await;
                used.map(|()| None).map_err(|error| self.store_failed(error))
            }
        }
    }

    /// Reads the record of a token from the store.
    pub(super) async fn recorded(&self, presentation: &Presentation) -> Result<Option<Known>, StoreError> {
        for (place, keys) in presentation.keys.iter().enumerate() {
            if let Some(record) = self.record(keys.id()).await? {
                let now = self.clock.now();
                if record.until > now {
                    // A reply is kept before it replaces the record of the attempt. In between, the process may have
                    // ended.
                    if self.is_undecided(&record, now)
                        && let Some(kept) = self.kept(presentation).await?
                        && kept.since >= record.since
                    {
                        return Ok(Some(repeated(presentation, kept, now)));
                    }
                    return Ok(Some(self.judge(presentation, place, keys, record, now)));
                }
            }
        }
        Ok(None)
    }

    fn judge(
        &self,
        presentation: &Presentation,
        place: usize,
        keys: &RelayKeys,
        record: RelayRecord,
        now: Timestamp,
    ) -> Known {
        let opened = keys.open(&record);
        match record.state {
            RelayState::Done => {
                let Some(reply) = opened.as_deref().and_then(|bytes| ProviderReply::decode(bytes)) else {
                    // This presenter cannot decrypt the reply, because the provider sent the reply to another
                    // presenter.
                    self.audit_refused(presentation, "the token belongs to another client, credential or key");
                    let why = "the token belongs to another client, credential or key";
                    return Known::Answer(RelayAnswer::InvalidGrant(why));
                };
                if keys.params(&presentation.presented.params) != record.params {
                    self.audit_refused(presentation, "the parameters differ from those of the first request");
                    return Known::Answer(RelayAnswer::InvalidScope);
                }
                let reply = presentation.settings.provider.aged(reply, now.since(record.since));
                Known::Answer(RelayAnswer::Reply(reply, Source::Replayed))
            }
            RelayState::Dead => match opened.as_deref().and_then(|bytes| ProviderReply::decode(bytes)) {
                Some(reply) => Known::Answer(RelayAnswer::Reply(reply, Source::Replayed)),
                // The provider refused another client, possibly because of that client's identity. Only the
                // provider can decide about this presenter.
                None => Known::Ask(Some(Before { place, record })),
            },
            RelayState::Pending if !self.is_undecided(&record, now) => Known::Pending(record.lease.since(now)),
            // The lease has expired, so the pending attempt can no longer store its outcome. The outcome therefore
            // stays unknown.
            RelayState::Pending | RelayState::Unknown => {
                let is_same = opened.is_some() && keys.params(&presentation.presented.params) == record.params;
                match presentation.settings.rules.after_unknown {
                    // The earlier attempt had another presenter or other parameters, so its outcome does not apply
                    // here.
                    _ if !is_same => Known::Answer(RelayAnswer::unavailable(record.until.since(now), "relay_unknown")),
                    AfterUnknown::Refuse => {
                        let why = "the token was sent to the provider before, but no complete reply arrived";
                        Known::Answer(RelayAnswer::InvalidGrant(why))
                    }
                    AfterUnknown::TryOnce if record.attempt == 1 => Known::Ask(Some(Before { place, record })),
                    AfterUnknown::Every(pause) => match pause.saturating_sub(now.since(record.since)) {
                        left if record.attempt > 1 && !left.is_zero() => {
                            Known::Answer(RelayAnswer::unavailable(left, "relay_unknown"))
                        }
                        _ => Known::Ask(Some(Before { place, record })),
                    },
                    AfterUnknown::TryOnce => {
                        Known::Answer(RelayAnswer::unavailable(record.until.since(now), "relay_unknown"))
                    }
                }
            }
        }
    }

    /// Reduces the lifetime of a kept reply to the grace period. The reply is not removed at once, because another
    /// gate may have read the token earlier and still present it.
    pub(super) async fn settle(&self, presentation: &Presentation) -> Result<(), StoreError> {
        let now = self.clock.now();
        let until = now.plus(presentation.settings.rules.grace);
        for keys in &presentation.keys {
            let Some(record) = self.record(keys.id()).await? else { continue };
            let Some(reply) = keys.open(&record).filter(|_| record.state == RelayState::Done && record.until > until)
            else {
                continue;
            };
            let before = record.version;
            let record = RelayRecord { until, sealed: Vec::new(), ..record };
            let record = keys.seal(record, &reply).map_err(|error| {
                StoreError::caused_by("the reply with its shorter lifetime could not be encrypted", error)
            })?;
            // In the meantime, another gate may have reduced the lifetime of the record.
            self.replace_record(keys.id(), before, &record).await?;
        }
        Ok(())
    }

    /// Returns whether the attempt has ended without an outcome.
    pub(super) fn is_undecided(&self, record: &RelayRecord, now: Timestamp) -> bool {
        match record.state {
            RelayState::Pending => record.lease <= now || self.is_over(record),
            RelayState::Unknown => true,
            RelayState::Done | RelayState::Dead => false,
        }
    }

    /// Returns whether an earlier process made the attempt. That process has ended, so it will never store the outcome.
    /// This is known only if no other process writes to the store (requirement I56).
    fn is_over(&self, record: &RelayRecord) -> bool {
        self.is_alone && record.owner != self.owner
    }

    fn audit_refused(&self, presentation: &Presentation, why: &'static str) {
        tracing::warn!(
            target: "rotogate::audit",
            event = "relay_refused",
            rotogate.endpoint = self.endpoint,
            client.address = presentation.presented.address.map(tracing::field::display),
            why,
            "relay refused a refresh token",
        );
    }
}

/// The answer to a token whose reply is kept, although its record was not completed.
fn repeated(presentation: &Presentation, kept: Kept, now: Timestamp) -> Known {
    let (settings, passed) = (&presentation.settings, now.since(kept.since));
    if passed >= settings.rules.grace {
        return Known::Renew(kept);
    }
    Known::Answer(RelayAnswer::Reply(settings.provider.aged(kept.reply, passed), Source::Replayed))
}

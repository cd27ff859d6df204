//! The first step: what the store says of a token.

use std::time::Duration;

use super::flight::Flown;
use super::{AfterUnknown, Answer, Core, Source};
use crate::clock::Timestamp;
use crate::fault::StoreError;
use crate::relay::provider::ProviderReply;
use crate::relay::seal::RelayKeys;
use crate::store::relay::{RelayRecord, RelayState};

/// A record that is replaced by the intent to send, and the place of its keys.
pub(super) struct Before {
    pub(super) place: usize,
    pub(super) record: RelayRecord,
}

/// What the store says of a token.
pub(super) enum Known {
    Answer(Answer),
    /// An attempt is under way, if one of this process is.
    Pending(Duration),
    /// It may be sent.
    Ask(Option<Before>),
}

impl Core {
    /// What the store says of a token.
    pub(super) async fn known(&self, flown: &Flown) -> Result<Known, StoreError> {
        for (place, keys) in flown.keys.iter().enumerate() {
            if let Some(record) = self.store.load_relay(keys.id()).await? {
                let now = self.clock.now();
                if record.until > now {
                    return Ok(self.judge(flown, place, keys, record, now));
                }
            }
        }
        Ok(Known::Ask(None))
    }

    fn judge(&self, flown: &Flown, place: usize, keys: &RelayKeys, record: RelayRecord, now: Timestamp) -> Known {
        let opened = keys.open(&record);
        match record.state {
            RelayState::Done => {
                let Some(reply) = opened.as_deref().and_then(|bytes| ProviderReply::decode(bytes)) else {
                    // The provider knew the client that it answered, so this one is another.
                    self.audit_refused(flown, "another client, credential or key");
                    return Known::Answer(Answer::InvalidGrant("of another client, credential or key"));
                };
                if keys.params(&flown.presented.params) != record.params {
                    self.audit_refused(flown, "other parameters");
                    return Known::Answer(Answer::InvalidScope);
                }
                let reply = flown.settings.provider.aged(reply, now.since(record.since));
                Known::Answer(Answer::Reply(reply, Source::Replayed))
            }
            RelayState::Dead => match opened.as_deref().and_then(|bytes| ProviderReply::decode(bytes)) {
                Some(reply) => Known::Answer(Answer::Reply(reply, Source::Replayed)),
                // Said to another client, perhaps because it was another: only the provider knows about this one.
                None => Known::Ask(Some(Before { place, record })),
            },
            RelayState::Pending if record.lease > now => Known::Pending(record.lease.since(now)),
            // An attempt whose owner is gone is unknown once nothing can come of it any more.
            RelayState::Pending | RelayState::Unknown => {
                let is_same = opened.is_some() && keys.params(&flown.presented.params) == record.params;
                match flown.settings.rules.after_unknown {
                    // Nothing was decided on this presenter.
                    _ if !is_same => Known::Answer(Answer::unavailable(record.until.since(now), "relay_unknown")),
                    AfterUnknown::Refuse => Known::Answer(Answer::InvalidGrant("sent before, without a whole reply")),
                    AfterUnknown::TryOnce if record.attempt == 1 => Known::Ask(Some(Before { place, record })),
                    AfterUnknown::TryOnce => {
                        Known::Answer(Answer::unavailable(record.until.since(now), "relay_unknown"))
                    }
                }
            }
        }
    }

    fn audit_refused(&self, flown: &Flown, why: &'static str) {
        tracing::warn!(
            target: "rotogate::audit",
            event = "relay_refused",
            rotogate.endpoint = self.endpoint,
            client.address = flown.presented.address.map(tracing::field::display),
            why,
            "relay refused",
        );
    }
}

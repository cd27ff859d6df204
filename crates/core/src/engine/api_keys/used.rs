//! Updates of key records that are caused by uses of the keys. They are collected in memory and written in batches.

use std::time::Duration;

use super::{ApiKeys, KeyEvent, digest};
use crate::api_key::ApiKey;
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::fault::Error;
use crate::store::StoreError;

/// The period in which several uses of an API key are noted as one use.
const NOTED_EVERY: Duration = Duration::from_secs(3600);
/// The maximum number of keys whose noted uses wait to be written to the store. If this many keys are waiting, the use
/// of a further key is not noted until the key is used again.
const MAX_WAITING: usize = 100_000;

/// The changes to write to a key's record.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyUses {
    at: Timestamp,
    /// The HMAC of the key under the current secret, if the HMAC in the record is under another secret.
    renewed: Option<(u8, [u8; 32])>,
}

impl ApiKeys {
    /// Notes the use of a valid key in memory. [`write_uses`](Self::write_uses) writes the note to the store.
    ///
    /// # Errors
    /// The current secret is missing.
    // Requirement K9.
    pub fn note(&self, engine: &Engine, key: &ApiKey, text: &str) -> Result<(), StoreError> {
        if key.is_replaced {
            self.count(KeyEvent::UsedAfterRotation);
        }
        let (now, keyring) = (engine.clock.now(), engine.keyring());
        let current = keyring.refresh_keys().current();
        let renewed = match key.kid == current {
            true => None,
            false => Some((current, digest(keyring.refresh_keys(), current, text)?)),
        };
        if renewed.is_none() && key.last_used.is_some_and(|last| now < last.plus(NOTED_EVERY)) {
            return Ok(());
        }
        let mut uses = self.uses.lock();
        if uses.len() < MAX_WAITING {
            uses.insert(key.id.clone(), KeyUses { at: now, renewed });
        }
        Ok(())
    }

    /// Writes the noted uses. If a write fails, the next use of the key is noted again.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn write_uses(&self, engine: &Engine) -> Result<(), Error> {
        let noted = std::mem::take(&mut *self.uses.lock());
        for (id, KeyUses { at, renewed }) in noted {
            let written = self
                .change(engine, &id, |key| {
                    let is_due = key.last_used.is_none_or(|last| last.plus(NOTED_EVERY) <= at);
                    if let Some((kid, digest)) = renewed.filter(|_| key.revoked.is_none()) {
                        (key.kid, key.digest) = (kid, digest);
                    }
                    key.last_used = key.last_used.max(Some(at));
                    key.revoked.is_none() && (is_due || renewed.is_some())
                })
                .await?;
            let Some(written) = written else { continue };
            if renewed.is_some() {
                self.count(KeyEvent::Renewed);
                // The row of the owner's keys must also be sealed under the current secret.
                self.change_names(engine, &written.subject, |_| true).await?;
            }
            if let Some(predecessor) = written.predecessor {
                self.change(engine, &predecessor, |key| !std::mem::replace(&mut key.is_replaced, true)).await?;
            }
        }
        Ok(())
    }
}

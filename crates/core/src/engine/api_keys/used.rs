//! Records the uses of API keys in batches.

use std::time::Duration;

use super::{ApiKeys, KeyEvent, digest};
use crate::api_key::ApiKey;
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::fault::Error;
use crate::store::StoreError;

/// At most one use of a key is recorded in this period.
const NOTED_EVERY: Duration = Duration::from_secs(3600);
/// The maximum number of keys with unwritten uses.
const MAX_WAITING: usize = 100_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct KeyUses {
    at: Timestamp,
    /// The secret's id and the new HMAC, if the record's HMAC is outdated.
    renewed: Option<(u8, [u8; 32])>,
}

impl ApiKeys {
    /// Records the use of a valid key until [`write_uses`](Self::write_uses) writes it.
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

    /// Writes the recorded uses to the store. After a failure, the next use of a key is recorded again.
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
                // This rewrite encrypts the list with the current secret.
                self.change_names(engine, &written.subject, |_| true).await?;
            }
            if let Some(predecessor) = written.predecessor {
                self.change(engine, &predecessor, |key| !std::mem::replace(&mut key.is_replaced, true)).await?;
            }
        }
        Ok(())
    }
}

//! The list of each owner's API key ids. Its length limits the number of API keys that an owner can have.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{ApiKeys, KeyRefusal, StoredKey, digest, exposed, next_row, opened, row_of_key, row_of_owner};
use crate::api_key::ApiKey;
use crate::clock::Timestamp;
use crate::engine::{Engine, MAX_TRIES};
use crate::fault::{Error, Fault};
use crate::store::relay::{RelayInserted, RelaySwapped};

/// The maximum number of live keys for each owner.
const MAX_KEYS: usize = 50;
/// The maximum time between adding a key's id to the list and writing the key's record.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// An entry in the list of an owner's keys: the id of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyName {
    pub(super) id: Box<str>,
    /// When the id was added, which happens before the record is written.
    since: Timestamp,
    end: Timestamp,
}

/// The ids of an owner's live keys. They are stored as a JSON list, so the row of an owner cannot be mistaken for a
/// key's record.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct OwnersKeys(pub(super) Vec<KeyName>);

impl ApiKeys {
    /// Writes the record of a new key. Before that, adds the key's id to the list of the owner's keys, which limits the
    /// number of keys.
    pub(super) async fn add(
        &self,
        engine: &Engine,
        key: &mut ApiKey,
        text: &SecretString,
    ) -> Result<Result<(), KeyRefusal>, Error> {
        let keyring = engine.keyring();
        key.kid = keyring.refresh_keys().current();
        key.digest = digest(keyring.refresh_keys(), key.kid, exposed(text))?;
        let name = KeyName { id: key.id.clone(), since: engine.clock.now(), end: key.expires };
        if !self.add_name(engine, &key.subject, &name, &[]).await? {
            let over = self.over(engine, &key.subject).await?;
            if over.is_empty() || !self.add_name(engine, &key.subject, &name, &over).await? {
                return Ok(Err(KeyRefusal::TooMany));
            }
        }
        let at = row_of_key(&key.id);
        let row = next_row(engine, at, None, &*key, key.expires)?;
        match engine.measured(self.store.insert_relay(at, row, key.created)).await? {
            RelayInserted::Inserted => Ok(Ok(())),
            // This does not happen in practice, because ids are random.
            RelayInserted::Present(_) => Err(Fault::Contention.into()),
        }
    }

    /// Removes the ids in `over` from the list, and then adds the new id unless the owner has the maximum number of
    /// keys.
    async fn add_name(&self, engine: &Engine, subject: &str, name: &KeyName, over: &[KeyName]) -> Result<bool, Error> {
        let add = |names: &mut Vec<KeyName>| {
            names.retain(|known| !over.contains(known));
            let is_room = names.len() < MAX_KEYS;
            if is_room {
                names.push(name.clone());
            }
            is_room
        };
        self.change_names(engine, subject, add).await
    }

    /// The ids of an owner's keys that no longer count toward the maximum, because a revocation ended the key or its
    /// record was never written.
    async fn over(&self, engine: &Engine, subject: &str) -> Result<Vec<KeyName>, Error> {
        let mut over = Vec::new();
        for name in self.names(engine, subject).await? {
            let is_over = match self.load(engine, &name.id).await {
                Ok(Some(StoredKey { key, .. })) => !Self::is_in_force(engine, &key),
                Ok(None) => name.since.plus(WRITTEN_WITHIN) < engine.clock.now(),
                // The API key may still be valid at another gate whose keyring has the record's secret.
                Err(error) if error.is_of_one_record() => false,
                Err(error) => return Err(error.into()),
            };
            if is_over {
                over.push(name);
            }
        }
        Ok(over)
    }

    /// The ids of an owner's keys.
    pub(super) async fn names(&self, engine: &Engine, subject: &str) -> Result<Vec<KeyName>, Error> {
        let at = row_of_owner(subject);
        let Some(row) = engine.measured(self.store.load_relay(at)).await? else { return Ok(Vec::new()) };
        let OwnersKeys(names) = opened(engine, at, &row)?;
        Ok(names)
    }

    /// Removes a revoked key from the ids of its owner's keys.
    pub(super) async fn forget(&self, engine: &Engine, key: &ApiKey) -> Result<(), Error> {
        let forget = |names: &mut Vec<KeyName>| {
            let before = names.len();
            names.retain(|name| name.id != key.id);
            names.len() < before
        };
        self.change_names(engine, &key.subject, forget).await.map(drop)
    }

    /// Passes the ids of an owner's unexpired keys to `change`, and stores the changed list unless `change` returns
    /// false.
    pub(super) async fn change_names(
        &self,
        engine: &Engine,
        subject: &str,
        change: impl Fn(&mut Vec<KeyName>) -> bool,
    ) -> Result<bool, Error> {
        let at = row_of_owner(subject);
        for _ in 0..MAX_TRIES {
            let now = engine.clock.now();
            let row = engine.measured(self.store.load_relay(at)).await?;
            // If the secret that sealed this row was removed from the keyring, all keys of the owner are invalid, so
            // the list starts empty.
            let readable = row.as_ref().filter(|row| {
                let kid = row.sealed.first().copied();
                kid.is_none_or(|kid| engine.keyring().refresh_keys().contains(kid))
            });
            let OwnersKeys(mut names) = readable.map(|row| opened(engine, at, row)).transpose()?.unwrap_or_default();
            names.retain(|name| now < name.end);
            if !change(&mut names) {
                return Ok(false);
            }
            let until = names.iter().map(|name| name.end).max().unwrap_or(now);
            let new = next_row(engine, at, row.as_ref(), &OwnersKeys(names), until)?;
            let is_written = match &row {
                Some(old) if old.until > now => {
                    let swapped = engine.measured(self.store.swap_relay(at, old.version(), new)).await?;
                    matches!(swapped, RelaySwapped::Swapped)
                }
                Some(_) | None => {
                    let inserted = engine.measured(self.store.insert_relay(at, new, now)).await?;
                    matches!(inserted, RelayInserted::Inserted)
                }
            };
            if is_written {
                return Ok(true);
            }
        }
        Err(Fault::Contention.into())
    }
}

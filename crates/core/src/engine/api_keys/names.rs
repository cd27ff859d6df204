//! The list of an owner's API keys, which limits their number.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{API_KEYS, ApiKeys, KeyRefusal, StoredKey, digest, exposed, next_row, opened, row_of_key, row_of_owner};
use crate::api_key::ApiKey;
use crate::clock::Timestamp;
use crate::engine::{Engine, MAX_TRIES};
use crate::fault::{Error, Fault};
use crate::store::rows::{RowInserted, RowSwapped};

const MAX_KEYS: usize = 50;
/// The time limit between listing a key's id and writing the key's record.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyName {
    pub(super) id: Box<str>,
    /// When the id was added to the list. The record is written afterwards.
    since: Timestamp,
    end: Timestamp,
}

/// An owner's row is a JSON list, so it cannot be mistaken for a key's record.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct OwnersKeys(pub(super) Vec<KeyName>);

impl ApiKeys {
    /// Adds the id to the owner's list, and then inserts the record.
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
        let row = next_row(engine, at, &*key, key.expires)?;
        match engine.measured(self.store.insert_row(API_KEYS, at, row, key.created)).await? {
            RowInserted::Inserted => Ok(Ok(())),
            // Ids are random, so they do not collide in practice.
            RowInserted::Present(_) => Err(Fault::Contention.into()),
        }
    }

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

    /// Finds the listed keys that are invalid, or have no record.
    async fn over(&self, engine: &Engine, subject: &str) -> Result<Vec<KeyName>, Error> {
        let mut over = Vec::new();
        for name in self.names(engine, subject).await? {
            let is_over = match self.load(engine, &name.id).await {
                Ok(Some(StoredKey { key, .. })) => !Self::is_in_force(engine, &key),
                Ok(None) => name.since.plus(WRITTEN_WITHIN) < engine.clock.now(),
                // Keep the key, because another gate may be able to read the record.
                Err(error) if error.is_of_one_record() => false,
                Err(error) => return Err(error.into()),
            };
            if is_over {
                over.push(name);
            }
        }
        Ok(over)
    }

    pub(super) async fn names(&self, engine: &Engine, subject: &str) -> Result<Vec<KeyName>, Error> {
        let at = row_of_owner(subject);
        let Some(row) = engine.measured(self.store.load_row(API_KEYS, at)).await? else { return Ok(Vec::new()) };
        let OwnersKeys(names) = opened(engine, at, &row)?;
        Ok(names)
    }

    pub(super) async fn forget(&self, engine: &Engine, key: &ApiKey) -> Result<(), Error> {
        let forget = |names: &mut Vec<KeyName>| {
            let before = names.len();
            names.retain(|name| name.id != key.id);
            names.len() < before
        };
        self.change_names(engine, &key.subject, forget).await.map(drop)
    }

    /// Changes the list, unless `change` returns false. Expired keys are dropped.
    pub(super) async fn change_names(
        &self,
        engine: &Engine,
        subject: &str,
        change: impl Fn(&mut Vec<KeyName>) -> bool,
    ) -> Result<bool, Error> {
        let at = row_of_owner(subject);
        for _ in 0..MAX_TRIES {
            let now = engine.clock.now();
            let row = engine.measured(self.store.load_row(API_KEYS, at)).await?;
            // If the keyring lacks this row's secret, none of the owner's keys is valid.
            let readable = row.as_ref().filter(|row| {
                let kid = row.bytes.first().copied();
                kid.is_none_or(|kid| engine.keyring().refresh_keys().contains(kid))
            });
            let OwnersKeys(mut names) = readable.map(|row| opened(engine, at, row)).transpose()?.unwrap_or_default();
            names.retain(|name| now < name.end);
            if !change(&mut names) {
                return Ok(false);
            }
            let until = names.iter().map(|name| name.end).max().unwrap_or(now);
            let new = next_row(engine, at, &OwnersKeys(names), until)?;
            let is_written = match &row {
                Some(old) if old.until > now => {
                    let swapped = engine.measured(self.store.swap_row(API_KEYS, at, old.version, new, now)).await?;
                    matches!(swapped, RowSwapped::Swapped)
                }
                Some(_) | None => {
                    let inserted = engine.measured(self.store.insert_row(API_KEYS, at, new, now)).await?;
                    matches!(inserted, RowInserted::Inserted)
                }
            };
            if is_written {
                return Ok(true);
            }
        }
        Err(Fault::Contention.into())
    }
}

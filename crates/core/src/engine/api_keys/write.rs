//! Creates, replaces, revokes and lists API keys.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::Deserialize;

use super::names::OwnersKeys;
use super::{API_KEYS, ApiKeys, KeyEvent, ScopesOfClient, StoredKey, digest, exposed, is_good, opened};
use crate::api_key::{ApiKey, ApiKeySettings, NewApiKey};
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::directory::is_valid_subject;
use crate::engine::{Engine, audit};
use crate::fault::{Error, Fault};
use crate::revocation::{Effect, REPLACED, Revocation, RevocationList, Target};
use crate::session::{RevokedBecause, Scope, VouchedBy};
use crate::store::StoreError;
use crate::store::rows::{RowKey, RowStore};
use crate::token::claims::CLIENT_PREFIX;

const MAX_NETWORKS: usize = 16;
/// How long a revocation entry outlives its key.
const HELD_FOR: Duration = Duration::from_secs(3600);
const MAX_VOUCHERS: usize = 8;
const MAX_PAGE: usize = 1000;
/// The maximum number of rows that are read for a page.
const MAX_READ: usize = 5000;

/// The names of API key events in the audit trail.
pub const AUDITED: [&str; 4] = ["api_key_created", "api_key_rotated", "api_key_revoked", "api_key_leaked"];

/// Why a key is not created.
///
/// ```
/// use rotogate::gate::KeyRefusal;
///
/// assert_ne!(KeyRefusal::Owner.to_string(), KeyRefusal::Scope.to_string());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub enum KeyRefusal {
    /// The name is empty, too long, or has control characters.
    Name,
    /// The owner is unknown or inactive.
    Owner,
    /// The request names a scope that the owner does not have.
    Scope,
    /// The requested lifetime is too long or too short.
    Lifetime,
    /// The overlap of a rotation is too long.
    Overlap,
    /// The audience is invalid, or there are too many networks.
    Bounds,
    /// The owner has the maximum number of live keys.
    TooMany,
    /// The key is expired, revoked or already replaced.
    Over,
    /// The new record would contain too many external identities.
    Vouched,
}

impl KeyRefusal {
    /// The error message for the caller.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Name => "the name of an API key must have 1 to 100 characters and no control characters",
            Self::Owner => "the user or client does not exist, or is inactive",
            Self::Scope => "the owner does not have all of these scopes",
            Self::Lifetime => "the lifetime is longer than `max_lifetime` in [api_keys], or less than a minute",
            Self::Overlap => "the overlap is longer than the gate allows, 7 days by default",
            Self::Bounds => "the audience must have 1 to 256 visible characters, and at most 16 networks are allowed",
            Self::TooMany => "the owner already has 50 live API keys; revoke one of them first",
            Self::Over => "the API key was revoked or replaced, or has expired",
            Self::Vouched => {
                "at most 8 users of other issuers may create or rotate the same API key; create a new API key instead"
            }
        }
    }
}

/// A page of keys.
///
/// ```
/// use rotogate::gate::ListedKeys;
///
/// fn names(page: &ListedKeys) -> Vec<&str> {
///     page.keys.iter().map(|key| &*key.name).collect()
/// }
/// assert!(names(&ListedKeys::default()).is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct ListedKeys {
    /// The keys, by name.
    pub keys: Vec<ApiKey>,
    /// The cursor of the next page, or `None` on the last page.
    pub next: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) struct Maker {
    pub(super) began: Timestamp,
    pub(super) vouched_by: Option<VouchedBy>,
}

impl ApiKeys {
    /// Creates a key, which is durable on return. The key itself cannot be read later.
    ///
    /// # Errors
    /// A fault. The inner result contains any other reason.
    // Requirements K1, K5, K8.
    pub async fn create(
        &self,
        engine: &Engine,
        new: NewApiKey,
        clients: ScopesOfClient<'_>,
    ) -> Result<Result<(SecretString, ApiKey), KeyRefusal>, Error> {
        self.make(engine, new, clients, None).await
    }

    /// `by` is set if the owner creates the key in a session.
    pub(super) async fn make(
        &self,
        engine: &Engine,
        new: NewApiKey,
        clients: ScopesOfClient<'_>,
        by: Option<Maker>,
    ) -> Result<Result<(SecretString, ApiKey), KeyRefusal>, Error> {
        engine.may_mint()?;
        let longest = self.settings.max_lifetime;
        let lifetime = new.lifetime.unwrap_or(ApiKeySettings::DEFAULT_LIFETIME.min(longest));
        if let Err(refusal) = may_be(&new, lifetime, longest) {
            return Ok(Err(refusal));
        }
        let created = self.stamp(engine, &new.subject).await?;
        let (id, text) = self.settings.prefix.generate().map_err(Fault::from)?;
        let mut key = ApiKey {
            lineage: id.clone(),
            id,
            name: new.name.into(),
            subject: new.subject.into(),
            account: new.account.map(Into::into),
            scopes: Scope::default(),
            audience: new.audience.map(Into::into),
            networks: new.networks.iter().map(|network| network.to_string().into()).collect(),
            created,
            expires: created.plus(lifetime),
            last_used: None,
            predecessor: None,
            successor: None,
            is_replaced: false,
            revoked: None,
            began: by.as_ref().map_or(created, |by| by.began),
            vouched_by: by.and_then(|by| by.vouched_by).into_iter().collect(),
            kid: 0,
            digest: [0; 32],
        };
        let owned = match self.owner(engine, &key, clients).await {
            Ok((scopes, _)) => scopes,
            Err(Error::Denied(_)) => return Ok(Err(KeyRefusal::Owner)),
            Err(failed) => return Err(failed),
        };
        key.scopes = new.scopes.unwrap_or_else(|| owned.clone());
        // Without a directory, the users' scopes are unknown.
        let is_known = engine.directory.is_some() || key.subject.starts_with(CLIENT_PREFIX);
        if is_known && !key.scopes.is_within(&owned) {
            return Ok(Err(KeyRefusal::Scope));
        }
        match self.add(engine, &mut key, &text).await? {
            Ok(()) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
        self.count(KeyEvent::Created);
        audit::api_key(AUDITED[0], &key);
        Ok(Ok((text, key)))
    }

    /// Replaces a key and copies its properties. The old key stays valid for `overlap`.
    ///
    /// # Errors
    /// The errors of [`create`](Self::create). Returns `None` if the key does not exist.
    // Requirement K7.
    pub async fn rotate(
        &self,
        engine: &Engine,
        id: &str,
        overlap: Option<Duration>,
    ) -> Result<Option<Result<(SecretString, ApiKey), KeyRefusal>>, Error> {
        self.replace(engine, id, overlap, None).await
    }

    /// `by` is set if the owner replaces the key in a session.
    pub(super) async fn replace(
        &self,
        engine: &Engine,
        id: &str,
        overlap: Option<Duration>,
        by: Option<Maker>,
    ) -> Result<Option<Result<(SecretString, ApiKey), KeyRefusal>>, Error> {
        engine.may_mint()?;
        let Some(StoredKey { key: old, .. }) = self.load(engine, id).await? else { return Ok(None) };
        let overlap = overlap.unwrap_or(self.settings.overlap);
        if overlap > self.settings.overlap {
            return Ok(Some(Err(KeyRefusal::Overlap)));
        }
        if !Self::is_in_force(engine, &old) || old.successor.is_some() {
            return Ok(Some(Err(KeyRefusal::Over)));
        }
        // A revocation of the old key or of the session must also end the new key.
        let (began, another) = by.map_or((Timestamp::MAX, None), |by| (by.began, by.vouched_by));
        let another = another.filter(|by| !old.vouched_by.contains(by));
        let vouched_by: Vec<_> = old.vouched_by.iter().cloned().chain(another).collect();
        if vouched_by.len() > MAX_VOUCHERS {
            return Ok(Some(Err(KeyRefusal::Vouched)));
        }
        let until = old.expires;
        let created = self.stamp(engine, &old.subject).await?;
        let (new_id, text) = self.settings.prefix.generate().map_err(Fault::from)?;
        let lifetime = old.expires.since(old.created).min(self.settings.max_lifetime);
        let mut key = ApiKey {
            id: new_id.clone(),
            created,
            expires: created.plus(lifetime),
            last_used: None,
            predecessor: Some(old.id.clone()),
            successor: None,
            is_replaced: false,
            began: old.began.min(began),
            vouched_by,
            ..old
        };
        if let Err(refusal) = self.add(engine, &mut key, &text).await? {
            return Ok(Some(Err(refusal)));
        }
        let end = created.plus(overlap);
        let changed = self.change(engine, id, |old| {
            let is_free = old.successor.is_none() && old.revoked.is_none();
            if is_free {
                (old.successor, old.expires) = (Some(new_id.clone()), old.expires.min(end));
            }
            is_free
        });
        let is_ours = changed.await?.is_some_and(|old| old.successor.as_deref() == Some(&*new_id));
        if !is_ours {
            self.revoke(engine, &new_id).await?;
            return Ok(Some(Err(KeyRefusal::Over)));
        }
        let end = if overlap.is_zero() { id } else { &*[id, REPLACED].concat() };
        // Ignore a failure, because only this response contains the new key. The gate writes the entry later.
        let _ = self.end(engine, end, until).await;
        self.count(KeyEvent::Rotated);
        audit::api_key(AUDITED[1], &key);
        Ok(Some(Ok((text, key))))
    }

    /// Revokes a key at every gate. Returns `None` if the key does not exist.
    ///
    /// # Errors
    /// A fault. After a fault, only this gate refuses the key. Call the function again to revoke it everywhere.
    // Requirement K4.
    pub async fn revoke(&self, engine: &Engine, id: &str) -> Result<Option<ApiKey>, Error> {
        let Some(StoredKey { key, .. }) = self.load(engine, id).await? else { return Ok(None) };
        // Revoke the key here even if changing the record fails.
        self.end(engine, id, key.expires).await?;
        let now = engine.clock.now();
        let mut is_first = false;
        let revoked = self.change(engine, id, |key| key.revoked.replace(key.revoked.unwrap_or(now)).is_none()).await?;
        if let Some(key) = &revoked {
            is_first = key.revoked == Some(now);
            self.forget(engine, key).await?;
        }
        if let (Some(key), true) = (&revoked, is_first) {
            self.count(KeyEvent::Revoked);
            audit::api_key(AUDITED[2], key);
        }
        Ok(revoked)
    }

    /// Revokes each string that is a live API key. Returns the number of revoked keys. Returns the first error after
    /// trying all keys.
    // Requirement K14.
    pub async fn leaked(&self, engine: &Engine, texts: &[SecretString]) -> (usize, Result<(), Error>) {
        let (mut found, mut done) = (0, Ok(()));
        for text in texts {
            match self.leak(engine, text).await {
                Ok(is_live) => found += usize::from(is_live),
                Err(error) => done = done.and(Err(error)),
            }
        }
        (found, done)
    }

    async fn leak(&self, engine: &Engine, text: &SecretString) -> Result<bool, Error> {
        let Some(id) = self.settings.prefix.id_of(exposed(text)) else { return Ok(false) };
        let found = self.load(engine, id).await.and_then(|found| {
            let Some(StoredKey { key, .. }) = found else { return Ok(None) };
            let expected = digest(engine.keyring().refresh_keys(), key.kid, exposed(text))?;
            Ok((key.digest == expected).then_some(key))
        });
        // Ignore the revocation list: a failed revocation may have added the key.
        let key = match found {
            Ok(key) => key.filter(|key| key.is_live(engine.clock.now())),
            Err(error) => {
                if error.is_of_one_record() {
                    // The string may be a live key, so revoke it. Its expiry is unknown, so assume the longest
                    // lifetime.
                    let longest = engine.clock.now().plus(ApiKeySettings::LONGEST_LIFETIME);
                    self.end(engine, id, longest).await?;
                }
                return Err(error.into());
            }
        };
        let Some(key) = key else { return Ok(false) };
        self.revoke(engine, id).await?;
        self.count(KeyEvent::Leaked);
        audit::api_key(AUDITED[3], &key);
        Ok(true)
    }

    /// The record of the key with this id.
    ///
    /// # Errors
    /// A fault.
    pub async fn get(&self, engine: &Engine, id: &str) -> Result<Option<ApiKey>, Error> {
        Ok(self.load(engine, id).await?.map(|stored| stored.key))
    }

    /// The live keys of an owner.
    ///
    /// # Errors
    /// A fault.
    pub async fn of_owner(&self, engine: &Engine, subject: &str) -> Result<Vec<ApiKey>, Error> {
        let names = self.names(engine, subject).await?;
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            keys.extend(self.load(engine, &name.id).await?.map(|stored| stored.key));
        }
        keys.retain(|key| Self::is_in_force(engine, key));
        Ok(keys)
    }

    /// A page of all keys in no particular order, including revoked keys. A page before the last may also have fewer
    /// keys than `limit`.
    ///
    /// # Errors
    /// [`Denial::MalformedRequest`] if `after` is invalid, or a fault.
    pub async fn list(&self, engine: &Engine, after: Option<&str>, limit: usize) -> Result<ListedKeys, Error> {
        let limit = limit.clamp(1, MAX_PAGE);
        let place = |text: &str| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(RowKey);
        let malformed = Denial::MalformedRequest("`cursor` must be the value of `next` on the previous page");
        let mut after = after.map(|text| place(text).ok_or(malformed)).transpose()?;
        let mut page = ListedKeys::default();
        // A store in several parts reads the keys of all parts for each call, so read many at once.
        let rows = engine.measured(self.store.row_keys(API_KEYS, after, MAX_READ)).await?;
        let mut has_more = rows.len() == MAX_READ;
        for at in rows {
            if page.keys.len() == limit {
                has_more = true;
                break;
            }
            after = Some(at);
            let Some(row) = self.store.load_row(API_KEYS, at).await? else { continue };
            if let Ok(RowContent::Key(key)) = opened::<RowContent>(engine, at, &row) {
                page.keys.push(*key);
            }
        }
        page.next = after.filter(|_| has_more).map(|RowKey(last)| URL_SAFE_NO_PAD.encode(last).into());
        Ok(page)
    }

    /// Calls [`keys_by_secret`] for this gate.
    ///
    /// # Errors
    /// A fault.
    pub async fn by_secret(&self, engine: &Engine) -> Result<BTreeMap<u8, u64>, Error> {
        let list = (&*engine.revocations, &*engine.issuer);
        Ok(engine.measured(keys_by_secret(&*self.store, list, engine.clock.now())).await?)
    }

    async fn stamp(&self, engine: &Engine, subject: &str) -> Result<Timestamp, Fault> {
        let after = engine.revocations.not_before(&engine.issuer, subject, subject.strip_prefix(CLIENT_PREFIX));
        engine.stamp_creation(after).await
    }

    /// Adds the key to the revocation list. The key then stays revoked even if an older record is restored.
    async fn end(&self, engine: &Engine, id: &str, expires: Timestamp) -> Result<(), Error> {
        let target = Target::Token { issuer: engine.issuer.clone(), jti: id.into() };
        let until = expires.max(engine.clock.now()).plus(HELD_FOR);
        engine.revoke(Revocation { target, effect: Effect::Gone, until }, RevokedBecause::Operator).await.map(drop)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RowContent {
    Key(Box<ApiKey>),
    #[expect(dead_code, reason = "distinguished from a key")]
    Owner(OwnersKeys),
}

fn may_be(new: &NewApiKey, lifetime: Duration, longest: Duration) -> Result<(), KeyRefusal> {
    if !(1..=100).contains(&new.name.chars().count()) || new.name.chars().any(char::is_control) {
        return Err(KeyRefusal::Name);
    }
    if !is_valid_subject(&new.subject) && !new.subject.starts_with(CLIENT_PREFIX) {
        return Err(KeyRefusal::Owner);
    }
    if lifetime > longest || lifetime < Duration::from_secs(60) {
        return Err(KeyRefusal::Lifetime);
    }
    let is_audience = |text: &String| (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !new.audience.as_ref().is_none_or(is_audience) || new.networks.len() > MAX_NETWORKS {
        return Err(KeyRefusal::Bounds);
    }
    Ok(())
}

/// Counts the live keys of each keyring secret.
///
/// # Errors
/// The errors of the store.
pub async fn keys_by_secret(
    store: &dyn RowStore,
    list: (&RevocationList, &str),
    now: Timestamp,
) -> Result<BTreeMap<u8, u64>, StoreError> {
    let mut counts = BTreeMap::new();
    for at in store.row_keys(API_KEYS, None, usize::MAX).await? {
        let Some(row) = store.load_row(API_KEYS, at).await?.filter(|row| row.until > now) else { continue };
        let body = row.bytes.get(33..).unwrap_or_default();
        if let Ok(RowContent::Key(key)) = serde_json::from_slice(body)
            && is_good(list, &key, now)
        {
            *counts.entry(key.kid).or_default() += 1;
        }
    }
    Ok(counts)
}

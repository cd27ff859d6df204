//! API keys. The store has a row for each API key, and a row of key ids for each owner. The row contains the key's HMAC
//! and an authentication tag. An attacker who can only write to the store can therefore neither create nor change an API
//! key.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Engine;
use crate::api_key::{ApiKey, ApiKeySettings, KeyClient};
use crate::claim::OwnClaims;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::fault::{Error, Fault};
use crate::random::{are_equal, parts_digest};
use crate::revocation::list::TokenFacts;
use crate::revocation::{REPLACED, RevocationList};
use crate::session::Scope;
use crate::store::StoreError;
use crate::store::rows::{Row, RowKey, RowStore, RowSwapped, Space};
use crate::token::claims::{CLIENT_PREFIX, MintedClaims, TokenStyle};
use crate::token::keyring::RefreshKeys;
use crate::token::{TokenText, mint};
use crate::verify_cache::ReadKey;

mod cached;
mod names;
mod own;
mod used;
mod write;

pub use own::{OwnKeys, OwnKeysAction, OwnKeysRequest};
use used::KeyUses;
pub use write::{AUDITED, KeyRefusal, ListedKeys, keys_by_secret};

/// How long a key is accepted before its record and owner are read again.
const READ_AGAIN: Duration = Duration::from_secs(300);

/// The id of a dummy record, which equalizes the response time for unknown keys.
const STAND_IN: &str = "-";

/// The rows of API keys and of their owners.
pub const API_KEYS: Space = Space::lasting(1, "API keys", 4_000_000, 64 << 10);

const UNKNOWN: Denial = Denial::ApiKeyRefused("the gate does not know this API key");
const OWNER: Denial = Denial::ApiKeyRefused("its owner does not exist or is inactive");

/// Finds the scopes of a client by its id. Returns `None` if the client is unknown or cannot authenticate.
pub type ScopesOfClient<'a> = &'a (dyn Fn(&str) -> Option<Scope> + Sync);

/// An API key event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// A key was created.
    Created,
    /// A key was replaced.
    Rotated,
    /// A key was revoked.
    Revoked,
    /// A key was reported as leaked, and revoked.
    Leaked,
    /// A replaced key was used.
    UsedAfterRotation,
    /// The HMAC of a key was renewed with the current secret.
    Renewed,
}

impl KeyEvent {
    /// All events.
    pub const ALL: [Self; 6] =
        [Self::Created, Self::Rotated, Self::Revoked, Self::Leaked, Self::UsedAfterRotation, Self::Renewed];

    /// The name of the event in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Rotated => "rotated",
            Self::Revoked => "revoked",
            Self::Leaked => "leaked",
            Self::UsedAfterRotation => "used_after_rotation",
            Self::Renewed => "renewed",
        }
    }
}

/// The API keys.
#[derive(Debug)]
pub struct ApiKeys {
    settings: ApiKeySettings,
    store: Arc<dyn RowStore>,
    uses: Mutex<HashMap<Box<str>, KeyUses>>,
    /// The dummy record for unknown keys, and the id of its secret.
    stand_in: Mutex<Option<(u8, Row)>>,
    counts: [AtomicU64; KeyEvent::ALL.len()],
}

struct StoredKey {
    row: Row,
    key: ApiKey,
}

impl ApiKeys {
    /// Creates the API keys.
    pub fn new(settings: ApiKeySettings, store: Arc<dyn RowStore>) -> Self {
        Self { settings, store, uses: Mutex::default(), stand_in: Mutex::default(), counts: Default::default() }
    }

    /// The settings.
    pub const fn settings(&self) -> &ApiKeySettings {
        &self.settings
    }

    /// The number of events of each kind.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        KeyEvent::ALL.iter().zip(&self.counts).map(|(event, count)| (event.name(), count.load(Ordering::Relaxed)))
    }

    /// Returns whether an API key was refused because of its owner.
    fn is_of_owner(denial: Denial) -> bool {
        denial == OWNER
    }

    /// Returns whether the API key is neither expired nor revoked.
    // Requirement K4.
    pub fn is_in_force(engine: &Engine, key: &ApiKey) -> bool {
        is_good((&engine.revocations, &engine.issuer), key, engine.clock.now())
    }

    fn count(&self, event: KeyEvent) {
        if let Some(count) = self.counts.get(event as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads a key's record and looks up the owner.
    ///
    /// # Errors
    /// [`Denial::ApiKeyRefused`], or a fault if the key could not be checked.
    // Requirements K3, K5, K13.
    pub async fn read(&self, engine: &Engine, text: &str, clients: ScopesOfClient<'_>) -> Result<ReadKey, Error> {
        let id = self.settings.prefix.id_of(text).ok_or(UNKNOWN)?;
        let at = row_of_key(id);
        let found = engine.measured(self.store.load_row(API_KEYS, at)).await?;
        let is_known = found.is_some();
        // Checking an unknown key must take as long as checking a wrong one.
        let (at, row) = match found {
            Some(row) => (at, row),
            None => (row_of_key(STAND_IN), self.stand_in_for_unknown(engine)?),
        };
        let key: ApiKey = opened(engine, at, &row)?;
        let is_right = are_equal(&digest(engine.keyring().refresh_keys(), key.kid, text)?, &key.digest);
        if !is_right || !is_known {
            return Err(UNKNOWN.into());
        }
        let now = engine.clock.now();
        if key.revoked.is_some() {
            return Err(Denial::ApiKeyRefused("it was revoked").into());
        }
        if key.expires <= now {
            return Err(Denial::ApiKeyRefused("it has expired").into());
        }
        let (scopes, claims) = self.owner(engine, &key, clients).await?;
        let scope = key.scopes.intersection(&scopes);
        let read_again = now.plus(READ_AGAIN).min(key.expires);
        let access_token = Self::stand_in(engine, &key, (&scope, &claims), now)?;
        Ok(ReadKey { access_token, key, read_again })
    }

    fn stand_in_for_unknown(&self, engine: &Engine) -> Result<Row, StoreError> {
        let kid = engine.keyring().refresh_keys().current();
        let mut kept = self.stand_in.lock();
        if let Some((_, row)) = kept.as_ref().filter(|(under, _)| *under == kid) {
            return Ok(row.clone());
        }
        let text = |length| "-".repeat(length).into_boxed_str();
        let key =
            ApiKey { id: text(12), lineage: text(12), name: text(16), subject: text(24), kid, ..ApiKey::default() };
        let row = next_row(engine, row_of_key(STAND_IN), &key, key.expires)?;
        *kept = Some((kid, row.clone()));
        Ok(row)
    }

    // Requirement K5.
    async fn owner(
        &self,
        engine: &Engine,
        key: &ApiKey,
        clients: ScopesOfClient<'_>,
    ) -> Result<(Scope, OwnClaims), Error> {
        if let Some(client) = key.subject.strip_prefix(CLIENT_PREFIX) {
            return Ok((clients(client).ok_or(OWNER)?, OwnClaims::new()));
        }
        let Some(directory) = &engine.directory else { return Ok((key.scopes.clone(), OwnClaims::new())) };
        let user = engine.look_up(directory.as_ref(), key.account.as_deref(), &key.subject).await?;
        let user =
            user.filter(|user| user.active && user.account == key.account && key.began > user.sessions_valid_from);
        let user = user.ok_or(OWNER)?;
        Ok((user.scopes, user.claims))
    }

    fn stand_in(
        engine: &Engine,
        key: &ApiKey,
        (scope, claims): (&Scope, &OwnClaims),
        now: Timestamp,
    ) -> Result<TokenText, Fault> {
        let jti = jti_of(key);
        let claims = MintedClaims {
            issuer: &engine.issuer,
            subject: &key.subject,
            audience: engine.audience_for(key.audience.as_ref().map(std::slice::from_ref)),
            expires: now.plus(READ_AGAIN),
            issued_at: now,
            jti: &jti,
            client: &KeyClient(&key.id).to_string(),
            scope,
            session: None,
            account: key.account.as_deref(),
            bound_to: None,
            certificate: None,
            vouched_by: key.vouched_by.first(),
            delegation: None,
            own: Some(claims),
            style: TokenStyle::default(),
        };
        mint::mint(engine.keyring().signer(), &claims).map_err(Fault::from)
    }

    async fn load(&self, engine: &Engine, id: &str) -> Result<Option<StoredKey>, StoreError> {
        let at = row_of_key(id);
        let Some(row) = engine.measured(self.store.load_row(API_KEYS, at)).await? else { return Ok(None) };
        let key: ApiKey = opened(engine, at, &row)?;
        // The tag covers the row's id, which is derived from the key's id.
        Ok(Some(StoredKey { row, key }))
    }

    /// Changes a key's record, unless `change` returns false. Returns `None` if the key does not exist.
    async fn change(
        &self,
        engine: &Engine,
        id: &str,
        change: impl Fn(&mut ApiKey) -> bool,
    ) -> Result<Option<ApiKey>, Error> {
        for _ in 0..super::MAX_TRIES {
            let Some(StoredKey { row, mut key }) = self.load(engine, id).await? else { return Ok(None) };
            if !change(&mut key) {
                return Ok(Some(key));
            }
            let new = next_row(engine, row_of_key(id), &key, row.until)?;
            let swapping = self.store.swap_row(API_KEYS, row_of_key(id), row.version, new, engine.clock.now());
            if matches!(engine.measured(swapping).await?, RowSwapped::Swapped) {
                return Ok(Some(key));
            }
        }
        Err(Fault::Contention.into())
    }
}

fn jti_of(key: &ApiKey) -> Cow<'_, str> {
    if key.successor.is_some() { [&*key.id, REPLACED].concat().into() } else { (&*key.id).into() }
}

fn is_good((list, issuer): (&RevocationList, &str), key: &ApiKey, now: Timestamp) -> bool {
    let jti = jti_of(key);
    let facts = TokenFacts {
        issuer,
        subject: &key.subject,
        sub: None,
        client: key.subject.strip_prefix(CLIENT_PREFIX),
        session: None,
        issuer_session: None,
        vouched_by: None,
        jti: Some(&jti),
        issued_at: Some(key.began),
        delegation: None,
        key_vouchers: Some(&key.vouched_by),
    };
    key.is_live(now) && !list.judge(facts, now).refuses(now)
}

fn row_of_key(id: &str) -> RowKey {
    row("key", id)
}

fn row_of_owner(subject: &str) -> RowKey {
    row("keys of", subject)
}

fn row(kind: &str, name: &str) -> RowKey {
    RowKey(parts_digest(&[b"rotogate api keys", kind.as_bytes(), name.as_bytes()]))
}

// Requirement K2.
fn digest(secrets: &RefreshKeys, kid: u8, text: &str) -> Result<[u8; 32], StoreError> {
    secrets.api_key_tag(kid, &[b"key", text.as_bytes()]).ok_or_else(|| {
        StoreError::new(format!("an API key was made with the refresh secret {kid}, which this gate does not have"))
            .of_one_record()
    })
}

fn next_row(engine: &Engine, at: RowKey, content: &impl Serialize, until: Timestamp) -> Result<Row, StoreError> {
    let body = serde_json::to_vec(content)
        .map_err(|error| StoreError::caused_by("the record of an API key cannot be encoded", error))?;
    let keyring = engine.keyring();
    let kid = keyring.refresh_keys().current();
    let tag = keyring.refresh_keys().api_key_tag(kid, &[b"row", &at.0, &body]);
    let tag = tag.ok_or_else(|| {
        StoreError::new("the record of an API key cannot be sealed, because the current refresh secret is missing")
    })?;
    Row::new(until, [&[kid], &tag[..], &body].concat())
}

/// Verifies a row's tag and returns its content. The tag proves that a gate with this keyring wrote this row.
fn opened<T: DeserializeOwned>(engine: &Engine, at: RowKey, row: &Row) -> Result<T, StoreError> {
    let content = || {
        let (&kid, rest) = row.bytes.split_first()?;
        let (tag, body) = rest.split_first_chunk::<32>()?;
        let keyring = engine.keyring();
        let expected = keyring.refresh_keys().api_key_tag(kid, &[b"row", &at.0, body])?;
        are_equal(tag, &expected).then(|| serde_json::from_slice(body).ok())?
    };
    content().ok_or_else(|| {
        tracing::error!(
            "API key record: the seal is missing or invalid. If `rotogate keys list --refresh` does not list all \
             refresh secrets of the other gates, copy their key folder. Otherwise find out which other program writes \
             to the store"
        );
        StoreError::new("API key record: the seal is missing or invalid").of_one_record()
    })
}

fn exposed(key: &SecretString) -> &str {
    key.expose_secret()
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;
use secrecy::SecretString;

use super::to_its_end::to_its_end;
use super::{Gate, Inner, RequireLayer};
use rotogate_core::api_key::{ApiKey, NewApiKey};
use rotogate_core::credential::{self, Places};
use rotogate_core::denial::Denial;
use rotogate_core::engine::api_keys::{ApiKeys, KeyRefusal, ListedKeys};
use rotogate_core::fault::Error;
use rotogate_core::session::Scope;
use rotogate_core::verify_cache::{SessionAnswer, Verified};

/// How long a request waits for its API key's record. The read continues after a timeout.
const MAX_WAIT: Duration = Duration::from_secs(10);
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Inner {
    /// Returns the API key in a request.
    ///
    /// # Errors
    /// [`Denial::TwoCredentials`] if the request has an API key and a token, or two API keys.
    /// [`Denial::UnusableCredential`] if the query has an API key.
    // Requirement K6.
    pub(in crate::gate) fn presented_key<'p>(
        &self,
        parts: &'p Parts,
        places: Places<'_>,
    ) -> Result<Option<&'p str>, Denial> {
        let Some(keys) = &self.running.api_keys else { return Ok(None) };
        let settings = keys.settings();
        let query = parts.uri.query();
        if query.is_some_and(|query| settings.prefix.redacted(query).is_some()) {
            return Err(Denial::UnusableCredential);
        }
        let mut in_header = settings.header.iter().flat_map(|name| parts.headers.get_all(name));
        let by_name = match (in_header.next(), in_header.next()) {
            (_, Some(_)) => return Err(Denial::TwoCredentials),
            (Some(value), None) => Some(value.to_str().map_err(|_| Denial::UnusableCredential)?),
            (None, None) => None,
        };
        let bearer = self.bearer_key(parts);
        let key = match (by_name, bearer) {
            (Some(_), _) if parts.headers.contains_key(AUTHORIZATION) => return Err(Denial::TwoCredentials),
            (Some(key), _) => key,
            (None, Some(key)) => key,
            (None, None) => return Ok(None),
        };
        credential::at_most_one(&parts.headers)?;
        let mut cookies = places.cookies.into_iter().flatten();
        let has_token = cookies.any(|name| credential::cookies(&parts.headers, name).next().is_some())
            || super::layer::has_token_in_query(&parts.uri, places);
        if has_token { Err(Denial::TwoCredentials) } else { Ok(Some(key)) }
    }

    fn bearer_key<'p>(&self, parts: &'p Parts) -> Option<&'p str> {
        let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim_start_matches(' ');
        (scheme.eq_ignore_ascii_case("bearer") && self.checker.is_key(token.as_bytes())).then_some(token)
    }

    /// Returns the request headers that may contain an API key. On a route that accepts API keys, this includes the
    /// configured header, whatever its value.
    // Requirement K6.
    pub(in crate::gate) fn key_headers(&self, parts: &Parts, takes_keys: bool) -> impl Iterator<Item = HeaderName> {
        let keys = self.running.api_keys.as_deref();
        let named = keys.and_then(|keys| keys.settings().header.clone()).filter(|name| {
            let mut values = parts.headers.get_all(name).iter();
            (takes_keys && parts.headers.contains_key(name))
                || values.any(|value| self.checker.is_key(value.as_bytes()))
        });
        let bearer = keys.and_then(|_| self.bearer_key(parts)).map(|_| AUTHORIZATION);
        named.into_iter().chain(bearer)
    }

    pub(in crate::gate) fn withhold_key(&self, parts: &mut Parts, takes_keys: bool) {
        if self.running.api_keys.is_none() {
            return;
        }
        for name in self.key_headers(parts, takes_keys).collect::<Vec<_>>() {
            parts.headers.remove(name);
        }
    }

    pub(in crate::gate) async fn loaded_key(self: &Arc<Self>, key: Arc<str>) -> SessionAnswer {
        let (gate, text) = (Arc::clone(self), Arc::clone(&key));
        let loading = to_its_end(async move {
            let keys = gate.running.api_keys.as_deref().ok_or(Denial::UnusableCredential)?;
            let scopes = |id: &str| gate.scopes_of_client(id);
            let loaded = keys.load_verified(&gate.engine, &gate.checker, &text, &scopes).await;
            gate.running.faults.tell(&loaded, || gate.engine.clock().source().monotonic());
            loaded
        });
        let outcome = tokio::time::timeout(MAX_WAIT, loading).await;
        SessionAnswer { cookie: key, outcome: outcome.map_or(Err(Denial::ApiKeyUnavailable(TRY_AGAIN)), decided) }
    }

    pub(in crate::gate) async fn foreseen_key(&self, parts: &Parts) -> Option<SessionAnswer> {
        let keys = self.running.api_keys.as_deref()?;
        let key: Arc<str> = self.presented_key(parts, Places::default()).ok()??.into();
        let scopes = |id: &str| self.scopes_of_client(id);
        let outcome = decided(keys.foresee_verified(&self.engine, &self.checker, &key, &scopes).await);
        Some(SessionAnswer { cookie: key, outcome })
    }

    fn scopes_of_client(&self, id: &str) -> Option<Scope> {
        let client = self.clients.get(id).filter(|client| client.is_confidential())?;
        Some(client.scopes.clone().unwrap_or_default())
    }
}

fn decided(loaded: Result<Arc<Verified>, Error>) -> Result<Arc<Verified>, Denial> {
    loaded.map_err(|error| match error {
        Error::Denied(denial) => denial,
        Error::Failed(fault) => Denial::ApiKeyUnavailable(fault.retry_after()),
    })
}

impl RequireLayer {
    /// Also accepts an API key as the credential.
    #[must_use]
    pub fn api_key(self) -> Self {
        self.policy(|policy| policy.credentials.key = true)
    }
}

impl Gate {
    /// Returns the gate's API keys, or `None` without [`GateBuilder::api_keys`](super::GateBuilder::api_keys).
    pub fn api_keys(&self) -> Option<GateApiKeys> {
        self.0.running.api_keys.is_some().then(|| GateApiKeys(self.clone()))
    }
}

/// Creates, replaces, revokes and lists API keys.
///
/// ```
/// use rotogate::gate::{ApiKeySettings, NewApiKey};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use std::sync::Arc;
/// # use rotogate::{Gate, store::MemoryStore, token::Keyring};
/// # let store = Arc::new(MemoryStore::new("https://api.example.com", rotogate::Gate::DEFAULT_LEEWAY));
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.shared_store(store.clone()).row_store(store);
/// let gate = gate.api_keys(ApiKeySettings::new("acme").ok_or("no prefix")?).build().await?;
/// let keys = gate.api_keys().ok_or("it has keys")?;
/// let new = NewApiKey { name: "nightly".into(), subject: "ada".into(), ..NewApiKey::default() };
/// // Show the key to its owner. The gate cannot show it again.
/// let (text, key) = keys.create(new).await??;
/// assert!(keys.revoke(&key.id).await?.is_some());
/// # let _ = text;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct GateApiKeys(Gate);

impl GateApiKeys {
    fn keys(&self) -> &ApiKeys {
        #[expect(clippy::expect_used, reason = "`Gate::api_keys` returns this type only if the gate has API keys")]
        self.0.0.running.api_keys.as_deref().expect("a gate with API keys")
    }

    /// Creates an API key, and returns it with its record. The gate does not store the key.
    ///
    /// # Errors
    /// A fault. The inner result says why no API key was created.
    pub async fn create(&self, new: NewApiKey) -> Result<Result<(SecretString, ApiKey), KeyRefusal>, Error> {
        let gate = &self.0.0;
        self.keys().create(&gate.engine, new, &|id| gate.scopes_of_client(id)).await
    }

    /// Replaces an API key with a new one that has the same owner, scopes, audience and networks. The old API key stays
    /// valid for `overlap`. The default is the longest permitted time. Returns `None` if the API key does not exist.
    ///
    /// # Errors
    /// See [`create`](Self::create).
    pub async fn rotate(
        &self,
        id: &str,
        overlap: Option<Duration>,
    ) -> Result<Option<Result<(SecretString, ApiKey), KeyRefusal>>, Error> {
        self.keys().rotate(&self.0.0.engine, id, overlap).await
    }

    /// Revokes an API key from the next request on. Returns `None` if the API key does not exist.
    ///
    /// # Errors
    /// A fault. This gate already refuses the API key, but call again to revoke it at the other gates.
    pub async fn revoke(&self, id: &str) -> Result<Option<ApiKey>, Error> {
        self.keys().revoke(&self.0.0.engine, id).await
    }

    /// Revokes all live API keys among these strings. Returns the number of revoked API keys, and the first fault. If
    /// one revocation fails, the other API keys are still revoked. After a fault, pass the same strings again.
    pub async fn leaked(&self, texts: &[SecretString]) -> (usize, Result<(), Error>) {
        self.keys().leaked(&self.0.0.engine, texts).await
    }

    /// Returns the record of an API key.
    ///
    /// # Errors
    /// A fault.
    pub async fn get(&self, id: &str) -> Result<Option<ApiKey>, Error> {
        self.keys().get(&self.0.0.engine, id).await
    }

    /// Returns whether the API key can still be used.
    pub fn is_in_force(&self, key: &ApiKey) -> bool {
        ApiKeys::is_in_force(&self.0.0.engine, key)
    }

    /// Returns the live API keys of an owner.
    ///
    /// # Errors
    /// A fault.
    pub async fn of_owner(&self, subject: &str) -> Result<Vec<ApiKey>, Error> {
        self.keys().of_owner(&self.0.0.engine, subject).await
    }

    /// Returns a page of all API keys in the store, including revoked and expired ones.
    ///
    /// # Errors
    /// A fault.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<ListedKeys, Error> {
        self.keys().list(&self.0.0.engine, after, limit).await
    }

    /// Returns how many live API keys each secret of the keyring verifies. Reads the record of every API key.
    ///
    /// # Errors
    /// A fault.
    pub async fn by_secret(&self) -> Result<BTreeMap<u8, u64>, Error> {
        self.keys().by_secret(&self.0.0.engine).await
    }

    /// Returns how often each API key event happened at this gate, by name.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.keys().counts().collect()
    }
}

#[cfg(test)]
mod tests;

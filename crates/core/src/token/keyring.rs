//! The gate's own keys for access tokens and refresh tokens.
//!
//! A key is bound to one algorithm, so a token's header cannot choose the algorithm. One key signs, and the others only
//! verify, so keys can be replaced while tokens stay valid.
//!
//! ```
//! use rotogate::token::{Algorithm, Keyring};
//!
//! let keyring = Keyring::generate(Algorithm::Es256)?;
//! assert_eq!(keyring.jwks()["keys"][0]["alg"], "ES256");
//! # Ok::<(), rotogate::token::KeyError>(())
//! ```

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use crate::clock::Timestamp;
use crate::random::random;

pub mod error;
mod hmac_secret;
mod public;
pub(crate) mod refresh_keys;
mod signature;
mod signing;

#[cfg(feature = "key-folder")]
mod folder;
#[cfg(feature = "key-folder")]
pub use folder::{NewKeyring, OpenedKeyring};

use error::KeyError;
pub(crate) use public::KeyIdentity;
pub use public::KeyPrint;
pub(super) use public::MAX_KID;
pub use public::VerifyingKey;
pub(super) use refresh_keys::truncated;
pub use refresh_keys::{RefreshKeys, RefreshSecret};
pub use signing::{KeyMaterial, SigningKey};

/// The gate that signs, with its current keys and its time.
pub trait GateSigner: Send + Sync + 'static {
    /// The `iss` of what the gate signs.
    fn issuer(&self) -> &str;

    /// The current time.
    fn now(&self) -> Timestamp;

    /// The current keys.
    fn keyring(&self) -> Arc<Keyring>;

    /// A number that rises with each change of the keys. Something that was signed under an earlier number may have the
    /// signature of a removed key.
    fn keys_generation(&self) -> u64;
}

/// The use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// The key signs and verifies. Exactly one key has this state.
    Signing,
    /// The key only verifies, because it is new or being retired.
    Verifying,
}

/// All keys with which the gate mints and verifies its own tokens.
///
/// ```
/// use rotogate::token::Keyring;
///
/// let keyring = Keyring::ephemeral()?;
/// // Only the public keys, for other verifiers, as served at `/.well-known/jwks.json`.
/// let jwks = keyring.jwks();
/// assert!(jwks["keys"][0].get("x").is_some() && jwks["keys"][0].get("d").is_none());
/// # Ok::<(), rotogate::token::KeyError>(())
/// ```
pub struct Keyring {
    id: Uuid,
    keys: Vec<SigningKey>,
    signer: SigningKey,
    refresh: RefreshKeys,
}

crate::debug_with!(Keyring { id, signer, keys, refresh });

impl Keyring {
    /// Generates a key ring in memory, with one signing key and one refresh secret.
    ///
    /// # Errors
    /// The random source or the key generator fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let signer = SigningKey::from_material(algorithm, &KeyMaterial::generate(algorithm)?)?;
        let refresh = RefreshKeys::new(1, &[(1, RefreshSecret::generate()?)])?;
        Self::from_parts(new_id()?, signer, Vec::new(), refresh)
    }

    /// Generates a key ring for tests and trials. Its tokens become invalid when the process ends.
    ///
    /// # Errors
    /// The random source fails.
    pub fn ephemeral() -> Result<Self, KeyError> {
        Self::generate(Algorithm::EdDsa)
    }

    /// The key ring's id. Gates that share a store have the same id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The public keys as a JWK set (RFC 7517 §5). Never contains HMAC keys.
    pub fn jwks(&self) -> serde_json::Value {
        let keys = self.signing_keys().filter_map(|k| k.verifying_key().published()).collect();
        serde_json::to_value(JwkSet { keys }).unwrap_or_else(|_| serde_json::json!({ "keys": [] }))
    }

    /// Returns an access token's `jti` (22 characters).
    ///
    /// The same arguments always give the same `jti`. A generation can have several access tokens with different
    /// `access_expires`.
    ///
    /// Returns `None` if the key ring no longer has the refresh key.
    pub fn derive_jti(
        &self,
        refresh_key: u8,
        session: crate::session::SessionId,
        generation: crate::session::Generation,
        access_expires: crate::clock::Timestamp,
    ) -> Option<String> {
        self.refresh.derive_jti(refresh_key, session, generation, access_expires)
    }
}

/// Only our own crates call these functions.
#[doc(hidden)]
impl Keyring {
    /// Creates a key ring from keys that the caller stores.
    ///
    /// # Errors
    /// Two keys have the same `kid`.
    pub fn from_parts(
        id: Uuid,
        signer: SigningKey,
        verifying: Vec<SigningKey>,
        refresh: RefreshKeys,
    ) -> Result<Self, KeyError> {
        let ring = Self { id, keys: verifying, signer, refresh };
        let mut kids: Vec<_> = ring.signing_keys().map(SigningKey::kid).collect();
        kids.sort_unstable();
        match kids.windows(2).find(|two| two.first() == two.last()) {
            Some(twice) => Err(KeyError::BadSet(format!("two keys have the kid {:?}", twice.first().unwrap_or(&"")))),
            None => Ok(ring),
        }
    }

    /// The key that signs.
    pub fn signer(&self) -> &SigningKey {
        &self.signer
    }

    /// The key with this `kid`. A retired key can still reproduce its earlier signatures.
    pub fn signing_key(&self, kid: &str) -> Option<&SigningKey> {
        self.signing_keys().find(|k| k.kid() == kid)
    }

    /// All signing keys, the active one first.
    pub fn signing_keys(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.signer).chain(&self.keys)
    }

    /// The keys for refresh tokens.
    pub fn refresh_keys(&self) -> &RefreshKeys {
        &self.refresh
    }

    /// A digest of the keys and their uses. Equal key rings have equal digests.
    pub fn fingerprint(&self) -> String {
        let mut message = b"keyring".to_vec();
        let kids =
            self.signing_keys().map(|key| (key.kid(), key.algorithm().to_string(), key.kid() == self.signer.kid()));
        let mut keys: Vec<_> = kids.collect();
        keys.sort_unstable();
        let mut refresh: Vec<_> = self.refresh.ids().map(|id| (id, self.refresh.print(id))).collect();
        refresh.sort_unstable();
        message.extend_from_slice(format!("{keys:?} {refresh:?} {}", self.refresh.current()).as_bytes());
        self.refresh.shared_name(&message).map(|name| URL_SAFE_NO_PAD.encode(name)).unwrap_or_default()
    }
}

fn new_id() -> Result<Uuid, KeyError> {
    Ok(uuid::Builder::from_random_bytes(*random::<16>()?).into_uuid())
}

fn encode(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// Without a provider, every use of `jsonwebtoken` would panic.
pub(crate) fn install_provider() {
    // An error means that a provider is already installed.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

#[cfg(test)]
mod tests;

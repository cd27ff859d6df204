//! The keys of our own issuer: those that sign and verify access tokens, and the secrets behind refresh tokens.
//!
//! A key is bound to one algorithm, for good: a token's header never chooses. One signing key signs; the others only
//! verify, so that keys can be added, put to use and retired without anybody's token failing.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::algorithm::{Algorithm, UnknownAlgorithm};

mod hmac_secret;
mod public;
mod refresh_keys;
mod signing;

#[cfg(feature = "key-folder")]
mod folder;

pub(crate) use public::KeyPrint;
pub(super) use public::MAX_KID;
pub use public::VerifyingKey;
pub(super) use refresh_keys::truncated;
pub use refresh_keys::{RefreshKeys, RefreshSecret};
pub use signing::{KeyMaterial, SigningKey};

/// What is wrong with a key, a secret or the folder that they are in. The text is for the operator: it says what, where,
/// and how to mend it, and never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The name of an algorithm that there is not.
    #[error(transparent)]
    Algorithm(#[from] UnknownAlgorithm),
    /// The key cannot be used with its algorithm.
    #[error("not a usable {algorithm} key: {why}")]
    Unusable {
        /// The algorithm that it was to be bound to.
        algorithm: Algorithm,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An HMAC secret shorter than the hash (RFC 7518 §3.2).
    #[error("an {algorithm} secret must have at least {} bytes, this one has {length}", algorithm.hash_len())]
    ShortSecret {
        /// The algorithm that it was to be bound to.
        algorithm: Algorithm,
        /// How many bytes it has.
        length: usize,
    },
    /// Something that may be public knowledge was to be used as an HMAC secret.
    #[error("this is {0}, which can never be an HMAC secret: whoever has it could sign tokens")]
    PublicAsSecret(&'static str),
    /// A `kid` that no header could name.
    #[error("a kid must be 1 to 128 visible ASCII characters")]
    BadKid,
    /// The keys do not make a key set.
    #[error("{0}")]
    BadSet(String),
    /// The random source failed.
    #[error("the random source failed")]
    Random,
    /// A file or folder that cannot be read, or that others may read or write.
    #[error("{0}")]
    Refused(String),
    /// A file or folder that could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// A file or folder that does not hold what it must.
    #[error("{path}: {message}")]
    File {
        /// The file or folder.
        path: String,
        /// What is wrong, and how to mend it.
        message: String,
    },
}

/// What a signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// It signs and verifies: exactly one key does.
    Signing,
    /// It only verifies: a new key that not everyone has seen, or an old one whose tokens still live.
    Verifying,
}

/// Everything that it takes to mint and verify our own tokens.
pub struct Keyring {
    id: Uuid,
    keys: Vec<SigningKey>,
    signer: SigningKey,
    refresh: RefreshKeys,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("id", &self.id)
            .field("signer", &self.signer)
            .field("verifying", &self.keys)
            .field("refresh", &self.refresh)
            .finish()
    }
}

impl Keyring {
    /// A new key ring in memory: one signing key, one refresh secret, both from the system's random source.
    ///
    /// # Errors
    /// The random source or the key generator fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let signer = SigningKey::from_material(algorithm, &KeyMaterial::generate(algorithm)?)?;
        let refresh = RefreshKeys::new(1, &[(1, RefreshSecret::generate()?)])?;
        Self::from_parts(new_id()?, signer, Vec::new(), refresh)
    }

    /// A key ring that ends with the process: for tests and trials. Every token dies with it.
    ///
    /// # Errors
    /// The random source fails.
    pub fn ephemeral() -> Result<Self, KeyError> {
        Self::generate(Algorithm::EdDsa)
    }

    /// A key ring from keys that the caller keeps.
    ///
    /// # Errors
    /// Two keys with one `kid`.
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

    /// The key ring's own name: all nodes that share a store share it.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The key that signs.
    pub fn signer(&self) -> &SigningKey {
        &self.signer
    }

    /// The key of that name, whatever its state: to mint again, byte for byte, what an older key once signed.
    pub fn signing_key(&self, kid: &str) -> Option<&SigningKey> {
        self.signing_keys().find(|k| k.kid() == kid)
    }

    /// All signing keys, the one that signs first.
    pub fn signing_keys(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.signer).chain(&self.keys)
    }

    /// The keys of refresh tokens.
    pub fn refresh_keys(&self) -> &RefreshKeys {
        &self.refresh
    }

    /// The public keys as a JWK set (RFC 7517 §5), for others who verify our tokens. HMAC keys are never in it.
    pub fn jwks(&self) -> serde_json::Value {
        let keys = self.signing_keys().filter_map(|k| k.verifying_key().published()).collect();
        serde_json::to_value(JwkSet { keys }).unwrap_or_else(|_| serde_json::json!({ "keys": [] }))
    }

    /// The `jti` of the access token of one generation: 22 characters, the same whenever it is asked for.
    ///
    /// `refresh_key` is the id that the session's record remembers, so that a refresh key added in between changes
    /// nothing. `access_expires` is in it because one generation can have more than one access token. `None` when that
    /// refresh key is gone.
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

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeyError> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

fn new_id() -> Result<Uuid, KeyError> {
    Ok(uuid::Builder::from_random_bytes(*random::<16>()?).into_uuid())
}

fn encode(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// The library that verifies has a process-wide provider; without one, its first use would panic, for ever.
pub(crate) fn install_provider() {
    // An error says that somebody installed one already.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof;

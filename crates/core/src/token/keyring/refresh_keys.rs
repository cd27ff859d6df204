//! The gate's keys for refresh tokens. Each key id has one secret, and each purpose has a key derived from it.

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

use super::{Algorithm, KeyError, encode, hmac_secret};
use crate::clock::Timestamp;
use crate::random::random;
use crate::session::{Generation, SessionId};

const SALT: &[u8] = b"rotogate refresh keys v1";
const PRINT: &[u8] = b"print of a refresh secret";

/// The secret of one refresh key, at least 32 bytes. Hidden from `Debug`, and zeroised when dropped.
pub struct RefreshSecret(Zeroizing<Vec<u8>>);

crate::debug_with!(RefreshSecret);

impl RefreshSecret {
    /// Generates a random secret.
    ///
    /// # Errors
    /// The random source fails.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(Zeroizing::new(random::<32>()?.to_vec())))
    }

    /// Decodes the result of [`RefreshSecret::to_text`]. One trailing newline is allowed.
    ///
    /// # Errors
    /// The input is not base64url without padding, is shorter than 32 bytes, or looks like a public key.
    pub fn from_text(text: &[u8]) -> Result<Self, KeyError> {
        hmac_secret::decode(Algorithm::Hs256, text).map(Self)
    }

    /// Encodes the secret in base64url without padding.
    pub fn to_text(&self) -> Zeroizing<String> {
        encode(&self.0)
    }
}

struct DerivedKeys {
    id: u8,
    tag: hmac::Key,
    jti: hmac::Key,
    seal: hmac::Key,
    shared: hmac::Key,
    nonce: hmac::Key,
    cookie: hmac::Key,
    digest: hmac::Key,
    device: hmac::Key,
    api_key: hmac::Key,
    login: LessSafeKey,
    relay: hmac::Key,
    vault: hmac::Key,
}

/// The gate's keys for refresh tokens. The current key makes new tokens, and the others verify older ones.
///
/// `Debug` does not show the keys, which are erased when dropped.
pub struct RefreshKeys {
    current: u8,
    keys: Vec<DerivedKeys>,
}

crate::debug_with!(RefreshKeys, |it| { current: it.current, ids: it.keys.iter().map(|key| key.id).collect::<Vec<_>>() });

impl RefreshKeys {
    /// Derives the keys of these secrets. `current` is the id of the key for new tokens.
    ///
    /// # Errors
    /// An id is repeated, or `current` has no secret.
    pub fn new(current: u8, secrets: &[(u8, RefreshSecret)]) -> Result<Self, KeyError> {
        let mut keys: Vec<DerivedKeys> = Vec::with_capacity(secrets.len());
        for (id, secret) in secrets {
            if keys.iter().any(|k| k.id == *id) {
                return Err(KeyError::BadSet(format!("two refresh keys have the id {id}")));
            }
            let root = Salt::new(HKDF_SHA256, SALT).extract(&secret.0);
            let failed = |_| KeyError::BadSet("a refresh key could not be derived".to_owned());
            let derive = |purpose: &[u8]| root.expand(&[purpose], HMAC_SHA256).map(hmac::Key::from).map_err(failed);
            let login = root.expand(&[b"rotogate browser tx"], &AES_256_GCM).map(UnboundKey::from).map_err(failed)?;
            keys.push(DerivedKeys {
                id: *id,
                tag: derive(b"refresh token tag A")?,
                jti: derive(b"access token jti")?,
                seal: derive(b"seals of session records")?,
                shared: derive(b"names in a shared store")?,
                nonce: derive(b"DPoP nonces")?,
                cookie: derive(b"rotogate browser cookie")?,
                digest: derive(b"rotogate browser digest")?,
                device: derive(b"rotogate browser device")?,
                api_key: derive(b"rotogate api keys")?,
                login: LessSafeKey::new(login),
                relay: derive(b"relay records")?,
                vault: derive(b"rotogate browser vault")?,
            });
        }
        if !keys.iter().any(|k| k.id == current) {
            return Err(KeyError::BadSet(format!("the current refresh key {current} is missing")));
        }
        Ok(Self { current, keys })
    }

    /// The id of the key for new tokens.
    pub fn current(&self) -> u8 {
        self.current
    }

    /// The ids of all keys.
    pub fn ids(&self) -> impl Iterator<Item = u8> {
        self.keys.iter().map(|k| k.id)
    }

    /// Returns whether there is a key with this id.
    pub fn contains(&self, id: u8) -> bool {
        self.key(id).is_some()
    }

    /// A digest that does not reveal the secret. All gates with this secret have the same digest.
    pub fn print(&self, id: u8) -> Option<String> {
        Some(URL_SAFE_NO_PAD.encode(truncated(&hmac::sign(&self.key(id)?.shared, PRINT))))
    }

    fn key(&self, id: u8) -> Option<&DerivedKeys> {
        self.keys.iter().find(|k| k.id == id)
    }

    pub(in crate::token) fn tag(&self, id: u8, message: &[u8]) -> Option<[u8; 16]> {
        Some(truncated(&hmac::sign(&self.key(id)?.tag, message)))
    }

    pub(in crate::token) fn seal(&self, id: u8, parts: &[&[u8]]) -> Option<[u8; 16]> {
        Some(truncated(&signed(&self.key(id)?.seal, parts)))
    }

    pub(in crate::token) fn cookie_tag(&self, id: u8, message: &[u8]) -> Option<[u8; 16]> {
        Some(truncated(&hmac::sign(&self.key(id)?.cookie, message)))
    }

    pub(in crate::token) fn cookie_digest(&self, id: u8, message: &[u8]) -> Option<[u8; 32]> {
        hmac::sign(&self.key(id)?.digest, message).as_ref().try_into().ok()
    }

    /// Each part has a fixed length, so the lengths are not hashed.
    pub(in crate::token) fn device_tag(&self, id: u8, parts: &[&[u8]]) -> Option<[u8; 16]> {
        Some(truncated(&signed(&self.key(id)?.device, parts)))
    }

    /// The HMAC of an API key or of its record, as `parts[0]` specifies.
    // Requirement K2.
    pub fn api_key_tag(&self, id: u8, parts: &[&[u8]]) -> Option<[u8; 32]> {
        #[cfg(test)]
        tags::note(parts);
        let mut message = hmac::Context::with_key(&self.key(id)?.api_key);
        for part in parts {
            message.update(&(part.len() as u64).to_be_bytes());
            message.update(part);
        }
        message.sign().as_ref().try_into().ok()
    }

    pub(in crate::token) fn login_key(&self, id: u8) -> Option<&LessSafeKey> {
        Some(&self.key(id)?.login)
    }

    pub(in crate::token) fn vault_tag(&self, id: u8, parts: &[&[u8]]) -> Option<hmac::Tag> {
        Some(signed(&self.key(id)?.vault, parts))
    }

    fn current_first(&self) -> impl Iterator<Item = &DerivedKeys> {
        let (current, others): (Vec<_>, Vec<_>) = self.keys.iter().partition(|key| key.id == self.current);
        current.into_iter().chain(others)
    }

    /// The current key's tag comes first.
    pub(crate) fn nonce_tags(&self, message: &[u8]) -> Vec<[u8; 16]> {
        self.current_first().map(|key| truncated(&hmac::sign(&key.nonce, message))).collect()
    }

    /// Returns one HMAC of `message` per key, current key first.
    pub fn relay_secrets(&self, message: &[u8]) -> Vec<hmac::Tag> {
        self.current_first().map(|key| hmac::sign(&key.relay, message)).collect()
    }

    /// The hash that the audit log contains instead of the user name of a refused login. Users sometimes type their
    /// password as the user name.
    ///
    /// The hash stays the same until the oldest refresh secret is removed.
    pub fn name_hash(&self, name: &str) -> Option<String> {
        let hash = self.shared_name(format!("audit name {name}").as_bytes())?;
        Some(hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns a name for an entry in a shared store. The name does not reveal `message`. All gates use the oldest
    /// secret, so that they compute the same name.
    pub(crate) fn shared_name(&self, message: &[u8]) -> Option<[u8; 16]> {
        let oldest = self.keys.iter().min_by_key(|key| key.id)?;
        Some(truncated(&hmac::sign(&oldest.shared, message)))
    }

    /// The oldest secret's name comes first. If an entry has all names, it is found after the removal of a secret.
    pub(crate) fn shared_names(&self, message: &[u8]) -> Vec<[u8; 16]> {
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_unstable_by_key(|key| key.id);
        keys.into_iter().map(|key| truncated(&hmac::sign(&key.shared, message))).collect()
    }

    pub(super) fn derive_jti(
        &self,
        id: u8,
        session: SessionId,
        generation: Generation,
        access_expires: Timestamp,
    ) -> Option<String> {
        let (generation, expires) = (generation.get().to_be_bytes(), access_expires.as_secs().to_be_bytes());
        let mut tag = truncated(&signed(&self.key(id)?.jti, &[session.as_bytes(), &generation, &expires]));
        let text = URL_SAFE_NO_PAD.encode(tag);
        tag.zeroize();
        Some(text)
    }
}

fn signed(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut message = hmac::Context::with_key(key);
    parts.iter().for_each(|part| message.update(part));
    message.sign()
}

/// See RFC 2104 §5.
pub(in crate::token) fn truncated(tag: &hmac::Tag) -> [u8; 16] {
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tags {
    use std::cell::RefCell;

    thread_local!(static MADE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

    pub(super) fn note(parts: &[&[u8]]) {
        let label = parts.first().map(|label| String::from_utf8_lossy(label).into_owned());
        MADE.with_borrow_mut(|made| made.push(label.unwrap_or_default()));
    }

    pub(crate) fn taken() -> Vec<String> {
        MADE.take()
    }
}

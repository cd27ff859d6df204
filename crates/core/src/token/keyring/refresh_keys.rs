//! The server's keys for refresh tokens. Each key id has one secret, from which a separate key is derived for each
//! purpose.

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

/// Separates this use of a secret from every other use.
const SALT: &[u8] = b"rotogate refresh keys v1";
/// The message whose HMAC is used as a secret's fingerprint.
const PRINT: &[u8] = b"print of a refresh secret";

/// The secret of one refresh key, with at least 32 bytes. Its `Debug` output does not show it, and it is zeroised when
/// dropped.
pub struct RefreshSecret(Zeroizing<Vec<u8>>);

crate::debug_with!(RefreshSecret);

impl RefreshSecret {
    /// Generates a new secret with the system's random source.
    ///
    /// # Errors
    /// The random source fails.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(Zeroizing::new(random::<32>()?.to_vec())))
    }

    /// Decodes base64url without padding, as [`RefreshSecret::to_text`] writes it. One trailing newline is allowed.
    ///
    /// # Errors
    /// The input is not base64url without padding, has fewer than 32 bytes, or looks like a public key.
    pub fn from_text(text: &[u8]) -> Result<Self, KeyError> {
        hmac_secret::decode(Algorithm::Hs256, text).map(Self)
    }

    /// Encodes the secret in base64url without padding.
    pub fn to_text(&self) -> Zeroizing<String> {
        encode(&self.0)
    }
}

/// The keys derived from one secret.
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

/// The server's keys for refresh tokens. The current key makes new tokens, and the other keys still verify older
/// tokens. The `Debug` output does not show the keys, and the cryptographic library erases them when they are dropped.
pub struct RefreshKeys {
    current: u8,
    keys: Vec<DerivedKeys>,
}

crate::debug_with!(RefreshKeys, |it| { current: it.current, ids: it.keys.iter().map(|key| key.id).collect::<Vec<_>>() });

impl RefreshKeys {
    /// Derives the keys of these secrets. `current` is the id of the secret that makes new tokens.
    ///
    /// # Errors
    /// An id is repeated, or there is no secret for `current`.
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

    /// The id of the key that makes new tokens.
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

    /// A digest that distinguishes this secret from other secrets with the same id, without revealing it. Every gate
    /// that has the secret computes the same digest.
    pub fn print(&self, id: u8) -> Option<String> {
        Some(URL_SAFE_NO_PAD.encode(truncated(&hmac::sign(&self.key(id)?.shared, PRINT))))
    }

    fn key(&self, id: u8) -> Option<&DerivedKeys> {
        self.keys.iter().find(|k| k.id == id)
    }

    /// Computes tag A of a refresh token over `message`.
    pub(in crate::token) fn tag(&self, id: u8, message: &[u8]) -> Option<[u8; 16]> {
        Some(truncated(&hmac::sign(&self.key(id)?.tag, message)))
    }

    /// Computes the tag that seals a session's record, over these parts in sequence.
    pub(in crate::token) fn seal(&self, id: u8, parts: &[&[u8]]) -> Option<[u8; 16]> {
        Some(truncated(&signed(&self.key(id)?.seal, parts)))
    }

    /// Computes the tag of a session cookie over `message`.
    pub(in crate::token) fn cookie_tag(&self, id: u8, message: &[u8]) -> Option<[u8; 16]> {
        Some(truncated(&hmac::sign(&self.key(id)?.cookie, message)))
    }

    /// Computes the digest of a session cookie, which the session's record keeps, over `message`.
    pub(in crate::token) fn cookie_digest(&self, id: u8, message: &[u8]) -> Option<[u8; 32]> {
        hmac::sign(&self.key(id)?.digest, message).as_ref().try_into().ok()
    }

    /// Computes the tag of a device cookie or of a challenge, over these parts in sequence. Each part has a fixed
    /// length, so the lengths need not be hashed.
    pub(in crate::token) fn device_tag(&self, id: u8, parts: &[&[u8]]) -> Option<[u8; 16]> {
        Some(truncated(&signed(&self.key(id)?.device, parts)))
    }

    /// Computes the HMAC of an API key, or the tag of its record, over these parts. The first part distinguishes the
    /// two uses.
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

    /// The key that seals the cookies of logins in progress.
    pub(in crate::token) fn login_key(&self, id: u8) -> Option<&LessSafeKey> {
        Some(&self.key(id)?.login)
    }

    /// Derives a secret for a session's vault from these parts in sequence.
    pub(in crate::token) fn vault_tag(&self, id: u8, parts: &[&[u8]]) -> Option<hmac::Tag> {
        Some(signed(&self.key(id)?.vault, parts))
    }

    fn current_first(&self) -> impl Iterator<Item = &DerivedKeys> {
        let (current, others): (Vec<_>, Vec<_>) = self.keys.iter().partition(|key| key.id == self.current);
        current.into_iter().chain(others)
    }

    /// The tag of a DPoP nonce under each key. The current key's tag is the first.
    pub(crate) fn nonce_tags(&self, message: &[u8]) -> Vec<[u8; 16]> {
        self.current_first().map(|key| truncated(&hmac::sign(&key.nonce, message))).collect()
    }

    /// The relay's secrets for `message`, one derived from each key. The current key's secret is the first.
    pub fn relay_secrets(&self, message: &[u8]) -> Vec<hmac::Tag> {
        self.current_first().map(|key| hmac::sign(&key.relay, message)).collect()
    }

    /// The hash that the audit log contains instead of the user name of a refused login, because people sometimes type
    /// a password into that field. It has 16 hexadecimal digits, and stays the same for the same name until the oldest
    /// refresh secret is removed.
    pub fn name_hash(&self, name: &str) -> Option<String> {
        let hash = self.shared_name(format!("audit name {name}").as_bytes())?;
        Some(hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// A keyed name for an entry in a shared store, which reveals nothing to the store. The oldest secret makes the
    /// name, so all gates of a keyring use the same name, even while they adopt a new secret one after the other.
    pub(crate) fn shared_name(&self, message: &[u8]) -> Option<[u8; 16]> {
        let oldest = self.keys.iter().min_by_key(|key| key.id)?;
        Some(truncated(&hmac::sign(&oldest.shared, message)))
    }

    /// Like [`shared_name`](Self::shared_name), but returns one name for each secret, with the oldest secret first. An
    /// entry that is stored under all of these names can still be found after a secret was retired.
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

/// Computes the HMAC over these parts in sequence.
fn signed(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut message = hmac::Context::with_key(key);
    parts.iter().for_each(|part| message.update(part));
    message.sign()
}

/// The first sixteen bytes of an HMAC (RFC 2104 §5).
pub(in crate::token) fn truncated(tag: &hmac::Tag) -> [u8; 16] {
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Records the HMACs of API keys and of their records that this thread made, so that a test can compare the work of two
/// requests.
#[cfg(test)]
pub(crate) mod tags {
    use std::cell::RefCell;

    thread_local!(static MADE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

    pub(super) fn note(parts: &[&[u8]]) {
        let label = parts.first().map(|label| String::from_utf8_lossy(label).into_owned());
        MADE.with_borrow_mut(|made| made.push(label.unwrap_or_default()));
    }

    /// The purposes of the HMACs that were made since the last call.
    pub(crate) fn taken() -> Vec<String> {
        MADE.take()
    }
}

//! Derives the id of a record, and the key that encrypts it.
//!
//! The derivation for a refresh token T is as follows. Each field is preceded by its length (32 bits, big-endian).
//!
//! ```text
//! PRK    = HKDF-Extract(salt = HMAC(relay secret of the keyring, endpoint ‖ token URL), IKM = T)
//! id     = HKDF-Expand(PRK, "rotogate relay id", 32)
//! key    = HKDF-Expand(PRK, "rotogate relay seal" ‖ client id ‖ SHA-256(credential) ‖ jkt, 32)
//! params = HMAC(HKDF-Expand(PRK, "rotogate relay params"), scope ‖ resource ‖ audience)
//! sealed = nonce ‖ AES-256-GCM(key, nonce, answer, aad = scheme ‖ id ‖ the record's other fields)
//! ```
//!
//! HMAC, HKDF and the digest use SHA-256. The store by itself reveals nothing about T, and the id cannot be computed
//! from a known T without the keyring. Even with the store and the keyring, nobody can decrypt a record without T and
//! the presenter.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::record::{RelayRecord, RelayState};
use rotogate_core::clock::Timestamp;
use rotogate_core::random::are_equal;
use rotogate_core::session::confirm::TokenDigest;
use rotogate_core::store::rows::{Row, RowKey, RowVersion, Space};
use rotogate_core::token::Keyring;
#[cfg(feature = "browser-oidc")]
use rotogate_core::token::session_cookie::VaultSecret;

const LABEL_ID: &[u8] = b"rotogate relay id";
const LABEL_KEPT: &[u8] = b"rotogate relay kept";
const LABEL_USE: &[u8] = b"rotogate relay use";
const LABEL_SEAL: &[u8] = b"rotogate relay seal";
#[cfg(feature = "browser-oidc")]
const LABEL_VAULT: &[u8] = b"rotogate vault seal";
const LABEL_PARAMS: &[u8] = b"rotogate relay params";
/// The version of this scheme.
const VERSION: u8 = 1;
const NONCE: usize = 12;

/// The error if a key cannot be derived, or a reply cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a provider's reply could not be encrypted for the store")]
pub struct NotSealed;

/// The data of a request that identify the presenter of a refresh token.
#[derive(Clone, Debug, Default)]
pub struct Presenter {
    /// The client's id, which is empty if the client did not send one.
    pub client: String,
    /// The client's secret or assertion.
    pub credential: Option<SecretString>,
    /// The thumbprint of the DPoP key, if the request had a valid proof (RFC 9449).
    pub jkt: Option<String>,
}

/// The parameters that affect a reply. The order and repetition of values within a parameter do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// `scope`, split into single scopes.
    pub scope: Vec<String>,
    /// `resource` (RFC 8707).
    pub resource: Vec<String>,
    /// `audience`.
    pub audience: Vec<String>,
}

/// The secrets of one endpoint, which are derived from the keyring.
pub struct Sealer {
    /// One salt for each refresh key, with the current refresh key first.
    salts: Vec<Salt>,
}

rotogate_core::debug_with!(Sealer, |it| { keys: it.salts.len() });

impl Sealer {
    /// Derives the secrets for the endpoint with this name and token URL. Each endpoint derives different record keys
    /// from the same token.
    pub fn new(keyring: &Keyring, endpoint: &str, token_url: &str) -> Self {
        let message = fields([endpoint.as_bytes(), token_url.as_bytes()]);
        let secrets = keyring.refresh_keys().relay_secrets(&message);
        Self { salts: secrets.iter().map(|secret| Salt::new(HKDF_SHA256, secret.as_ref())).collect() }
    }

    /// Returns the keys of a token under each refresh key. A record is written under the first of these keys, and read
    /// under any of them.
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub fn keys(&self, token: &SecretString, presenter: &Presenter) -> Result<Vec<RelayKeys>, NotSealed> {
        let token = token.expose_secret().as_bytes();
        self.salts.iter().map(|salt| RelayKeys::derive(&salt.extract(token), presenter)).collect()
    }

    /// Returns the ids of the row that records a use of this token. The order is that of [`keys`](Self::keys).
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub fn use_ids(&self, token: &TokenDigest) -> Result<Vec<RowKey>, NotSealed> {
        let id = |salt: &Salt| Ok(RowKey(*expand(&salt.extract(token), &fields([LABEL_USE]))?));
        self.salts.iter().map(id).collect()
    }
}

/// The keys for one token and one presenter.
pub struct RelayKeys {
    id: RowKey,
    kept_id: RowKey,
    seal: Zeroizing<[u8; 32]>,
    params: hmac::Key,
}

rotogate_core::debug_with!(RelayKeys { id });

impl RelayKeys {
    fn derive(prk: &Prk, presenter: &Presenter) -> Result<Self, NotSealed> {
        let credential = presenter.credential.as_ref().map(|secret| digest(&SHA256, secret.expose_secret().as_bytes()));
        let credential = credential.as_ref().map_or([].as_slice(), AsRef::as_ref);
        let jkt = presenter.jkt.as_deref().unwrap_or_default().as_bytes();
        let info = fields([LABEL_SEAL, presenter.client.as_bytes(), credential, jkt]);
        let label = fields([LABEL_PARAMS]);
        let label = [label.as_slice()];
        let params = prk.expand(&label, HMAC_SHA256).map_err(|_| NotSealed)?;
        Ok(Self {
            id: RowKey(*expand(prk, &fields([LABEL_ID]))?),
            kept_id: RowKey(*expand(prk, &fields([LABEL_KEPT]))?),
            seal: expand(prk, &info)?,
            params: hmac::Key::from(params),
        })
    }

    /// Derives the keys for the vault of a browser session, which is a record that does not belong to a token.
    ///
    /// # Errors
    /// The cryptographic library fails.
    // Requirement B5.
    #[cfg(feature = "browser-oidc")]
    pub fn vault(secret: &VaultSecret) -> Result<Self, NotSealed> {
        let prk = Prk::new_less_safe(HKDF_SHA256, secret.secret.as_slice());
        let params = prk.expand(&[LABEL_PARAMS], HMAC_SHA256).map_err(|_| NotSealed)?;
        let id = RowKey(secret.id);
        Ok(Self { id, kept_id: id, seal: expand(&prk, LABEL_VAULT)?, params: hmac::Key::from(params) })
    }

    /// Returns the id of the token's record in the store. The id does not depend on the presenter.
    pub fn id(&self) -> RowKey {
        self.id
    }

    /// Returns the id of the row that keeps the token's reply after the grace period.
    pub fn kept_id(&self) -> RowKey {
        self.kept_id
    }

    /// Returns whether both keys were derived for the same token and presenter. The comparison takes constant time.
    pub fn is_same(&self, other: &Self) -> bool {
        are_equal(self.seal.as_slice(), other.seal.as_slice())
    }

    /// Returns the digest of these parameters.
    pub fn params(&self, params: &Params) -> [u8; 32] {
        let list = |entries: &[String]| {
            let mut entries: Vec<&[u8]> = entries.iter().map(String::as_bytes).collect();
            entries.sort_unstable();
            entries.dedup();
            fields(entries)
        };
        let [scope, resource, audience] = [&params.scope, &params.resource, &params.audience].map(|l| list(l));
        let tag = hmac::sign(&self.params, &fields([scope.as_slice(), &resource, &audience]));
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        bytes
    }

    /// Seals this reply and returns its record. The sealed reply is bound to all other fields of the record.
    ///
    /// # Errors
    /// The cryptographic library or the random source fails.
    pub fn seal(&self, mut record: RelayRecord, answer: &[u8]) -> Result<RelayRecord, NotSealed> {
        record.version = RowVersion::random().map_err(|_| NotSealed)?;
        record.sealed = self.sealed(&self.aad(&record), answer)?;
        Ok(record)
    }

    /// Returns the reply of a record, or `None` if it was sealed for another token, client, credential or DPoP key,
    /// or if the record was changed.
    pub fn open(&self, record: &RelayRecord) -> Option<Zeroizing<Vec<u8>>> {
        self.opened(&self.aad(record), &record.sealed)
    }

    /// Seals this text as a row of another space than that of the records. The text is bound to the space, to the key,
    /// and to the row's expiry and version.
    ///
    /// # Errors
    /// The cryptographic library or the random source fails.
    pub fn seal_row(&self, at: (Space, RowKey), until: Timestamp, text: &[u8]) -> Result<Row, NotSealed> {
        let version = RowVersion::random().map_err(|_| NotSealed)?;
        let bytes = self.sealed(&row_aad(at, until, version), text)?;
        Ok(Row { version, until, bytes })
    }

    /// Returns the text of a row, or `None` if it was sealed under other keys or as another row, or was changed.
    pub fn open_row(&self, at: (Space, RowKey), row: &Row) -> Option<Zeroizing<Vec<u8>>> {
        self.opened(&row_aad(at, row.until, row.version), &row.bytes)
    }

    fn sealed(&self, aad: &[u8], text: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, self.seal.as_slice()).map_err(|_| NotSealed)?;
        let mut body = Zeroizing::new(text.to_vec());
        // Reserves room for the tag, because a reallocation would leave a copy of the plain text behind.
        body.reserve_exact(AES_256_GCM.tag_len());
        let nonce = key.seal_in_place_append_tag(Aad::from(aad), &mut *body).map_err(|_| NotSealed)?;
        Ok([nonce.as_ref().as_slice(), body.as_slice()].concat())
    }

    fn opened(&self, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, self.seal.as_slice()).ok()?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let mut body = Zeroizing::new(sealed.to_vec());
        let length = key.open_in_place(Nonce::from(nonce), Aad::from(aad), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }

    fn aad(&self, record: &RelayRecord) -> Vec<u8> {
        let state: u8 = match record.state {
            RelayState::Pending => 0,
            RelayState::Done => 1,
            RelayState::Dead => 2,
            RelayState::Unknown => 3,
        };
        let times = [record.since, record.lease, record.until].map(|time| time.as_millis().to_be_bytes());
        let mut aad = vec![VERSION, state];
        aad.extend_from_slice(&record.attempt.to_be_bytes());
        aad.extend_from_slice(&times.concat());
        aad.extend_from_slice(&self.id.0);
        aad.extend_from_slice(&record.owner);
        aad.extend_from_slice(&record.params);
        aad.extend_from_slice(&record.version.0);
        aad
    }
}

/// The second byte differs from the state of each record.
fn row_aad((space, key): (Space, RowKey), until: Timestamp, version: RowVersion) -> Vec<u8> {
    [&[VERSION, 0xff, space.id()], &key.0[..], &until.as_millis().to_be_bytes(), &version.0].concat()
}

/// Encodes each field with its length, so that different lists of fields never have the same bytes.
fn fields<'a>(list: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in list {
        // The length fits into 32 bits, because a field is never longer than a request.
        bytes.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

/// The output length of the key derivation, 32 bytes.
struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

fn expand(prk: &Prk, info: &[u8]) -> Result<Zeroizing<[u8; 32]>, NotSealed> {
    let mut bytes = Zeroizing::new([0; 32]);
    let info = [info];
    let okm = prk.expand(&info, Bytes32).map_err(|_| NotSealed)?;
    okm.fill(bytes.as_mut_slice()).map_err(|_| NotSealed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;

//! Status list tokens (draft-ietf-oauth-status-list): the bits of a list, as a signed text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use zeroize::Zeroizing;

use super::keyring::SigningKey;
use super::mint::{MintError, signed};
use crate::clock::Timestamp;
use crate::session::StatusPlace;

/// The most bytes of an inflated list.
pub const MAX_INFLATED: usize = 8 << 20;
/// The claim `status`: the place where other verifiers read whether the token's session has ended.
#[derive(Clone, Copy, Debug)]
pub struct StatusClaim<'a> {
    /// The URL of all lists.
    pub base: &'a str,
    /// The bit.
    pub place: StatusPlace,
}

impl Serialize for StatusClaim<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry {
            idx: u32,
            uri: String,
        }
        let mut map = serializer.serialize_map(Some(1))?;
        let entry = Entry { idx: self.place.index, uri: self.place.url(self.base) };
        map.serialize_entry("status_list", &entry)?;
        map.end()
    }
}

/// The claims of our status list token. Equal claims give equal bytes.
#[derive(Debug, Serialize)]
pub struct StatusListClaims<'a> {
    /// When the list expires, in seconds.
    pub exp: u64,
    /// When the list was made, in seconds.
    pub iat: u64,
    /// Our issuer.
    pub iss: &'a str,
    /// The list.
    pub status_list: CompressedList,
    /// The URL of the list.
    pub sub: &'a str,
    /// For how long a verifier may cache the list, in seconds.
    pub ttl: u64,
}

/// A list with a bit for each index.
#[derive(Debug, Serialize)]
pub struct CompressedList {
    bits: u8,
    lst: String,
}

impl CompressedList {
    /// The list of these bits, beginning with the lowest bit of the first byte.
    ///
    /// # Errors
    /// The compression fails, which does not happen in memory.
    pub fn new(bits: &[u8]) -> std::io::Result<Self> {
        Ok(Self { bits: 1, lst: URL_SAFE_NO_PAD.encode(zlib::compress(bits)?) })
    }
}

/// Signs a list.
///
/// # Errors
/// The signature failed.
pub fn sign(key: &SigningKey, claims: &StatusListClaims<'_>) -> Result<Zeroizing<String>, MintError> {
    let payload = serde_json::to_string(claims).map_err(|_| MintError::Signing)?;
    signed(key, &key.status_header, &payload)
}

/// The `iat` of a list that is made now, rounded down to a multiple of `ttl`, so that gates that share their keys make
/// equal bytes.
pub fn made_at(now: Timestamp, ttl: u64) -> u64 {
    now.as_secs() - now.as_secs() % ttl.max(1)
}

/// The bytes of `lst`.
///
/// # Errors
/// The problem of the text.
pub fn inflated(lst: &str) -> Result<Vec<u8>, &'static str> {
    let compressed = URL_SAFE_NO_PAD.decode(lst).map_err(|_| "lst is not base64url")?;
    zlib::decompress(&compressed)
}

#[cfg(feature = "status-list")]
mod zlib {
    use std::io::{Read, Write};

    use flate2::Compression;
    use flate2::read::ZlibDecoder;
    use flate2::write::ZlibEncoder;

    use super::MAX_INFLATED;

    pub(super) fn compress(bits: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bits)?;
        encoder.finish()
    }

    pub(super) fn decompress(compressed: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut bytes = Vec::new();
        let mut decoder = ZlibDecoder::new(compressed).take(MAX_INFLATED as u64 + 1);
        decoder.read_to_end(&mut bytes).map_err(|_| "lst is not a whole zlib stream")?;
        if bytes.len() > MAX_INFLATED {
            return Err("lst is larger than 8 MiB");
        }
        if decoder.into_inner().total_in() != compressed.len() as u64 {
            return Err("lst has bytes after its end");
        }
        Ok(bytes)
    }
}

/// A build without the feature `status-list`: no configuration can name a list.
#[cfg(not(feature = "status-list"))]
mod zlib {
    pub(super) fn compress(_: &[u8]) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(super) fn decompress(_: &[u8]) -> Result<Vec<u8>, &'static str> {
        Err("this build reads no status lists")
    }
}

//! The SHA-256 thumbprint of a public key (RFC 7638), to which a token or a session is bound (RFC 9449 §6).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::random::are_equal;

/// The length of a thumbprint, in bytes.
pub(crate) const LENGTH: usize = 32;

/// The thumbprint of a public key (RFC 7638, SHA-256).
///
/// ```
/// use rotogate::token::KeyThumbprint;
///
/// // The key of RFC 7638 §3.1.
/// let thumbprint = KeyThumbprint::parse("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs").unwrap();
/// assert_eq!(thumbprint.to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
/// assert!(KeyThumbprint::parse("NzbLsXh8uDCcd").is_none());
/// ```
#[derive(Clone, Copy)]
pub struct KeyThumbprint([u8; LENGTH]);

impl KeyThumbprint {
    /// From the text of a `jkt`: base64url of 32 bytes, without padding.
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// From the bytes of a record.
    #[cfg(any(test, feature = "postgres", feature = "redb", feature = "redis"))]
    pub(crate) const fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub(crate) const fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl PartialEq for KeyThumbprint {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        are_equal(&self.0, &other.0)
    }
}

impl Eq for KeyThumbprint {}

impl fmt::Display for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyThumbprint({self})")
    }
}

impl Serialize for KeyThumbprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyThumbprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("not a thumbprint"))
    }
}

//! The signature algorithms that a key may be bound to (RFC 7518 §3.1, RFC 8037 §3.1).
//!
//! ```
//! use rotogate::token::Algorithm;
//!
//! assert_eq!("ES256".parse::<Algorithm>().unwrap(), Algorithm::Es256);
//! assert!("none".parse::<Algorithm>().is_err());
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keyring::error::KeyError;

/// A signature algorithm. `none` and algorithms with a broken hash function are not supported.
///
/// ```
/// use rotogate::token::{Algorithm, Keyring};
///
/// let keyring = Keyring::generate(Algorithm::Ps256)?;
/// assert_eq!(keyring.jwks()["keys"][0]["alg"], Algorithm::Ps256.name());
/// assert!(!Algorithm::Ps256.is_deterministic());
/// # Ok::<(), rotogate::token::KeyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// Ed25519 (RFC 8037), the default. Deterministic and fast, with short signatures.
    EdDsa,
    /// ECDSA on P-256 with SHA-256. Not deterministic.
    Es256,
    /// ECDSA on P-384 with SHA-384. Not deterministic.
    Es384,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256. Not deterministic.
    Ps256,
    /// RSA PSS with SHA-384. Not deterministic.
    Ps384,
    /// RSA PSS with SHA-512. Not deterministic.
    Ps512,
    /// HMAC with SHA-256. Every holder of the secret can also sign.
    Hs256,
    /// HMAC with SHA-384. Every holder of the secret can also sign.
    Hs384,
    /// HMAC with SHA-512. Every holder of the secret can also sign.
    Hs512,
}

/// The kind of key that an algorithm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Ed25519.
    Edwards,
    /// ECDSA on a NIST curve.
    Ecdsa,
    /// RSA.
    Rsa,
    /// A shared secret.
    Hmac,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 12] = [
        Self::EdDsa,
        Self::Es256,
        Self::Es384,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
    ];

    /// The name in `alg`. Case matters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    /// RFC 9864 added a second name for EdDSA with Ed25519.
    pub(crate) fn is_named(self, alg: &str) -> bool {
        alg == self.name() || (self == Self::EdDsa && alg == "Ed25519")
    }

    /// The kind of key that the algorithm uses.
    #[doc(hidden)]
    pub const fn family(self) -> Family {
        match self {
            Self::EdDsa => Family::Edwards,
            Self::Es256 | Self::Es384 => Family::Ecdsa,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Family::Rsa,
            Self::Hs256 | Self::Hs384 | Self::Hs512 => Family::Hmac,
        }
    }

    /// Returns whether the same key and bytes always give the same signature.
    pub const fn is_deterministic(self) -> bool {
        match self {
            Self::EdDsa | Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Hs256 | Self::Hs384 | Self::Hs512 => true,
            Self::Es256 | Self::Es384 | Self::Ps256 | Self::Ps384 | Self::Ps512 => false,
        }
    }

    /// An HMAC secret must have at least this many bytes (RFC 7518 §3.2).
    pub(crate) const fn hash_len(self) -> usize {
        match self {
            Self::EdDsa | Self::Es256 | Self::Rs256 | Self::Ps256 | Self::Hs256 => 32,
            Self::Es384 | Self::Rs384 | Self::Ps384 | Self::Hs384 => 48,
            Self::Rs512 | Self::Ps512 | Self::Hs512 => 64,
        }
    }

    pub(crate) const fn jwt(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as Jwt;
        match self {
            Self::EdDsa => Jwt::EdDSA,
            Self::Es256 => Jwt::ES256,
            Self::Es384 => Jwt::ES384,
            Self::Rs256 => Jwt::RS256,
            Self::Rs384 => Jwt::RS384,
            Self::Rs512 => Jwt::RS512,
            Self::Ps256 => Jwt::PS256,
            Self::Ps384 => Jwt::PS384,
            Self::Ps512 => Jwt::PS512,
            Self::Hs256 => Jwt::HS256,
            Self::Hs384 => Jwt::HS384,
            Self::Hs512 => Jwt::HS512,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::ALL.into_iter().find(|a| a.is_named(name)).ok_or_else(|| KeyError::Algorithm(name.to_owned()))
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_an_error_lists_them_all() {
        for a in Algorithm::ALL {
            assert_eq!(a.name().parse::<Algorithm>().ok(), Some(a));
            assert_eq!(format!("{:?}", a.jwt()), a.name());
        }
        for bad in ["none", "NONE", "", "hs256", "ES512", "EdDSA "] {
            let error = bad.parse::<Algorithm>().unwrap_err().to_string();
            assert!(Algorithm::ALL.iter().all(|a| error.contains(a.name())), "{error}");
        }
    }
}

//! SHA-256 thumbprints of public keys (RFC 7638, RFC 9449 §6) and client certificates (RFC 8705 §3.1).

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::random::are_equal;

pub(crate) const LENGTH: usize = 32;

macro_rules! thumbprint {
    ($(#[$meta:meta])* $name:ident, $member:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub struct $name([u8; LENGTH]);

        impl $name {
            #[doc = concat!("Parses the value of `", $member, "`: base64url of 32 bytes, without padding.")]
            pub fn parse(text: &str) -> Option<Self> {
                URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
            }
        }

        impl PartialEq for $name {
            /// The comparison takes constant time.
            fn eq(&self, other: &Self) -> bool {
                are_equal(&self.0, &other.0)
            }
        }

        impl Eq for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        $crate::debug_with!($name, |it, f| write!(f, "{}({it})", stringify!($name)));

        impl $name {
        /// Creates a thumbprint from its bytes.
        #[cfg(any(test, feature = "test-util"))]
        #[doc(hidden)]
        pub const fn from_bytes(bytes: [u8; LENGTH]) -> Self {
            Self(bytes)
        }

        pub(crate) const fn as_bytes(&self) -> &[u8; LENGTH] {
            &self.0
        }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("not a thumbprint"))
            }
        }
    };
}

thumbprint! {
    /// The thumbprint of a public key (RFC 7638, SHA-256).
    ///
    /// ```
    /// use rotogate::token::KeyThumbprint;
    ///
    /// // The example key in RFC 7638 §3.1.
    /// let thumbprint = KeyThumbprint::parse("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs").unwrap();
    /// assert_eq!(thumbprint.to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    /// assert!(KeyThumbprint::parse("NzbLsXh8uDCcd").is_none());
    /// ```
    KeyThumbprint, "jkt"
}

thumbprint! {
    /// The thumbprint of a client certificate: the SHA-256 of its DER encoding (RFC 8705 §3.1).
    ///
    /// ```
    /// use rotogate::token::CertificateThumbprint;
    ///
    /// // The example certificate in RFC 8705 Appendix A.
    /// let thumbprint = CertificateThumbprint::parse("A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0").unwrap();
    /// assert_eq!(thumbprint.to_string(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    /// assert!(CertificateThumbprint::parse("A4DtL2JmUMhAsvJj5tKyn").is_none());
    /// ```
    CertificateThumbprint, "x5t#S256"
}

impl CertificateThumbprint {
    /// Computes the thumbprint of a DER certificate.
    pub fn from_der(der: &[u8]) -> Self {
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }
}

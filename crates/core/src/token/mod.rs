//! Tokens: keys, minting, verification, refresh tokens.

#[doc(hidden)]
pub mod algorithm;
#[doc(hidden)]
pub mod assertion;
#[doc(hidden)]
pub mod claims;
#[doc(hidden)]
pub mod keyring;
#[doc(hidden)]
pub mod live_keys;
#[doc(hidden)]
pub mod mint;
#[doc(hidden)]
pub mod observer;
#[doc(hidden)]
pub mod refresh;
#[doc(hidden)]
pub mod seal;
#[doc(hidden)]
pub mod verify;

/// The longest lifetime of a token without a session. Revocations of such tokens by subject or client are kept as long.
#[doc(hidden)]
pub const MAX_SESSIONLESS_LIFETIME: std::time::Duration = std::time::Duration::from_secs(86_400);

pub use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};
pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use claims::{AccessToken, MintedClaims, TokenStyle};
pub use keyring::{KeyError, Keyring, RefreshKeys, SigningKey};
pub use mint::{AccessTokenText, fingerprint, mint};
pub use refresh::RefreshToken;
pub use verify::{
    AllowedScopes, ClaimMapping, Ignored, IgnoredCause, IssuerKeys, IssuerRules, Preset, RequiredClaim, Roles,
    RulesError, SubjectEncoding, Verifier, WantedClaim,
};

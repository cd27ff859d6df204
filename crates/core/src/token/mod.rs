//! Tokens: keys, minting, verification, refresh tokens.
//!
//! An access token is a JWT (RFC 9068). The gate mints its own, and verifies those of other issuers, too. A refresh token
//! is opaque to clients, and the gate can compute it again. The [`Keyring`] holds the secrets of both.
//!
//! Of an access token, size, shape and header are checked first, because they cost nothing; then issuer and key; then
//! `exp`, `nbf` and `iat`, which can only refuse; then the signature; then the other claims. Issuer and `kid` select the
//! key, and the key determines the algorithm. Duplicate members, `crit`, a wrong `typ` and claims of a wrong type refuse
//! the token.
//!
//! ```
//! use rotogate::token::Keyring;
//!
//! // Keys that end with the process. `Keyring::load_or_create` (feature `key-folder`) keeps them in a folder.
//! let builder = rotogate::Gate::builder().keys(Keyring::ephemeral()?);
//! # let _ = builder;
//! # Ok::<(), rotogate::token::KeyError>(())
//! ```

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

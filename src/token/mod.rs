//! Tokens: keys, minting, verification, refresh tokens.
//!
//! An access token is a JWT (RFC 9068): [`mint`](mod@mint) makes ours, [`verify`] judges everybody's. A [`refresh`] token
//! is opaque to clients and recomputed here. The [`keyring`] holds the secrets of both.

pub mod algorithm;
pub mod claims;
pub mod keyring;
pub mod mint;
pub mod refresh;
pub mod verify;

/// The longest life of a token that has no session. What revokes such tokens by subject or client is kept as long.
pub const MAX_SESSIONLESS_LIFETIME: std::time::Duration = std::time::Duration::from_secs(86_400);

pub use algorithm::Algorithm;
pub use claims::{AccessToken, MintedClaims};
pub use keyring::{KeyError, Keyring, RefreshKeys, SigningKey};
pub use mint::{AccessTokenText, fingerprint, mint};
pub use refresh::RefreshToken;
pub use verify::{IssuerKeys, IssuerRules, Verifier};

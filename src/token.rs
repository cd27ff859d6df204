//! Tokens: keys, minting, verification, refresh tokens.
//!
//! An access token is a JWT (RFC 9068). The gate mints its own access tokens, and verifies the tokens of other issuers,
//! too. A refresh token is opaque to clients, and the gate can compute it again. The [`Keyring`] holds the secrets of
//! both.
//!
//! The gate checks an access token in this order: size, shape and header, because they cost nothing; then issuer and
//! key; then `exp`, `nbf` and `iat`, which can only refuse; then the signature; then the other claims. Issuer and `kid`
//! select the key, and the key determines the algorithm. Duplicate members, `crit`, a wrong `typ` and claims of a wrong
//! type refuse the token.
//!
//! ```
//! use rotogate::token::Keyring;
//!
//! // Keys that end with the process. `Keyring::load_or_create` (feature `key-folder`) keeps them in a folder.
//! let builder = rotogate::Gate::builder().keys(Keyring::ephemeral()?);
//! # let _ = builder;
//! # Ok::<(), rotogate::token::KeyError>(())
//! ```

#[doc(inline)]
pub use rotogate_core::token::{
    Algorithm, CertificateThumbprint, ClaimMapping, IssuerKeys, IssuerRules, KeyError, KeyThumbprint, Keyring, Preset,
    Roles, RulesError, TokenText,
};

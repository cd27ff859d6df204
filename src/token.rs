//! Tokens: keys, minting, verification, refresh tokens.
//!
//! An access token is a JWT (RFC 9068). The gate mints access tokens, and also verifies those of other issuers. A
//! refresh token is opaque to clients. The [`Keyring`] has the secrets for access tokens and refresh tokens.
//!
//! The gate checks an access token in this order: size, form and header; issuer and signing key; `exp`, `nbf` and
//! `iat`; the signature; the other claims. The issuer and `kid` select the signing key, and the key determines the
//! algorithm. A token is refused if it has duplicate members, `crit`, a wrong `typ`, or a claim of a wrong type.
//!
//! ```
//! use rotogate::token::Keyring;
//!
//! // Keys that are lost at exit. `Keyring::load_or_create` (feature `key-folder`) keeps them in a folder.
//! let builder = rotogate::Gate::builder().keys(Keyring::ephemeral()?);
//! # let _ = builder;
//! # Ok::<(), rotogate::token::KeyError>(())
//! ```

#[doc(inline)]
pub use rotogate_core::token::{
    Algorithm, CertificateThumbprint, ClaimMapping, IssuerKeys, IssuerRules, KeyError, KeyThumbprint, Keyring, Preset,
    Roles, RulesError, TokenText,
};

//! Tokens: their keys, minting and verification, and refresh tokens.

pub mod algorithm;
pub mod assertion;
pub mod claims;
pub mod delegation;
pub mod device_cookie;
pub mod keyring;
pub mod live_keys;
pub mod login_cookie;
pub mod mint;
pub mod observer;
pub mod refresh;
pub mod seal;
pub mod session_cookie;
mod text;
pub mod typ;
pub mod verify;

/// The longest lifetime of a token without a session, and of its revocation.
pub const MAX_SESSIONLESS_LIFETIME: std::time::Duration = std::time::Duration::from_secs(86_400);

pub use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};
pub use algorithm::Algorithm;
pub use claims::{AccessToken, MintedClaims, TokenStyle};
pub use keyring::error::KeyError;
pub use keyring::{Keyring, RefreshKeys, SigningKey};
pub use mint::{fingerprint, mint};
pub use session_cookie::SessionCookie;
pub use text::TokenText;
pub use verify::{
    AssertionGrants, ClaimMapping, EventEffect, EventEffects, EventKind, IdJagRules, Ignored, IgnoredCause, IssuerKeys,
    IssuerRules, JagSubject, JwtBearerRules, Preset, RequiredClaim, Roles, RulesError, Verifier, WantedClaim,
};

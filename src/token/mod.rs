//! Tokens: keys, minting, verification, refresh tokens.
pub mod claims;
pub mod keyring;
pub mod mint;
pub mod refresh;
pub mod verify;

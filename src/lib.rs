//! rotogate validates bearer tokens on requests before they reach an upstream, and intercepts the refresh route to
//! rotate tokens.

pub mod clock;
pub mod credential;
pub mod denial;
pub mod directory;
pub mod headers;
pub mod revocation;
pub mod route;
pub mod session;
pub mod store;
pub mod token;

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod proxy;

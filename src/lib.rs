//! rotogate validates bearer tokens on requests before they reach an upstream, and intercepts the refresh route to
//! rotate tokens.

pub mod clock;
pub mod denial;
pub mod directory;
#[cfg(feature = "failpoints")]
pub mod failpoint;
#[cfg(any(feature = "redb", feature = "server"))]
pub mod private_file;
pub mod revocation;
pub mod route;
pub mod session;
pub mod store;
pub mod token;

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod proxy;

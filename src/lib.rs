//! rotogate validates bearer tokens on requests before they reach an upstream, and intercepts the refresh route to
//! rotate tokens.

pub mod client;
pub mod clock;
pub mod denial;
pub mod dialect;
pub mod directory;
pub mod gate;
pub mod limit;
pub mod policy;
pub mod revocation;
pub mod route;
pub mod session;
pub mod store;
pub mod token;
pub mod verified;

mod audit;
mod credential;
pub mod headers;

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "failpoints")]
pub mod failpoint;
#[cfg(any(feature = "redb", feature = "server"))]
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the store alone needs less of it"))]
mod private_file;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod server;

pub use gate::{Gate, Identity};

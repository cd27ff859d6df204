//! The logic of `rotogate` without the tower layer and the wire protocols. This crate does not guarantee a stable API.
//!
//! Applications depend on `rotogate`, which re-exports the types that they need.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod api_key;
pub mod bounds;
pub mod claim;
pub mod client;
#[cfg(feature = "http-client")]
pub mod client_auth;
#[cfg(feature = "client-tls")]
pub mod client_tls;
pub mod clock;
pub mod context;
pub mod counters;
pub mod credential;
mod debug_with;
pub mod denial;
pub mod directory;
pub mod dpop;
pub mod engine;
pub mod exchange;
#[cfg(feature = "failpoints")]
pub mod failpoint;
pub mod fault;
pub mod flight;
pub mod headers;
#[cfg(feature = "http-client")]
pub mod http_client;
pub mod introspection;
pub mod invalid;
pub mod lease;
pub mod limit;
pub mod linger;
pub mod mcp;
pub mod network;
pub mod oauth_error;
pub mod overload;
pub mod password;
pub mod pause;
pub mod policy;
pub mod private_file;
pub mod random;
pub mod reason;
pub mod refusal;
pub mod reply;
pub mod revocation;
pub mod route;
pub mod rule;
pub mod session;
pub mod store;
pub mod strict_json;
pub mod task;
pub mod thumbprint;
pub mod token;
pub mod verify_cache;

pub use context::trace;

//! Other issuers, asked over HTTPS: their keys, which are fetched and kept up to date, and what they say of their tokens.
//!
//! No promise of compatibility: an application depends on `rotogate`, which has what its users need.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "introspection")]
pub mod introspection;
#[cfg(feature = "remote-keys")]
pub mod remote_keys;

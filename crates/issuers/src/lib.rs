//! HTTPS requests to other issuers. This crate fetches their keys and keeps them up to date, introspects their tokens,
//! and lets users of browsers log in there.
//!
//! The API of this crate may change at any time. Applications should depend on `rotogate`, which re-exports what
//! they need.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "introspection")]
pub mod introspection;
#[cfg(feature = "login")]
pub mod login;
#[cfg(feature = "remote-keys")]
pub mod remote_keys;

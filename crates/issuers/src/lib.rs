//! Requests over HTTPS to other issuers. This crate fetches their keys and keeps them up to date, introspects their
//! tokens, and logs browsers in at them.
//!
//! This crate has no promise of compatibility: an application depends on `rotogate`, which re-exports what its users
//! need.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "introspection")]
pub mod introspection;
#[cfg(feature = "login")]
pub mod login;
#[cfg(feature = "remote-keys")]
pub mod remote_keys;

//! Requests to other issuers over HTTPS: their keys, which are fetched and kept up to date, introspection of their
//! tokens, and logins of browsers there. And to decision points.
//!
//! This crate has no promise of compatibility: an application depends on `rotogate`, which re-exports what its users
//! need.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "authzen")]
pub mod authzen;
#[cfg(feature = "introspection")]
pub mod introspection;
#[cfg(feature = "login")]
pub mod login;
#[cfg(feature = "remote-keys")]
pub mod remote_keys;

//! Requests over HTTPS to other issuers and to decision points. From issuers, this crate fetches keys and keeps them
//! up to date. It also introspects their tokens, and logs browsers in at them.
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

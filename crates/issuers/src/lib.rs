//! HTTPS requests to other issuers: key fetching, introspection and browser logins.
//!
//! This API may change at any time. Applications should use the re-exports in `rotogate`.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "introspection")]
pub mod introspection;
#[cfg(feature = "login")]
pub mod login;
#[cfg(feature = "remote-keys")]
pub mod remote_keys;

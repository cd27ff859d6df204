//! Building a gate from a configuration.

pub(crate) mod admin_tokens;
pub(crate) mod assemble;
pub(crate) mod directories;
pub(crate) mod exchanges;
pub(crate) mod files;
mod findings;
pub(crate) mod issuer_rules;
pub(crate) mod issuers;
mod mcp_probe;
pub(crate) mod prepare;
pub(crate) mod provider_client;
pub(crate) mod relays;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod shared;
mod start_wait;
pub(crate) mod stores;
pub(crate) mod users;

//! The edge of the real binary: what a client may send, what the upstream is sent, what is answered. Each test has a gate
//! of its own with an upstream of its own behind it, which writes down what it receives; "refused" is never only a
//! status, but also that nothing arrived there.

pub(crate) mod frames;
pub(crate) mod issuer;

mod abuse;
mod access_lines;
mod assertion;
mod assertion_grants;
mod audit;
mod audit_actors;
mod audit_schema;
mod behind;
mod bodies;
pub(crate) mod browser;
pub(crate) mod browser_device;
pub(crate) mod browser_oidc;
pub(crate) mod browser_vault;
mod claims;
mod client_assertions;
mod cookies;
mod cors;
mod credentials;
mod downgrade;
mod endpoints;
pub(crate) mod event_streams;
pub(crate) mod exchange;
mod failures;
mod fairness;
mod global_revocation;
mod headers;
mod identity;
pub(crate) mod introspection;
mod isolation;
mod issuer_reload;
mod issuer_tls;
mod issuers;
mod listeners;
mod log_ends;
mod log_secrets;
mod logout_events;
mod logs;
mod long_replies;
mod metrics;
mod overload;
pub(crate) mod path_corpus;
pub(crate) mod remote_keys;
mod resources;
mod sessions;
mod small_print;
mod smuggling;
mod streams;
mod targets;
mod tokens;
mod upgrades;
mod upstream_exchange;
mod websockets;

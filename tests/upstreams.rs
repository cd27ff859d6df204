//! Connections to upstreams on the real binary: TLS, several addresses, and requests when an address fails.

pub(crate) mod server;

mod addresses;
mod authorization;
mod configured;
mod secure;
mod sockets;
mod windows;

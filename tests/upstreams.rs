//! The way to the upstreams, on the real binary: TLS, several addresses, and what becomes of requests when one dies.

pub(crate) mod server;

mod addresses;
mod authorization;
mod configured;
mod secure;
mod sockets;
mod windows;

//! gRPC on the real binary: the dialect `knox`, upstreams behind `h2c://`, and both versions of HTTP on one port.

pub(crate) mod client;
pub(crate) mod upstream;

mod mixed;
mod refusals;
mod routes;
mod service;

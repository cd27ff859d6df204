//! gRPC on the real binary: the dialect `knox`, upstreams behind `h2c://`, and both versions of HTTP on one port.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

mod grpc {
    pub(crate) mod client;
    pub(crate) mod upstream;

    mod mixed;
    mod refusals;
    mod routes;
    mod service;
}

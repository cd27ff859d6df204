//! The way to the upstreams, on the real binary: TLS, several addresses, and what becomes of requests when one dies.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

mod upstreams {
    #[allow(dead_code, reason = "shared with the tests of listeners")]
    #[path = "../tls/pki.rs"]
    pub(crate) mod pki;
    #[allow(dead_code, reason = "shared with the tests of gRPC")]
    #[path = "../grpc/upstream.rs"]
    pub(crate) mod rpc;
    pub(crate) mod server;

    mod addresses;
    mod configured;
    mod secure;
    mod sockets;
    mod windows;
}

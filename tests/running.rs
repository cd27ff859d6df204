//! What changes under a gate that runs: another configuration, and another program in its place.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

mod upstreams {
    #[allow(dead_code, reason = "shared with the tests of listeners")]
    #[path = "../tls/pki.rs"]
    pub(crate) mod pki;
    #[allow(dead_code, reason = "shared with the tests of gRPC")]
    #[path = "../grpc/upstream.rs"]
    pub(crate) mod rpc;
    #[allow(dead_code, reason = "shared with the tests of upstreams")]
    #[path = "../upstreams/server.rs"]
    pub(crate) mod server;
}

mod running {
    mod reload;
    mod successor;
}

//! Clients that are not ours, over TLS, through the real binary, to upstreams that are not ours: curl, nghttp, grpcio and
//! Chromium; nginx, tonic's server, and WebSockets. What is missing on the machine fails the tests, with the name of its
//! package.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

#[allow(dead_code, reason = "a part of it is used")]
#[path = "edge/stub.rs"]
mod stub;
#[allow(dead_code, reason = "a part of it is used")]
#[path = "edge/wire.rs"]
mod wire;

mod clients {
    #[allow(dead_code, reason = "shared with the tests of listeners")]
    #[path = "../tls/pki.rs"]
    pub(crate) mod pki;
    #[allow(dead_code, reason = "shared with the tests of gRPC")]
    #[path = "../grpc/upstream.rs"]
    pub(crate) mod rpc;
    #[allow(dead_code, reason = "shared with the tests of upstreams")]
    #[path = "../upstreams/server.rs"]
    pub(crate) mod server;

    pub(crate) mod nginx;
    pub(crate) mod scene;
    pub(crate) mod tonic;

    mod chromium;
    mod curl;
    mod grpcio;
    mod nghttp;
}

//! The listeners of the real binary: TLS with certificates made for each run, and what bounds connections.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

mod tls {
    pub(crate) mod client;
    pub(crate) mod pki;

    mod certificates;
    mod handshake;
    mod mistakes;
    mod reload;
}

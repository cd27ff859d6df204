//! The listeners of the real binary: TLS with certificates made for each run, and what bounds connections.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

#[allow(dead_code, reason = "a part of it is used")]
#[path = "edge/stub.rs"]
mod stub;
#[allow(dead_code, reason = "a part of it is used")]
#[path = "edge/wire.rs"]
mod wire;

mod tls {
    pub(crate) mod client;
    pub(crate) mod frames;
    pub(crate) mod pki;

    mod addresses;
    mod certificates;
    mod floods;
    mod handshake;
    mod mistakes;
    mod proxied;
    mod reload;
    mod slow;
    mod unread;
}

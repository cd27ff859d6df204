//! The edge of the real binary: what a client may send, what the upstream is sent, what is answered. Each test has a gate
//! of its own with an upstream of its own behind it, which writes down what it receives; "refused" is never only a
//! status, but also that nothing arrived there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

mod edge {
    pub(crate) mod issuer;
    pub(crate) mod stub;
    pub(crate) mod wire;

    mod abuse;
    mod bodies;
    mod cookies;
    mod cors;
    mod credentials;
    mod endpoints;
    mod failures;
    mod headers;
    mod issuers;
    mod logs;
    mod long_replies;
    mod metrics;
    mod paths;
    mod sessions;
    mod streams;
    mod targets;
    mod tokens;
    mod upgrades;
}

//! Every parser of ours on generated inputs: the stored corpus (`tests/fuzz/__fuzz__/<target>/corpus`), changes of it,
//! and bytes at random, for a bounded time in each run. A target checks more than "no panic": it states what must hold
//! for accepted input.
//!
//! A target that fails prints the input and `BOLERO_RANDOM_SEED`, which brings it back. For a longer run, of all targets
//! or of one: `BOLERO_RANDOM_TEST_TIME_MS=3600000 cargo test --all-features --test fuzz [path]`, or `tests/long.sh fuzz`;
//! `cargo bolero test --test fuzz path::path` looks for new paths through the code, from the same corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod api_keys;
mod assertions;
mod browser_login;
mod claims;
mod config;
mod device;
mod dialects;
mod exchange;
mod files;
mod headers;
mod input;
mod introspection;
mod json;
mod kuzzle;
mod mcp;
mod neighbours;
mod notices;
mod path;
mod proofs;
mod refresh;
mod remote_keys;
mod session_cookie;
mod tokens;

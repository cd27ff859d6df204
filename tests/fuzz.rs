//! Every parser of ours on inputs that nobody wrote: the stored corpus (`tests/fuzz/__fuzz__/<target>/corpus`), changes
//! of it, and bytes at random, for a bounded time in each run. What is asked is more than "no panic": each target says
//! what must hold of what its parser lets through.
//!
//! A target that fails prints the input and `BOLERO_RANDOM_SEED`, which brings it back. For a longer run, of all targets
//! or of one: `BOLERO_RANDOM_TEST_TIME_MS=3600000 cargo test --all-features --test fuzz [path]`, or `tests/long.sh fuzz`;
//! `cargo bolero test --test fuzz path::path` looks for new paths through the code, from the same corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "fuzz/config.rs"]
mod config;
#[path = "fuzz/dialects.rs"]
mod dialects;
#[path = "fuzz/files.rs"]
mod files;
#[path = "fuzz/headers.rs"]
mod headers;
#[path = "fuzz/input.rs"]
mod input;
#[path = "fuzz/json.rs"]
mod json;
#[path = "fuzz/kuzzle.rs"]
mod kuzzle;
#[path = "fuzz/path.rs"]
mod path;
#[path = "fuzz/refresh.rs"]
mod refresh;
#[path = "fuzz/tokens.rs"]
mod tokens;

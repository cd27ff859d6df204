//! Tests of the real binary, in one test binary. Each module answers one question, which tests/README.md lists.
//!
//! Each test starts the program with a `gateway.toml` of its own, on ports that the system chooses. Tests that need a
//! process of their own, or that count or measure, are test binaries of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod admin;
mod cli;
mod clients;
// Moves the clock of the process by a fail point.
#[cfg(feature = "failpoints")]
mod clock;
mod corpus;
mod dialects;
mod directories;
mod dpop;
mod edge;
mod end_to_end;
mod faults;
mod grpc;
mod history;
mod interop;
mod kuzzle;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod neighbours;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod nodes;
#[cfg(feature = "postgres")]
mod postgres;
mod readings;
#[cfg(feature = "redis")]
mod redis;
mod relay;
mod releases;
mod rotation_table;
mod running;
mod tls;
#[cfg(feature = "otel")]
mod traces;
mod upstreams;

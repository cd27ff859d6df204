//! Real clients, pinned and installed into `target/interop-cache` at the first run.

mod apps;
mod assertions;
mod browser;
mod exchange;
mod grpc;
mod kuzzle;
mod mcp;
mod oauth2;
mod page;
mod relay;
mod standards;
mod vite;

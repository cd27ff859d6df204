//! Real clients with pinned versions, which the first run installs into `target/interop-cache`.

mod apps;
mod assertions;
mod browser;
mod exchange;
mod grpc;
mod kuzzle;
mod mcp;
mod oauth2;
mod oauth2_crate;
mod page;
mod relay;
mod standards;
mod vite;

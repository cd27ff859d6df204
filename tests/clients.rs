//! Clients that are not ours, through the real binary, mostly over TLS, to upstreams that are not ours: curl, nghttp, h2load,
//! grpcio and Chromium; nginx, tonic's server, and WebSockets. What is missing on the machine fails the tests, with the name
//! of its package.

pub(crate) mod chromium;
pub(crate) mod nginx;
pub(crate) mod scene;
pub(crate) mod tonic;

mod chromium_back;
mod chromium_devices;
mod curl;
mod grpcio;
mod h2load;
mod nghttp;

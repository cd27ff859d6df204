//! Clients that are not ours, over TLS, through the real binary, to upstreams that are not ours: curl, nghttp, grpcio and
//! Chromium; nginx, tonic's server, and WebSockets. A missing program fails the tests, with the name of its package.

pub(crate) mod chromium;
pub(crate) mod nginx;
pub(crate) mod scene;
pub(crate) mod tonic;

mod chromium_devices;
mod curl;
mod grpcio;
mod nghttp;

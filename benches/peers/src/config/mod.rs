//! The configurations of the gateways that are other programs.

use std::net::SocketAddr;
use std::path::Path;

use crate::client::Speech;

mod envoy;
mod haproxy;
mod nginx;

pub use envoy::envoy;
pub use haproxy::haproxy;
pub use nginx::{Asked, nginx};

/// What all configurations have in common.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    pub listen: SocketAddr,
    pub upstream: SocketAddr,
    /// The folder of the gateway's files.
    pub folder: &'a Path,
    /// The folder with the public keys.
    pub keys: &'a Path,
    /// Is there a line for each request in `access.log` of the folder?
    pub logs: bool,
    pub tls: bool,
    pub speech: Speech,
}

impl Common<'_> {
    /// Do clients and upstream speak gRPC, in clear text?
    const fn is_grpc(&self) -> bool {
        matches!(self.speech, Speech::Calls(_))
    }
}

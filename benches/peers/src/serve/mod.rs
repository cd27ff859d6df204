//! The servers of the bench that are written in Rust: the Rust peers, the auth server of nginx, and the upstream, which
//! runs beside the load.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use rotogate::token::Algorithm;
use tokio::net::TcpListener;

mod auth;
mod layers;
mod proxy;
mod raw;
mod upstream;
mod verifier;

pub use upstream::{BODY, is_of_the_pattern, pattern, upstream};
pub use verifier::LEEWAY;

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Copies bytes, parses nothing: the floor.
    Relay,
    /// A plain hyper proxy: the best that a proxy on this library can do.
    Hyper,
    /// The same, and jsonwebtoken at each request.
    Jsonwebtoken,
    /// The crate of that name around the same proxy.
    JwtAuthorizer,
    /// The crate of that name around the same proxy.
    AxumJwtAuth,
    /// The crate tower-oauth2-resource-server around the same proxy.
    ResourceServer,
    /// For nginx `auth_request`: verifies at each request.
    Auth,
    /// For nginx `auth_request`: caches verified tokens.
    AuthCached,
}

impl Kind {
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Serves until the process is ended, with one worker thread, like every gateway of the bench.
pub fn run(kind: Kind, listen: SocketAddr, upstream: SocketAddr, keys: (Algorithm, &Path)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        // Spawned, because `block_on` would run it outside the worker thread.
        let server = match kind {
            Kind::Relay => tokio::spawn(raw::relay(listener, upstream)),
            Kind::Hyper => tokio::spawn(proxy::plain(listener, upstream)),
            Kind::Jsonwebtoken => tokio::spawn(proxy::verifying(listener, upstream, verifier::Verifier::new(keys)?)),
            Kind::JwtAuthorizer => tokio::spawn(proxy::serve(listener, layers::jwt_authorizer(upstream, keys).await?)),
            Kind::AxumJwtAuth => tokio::spawn(proxy::serve(listener, layers::axum_jwt_auth(upstream, keys)?)),
            Kind::ResourceServer => {
                tokio::spawn(proxy::serve(listener, layers::resource_server(upstream, keys).await?))
            }
            Kind::Auth => tokio::spawn(auth::serve(listener, verifier::Verifier::new(keys)?, false)),
            Kind::AuthCached => tokio::spawn(auth::serve(listener, verifier::Verifier::new(keys)?, true)),
        };
        server.await?
    })
}

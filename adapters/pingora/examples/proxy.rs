//! A pingora proxy that accepts the tokens of another issuer, in front of a service on port 9000.
//!
//! ```sh
//! cargo run -p rotogate-pingora --example proxy -- https://idp.example.com/realms/x
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use rotogate::gate::PermittedRequest;
use rotogate::token::Preset;
use rotogate::{Gate, ResourceServer};

struct Gated {
    gate: Gate,
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Gated {
    type CTX = Option<Box<PermittedRequest>>;

    fn new_ctx(&self) -> Self::CTX {
        None
    }

    async fn request_filter(&self, session: &mut Session, permitted: &mut Self::CTX) -> Result<bool> {
        *permitted = rotogate_pingora::filter(&self.gate, session).await?;
        Ok(permitted.is_none())
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        _: bool,
        permitted: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        permitted.as_deref_mut().map_or(Ok(()), rotogate_pingora::check)?;
        Ok(None)
    }
}

/// A proxy from `listen` to the upstream.
pub fn proxy(gate: Gate, listen: &str, upstream: SocketAddr) -> Result<Server> {
    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Gated { gate, upstream });
    service.add_tcp(listen);
    server.add_service(service);
    Ok(server)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let issuer = std::env::args().nth(1).ok_or("usage: proxy ISSUER")?;
    // The gate's own tasks run here; pingora's services have runtimes of their own.
    let runtime = tokio::runtime::Runtime::new()?;
    let gate = runtime.block_on(ResourceServer::discover(&issuer).audience("api").preset(Preset::Keycloak).build())?;
    proxy(gate, "127.0.0.1:3000", ([127, 0, 0, 1], 9000).into())?.run_forever()
}

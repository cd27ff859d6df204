//! Upgraded connections such as WebSockets (RFC 9110 §7.8). An upgraded connection is closed when the caller's token
//! becomes invalid (requirement T9).

use std::any::Any;
use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::ProxyBody;
use rotogate::program::{carry, protocol};
use rotogate_core::context::{Context, inherited};
use rotogate_core::headers;
use rotogate_core::lease::{Dialled, Lease};
use rotogate_core::policy::Permitted;
use rotogate_kit::exchange::TunnelEnd;

/// A permit that is released when the connection closes.
#[derive(Clone)]
pub struct ConnectionPermit(pub Arc<dyn Any + Send + Sync>);

pub(super) struct UpgradeRequest {
    protocol: HeaderValue,
    end: Downstream,
}

enum Downstream {
    /// The connection of a client.
    Client { client: OnUpgrade, lease: Lease, permit: Option<ConnectionPermit>, tunnel: TunnelEnd },
    /// The gate itself, which authenticates each message of the client.
    Gate,
}

/// Returns `None` if the upgrade must not be forwarded.
pub(super) fn requested_upgrade<B>(request: &mut Request<B>, permitted: &Permitted) -> Option<Box<UpgradeRequest>> {
    if !permitted.route().policy.upgrade || !request.headers().contains_key(UPGRADE) {
        return None;
    }
    if request.extensions_mut().remove::<Dialled>().is_some() {
        return Some(Box::new(UpgradeRequest { protocol: protocol(request.headers())?, end: Downstream::Gate }));
    }
    // A tunnel ends when the caller's lease ends, so it needs a caller.
    if permitted.caller().is_none() || *request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return None;
    }
    let protocol = protocol(request.headers())?;
    let lease = request.extensions_mut().remove::<Lease>()?;
    let permit = request.extensions_mut().remove::<ConnectionPermit>();
    let tunnel = request.extensions_mut().remove::<TunnelEnd>().unwrap_or_default();
    let end = Downstream::Client { client: hyper::upgrade::on(request), lease, permit, tunnel };
    Some(Box::new(UpgradeRequest { protocol, end }))
}

impl UpgradeRequest {
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// Turns a 101 response into a tunnel. Returns `None` if the upstream chose another protocol.
    pub(super) fn switch(self, mut response: Response<hyper::body::Incoming>) -> Option<Response<ProxyBody>> {
        let said = response.headers().get(UPGRADE)?;
        if !said.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes()) {
            return None;
        }
        let upstream = hyper::upgrade::on(&mut response);
        let (parts, _) = response.into_parts();
        let mut switched = Response::new(ProxyBody::full(Vec::new()));
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = parts.headers;
        headers::remove_hop_by_hop(switched.headers_mut());
        self.ask(switched.headers_mut());
        let is_websocket = self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        match self.end {
            Downstream::Client { client, lease, permit, tunnel } => {
                let carried = carry_tunnel(client, upstream, is_websocket, lease, permit, tunnel);
                drop(tokio::spawn(inherited(Context::current(), carried)));
            }
            Downstream::Gate => drop(switched.extensions_mut().insert(upstream)),
        }
        Some(switched)
    }
}

/// Copies bytes in both directions, after both sides have switched protocols.
async fn carry_tunnel(
    client: OnUpgrade,
    upstream: OnUpgrade,
    is_websocket: bool,
    lease: Lease,
    permit: Option<ConnectionPermit>,
    tunnel: TunnelEnd,
) {
    let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
    if let Some(ending) = carry(TokioIo::new(client), TokioIo::new(upstream), is_websocket, &lease).await {
        tunnel.set_end(ending.end());
    }
    drop((permit, tunnel));
}

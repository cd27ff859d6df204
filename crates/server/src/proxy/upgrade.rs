//! An upgraded connection (RFC 9110 §7.8) through the proxy, such as a WebSocket: passed on where the route says so, to
//! a caller that is known, and ended when the caller's token is not good any more (requirement T9).

use std::any::Any;
use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::ProxyBody;
use crate::log::Tunnel;
use rotogate::context::{Context, inherited};
use rotogate::gate::tunnel::{carry, protocol};
use rotogate::headers;
use rotogate::lease::{Dialled, Lease};
use rotogate::policy::Permitted;

/// In the extensions of a request: held for as long as its connection is open, upgraded or not.
#[derive(Clone)]
pub(crate) struct Seat(
    #[expect(dead_code, reason = "it is held, not looked at")] pub(crate) Arc<dyn Any + Send + Sync>,
);

/// An upgrade that is to be passed on.
pub(super) struct Wanted {
    protocol: HeaderValue,
    end: End,
}

/// Who is at the near end.
enum End {
    /// A client.
    Client { client: OnUpgrade, lease: Lease, seat: Option<Seat>, told: Tunnel },
    /// The gate, which authenticates each message.
    Gate,
}

/// The upgrade that a request asks for, if it is one that passes.
pub(super) fn wanted<B>(request: &mut Request<B>, permitted: &Permitted) -> Option<Wanted> {
    let seat = request.extensions_mut().remove::<Seat>();
    let lease = request.extensions_mut().remove::<Lease>();
    let told = request.extensions_mut().remove::<Tunnel>().unwrap_or_default();
    let dialled = request.extensions_mut().remove::<Dialled>().is_some();
    if dialled && permitted.route().policy.upgrade {
        return Some(Wanted { protocol: protocol(request.headers())?, end: End::Gate });
    }
    // Without a lease nobody could end the tunnel: routes that ask for no token pass none.
    if !permitted.route().policy.upgrade || permitted.caller().is_none() {
        return None;
    }
    if *request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return None;
    }
    let protocol = protocol(request.headers())?;
    let end = End::Client { client: hyper::upgrade::on(request), lease: lease?, seat, told };
    Some(Wanted { protocol, end })
}

impl Wanted {
    /// Asks the upstream for the same.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// What the upstream said to it: a tunnel, if it is the protocol that was asked for.
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
            End::Client { client, lease, seat, told } => {
                let carried = tunnel(client, upstream, is_websocket, lease, seat, told);
                drop(tokio::spawn(inherited(Context::current(), carried)));
            }
            End::Gate => drop(switched.extensions_mut().insert(upstream)),
        }
        Some(switched)
    }
}

/// Nothing of the client's goes out before the upstream has agreed, because only then is the client told.
async fn tunnel(
    client: OnUpgrade,
    upstream: OnUpgrade,
    is_websocket: bool,
    lease: Lease,
    seat: Option<Seat>,
    told: Tunnel,
) {
    let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
    if let Some(ending) = carry(TokioIo::new(client), TokioIo::new(upstream), is_websocket, &lease).await {
        told.ends(ending.end());
    }
    drop((seat, told));
}

//! Handles requests to upgrade the connection to another protocol. A policy may forbid upgrades. A permitted connection
//! ends when its session ends, whatever the service does.
//!
//! A service gets its connection from hyper's [`OnUpgrade`] in the request. Only hyper can make an `OnUpgrade`, so the
//! layer lets hyper serve a second connection over a pipe. The service gets the upgrade of that second connection.
//! After the 101 to the client, the gate copies bytes between client and pipe ([`tunnel`](super::tunnel)) until the
//! lease ends.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::sync::oneshot;

use super::Inner;
use super::notice::SetupNotice;
use super::tunnel::{carry, protocol};
use rotogate_core::lease::Lease;
use rotogate_core::overload::PoolPermit;
use rotogate_core::route::Route;
use rotogate_core::verify_cache::Verified;

/// The pipe's buffer in each direction, in bytes.
const PIPE: usize = 8 * 1024;
/// The request that opens the HTTP connection over the pipe.
const ASKS: &[u8] = b"GET / HTTP/1.1\r\nhost: pipe\r\nconnection: upgrade\r\nupgrade: pipe\r\n\r\n";

/// Prepares an allowed upgrade, or removes `Upgrade` from the request.
pub(super) fn settle(
    gate: &Arc<Inner>,
    parts: &mut Parts,
    route: &Route,
    caller: Option<&Arc<Verified>>,
    place: Option<PoolPermit>,
) {
    if !parts.headers.contains_key(UPGRADE) {
        return;
    }
    let policy = &route.policy;
    if !policy.upgrade {
        if gate.running.notices.first(SetupNotice::Upgrade) {
            let route = &*route.id;
            tracing::warn!(
                route,
                "upgrade (WebSocket) removed from a request: its route does not allow upgrades. To allow them, set \
                 `upgrade: true` in the route's RoutePolicy. Logged once"
            );
        }
        refuse(parts);
        return;
    }
    let lease = gate.tunnel_lease(caller, policy.on_expiry());
    let lease = match place {
        Some(place) => lease.in_place(place),
        None => lease,
    };
    let given = parts.extensions.remove::<OnUpgrade>().zip(protocol(&parts.headers));
    match given.and_then(|(client, protocol)| {
        bridge(client, protocol.as_bytes().eq_ignore_ascii_case(b"websocket"), lease.clone())
    }) {
        Some(own) => {
            parts.extensions.insert(own);
            parts.extensions.insert(lease);
        }
        None => refuse(parts),
    }
}

/// A server may ignore `Upgrade` (RFC 9110 §7.8).
pub(super) fn refuse(parts: &mut Parts) {
    parts.extensions.remove::<OnUpgrade>();
    parts.headers.remove(UPGRADE);
    parts.headers.remove(CONNECTION);
}

fn bridge(client: OnUpgrade, is_websocket: bool, lease: Lease) -> Option<OnUpgrade> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let (mut near, far) = tokio::io::duplex(PIPE);
    let (agree, agreed) = oneshot::channel::<()>();
    let agreed = Arc::new(Mutex::new(Some(agreed)));
    let made = Arc::new(Mutex::new(None));
    let service = {
        let made = Arc::clone(&made);
        service_fn(move |mut request: Request<Incoming>| {
            *made.lock() = Some(hyper::upgrade::on(&mut request));
            let agreed = agreed.lock().take();
            async move {
                if let Some(agreed) = agreed {
                    // An error means that the client's connection was not upgraded.
                    let _ = agreed.await;
                }
                Ok::<_, Infallible>(switching())
            }
        })
    };
    let mut pipe = Box::pin(http1::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades());
    // One poll suffices, because the pipe has room for the request and hyper reads it at once. The noop waker is
    // harmless, because the task below polls again.
    let mut cx = Context::from_waker(Waker::noop());
    let mut begin = tokio::task::unconstrained(std::future::poll_fn(|cx| {
        let asked = Pin::new(&mut near).poll_write(cx, ASKS);
        let _ = pipe.as_mut().poll(cx);
        asked
    }));
    let _ = Pin::new(&mut begin).poll(&mut cx);
    let own = made.lock().take()?;
    runtime.spawn(async move {
        // The service did not reply with 101, or the client disconnected. The service's upgrade then fails too.
        let Ok(client) = client.await else { return };
        let _ = agree.send(());
        if pipe.await.is_ok() && skip_head(&mut near).await.is_some() {
            carry(TokioIo::new(client), near, is_websocket, &lease).await;
        }
    });
    Some(own)
}

fn switching() -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("pipe"));
    response
}

async fn skip_head(near: &mut DuplexStream) -> Option<()> {
    let mut last = [0; 4];
    while last != *b"\r\n\r\n" {
        last.rotate_left(1);
        *last.last_mut()? = near.read_u8().await.ok()?;
    }
    Some(())
}

//! A socket that accepts connections, and what a connection is before the first request: its TLS, its protocol, and
//! whose it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::origin::{Named, Origin};
use super::stream::Stream;
use super::tls::Tls;
use crate::config::ListenerConfig;

/// How long to wait for the rest of a preface that has begun.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);
/// What every HTTP/2 connection begins with (RFC 9113 §3.4). No HTTP/1.1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    tls: Option<Arc<Tls>>,
}

/// A connection on which requests may come.
pub(super) struct Established {
    pub(super) stream: Stream,
    pub(super) origin: Origin,
    pub(super) is_http2: bool,
}

impl Listener {
    pub(super) fn new(socket: TcpListener, config: &ListenerConfig) -> Result<Self, String> {
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        Ok(Self { socket, tls })
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(super) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// Everything that comes before the first request. It has no deadline of its own.
    pub(super) async fn establish(&self, stream: TcpStream, peer: SocketAddr) -> std::io::Result<Established> {
        let Some(tls) = &self.tls else {
            let is_http2 = begins_with_preface(&stream).await?;
            return Ok(Established { stream: Stream::Clear(stream), origin: Origin::clear(peer), is_http2 });
        };
        let loaded = tls.now();
        let stream = TlsAcceptor::from(Arc::clone(&loaded.settings)).accept(stream).await?;
        let (_, session) = stream.get_ref();
        // RFC 9113 §3.2: HTTP/2 over TLS is agreed on by ALPN. A client that says nothing of it speaks HTTP/1.1.
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let named = session
            .server_name()
            .map(|name| Named { name: name.to_owned(), certificates: Arc::clone(&loaded.certificates) });
        Ok(Established { origin: Origin::tls(peer, named), stream: Stream::Tls(Box::new(stream)), is_http2 })
    }
}

/// Looks at the first bytes without taking them.
async fn begins_with_preface(stream: &TcpStream) -> std::io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut bytes).await?;
        let begun = bytes.get(..seen).unwrap_or_default();
        if seen == PREFACE.len() || !PREFACE.starts_with(begun) || seen == 0 {
            return Ok(begun == PREFACE);
        }
        // What is there makes the socket readable, so only time brings the rest.
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

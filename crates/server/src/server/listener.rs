//! A socket that accepts connections, and what a connection is before the first request: whose it is, its TLS, and its
//! protocol.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::addresses::{Addresses, Place};
use super::connection::Bounds;
use super::origin::{Named, Origin};
use super::proxy_protocol;
use super::stream::{Socket, Stream};
use super::tls::{Tls, Wrong};
use crate::config::ListenerConfig;
use rotogate::headers::Peer;

/// How long to wait for the rest of a preface that has begun.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);
/// What every HTTP/2 connection begins with (RFC 9113 §3.4). No HTTP/1.1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    tls: Option<Arc<Tls>>,
    proxy_protocol: bool,
    addresses: Arc<Addresses>,
    /// Does only this machine connect to it?
    at_loopback: bool,
}

/// A connection on which requests may come.
pub(super) struct Established {
    pub(super) stream: Stream,
    pub(super) origin: Origin,
    pub(super) is_http2: bool,
    /// `None` where nobody counts.
    pub(super) place: Option<Place>,
}

impl Listener {
    pub(super) fn new(socket: TcpListener, config: &ListenerConfig) -> Result<Self, Wrong> {
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let addresses = Addresses::new(config.max_connections_per_address);
        let at_loopback = socket.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback());
        Ok(Self { socket, tls, proxy_protocol: config.proxy_protocol, addresses, at_loopback })
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(super) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    pub(super) fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// Everything that comes before the first request. It has no deadline of its own.
    pub(super) async fn establish(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        bounds: &Bounds,
    ) -> io::Result<Established> {
        let client = match self.proxy_protocol {
            true if bounds.trusts(peer.ip()) => proxy_protocol::read(&mut stream, peer).await?,
            true => return Err(refused("only trusted_proxies may connect to this listener")),
            false => peer,
        };
        // A proxy has the connections of all its clients. One that says by a PROXY header for whom it speaks has not, and
        // its client's forwarding headers are what the client says, whatever network the client is in.
        let is_proxy = bounds.trusts(client.ip()) && (!self.proxy_protocol || client == peer);
        let place = match is_proxy {
            true => None,
            false => Some(self.addresses.enter(client.ip()).ok_or_else(|| refused("its address has too many"))?),
        };
        let Some(tls) = &self.tls else {
            let is_http2 = begins_with_preface(&stream).await?;
            let stream = Stream::clear(Socket::new(stream, bounds.slowest));
            let origin = Origin::clear(self.peer(client, false), is_proxy, bounds.slowest);
            return Ok(Established { stream, origin, is_http2, place });
        };
        let loaded = tls.now();
        let socket = Socket::new(stream, bounds.slowest);
        let mut stream = TlsAcceptor::from(Arc::clone(&loaded.settings)).accept(socket).await?;
        let (_, session) = stream.get_ref();
        let name = session.server_name().map(str::to_owned);
        let named = Named { name, certificates: Arc::clone(&loaded.certificates) };
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => Some("1.3"),
            Some(rustls::ProtocolVersion::TLSv1_2) => Some("1.2"),
            _ => None,
        };
        // RFC 9113 §3.2: HTTP/2 over TLS is agreed on by ALPN. A client that says nothing of it speaks HTTP/1.1.
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let mut ahead: &[u8] = &[];
        if is_http2 {
            // The library would wait for it for ever.
            let mut preface = [0; PREFACE.len()];
            stream.read_exact(&mut preface).await?;
            if preface != PREFACE {
                return Err(refused("what was to be HTTP/2 begins with something else"));
            }
            ahead = PREFACE;
        }
        let stream = Stream::tls(stream, ahead);
        let mut origin = Origin::tls(self.peer(client, true), is_proxy, bounds.slowest, named);
        origin.tls = version;
        Ok(Established { stream, origin, is_http2, place })
    }

    /// The client as requests have it.
    fn peer(&self, client: SocketAddr, secure: bool) -> Peer {
        let peer = Peer::new(client.ip(), secure).at_loopback(self.at_loopback);
        if self.proxy_protocol { peer.without_forwarding() } else { peer }
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, what)
}

/// Looks at the first bytes without taking them.
async fn begins_with_preface(stream: &TcpStream) -> io::Result<bool> {
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

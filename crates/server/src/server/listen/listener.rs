//! A listening socket, and the setup of its connections: client address, TLS and protocol.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::addresses::{AddressPermit, Addresses};
use super::conditions::ConnectionConditions;
use super::connection_counts::{ConnectionCounts, RejectCause};
use super::limits::Bounds;
use super::origin::{Origin, RequestedServer};
use super::proxy_protocol;
use super::stream::{Socket, Stream};
use super::tls::Tls;
use crate::server::error::KeyFault;
use rotogate_config::ListenerConfig;
use rotogate_core::headers::Peer;

/// How often to check for the rest of a partly received HTTP/2 preface.
const PREFACE_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The HTTP/2 preface (RFC 9113 §3.4). No HTTP/1.1 request begins with these bytes.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A listener for clients, or for authorization requests of other proxies.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    tls: Option<Arc<Tls>>,
    proxy_protocol: bool,
    addresses: Arc<Addresses>,
    counts: Arc<ConnectionCounts>,
    asking: Option<Arc<AskingNetworks>>,
    at_loopback: bool,
    name: Option<Arc<str>>,
}

/// The networks that may send authorization requests. With `None`, a client certificate is required instead. A reload
/// replaces the networks (requirement T37).
#[derive(Debug, Default)]
pub(crate) struct AskingNetworks(ArcSwap<Option<Arc<[IpNet]>>>);

impl AskingNetworks {
    pub(crate) fn set(&self, networks: Option<Arc<[IpNet]>>) {
        self.0.store(Arc::new(networks));
    }

    pub(crate) fn now(&self) -> Arc<Option<Arc<[IpNet]>>> {
        self.0.load_full()
    }

    fn has(&self, peer: IpAddr) -> bool {
        let (peer, networks) = (peer.to_canonical(), self.0.load());
        (**networks).as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(&peer)))
    }
}

pub(crate) struct NewConnection {
    pub(crate) stream: Stream,
    pub(crate) origin: Origin,
    pub(super) is_http2: bool,
    /// `None` for a trusted proxy, whose connections are not counted.
    pub(crate) permit: Option<[AddressPermit; 2]>,
    pub(super) conditions: ConnectionConditions,
    pub(super) carried_by: Option<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct SetUpError {
    pub(crate) cause: RejectCause,
    #[source]
    error: io::Error,
}

impl RejectCause {
    fn with(self, what: &str) -> SetUpError {
        self.caused_by(io::Error::new(io::ErrorKind::ConnectionRefused, what))
    }

    fn caused_by(self, error: io::Error) -> SetUpError {
        SetUpError { cause: self, error }
    }
}

impl Listener {
    pub(crate) fn new(socket: TcpListener, config: &ListenerConfig) -> Result<Self, KeyFault> {
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let addresses = Addresses::new(config.max_connections_per_address);
        let at_loopback = socket.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback());
        let counts = Arc::default();
        let (proxy_protocol, name) = (config.proxy_protocol, config.name.clone());
        Ok(Self { socket, tls, proxy_protocol, addresses, counts, asking: None, at_loopback, name })
    }

    pub(crate) fn asked_by(self, asking: Arc<AskingNetworks>) -> Self {
        Self { asking: Some(asking), ..self }
    }

    pub(crate) const fn is_public(&self) -> bool {
        self.asking.is_none()
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(crate) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    pub(crate) fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    pub(crate) fn counts(&self) -> &Arc<ConnectionCounts> {
        &self.counts
    }

    /// Sets up a connection. The caller must enforce the time limit.
    pub(super) async fn establish(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        bounds: &Bounds,
    ) -> Result<NewConnection, SetUpError> {
        let client = match self.proxy_protocol {
            true if bounds.trusts(peer.ip()) => proxy_protocol::read(&mut stream, peer)
                .await
                .map_err(|error| RejectCause::ProxyProtocol.caused_by(error))?,
            true => return Err(RejectCause::ProxyProtocol.with("peer is not in trusted_proxies")),
            false => peer,
        };
        // A trusted proxy's address is not counted, because the proxy carries the connections of all its clients. If a
        // PROXY header names the client, the client's address is counted. Such a client wrote the forwarding headers
        // itself, so they are not trusted.
        let is_proxy = match &self.asking {
            Some(asking) => asking.has(client.ip()),
            None => bounds.trusts(client.ip()) && (!self.proxy_protocol || client == peer),
        };
        let proxied_by = (client != peer).then(|| peer.ip());
        let permit = match is_proxy {
            true => None,
            false => {
                let permits = [&self.addresses, &bounds.networks].map(|counted| counted.acquire(client.ip()));
                let [Some(here), Some(anywhere)] = permits else {
                    return Err(RejectCause::PerAddress.with("connection limit of the address reached"));
                };
                Some([here, anywhere])
            }
        };
        let mut established = match &self.tls {
            Some(tls) => self.over_tls(tls, stream, client, is_proxy, bounds).await?,
            None => {
                let is_http2 =
                    begins_with_preface(&stream).await.map_err(|error| RejectCause::Broken.caused_by(error))?;
                let stream = Stream::clear(Socket::new(stream, bounds.min_rate));
                let origin = Origin::clear(self.peer(client, false), is_proxy, bounds.min_rate);
                let conditions = ConnectionConditions::default();
                NewConnection { stream, origin, is_http2, permit: None, conditions, carried_by: None }
            }
        };
        established.permit = permit;
        // An authorizer checks for each request whether the peer is trusted (T37).
        established.carried_by = (self.is_public() && (is_proxy || proxied_by.is_some())).then(|| peer.ip());
        established.origin.proxied_by = proxied_by;
        Ok(established)
    }

    async fn over_tls(
        &self,
        tls: &Tls,
        mut stream: TcpStream,
        client: SocketAddr,
        is_proxy: bool,
        bounds: &Bounds,
    ) -> Result<NewConnection, SetUpError> {
        if begins_with_a_method(&stream).await.map_err(|error| RejectCause::Broken.caused_by(error))? {
            // The future is boxed, so that its buffer is not part of each connection's task.
            Box::pin(answer_plain_http(&mut stream)).await;
            return Err(RejectCause::Tls.with("the client sent HTTP without TLS"));
        }
        let mut tls = tls.subscribe();
        let loaded = tls.borrow_and_update().clone();
        let socket = Socket::new(stream, bounds.min_rate);
        let stream = TlsAcceptor::from(Arc::clone(&loaded.settings)).accept(socket).await;
        let mut stream = stream.map_err(|error| RejectCause::Tls.caused_by(error))?;
        let (_, session) = stream.get_ref();
        let name = session.server_name().map(str::to_owned);
        let requested = RequestedServer { name, certificates: Arc::clone(&loaded.certificates) };
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => Some("1.3"),
            Some(rustls::ProtocolVersion::TLSv1_2) => Some("1.2"),
            _ => None,
        };
        let mut peer = self.peer(client, true);
        // The certificate of a proxy does not identify the proxy's clients.
        if let (Some([leaf, ..]), false, true) = (session.peer_certificates(), is_proxy, self.is_public()) {
            peer = match loaded.tells_upstreams {
                true => peer.with_certificate_for_upstreams(leaf),
                false => peer.with_certificate(leaf),
            };
        }
        // TLS clients negotiate HTTP/2 by ALPN (RFC 9113 §3.2).
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let mut conditions = ConnectionConditions::default();
        if let Some(chain) = session.peer_certificates() {
            conditions.add_certificate(chain, tls);
        }
        let mut ahead: &[u8] = &[];
        if is_http2 {
            // hyper would wait for the preface without a time limit.
            let mut preface = [0; PREFACE.len()];
            stream.read_exact(&mut preface).await.map_err(|error| RejectCause::Broken.caused_by(error))?;
            if preface != PREFACE {
                return Err(RejectCause::Broken.with("HTTP/2 preface is missing"));
            }
            ahead = PREFACE;
        }
        let stream = Stream::tls(stream, ahead);
        let mut origin = Origin::tls(peer, is_proxy, bounds.min_rate, requested);
        origin.tls = version;
        Ok(NewConnection { stream, origin, is_http2, permit: None, conditions, carried_by: None })
    }

    fn peer(&self, client: SocketAddr, secure: bool) -> Peer {
        let mut peer = Peer::new(client.ip(), secure).at_loopback(self.at_loopback);
        if let Some(name) = &self.name {
            peer = peer.on_listener(Arc::clone(name));
        }
        if self.proxy_protocol { peer.without_forwarding() } else { peer }
    }
}

/// The response to clear-text HTTP on a TLS port. Without this response, browsers would only show a broken connection.
const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 48\r\n\
                          connection: close\r\n\r\nThis port takes HTTPS: write https:// in the URL";

/// Responds to clear-text HTTP. Errors are ignored, because the connection ends in any case.
async fn answer_plain_http(stream: &mut TcpStream) {
    // Unread bytes would cause a reset when the socket is closed.
    let _ = stream.read(&mut [0; 8192]).await;
    let _ = stream.write_all(PLAIN_HTTP.as_bytes()).await;
}

/// Returns whether the first byte can begin an HTTP method. A TLS record cannot begin with this byte.
async fn begins_with_a_method(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    stream.peek(&mut first).await.map(|seen| seen == 1 && first[0].is_ascii_uppercase())
}

async fn begins_with_preface(stream: &TcpStream) -> io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut bytes).await?;
        let begun = bytes.get(..seen).unwrap_or_default();
        if seen == PREFACE.len() || !PREFACE.starts_with(begun) || seen == 0 {
            return Ok(begun == PREFACE);
        }
        // While part of the preface is unread, the socket stays readable, so only a timer can wait for more.
        tokio::time::sleep(PREFACE_POLL_INTERVAL).await;
    }
}

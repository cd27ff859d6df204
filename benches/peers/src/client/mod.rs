//! The clients of the load: one kind for each way to speak to a gateway. Every answer is checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;

use crate::tls::Client as Tls;

mod http1;
mod http2;
mod once;
mod socket;

pub use http1::{Connection, HEAD};

/// No answer takes longer on this machine, however busy it is.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The host that clients ask for, and the name in the certificate.
pub const HOST: &str = "api.example.com";

/// How clients speak to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// GET over HTTP/1.1.
    Http1,
    /// GET over HTTP/2, so many at a time on each connection.
    Http2(usize),
    /// GET of so many bytes over HTTP/1.1.
    Download(usize),
    /// POST of so many bytes over HTTP/1.1.
    Upload(usize),
    /// Unary calls of gRPC, so many at a time on each connection.
    Calls(usize),
    /// Messages on WebSockets, which come back.
    Messages,
    /// A connection over TLS for each request.
    Handshakes {
        /// Each takes up the session of the one before.
        resumed: bool,
    },
    /// The questions of nginx to an authorizer, over HTTP/1.1.
    Questions,
    /// The questions of Envoy to an authorizer: calls over HTTP/2, so many at a time on each connection.
    Checks(usize),
}

impl Speech {
    /// Over HTTP/2, how many at a time on each connection.
    pub const fn streams(self) -> Option<usize> {
        match self {
            Self::Http2(streams) | Self::Calls(streams) | Self::Checks(streams) => Some(streams),
            _ => None,
        }
    }
}

/// What clients connect to.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub path: String,
    pub speech: Speech,
    /// In clear text without it.
    pub tls: Option<Tls>,
}

/// A connection.
type Wire = Either<TcpStream, TlsStream<TcpStream>>;

impl Target {
    /// `from`: the address of the client, if it matters.
    async fn connect(&self, from: Option<SocketAddr>) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = from {
            socket.bind(from)?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn secure(connector: &TlsConnector, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        Ok(connector.connect(ServerName::try_from(HOST)?, stream).await?)
    }

    async fn wire(&self) -> Result<Wire> {
        let stream = self.connect(None).await?;
        let Some(tls) = &self.tls else { return Ok(Either::Left(stream)) };
        Ok(Either::Right(Self::secure(&tls.connector(self.speech.streams().is_some()), stream).await?))
    }
}

/// What sends one request at a time: a connection, or one of the streams of a connection.
pub enum Client {
    Http1(Box<http1::Client>),
    Http2(http2::Client),
    Once(Box<once::Client>),
    Socket(Box<socket::Client>),
}

impl Client {
    /// Opens a connection; a client for each stream of it.
    pub async fn open(target: &Arc<Target>) -> Result<Vec<Self>> {
        let open = async {
            Ok(match target.speech {
                Speech::Http2(streams) | Speech::Calls(streams) | Speech::Checks(streams) => {
                    let clients = http2::Client::open(target, streams).await?;
                    clients.into_iter().map(Self::Http2).collect()
                }
                Speech::Handshakes { resumed } => vec![Self::Once(once::Client::new(target, resumed)?.into())],
                Speech::Messages => vec![Self::Socket(socket::Client::new(target).into())],
                _ => vec![Self::Http1(http1::Client::open(target).await?.into())],
            })
        };
        tokio::time::timeout(PATIENCE, open).await.context("no connection")?
    }

    /// The status of the answer. With 200 the answer is whole and has what it must have; otherwise it has nothing of
    /// that.
    pub async fn ask(&mut self, token: Option<&str>) -> Result<u16> {
        match self {
            Self::Http1(client) => client.ask(token).await,
            Self::Http2(client) => client.ask(token).await,
            Self::Once(client) => client.ask(token).await,
            Self::Socket(client) => client.ask(token).await,
        }
    }
}

/// One request on a new connection.
pub async fn ask_once(target: &Arc<Target>, token: Option<&str>) -> Result<u16> {
    let mut clients = Client::open(target).await?;
    let client = clients.first_mut().context("a client")?;
    tokio::time::timeout(PATIENCE, client.ask(token)).await.context("no answer")?
}

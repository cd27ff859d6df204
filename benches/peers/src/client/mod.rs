//! The clients of the load: one kind for each way to speak to a gateway. Every answer is checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;

mod http1;
mod http2;

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
    /// The questions of nginx to an authorizer, over HTTP/1.1.
    Questions,
    /// The questions of Envoy to an authorizer: calls over HTTP/2, so many at a time on each connection.
    Checks(usize),
}

/// What clients connect to.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub path: &'static str,
    pub speech: Speech,
    /// In clear text without it.
    pub tls: Option<TlsConnector>,
}

/// A connection.
pub type Wire = Either<TcpStream, TlsStream<TcpStream>>;

impl Target {
    async fn connect(&self) -> Result<Wire> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Either::Left(stream)) };
        Ok(Either::Right(tls.connect(ServerName::try_from(HOST)?, stream).await?))
    }
}

/// What sends one request at a time: a connection, or one of the streams of a connection.
pub enum Client {
    Http1(http1::Client),
    Http2(http2::Client),
}

impl Client {
    /// Opens a connection; a client for each stream of it.
    pub async fn open(target: &Arc<Target>) -> Result<Vec<Self>> {
        let open = async {
            Ok(match target.speech {
                Speech::Http1 | Speech::Questions => vec![Self::Http1(http1::Client::open(target).await?)],
                Speech::Checks(streams) => {
                    let clients = http2::Client::open(target, streams).await?;
                    clients.into_iter().map(Self::Http2).collect()
                }
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
        }
    }
}

/// One request on a new connection.
pub async fn ask_once(target: &Arc<Target>, token: Option<&str>) -> Result<u16> {
    let mut clients = Client::open(target).await?;
    let client = clients.first_mut().context("a client")?;
    tokio::time::timeout(PATIENCE, client.ask(token)).await.context("no answer")?
}

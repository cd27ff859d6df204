//! A connection over TLS for each request.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::HandshakeKind;
use tokio_util::either::Either;

use super::Target;
use super::http1::Connection;
use crate::serve::BODY;

/// The ports of an address would not last: each stays taken for a minute.
const ADDRESSES: u32 = 250;

/// Makes connections, one after the other.
pub struct Client {
    target: Arc<Target>,
    connector: TlsConnector,
    resumed: bool,
    made: u32,
}

impl Client {
    pub fn new(target: &Arc<Target>, resumed: bool) -> Result<Self> {
        // With a memory of its own: two clients never want the same ticket.
        let connector = target.tls.as_ref().context("handshakes need TLS")?.once(resumed);
        Ok(Self { target: Arc::clone(target), connector, resumed, made: 0 })
    }

    pub async fn ask(&mut self, token: Option<&str>) -> Result<u16> {
        let from = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + self.made % ADDRESSES);
        let stream = self.target.connect(Some(SocketAddr::from((from, 0)))).await?;
        let stream = Target::secure(&self.connector, stream).await?;
        let kind = stream.get_ref().1.handshake_kind();
        // The first has nothing to take up.
        let expected = if self.resumed && self.made > 0 { HandshakeKind::Resumed } else { HandshakeKind::Full };
        ensure!(kind == Some(expected), "a handshake was {kind:?} instead of {expected:?}");
        self.made += 1;
        let mut connection = Connection::over(Either::Right(stream));
        connection.get(&self.target.path, token);
        let answer = connection.exchange().await?;
        ensure!((answer.status == 200) == (answer.body == BODY), "{} with another body", answer.status);
        let status = answer.status;
        // The gateway may have closed it, too.
        let _ = connection.into_wire().shutdown().await;
        Ok(status)
    }
}

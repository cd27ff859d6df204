//! Connecting to one address, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::counts::{OpenConnection, UpstreamCounts};
use super::link::Link;
use super::pool::InFlightSlot;

#[derive(Clone)]
pub(super) struct Dial {
    pub(super) to: SocketAddr,
    /// The time limit for the connection setup, including the TLS handshake.
    pub(super) timeout: Duration,
    pub(super) socket_buffer: Option<u32>,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    pub(super) counts: Arc<UpstreamCounts>,
}

impl Dial {
    pub(super) async fn connect(self) -> io::Result<UpstreamConnection> {
        let connecting = async {
            let socket = if self.to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            if let Some(size) = self.socket_buffer {
                socket.set_recv_buffer_size(size)?;
                socket.set_send_buffer_size(size)?;
            }
            let stream = socket.connect(self.to).await?;
            stream.set_nodelay(true)?;
            let stream = Link::new(stream);
            io::Result::Ok(match self.tls {
                None => Either::Left(stream),
                Some((connector, name)) => Either::Right(Box::new(connector.connect(name, stream).await?)),
            })
        };
        let stream = tokio::time::timeout(self.timeout, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(UpstreamConnection { stream, holding: ConnectionHold::default(), _open: OpenConnection::new(&self.counts) })
    }
}

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<UpstreamConnection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<UpstreamConnection>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = self.clone().connect();
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}

pub(super) struct UpstreamConnection {
    stream: Either<Link, Box<TlsStream<Link>>>,
    holding: ConnectionHold,
    _open: OpenConnection,
}

impl UpstreamConnection {
    pub(super) fn holding(&self) -> ConnectionHold {
        self.holding.clone()
    }
}

/// Data of a connection. An upgraded connection occupies its slot until it is closed. Each response on a pooled
/// connection has a clone of this data in its extensions.
#[derive(Clone, Default)]
pub(super) struct ConnectionHold(Arc<HoldState>);

#[derive(Default)]
struct HoldState {
    request: Mutex<Option<InFlightSlot>>,
    responses: AtomicU32,
}

impl ConnectionHold {
    pub(super) fn hold(&self, request: InFlightSlot) {
        *self.0.request.lock() = Some(request);
    }

    pub(super) fn count_response(&self) -> u32 {
        self.0.responses.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}

impl Drop for UpstreamConnection {
    fn drop(&mut self) {
        // Clones in responses must not keep the slot.
        drop(self.holding.0.request.lock().take());
    }
}

impl Connection for UpstreamConnection {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.holding.clone());
        let is_h2 = match &self.stream {
            Either::Left(_) => false,
            Either::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        };
        if is_h2 { connected.negotiated_h2() } else { connected }
    }
}

impl AsyncRead for UpstreamConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for UpstreamConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! The byte stream of a connection, with or without TLS. Writes fail if the client does not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::half_close::{HalfClosed, OwedAnswer};
use super::min_rate::{MinRate, RateBudget};

/// A socket whose writes time out if the client reads too slowly. This type wraps the TCP stream below TLS, because the
/// TLS layer does not know which bytes were sent.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    budget: RateBudget,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, min_rate: MinRate) -> Self {
        Self { stream, budget: RateBudget::new(min_rate) }
    }

    fn paced(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.budget.record(bytes as u64);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.budget.poll_exhausted(cx).map(|()| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client does not read the response, or reads it too slowly",
                ))
            }),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.paced(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.paced(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    transport: Either<Socket, Box<TlsStream<Socket>>>,
    /// Bytes that were already read from the transport. A read returns these bytes first.
    ahead: &'static [u8],
    owed: Arc<OwedAnswer>,
    half_closed: HalfClosed,
}

impl Stream {
    pub(crate) fn clear(socket: Socket) -> Self {
        Self::new(Either::Left(socket), &[])
    }

    pub(crate) fn tls(stream: TlsStream<Socket>, ahead: &'static [u8]) -> Self {
        Self::new(Either::Right(Box::new(stream)), ahead)
    }

    fn new(transport: Either<Socket, Box<TlsStream<Socket>>>, ahead: &'static [u8]) -> Self {
        Self { transport, ahead, owed: Arc::default(), half_closed: HalfClosed::default() }
    }

    pub(super) fn owed(&self) -> &Arc<OwedAnswer> {
        &self.owed
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let (now, later) = this.ahead.split_at(this.ahead.len().min(buf.remaining()));
            buf.put_slice(now);
            this.ahead = later;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
        if buf.filled().len() == before {
            return this.half_closed.poll_gone(&this.owed, cx).map(Ok);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.transport).poll_write(cx, bytes));
        this.half_closed.progress();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.transport).poll_write_vectored(cx, slices));
        this.half_closed.progress();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}

//! A TCP connection to an upstream. The response can still be read after the upstream has refused the rest of the
//! request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection that delays the errors of failed writes. A server may respond before it has read the whole request,
/// and then close the connection (RFC 9112 §9.6). The gate's next write then fails with a reset, while the response is
/// still unread in the socket, and hyper treats a failed write as the end of the connection. Therefore a write that
/// fails with a reset stays pending until everything was read, and only then returns the error.
pub(super) struct Link {
    stream: TcpStream,
    /// Whether everything that the upstream sent was read.
    is_read: bool,
    /// The error of the failed write, and the waker of the task that waits for its result.
    broken: Option<(io::ErrorKind, Waker)>,
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, is_read: false, broken: None }
    }

    /// The result of a write. If the write failed with a reset and not everything was read, returns `Pending` instead.
    fn told<T>(&mut self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if !self.is_read && is_reset(error.kind()) => {
                self.broken = Some((error.kind(), cx.waker().clone()));
                Poll::Pending
            }
            written => written,
        }
    }

    /// The result of a write if an earlier write failed with a reset. `None` if no write has failed.
    fn poll_broken(&mut self, cx: &Context<'_>) -> Option<Poll<io::Error>> {
        let (kind, waker) = self.broken.as_mut()?;
        if self.is_read {
            return Some(Poll::Ready((*kind).into()));
        }
        waker.clone_from(cx.waker());
        Some(Poll::Pending)
    }
}

fn is_reset(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if read.is_err() || buf.filled().len() == before {
            self.is_read = true;
            if let Some((_, waker)) = &self.broken {
                waker.wake_by_ref();
            }
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(broken) = self.poll_broken(cx) {
            return broken.map(Err);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.told(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(broken) = self.poll_broken(cx) {
            return broken.map(Err);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.told(cx, written)
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

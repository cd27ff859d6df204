//! TCP connections whose responses can be read after a failed write.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection that delays write errors. A server may respond early and close the connection (RFC 9112 §9.6).
/// hyper would treat the failed write as the end of the connection. The failed write therefore stays pending until all
/// data has been read.
pub(super) struct Link {
    stream: TcpStream,
    is_read: bool,
    /// The kind of the write error, and the waker of the writing task.
    broken: Option<(io::ErrorKind, Waker)>,
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, is_read: false, broken: None }
    }

    /// Returns `Pending` if a write failed with a reset before all data was read.
    fn told<T>(&mut self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if !self.is_read && is_reset(error.kind()) => {
                self.broken = Some((error.kind(), cx.waker().clone()));
                Poll::Pending
            }
            written => written,
        }
    }

    /// Returns `None` if no write has failed.
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

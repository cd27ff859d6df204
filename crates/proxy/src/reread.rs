//! Responses with more header fields than hyper parses without an allocation.
//!
//! hyper prepares a place for each field that a response may have, and allocates the places if there may be more than a
//! hundred. With 256, that takes 2 500 instructions for each response. So a connection permits hyper's hundred. If a
//! response has more, its head is parsed once more, with the larger bound.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, Parts, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::BoxError;

use rotogate_core::bounds::MAX_UPSTREAM_FIELDS;

/// Permits as many fields as a response may have.
pub(super) fn wide(builder: &Builder) -> Builder {
    let mut builder = builder.clone();
    builder.max_headers(MAX_UPSTREAM_FIELDS);
    builder
}

/// Parses the response to a request once more, from what is left of its connection. `request` has the same method and no
/// body. The connection serves no other request.
pub(super) async fn reread<T, B>(
    Parts { io, read_buf, .. }: Parts<TokioIo<T>>,
    builder: &Builder,
    request: Request<B>,
) -> hyper::Result<(SendRequest<B>, Response<Incoming>)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let stream = Rereading { head: read_buf, is_written: false, reader: None, connection: io.into_inner() };
    let (mut sender, connection) = wide(builder).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended early");
        }
    });
    let response = sender.send_request(request).await?;
    Ok((sender, response))
}

/// A connection from which `head` was read already. What is written is dropped, because the upstream has the request.
struct Rereading<T> {
    head: Bytes,
    /// hyper accepts no response before it has written a request.
    is_written: bool,
    reader: Option<Waker>,
    connection: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Rereading<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.is_written {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.head.has_remaining() {
            let length = self.head.remaining().min(buf.remaining());
            buf.put_slice(&self.head.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rereading<T> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

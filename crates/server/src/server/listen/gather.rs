//! Combines several HTTP/2 responses into one write.
//!
//! h2 flushes after each large DATA frame, so each response costs a separate system call and TLS record.
//! [`GatheredStream`] delays the flush until the poll of the connection ends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2::H2Streams;

/// The largest delayed write: the content of one TLS record (RFC 8446 §5.1).
const MAX_GATHERED: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct GatheredStream<S> {
    stream: S,
    streams: H2Streams,
    unsent: BytesMut,
    is_growing: bool,
    flushed: u64,
}

impl<S: AsyncWrite + Unpin> GatheredStream<S> {
    pub(super) fn new(stream: S, streams: H2Streams) -> Self {
        Self { stream, streams, unsent: BytesMut::new(), is_growing: false, flushed: 0 }
    }

    /// Buffers the bytes if they fit and more than one response is complete.
    fn gather(&mut self, slices: &[IoSlice<'_>]) -> Option<usize> {
        let added = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let is_shared = !self.unsent.is_empty() || self.streams.complete() > self.flushed + 1;
        if !is_shared || self.unsent.len() + added > MAX_GATHERED {
            return None;
        }
        if self.unsent.is_empty() {
            self.unsent.reserve(MAX_GATHERED);
        }
        slices.iter().for_each(|slice| self.unsent.extend_from_slice(slice));
        self.is_growing = true;
        Some(added)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        // An idle connection does not keep a buffer.
        self.unsent = BytesMut::new();
        self.is_growing = false;
        self.flushed = self.streams.complete();
        Poll::Ready(Ok(()))
    }
}

/// Polls an HTTP/2 connection again as long as a flush is delayed.
pub(super) fn poll_gathered<'a, F>(connection: Pin<&'a mut F>, streams: &'a H2Streams) -> PollGathered<'a, F> {
    PollGathered { connection, streams }
}

pub(super) struct PollGathered<'a, F> {
    connection: Pin<&'a mut F>,
    streams: &'a H2Streams,
}

impl<F: Future> Future for PollGathered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            let polled = self.connection.as_mut().poll(cx);
            if polled.is_ready() || !self.streams.take_delayed_flush() {
                return polled;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatheredStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatheredStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(added) = this.gather(slices) {
            return Poll::Ready(Ok(added));
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // h2 flushes between frames, and again when no frames are left. No write occurs between the last two flushes.
        if std::mem::take(&mut this.is_growing) {
            this.streams.delay_flush();
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_send(cx))?;
        // If nothing was gathered, the flush sent at most one response.
        this.flushed = this.streams.complete().min(this.flushed + 1);
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::DuplexStream;
    use tokio::sync::Barrier;

    use super::*;
    use crate::server::listen::min_rate::MinRate;

    const BODY: &[u8] = &[b'x'; 1024];

    struct Counted(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Counted {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_flush(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
        }
    }

    /// Sends `requests` requests at once over a socket with a buffer of `room` bytes. Returns the number of writes.
    async fn writes_for(requests: usize, room: usize, body: &'static [u8]) -> usize {
        let (client, server) = tokio::io::duplex(room);
        let writes = Arc::new(AtomicUsize::new(0));
        let streams = H2Streams::new(MinRate { bytes_per_second: 0, max_lag: Duration::from_secs(60) });
        let (counted, of_server, barrier) = (Arc::clone(&writes), streams.clone(), Arc::new(Barrier::new(requests)));
        let service = service_fn(move |_: Request<Incoming>| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(body))))
            }
        });
        tokio::spawn(async move {
            let stream = TokioIo::new(GatheredStream::new(Counted(server, counted), of_server.clone()));
            let connection =
                hyper::server::conn::http2::Builder::new(of_server.clone()).serve_connection(stream, service);
            poll_gathered(pin!(connection), &of_server).await
        });
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let answers = (0..requests).map(|_| {
            let mut sender = sender.clone();
            async move {
                let request = Request::get("http://api.example/").body(Empty::<Bytes>::new()).unwrap();
                sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
            }
        });
        assert!(join_all(answers).await.iter().all(|answer| answer == body));
        writes.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn responses_that_are_ready_at_the_same_time_share_a_write() {
        let lone = writes_for(1, 1 << 20, BODY).await;
        let many = writes_for(12, 1 << 20, BODY).await;
        assert!(many < lone + 6, "{many} writes for twelve responses, {lone} for one");
    }

    #[tokio::test]
    async fn responses_are_whole_behind_a_socket_that_takes_few_bytes() {
        writes_for(12, 64, BODY).await;
        // Some of these responses are too large for one write.
        static LARGE: [u8; 40_000] = [b'y'; 40_000];
        writes_for(3, 1 << 20, &LARGE).await;
        writes_for(3, 64, &LARGE).await;
        writes_for(12, 64, b"").await;
    }
}

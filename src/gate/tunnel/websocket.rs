//! Passes a WebSocket through the gate unchanged. The gate tracks frame boundaries, so that it can end the connection
//! with its own Close frame (RFC 6455 §5.5.1).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::frame_copy::FrameCopy;
use super::frames::CLOSE;
use crate::gate::LeaseEnd;
use rotogate_core::linger::linger;
use rotogate_core::random::random;

/// The time limit to send the rest of the current frame and a Close frame to each side.
const FAREWELL: Duration = Duration::from_millis(500);

pub(super) struct WebSocket<C, U> {
    client: C,
    upstream: U,
    to_client: FrameCopy,
    to_upstream: FrameCopy,
}

impl<C, U> WebSocket<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(client: C, upstream: U) -> Self {
        Self { client, upstream, to_client: FrameCopy::new(), to_upstream: FrameCopy::new() }
    }

    /// Copies bytes in both directions until both sides have ended. Dropping this future does not lose bytes.
    ///
    /// When the lease ends, the service may disconnect without a Close frame. In that case, returns the reason from
    /// `ended`, and keeps the client connected until [`end`](Self::end) is called.
    ///
    /// Calls `heard` whenever the client has sent something.
    pub(super) async fn carry(
        &mut self,
        ended: impl Fn() -> Option<LeaseEnd>,
        heard: impl Fn(),
    ) -> io::Result<Option<LeaseEnd>> {
        let Self { client, upstream, to_client, to_upstream } = self;
        let mut has_left = false;
        let carried = poll_fn(|cx| {
            let there = to_upstream.poll_copy(cx, client, upstream)?;
            if to_upstream.takes_news() {
                heard();
            }
            if !has_left {
                has_left = to_client.poll_all(cx, upstream, client)?.is_ready();
                if has_left
                    && !to_client.has_close()
                    && let Some(why) = ended()
                {
                    return Poll::Ready(Ok(Some(why)));
                }
            }
            let back = to_client.poll_copy(cx, upstream, client)?;
            ready!(there);
            back.map(|()| Ok(None))
        })
        .await;
        match carried {
            Err(error) if !to_client.is_shut() && !to_client.has_close() => ended().map(Some).ok_or(error),
            carried => carried,
        }
    }

    /// Closes both sides. Buffered bytes are dropped, but the client gets the rest of the current frame. A side that
    /// does not read its Close frame in time is disconnected.
    pub(super) async fn end(mut self, why: &LeaseEnd) {
        let _ = tokio::time::timeout(FAREWELL, self.farewell(why)).await;
        let Self { mut client, mut upstream, to_client, to_upstream } = self;
        let client = async {
            if to_client.is_shut() {
                linger(&mut client).await;
            }
            drop(client);
        };
        let upstream = async {
            if to_upstream.is_shut() {
                linger(&mut upstream).await;
            }
            drop(upstream);
        };
        tokio::join!(client, upstream);
    }

    async fn farewell(&mut self, why: &LeaseEnd) {
        let to_client = close_frame(why, None);
        self.to_upstream.end_with(&masked_close_frame(why));
        let mut has_rest = false;
        poll_fn(|cx| {
            // Neither side waits for the other side, which may be broken or slow.
            let upstream = self.to_upstream.poll_copy(cx, &mut self.client, &mut self.upstream).map(drop);
            let client = self.poll_tell_client(cx, &mut has_rest, &to_client).map(drop);
            ready!(upstream);
            client
        })
        .await;
    }

    fn poll_tell_client(&mut self, cx: &mut Context<'_>, has_rest: &mut bool, close: &[u8]) -> Poll<io::Result<()>> {
        if !*has_rest {
            ready!(self.to_client.poll_rest(cx, &mut self.upstream, &mut self.client))?;
            self.to_client.end_with(close);
            *has_rest = true;
        }
        self.to_client.poll_copy(cx, &mut self.upstream, &mut self.client)
    }
}

/// If the `kuzzle` dialect has a close code for the same reason, code and text must be equal.
fn close_frame(why: &LeaseEnd, mask: Option<[u8; 4]>) -> Vec<u8> {
    let (code, reason) = match why {
        LeaseEnd::Denied(_) => (1008_u16, "the access token is no longer valid"),
        // IANA registers 1013 as "try again later".
        LeaseEnd::Undecided(_) => (1013, "the access token cannot be checked at this moment"),
        LeaseEnd::MaxStream => (1012, "the connection was open for the maximum time"),
        LeaseEnd::Closing => (1001, "the gate is stopping"),
    };
    let payload = code.to_be_bytes().into_iter().chain(reason.bytes());
    // The payload of a control frame has at most 125 bytes (§5.5), so its length fits into seven bits.
    let length = u8::try_from(2 + reason.len()).unwrap_or(0x7d);
    let mut frame = vec![0x80 | CLOSE, length | if mask.is_some() { 0x80 } else { 0 }];
    frame.extend(mask.into_iter().flatten());
    frame.extend(payload.zip(mask.unwrap_or_default().into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A client must mask its frames (§5.3), so that the bytes on the wire are unpredictable.
fn masked_close_frame(why: &LeaseEnd) -> Vec<u8> {
    match random::<4>() {
        Ok(mask) => close_frame(why, Some(*mask)),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;

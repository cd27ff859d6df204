//! A WebSocket through the gate. Its frames pass as they are; the gate only knows where each ends, so that it can end the
//! whole with a Close frame of its own (RFC 6455 §5.5.1).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::frame_copy::FrameCopy;
use super::frames::CLOSE;
use crate::gate::LeaseEnd;
use crate::linger::linger;
use crate::random::random;

/// How long both sides may take until they have been told of the end: the frame to the client that is under way must come
/// whole from the upstream, and be taken by the client, the Close frame too.
const FAREWELL: Duration = Duration::from_millis(500);

/// A WebSocket between two sockets.
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

    /// Carries bytes both ways until both sides have ended. Nothing is lost if this is dropped.
    pub(super) async fn carry(&mut self) -> io::Result<()> {
        let Self { client, upstream, to_client, to_upstream } = self;
        poll_fn(|cx| {
            let there = to_upstream.poll_copy(cx, client, upstream)?;
            let back = to_client.poll_copy(cx, upstream, client)?;
            ready!(there);
            back.map(Ok)
        })
        .await
    }

    /// Tells both sides that this is the end, and why. What waits to be written is dropped; of the frame that is under way
    /// the client gets the rest, the upstream nothing. Who cannot be told in time is cut off.
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
            // Neither side waits for the other, nor for one that is broken.
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

/// What is said: that of the `kuzzle` dialect, where it has a word for it.
fn close_frame(why: &LeaseEnd, mask: Option<[u8; 4]>) -> Vec<u8> {
    let (code, reason) = match why {
        LeaseEnd::Denied(_) => (1008_u16, "the access token is no longer good"),
        LeaseEnd::MaxStream => (1012, "open for as long as a connection may be"),
        LeaseEnd::Closing => (1001, "the gate stops"),
    };
    let payload = code.to_be_bytes().into_iter().chain(reason.bytes());
    // A control frame's payload has at most 125 bytes (§5.5), and its length fits into seven bits.
    let length = u8::try_from(2 + reason.len()).unwrap_or(0x7d);
    let mut frame = vec![0x80 | CLOSE, length | if mask.is_some() { 0x80 } else { 0 }];
    frame.extend(mask.into_iter().flatten());
    frame.extend(payload.zip(mask.unwrap_or_default().into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A close frame of a client is masked with random bytes, so that its bytes are unpredictable (RFC 6455 §5.3).
fn masked_close_frame(why: &LeaseEnd) -> Vec<u8> {
    match random::<4>() {
        Ok(mask) => close_frame(why, Some(*mask)),
        // Without a frame the connection is closed all the same.
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;

//! A WebSocket through the proxy. Its frames pass as they are; the gate only knows where each ends, so that it can end the
//! whole with a Close frame of its own (RFC 6455 §5.5.1).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::CloseCode;

use super::way::Way;
use crate::gate::Ending;
use crate::linger::linger;

/// How long both sides may take until they have been told of the end: the frame to the client that is under way must come
/// whole from the upstream, and be taken by the client, the Close frame too.
const FAREWELL: Duration = Duration::from_millis(500);

/// A WebSocket between two sockets.
pub(super) struct WebSocket<C, U> {
    client: C,
    upstream: U,
    to_client: Way,
    to_upstream: Way,
}

impl<C, U> WebSocket<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(client: C, upstream: U) -> Self {
        Self { client, upstream, to_client: Way::new(), to_upstream: Way::new() }
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
    pub(super) async fn end(mut self, why: &Ending) {
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

    async fn farewell(&mut self, why: &Ending) {
        let frame = close_frame(why);
        let to_client = formatted(frame.clone());
        self.to_upstream.end_with(&masked(frame));
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
fn close_frame(why: &Ending) -> Frame {
    let (code, reason) = match why {
        Ending::Denied(_) => (CloseCode::Policy, "the access token is no longer good"),
        Ending::MaxStream => (CloseCode::Restart, "open for as long as a connection may be"),
        Ending::Closing => (CloseCode::Away, "the gate stops"),
    };
    Frame::close(Some(CloseFrame { code, reason: reason.into() }))
}

/// As a client must (§5.3): nobody may foresee what it looks like on the wire.
fn masked(mut frame: Frame) -> Vec<u8> {
    let mut mask = [0; 4];
    if aws_lc_rs::rand::fill(&mut mask).is_err() {
        return Vec::new();
    }
    frame.header_mut().mask = Some(mask);
    formatted(frame)
}

fn formatted(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    match frame.format(&mut bytes) {
        Ok(()) => bytes,
        // Writing into memory does not fail; without a frame the connection is closed all the same.
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;

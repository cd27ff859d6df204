//! Bounds a client's incoming messages before the library buffers them (requirement A11). The fragments of a message
//! count as one message. Pings between fragments do not affect the limits.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, OpCode};

use super::super::super::socket::SocketGate;
use super::MAX_MESSAGE_BYTES;
use rotogate_core::bounds::MAX_ANONYMOUS_MESSAGE;
use rotogate_core::overload::PoolPermit;

/// The time limit from the first byte of a message to its last.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// In bytes.
const MAX_HEADER_BYTES: usize = 14;

pub(super) struct Inflow<S> {
    stream: S,
    gate: Arc<dyn SocketGate>,
    head: [u8; MAX_HEADER_BYTES],
    known: usize,
    frame: Frame,
    /// The payload length that the current message's frames have announced.
    message: u64,
    is_open: bool,
    since: Option<Instant>,
    room: Option<PoolPermit>,
    is_read: bool,
    ended: Option<CloseCode>,
}

#[derive(Clone, Copy, Default)]
struct Frame {
    is_data: bool,
    is_final: bool,
    left: u64,
}

impl<S> Inflow<S> {
    pub(super) fn new(stream: S, gate: Arc<dyn SocketGate>) -> Self {
        Self {
            stream,
            gate,
            head: [0; MAX_HEADER_BYTES],
            known: 0,
            frame: Frame::default(),
            message: 0,
            is_open: false,
            since: None,
            room: None,
            is_read: false,
            ended: None,
        }
    }

    pub(super) fn ended(&self) -> Option<CloseCode> {
        self.ended
    }

    /// Restarts the time limit of the current message. Call this method while the gate does not read from the client.
    pub(super) fn pause(&mut self) {
        self.since = self.since.map(|_| Instant::now());
    }

    pub(super) fn is_late(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() > MESSAGE_TIMEOUT)
    }

    pub(super) fn hand_over_room(&mut self) -> Option<PoolPermit> {
        self.room.take()
    }

    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), CloseCode> {
        let mut is_new = self.since.is_none();
        while let [first, rest @ ..] = bytes {
            if self.frame.left > 0 {
                let passed = usize::try_from(self.frame.left).unwrap_or(usize::MAX).min(bytes.len());
                if self.frame.is_data {
                    self.take_room(passed)?;
                }
                self.frame.left -= passed as u64;
                bytes = bytes.get(passed..).unwrap_or_default();
            } else {
                bytes = rest;
                let Some(place) = self.head.get_mut(self.known) else { return Err(CloseCode::Protocol) };
                *place = *first;
                self.known += 1;
                if !self.has_header()? {
                    continue;
                }
            }
            if self.frame.left == 0 && self.frame.is_data {
                self.is_open = !self.frame.is_final;
                if self.frame.is_final {
                    (self.message, self.is_read, is_new) = (0, true, true);
                }
            }
        }
        let is_between = self.known == 0 && self.frame.left == 0 && !self.is_open;
        match is_between {
            true => self.since = None,
            false if is_new => self.since = Some(Instant::now()),
            false => {}
        }
        Ok(())
    }

    fn has_header(&mut self) -> Result<bool, CloseCode> {
        let mut cursor = Cursor::new(self.head.get(..self.known).unwrap_or_default());
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::Protocol)? else {
            return Ok(false);
        };
        let is_data = matches!(header.opcode, OpCode::Data(_));
        self.known = 0;
        self.frame = Frame { is_data, is_final: header.is_final, left: length };
        if is_data {
            self.message = self.message.saturating_add(length);
            let longest = if self.gate.place().is_known() { MAX_MESSAGE_BYTES } else { MAX_ANONYMOUS_MESSAGE };
            if self.message > longest as u64 {
                return Err(CloseCode::Size);
            }
        }
        Ok(true)
    }

    fn take_room(&mut self, bytes: usize) -> Result<(), CloseCode> {
        let taken = match &mut self.room {
            Some(room) => room.grow(bytes).is_ok(),
            none => self.gate.place().buffer(bytes).map(|room| *none = Some(room)).is_ok(),
        };
        if taken { Ok(()) } else { Err(CloseCode::Again) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inflow<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if std::mem::take(&mut this.is_read) {
            // If the library reads again, it has processed the previous message.
            this.room = None;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        // Bytes that arrive after the reader has stopped are dropped.
        if this.ended.is_none()
            && let Err(code) = this.pass(buf.filled().get(before..).unwrap_or_default())
        {
            (this.ended, this.room) = (Some(code), None);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inflow<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

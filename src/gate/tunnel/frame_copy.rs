//! Copies one direction of a WebSocket, and tracks where the frames end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// In bytes. Nothing more is read until the buffer has been written (back-pressure).
const BUFFER: usize = 8 * 1024;

pub(super) struct FrameCopy {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    frames: Frames,
    unflushed: bool,
    is_over: bool,
    is_shut: bool,
    has_news: bool,
}

impl FrameCopy {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            frames: Frames::default(),
            unflushed: false,
            is_over: false,
            is_shut: false,
            has_news: false,
        }
    }

    pub(super) fn takes_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Copies until `from` ends, then shuts `to` down.
    pub(super) fn poll_copy<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        ready!(self.poll_all(cx, from, to))?;
        if !self.is_shut {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Copies until `from` ends, and leaves `to` open.
    pub(super) fn poll_all<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        while self.start < self.end || !self.is_over {
            if self.start < self.end {
                ready!(self.poll_write(cx, to, self.end - self.start))?;
            } else {
                ready!(self.poll_read(cx, from, to))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_rest<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        while !self.frames.is_between() {
            if self.frames.is_lost() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if self.start < self.end {
                let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
                let rest = self.frames.rest_of_frame(waiting);
                ready!(self.poll_write(cx, to, rest))?;
            } else if self.is_over {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            } else {
                ready!(self.poll_read(cx, from, to))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Drops the buffered bytes. Writes `close` unless a frame is incomplete.
    pub(super) fn end_with(&mut self, close: &[u8]) {
        (self.start, self.end, self.is_over) = (0, 0, true);
        if self.frames.is_between()
            && !self.frames.has_close()
            && let Some(place) = self.buffer.get_mut(..close.len())
        {
            place.copy_from_slice(close);
            self.end = close.len();
        }
    }

    pub(super) fn has_close(&self) -> bool {
        self.frames.has_close()
    }

    pub(super) fn is_shut(&self) -> bool {
        self.is_shut
    }

    fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut T,
        most: usize,
    ) -> Poll<io::Result<()>> {
        let bytes = self.buffer.get(self.start..self.start + most).unwrap_or_default();
        let written = ready!(Pin::new(to).poll_write(cx, bytes))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.frames.pass(bytes.get(..written).unwrap_or_default());
        self.start += written;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_read<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match Pin::new(from).poll_read(cx, &mut buffer) {
            Poll::Ready(read) => {
                let length = buffer.filled().len();
                read?;
                (self.start, self.end, self.is_over) = (0, length, length == 0);
                self.has_news |= length > 0;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                // While the sender pauses, the receiver gets everything that was read so far.
                if self.unflushed {
                    ready!(Pin::new(to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                Poll::Pending
            }
        }
    }
}

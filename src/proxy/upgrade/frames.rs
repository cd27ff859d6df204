//! Where the frames of a WebSocket begin and end (RFC 6455 §5.2), told from the bytes that pass. Payloads are counted, not
//! looked at.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, OpCode};

/// No header is longer.
const MAX_HEADER: usize = 14;

/// Follows one direction of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    /// The part of a header that has passed.
    head: [u8; MAX_HEADER],
    known: usize,
    /// So many bytes of the payload are still to come.
    payload: u64,
    has_close: bool,
    is_lost: bool,
}

impl Frames {
    /// Takes note of bytes that pass.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let passed = self.pass_some(bytes);
            bytes = bytes.get(passed..).unwrap_or_default();
        }
    }

    /// How many of these bytes, which come next, belong to the frame that is under way: all of them, if it does not end
    /// there, and none, if it turns out to be no frame.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut passed = 0;
        while !ahead.is_between() && passed < bytes.len() {
            passed += ahead.pass_some(bytes.get(passed..).unwrap_or_default());
        }
        if ahead.is_lost { 0 } else { passed }
    }

    /// Has a whole number of frames passed?
    pub(super) fn is_between(&self) -> bool {
        self.known == 0 && self.payload == 0 && !self.is_lost
    }

    /// Has a Close frame begun?
    pub(super) fn has_close(&self) -> bool {
        self.has_close
    }

    /// Was there something that is no frame? Then nothing is known of what follows.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The same, for one header or one payload at most: says how many bytes that were.
    fn pass_some(&mut self, bytes: &[u8]) -> usize {
        if self.is_lost {
            return bytes.len();
        }
        if self.payload > 0 {
            let passed = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= passed as u64;
            return passed;
        }
        // Most headers come in one piece.
        if self.known == 0
            && let Some(length) = self.take_header(bytes)
        {
            return length;
        }
        let before = self.known;
        let mut passed = 0;
        for (place, byte) in self.head.iter_mut().skip(before).zip(bytes) {
            *place = *byte;
            passed += 1;
        }
        self.known = before + passed;
        let head = self.head;
        match self.take_header(head.get(..self.known).unwrap_or_default()) {
            // More than the header's own bytes may have been put there.
            Some(length) => length.saturating_sub(before),
            None => passed,
        }
    }

    /// Its length, if there is all of a header.
    fn take_header(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut cursor = Cursor::new(bytes);
        match FrameHeader::parse(&mut cursor) {
            Ok(Some((header, length))) => {
                self.has_close |= header.opcode == OpCode::Control(Control::Close);
                self.payload = length;
                self.known = 0;
                usize::try_from(cursor.position()).ok()
            }
            Ok(None) => None,
            Err(_) => {
                self.is_lost = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;

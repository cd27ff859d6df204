//! Finds where WebSocket frames begin and end (RFC 6455 §5.2). Payloads are counted but not interpreted.

/// In bytes.
const MAX_HEADER: usize = 14;

#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    head: [u8; MAX_HEADER],
    known: usize,
    payload: u64,
    has_close: bool,
    is_lost: bool,
}

impl Frames {
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let passed = self.pass_some(bytes);
            bytes = bytes.get(passed..).unwrap_or_default();
        }
    }

    /// Returns the number of bytes in the current frame, or 0 if the bytes are not a frame.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut passed = 0;
        while !ahead.is_between() && passed < bytes.len() {
            passed += ahead.pass_some(bytes.get(passed..).unwrap_or_default());
        }
        if ahead.is_lost { 0 } else { passed }
    }

    pub(super) fn is_between(&self) -> bool {
        self.known == 0 && self.payload == 0 && !self.is_lost
    }

    pub(super) fn has_close(&self) -> bool {
        self.has_close
    }

    /// After bytes that are not a frame, all later frame boundaries are unknown.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    fn pass_some(&mut self, bytes: &[u8]) -> usize {
        if self.is_lost {
            return bytes.len();
        }
        if self.payload > 0 {
            let passed = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= passed as u64;
            return passed;
        }
        // Most headers arrive in one piece.
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
            // `head` may contain bytes beyond the header itself.
            Some(length) => length.saturating_sub(before),
            None => passed,
        }
    }

    fn take_header(&mut self, bytes: &[u8]) -> Option<usize> {
        let header = Header::read(bytes)?;
        match header.opcode {
            CONTINUATION | TEXT | BINARY | PING | PONG => {}
            CLOSE => self.has_close = true,
            // No standard defines this opcode, so the frame may have any format.
            _ => {
                self.is_lost = true;
                return None;
            }
        }
        self.payload = header.payload;
        self.known = 0;
        Some(header.length)
    }
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

struct Header {
    opcode: u8,
    /// In bytes.
    length: usize,
    /// In bytes.
    payload: u64,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (payload, extended) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
            short => (u64::from(short), 0),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let length = 2 + extended + mask;
        (bytes.len() >= length).then_some(Self { opcode: first & 0x0f, length, payload })
    }
}

#[cfg(test)]
mod tests;

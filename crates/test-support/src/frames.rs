//! HTTP/2 frames (RFC 9113 §4.1) that a library would not send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const LAST: [u8; 8] = [7; 8];

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns an uncompressed header block: `GET` of a path at `gate.test` (RFC 7541 §6).
pub fn get(path: &str) -> Vec<u8> {
    let literal = |index: u8, value: &str| [&[index, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    // `:method: GET` and `:scheme: http` are in the static table. `:path` and `:authority` follow.
    [vec![0x82, 0x86], literal(0x04, path), literal(0x01, "gate.test")].concat()
}

fn code(goaway: &Frame) -> u32 {
    u32::from_be_bytes(goaway.payload[4..8].try_into().unwrap())
}

pub struct Frames(TcpStream);

impl Frames {
    pub fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        Self(stream)
    }

    /// Sends bytes. Returns false if the gate has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buffer) {
            Ok(()) => Some(()),
            // A reset also ends the connection. A timeout means that the gate hangs.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the gate hangs"),
            Err(_) => None,
        }
    }

    /// Returns `None` once the gate has read all bytes. If the connection ends first, returns `Some` with its error
    /// code.
    pub fn ended(&mut self) -> Option<Option<u32>> {
        self.send(&frame(PING, 0, 0, &LAST));
        loop {
            match self.next() {
                Some(frame) if frame.kind == PING && frame.flags & ACK != 0 && frame.payload == LAST => return None,
                Some(frame) if frame.kind == GOAWAY => return Some(Some(code(&frame))),
                Some(_) => {}
                None => return Some(None),
            }
        }
    }

    pub fn goaway(&mut self) -> Option<u32> {
        loop {
            let frame = self.next()?;
            if frame.kind == GOAWAY {
                return Some(code(&frame));
            }
        }
    }
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.fill(&mut payload)?;
        Some(Frame { kind: head[3], flags: head[4], payload })
    }
}

//! HTTP/2 written frame by frame (RFC 9113 §4), for what no library would send.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The only stream.
const STREAM: u32 = 1;

/// A header field, as bytes.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// The outcome of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Status(u16),
    /// The stream was reset, with this error (RFC 9113 §7).
    Reset(u32),
    /// The connection was ended, with this error or without.
    Gone(Option<u32>),
}

/// The parts after the head of a request.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Data(Vec<u8>),
    Trailers(Vec<Field>),
}

/// Fields from texts.
pub(crate) fn fields(list: &[(&str, &str)]) -> Vec<Field> {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// Sends one request over a connection of its own.
pub(crate) fn ask(address: SocketAddr, head: &[Field], parts: &[Part]) -> Outcome {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    let ends = |at: usize| if at == parts.len() { END_STREAM } else { 0 };
    frame(&mut out, HEADERS, END_HEADERS | ends(0), STREAM, &block(head));
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Data(data) => frame(&mut out, DATA, ends(at + 1), STREAM, data),
            Part::Trailers(trailers) => {
                frame(&mut out, HEADERS, END_HEADERS | ends(at + 1), STREAM, &block(trailers));
            }
        }
    }
    // The gate may have closed the connection already.
    let _ = (&stream).write_all(&out);
    outcome(&stream).unwrap_or(Outcome::Gone(None))
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// Each field as a literal that is not indexed, and not compressed (RFC 7541 §6.2.2).
fn block(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            length(&mut out, text.len());
            out.extend(text);
        }
    }
    out
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(out: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(0x7f) else {
        out.push(u8::try_from(length).unwrap());
        return;
    };
    out.push(0x7f);
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// Reads until the stream has ended. `None` if the connection ended without a frame about the stream.
fn outcome(stream: &TcpStream) -> Option<Outcome> {
    let mut reader = BufReader::new(stream);
    let mut status = None;
    loop {
        let mut head = [0; 9];
        if let Err(error) = reader.read_exact(&mut head) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the gate says nothing");
            return status.map(Outcome::Status);
        }
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        reader.read_exact(&mut payload).ok()?;
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            SETTINGS if flags & ACK == 0 => {
                let mut ack = Vec::new();
                frame(&mut ack, SETTINGS, ACK, 0, &[]);
                let _ = (&*stream).write_all(&ack);
            }
            HEADERS if status.is_none() => status = Some(status_of(&payload)),
            // Without an error, after an answer, it only says that the rest of the request is not wanted.
            RST_STREAM => {
                return Some(match (status, code(0)) {
                    (Some(status), 0) => Outcome::Status(status),
                    (_, code) => Outcome::Reset(code),
                });
            }
            GOAWAY => return Some(status.map_or(Outcome::Gone(Some(code(4))), Outcome::Status)),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 && u32::from_be_bytes(id) == STREAM {
            return status.map(Outcome::Status);
        }
    }
}

/// `:status`, which comes first in the first block of a connection: an entry of the static table, or the name of one
/// with three digits, compressed or not (RFC 7541 §6, appendix A and B).
fn status_of(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match *block {
        [entry @ 0x88..=0x8e, ..] => INDEXED[usize::from(entry - 0x88)],
        [0x08 | 0x18 | 0x48, length, ref rest @ ..] => {
            let text = &rest[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 { std::str::from_utf8(text).unwrap().parse().unwrap() } else { digits(text) }
        }
        _ => panic!("no status first: {block:x?}"),
    }
}

/// Three digits in Huffman's code: 0 to 2 have five bits, the others six.
fn digits(text: &[u8]) -> u16 {
    let bits: Vec<u16> = text.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1))).collect();
    let mut at = 0;
    let mut number = 0;
    for _ in 0..3 {
        let take = |count: usize| bits[at..at + count].iter().fold(0, |all, bit| all << 1 | bit);
        let digit = if take(5) < 3 { take(5) } else { take(6) - 0b01_1001 + 3 };
        at += if digit < 3 { 5 } else { 6 };
        number = number * 10 + digit;
    }
    number
}

//! T8 over HTTP/2: the rest of a request that was already answered.

use support::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, frame};
use support::stub::{Edge, ROUTES};

/// `POST` of a path at `gate.test`, as a header block without compression (RFC 7541 §6).
fn post(path: &str) -> Vec<u8> {
    let literal = |index: u8, value: &str| [&[index, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    [vec![0x83, 0x86], literal(0x04, path), literal(0x01, "gate.test")].concat()
}

/// curl 7.88 loses an answer that a reset follows at once.
#[test]
fn t8_who_is_refused_before_all_was_sent_hears_of_the_refusal_and_of_no_reset() {
    let edge = Edge::new(ROUTES);
    let mut frames = Frames::open(edge.gate.address);
    for stream in [1, 3] {
        frames.send(&frame(HEADERS, END_HEADERS, stream, &post("/private")));
        // The whole answer, and the frames that follow at once.
        let mut seen = Vec::new();
        while !seen.ends_with(&[(DATA, END_STREAM)]) {
            let next = frames.next().unwrap();
            seen.push((next.kind, next.flags));
        }
        assert!(seen.iter().any(|(kind, _)| *kind == HEADERS), "{seen:?}");
        frames.send(&frame(DATA, 0, stream, &[0; 1000]));
        frames.send(&frame(DATA, END_STREAM, stream, &[0; 1000]));
        frames.send(&frame(PING, 0, 0, &[7; 8]));
        loop {
            let next = frames.next().unwrap();
            assert_ne!(next.kind, RST_STREAM);
            if next.kind == PING && next.payload == [7; 8] {
                break;
            }
        }
    }
    assert!(edge.stub.take().is_empty());
}

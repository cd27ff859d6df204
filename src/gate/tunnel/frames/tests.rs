use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::*;

const OPCODES: [OpCode; 6] = [
    OpCode::Data(Data::Continue),
    OpCode::Data(Data::Text),
    OpCode::Data(Data::Binary),
    OpCode::Control(Control::Ping),
    OpCode::Control(Control::Pong),
    OpCode::Control(Control::Close),
];

fn frame(opcode: OpCode, length: usize, mask: Option<[u8; 4]>, is_final: bool) -> Vec<u8> {
    let header = FrameHeader { opcode, mask, is_final, ..FrameHeader::default() };
    let mut bytes = Vec::new();
    // Payloads that look like headers.
    Frame::from_payload(header, vec![0x88; length].into()).format(&mut bytes).unwrap();
    bytes
}

/// A frame of any kind; its length is in one byte, in three or in nine.
fn any_frame() -> impl Strategy<Value = (OpCode, Vec<u8>)> {
    let length = prop_oneof![4 => 0_usize..130, 1 => 65_530_usize..65_540, 1 => 100_000_usize..100_010];
    (0..OPCODES.len(), length, any::<Option<[u8; 4]>>(), any::<bool>())
        .prop_map(|(kind, length, mask, is_final)| (OPCODES[kind], frame(OPCODES[kind], length, mask, is_final)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However the bytes are cut, the ends are where they are, and a Close frame is seen once its header is whole.
    #[test]
    fn frames_end_where_they_end(frames in vec(any_frame(), 1..8), cuts in vec(1_usize..40, 1..60), large in any::<bool>()) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let ends: Vec<usize> = frames.iter().scan(0, |end, (_, bytes)| { *end += bytes.len(); Some(*end) }).collect();
        let (mut follower, mut at) = (Frames::default(), 0);
        for cut in cuts.iter().cycle() {
            let next = ends.iter().copied().find(|end| *end > at).unwrap_or(bytes.len());
            // Pieces of a few bytes, and pieces that end beyond the frame.
            let cut = if large { cut * 3000 } else if next - at > 200 { next - at - 30 } else { *cut };
            let piece = &bytes[at..bytes.len().min(at + cut)];
            if !follower.is_between() {
                prop_assert_eq!(follower.rest_of_frame(piece), piece.len().min(next - at));
            }
            follower.pass(piece);
            at += piece.len();
            prop_assert_eq!(follower.is_between(), ends.contains(&at));
            prop_assert!(!follower.is_lost());
            let whole = ends.iter().filter(|end| **end <= at).count();
            let closes = |frames: &[(OpCode, Vec<u8>)]| frames.iter().any(|(kind, _)| *kind == OPCODES[5]);
            prop_assert!(follower.has_close() || !closes(&frames[..whole]));
            prop_assert!(!follower.has_close() || closes(&frames[..frames.len().min(whole + 1)]));
            if at == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(at, bytes.len());
    }

    #[test]
    fn no_bytes_bring_it_down(pieces in vec(vec(any::<u8>(), 0..20), 0..40)) {
        let mut follower = Frames::default();
        for piece in pieces {
            prop_assert!(follower.rest_of_frame(&piece) <= piece.len());
            follower.pass(&piece);
        }
    }
}

#[test]
fn what_is_no_frame_is_not_followed_any_further() {
    let mut follower = Frames::default();
    follower.pass(&frame(OPCODES[1], 5, None, true));
    assert!(follower.is_between());
    // An undefined opcode.
    follower.pass(&[0x83]);
    assert!(!follower.is_between() && !follower.is_lost());
    assert_eq!(follower.rest_of_frame(&[0x05, 1]), 0);
    follower.pass(&[0x05]);
    assert!(follower.is_lost());
    follower.pass(&frame(OPCODES[5], 0, None, true));
    assert!(follower.is_lost() && !follower.is_between() && !follower.has_close());
}

#[test]
fn a_frame_without_end_has_none() {
    let mut follower = Frames::default();
    follower.pass(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]);
    follower.pass(&[0; 1000]);
    assert!(!follower.is_between() && !follower.is_lost());
}

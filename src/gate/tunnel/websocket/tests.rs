//! Both sides are pipes, and time is the test's.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::*;
use rotogate_core::denial::Denial;

const CLOSE: OpCode = OpCode::Control(Control::Close);

/// The sides of the client and of the upstream, and what is between them.
fn sides(room: usize) -> (DuplexStream, DuplexStream, WebSocket<DuplexStream, DuplexStream>) {
    let ((client, near), (far, upstream)) = (duplex(room), duplex(room));
    (client, upstream, WebSocket::new(near, far))
}

fn formatted(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.format(&mut bytes).unwrap();
    bytes
}

fn binary(payload: &[u8]) -> Vec<u8> {
    formatted(Frame::message(payload.to_vec(), OpCode::Data(Data::Binary), true))
}

/// The one Close frame of these bytes: is it masked, and with what payload?
fn close(bytes: &[u8]) -> (bool, Vec<u8>) {
    let mut cursor = io::Cursor::new(bytes);
    let (header, length) = FrameHeader::parse(&mut cursor).unwrap().expect("no frame");
    assert_eq!(header.opcode, CLOSE);
    let payload = &bytes[usize::try_from(cursor.position()).unwrap()..];
    assert_eq!(payload.len() as u64, length, "it is the last");
    let mask = header.mask.unwrap_or_default();
    (header.mask.is_some(), payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect())
}

fn code(bytes: &[u8]) -> (bool, u16) {
    let (masked, payload) = close(bytes);
    (masked, u16::from_be_bytes([payload[0], payload[1]]))
}

async fn rest(side: &mut DuplexStream) -> Vec<u8> {
    let mut rest = Vec::new();
    side.read_to_end(&mut rest).await.unwrap();
    rest
}

/// Carries what is there, and then ends it.
async fn end(mut socket: WebSocket<DuplexStream, DuplexStream>, why: LeaseEnd) {
    assert!(
        tokio::time::timeout(Duration::from_secs(1), socket.carry(|| None, || {})).await.is_err(),
        "it ended by itself"
    );
    socket.end(&why).await;
}

#[tokio::test(start_paused = true)]
async fn both_sides_are_told_why() {
    for (why, expected) in [
        (LeaseEnd::Denied(Denial::TokenRevoked), 1008),
        (LeaseEnd::Denied(Denial::TokenExpired), 1008),
        (LeaseEnd::Undecided(Denial::KeysUnavailable(Duration::ZERO)), 1013),
        (LeaseEnd::MaxStream, 1012),
        (LeaseEnd::Closing, 1001),
    ] {
        let (mut client, mut upstream, socket) = sides(1024);
        client.write_all(&binary(b"there")).await.unwrap();
        upstream.write_all(&binary(b"back")).await.unwrap();
        let ending = tokio::spawn(end(socket, why));
        let (said, heard) = (rest(&mut client).await, rest(&mut upstream).await);
        assert_eq!(code(said.strip_prefix(binary(b"back").as_slice()).unwrap()), (false, expected));
        assert_eq!(code(heard.strip_prefix(binary(b"there").as_slice()).unwrap()), (true, expected));
        drop((client, upstream));
        ending.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn t9_what_a_client_says_after_the_end_reaches_nobody() {
    let (mut client, mut upstream, socket) = sides(1024);
    let ending = tokio::spawn(end(socket, LeaseEnd::Denied(Denial::TokenRevoked)));
    assert_eq!(code(&rest(&mut client).await), (false, 1008));
    client.write_all(&binary(b"late")).await.unwrap();
    assert_eq!(code(&rest(&mut upstream).await), (true, 1008));
    drop((client, upstream));
    ending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_frame_to_the_client_that_is_under_way_is_finished_and_the_next_one_is_not_begun() {
    let frame = binary(&[7; 3000]);
    for (cut, more) in [(1, false), (3, true), (100, true), (2999, false)] {
        let (mut client, mut upstream, socket) = sides(64 * 1024);
        upstream.write_all(&frame[..cut]).await.unwrap();
        let ending = tokio::spawn(end(socket, LeaseEnd::Closing));
        assert_eq!(code(&rest(&mut upstream).await), (true, 1001), "the upstream is told while the client is not");
        upstream.write_all(&frame[cut..]).await.unwrap();
        if more {
            upstream.write_all(&binary(b"dropped")).await.unwrap();
        }
        let said = rest(&mut client).await;
        assert_eq!(code(said.strip_prefix(frame.as_slice()).unwrap()), (false, 1001), "{cut}");
        drop((client, upstream));
        ending.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn t9_a_frame_whose_rest_does_not_come_is_cut_off() {
    let (mut client, mut upstream, socket) = sides(1024);
    upstream.write_all(&binary(&[7; 100])[..50]).await.unwrap();
    let begin = Instant::now();
    let ending = tokio::spawn(end(socket, LeaseEnd::Denied(Denial::TokenRevoked)));
    assert_eq!(rest(&mut client).await, binary(&[7; 100])[..50]);
    assert!(begin.elapsed() <= Duration::from_secs(1) + FAREWELL);
    // The close at the client does not affect the close at the upstream.
    assert_eq!(code(&rest(&mut upstream).await), (true, 1008));
    drop(upstream);
    ending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn t9_a_client_that_takes_nothing_is_cut_off() {
    let (client, mut upstream, socket) = sides(1024);
    // These bytes do not fit into the buffers.
    upstream.write_all(&binary(&[7; 1000])).await.unwrap();
    let begin = Instant::now();
    let ending = tokio::spawn(end(socket, LeaseEnd::Denied(Denial::TokenRevoked)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    upstream.write_all(&binary(&[7; 1000])).await.unwrap();
    assert_eq!(code(&rest(&mut upstream).await), (true, 1008));
    drop(upstream);
    ending.await.unwrap();
    assert!(begin.elapsed() <= Duration::from_secs(1) + FAREWELL);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn t9_of_a_frame_to_the_upstream_that_is_under_way_nothing_more_arrives() {
    let (mut client, mut upstream, socket) = sides(1024);
    let frame = binary(&[7; 100]);
    client.write_all(&frame[..60]).await.unwrap();
    let ending = tokio::spawn(end(socket, LeaseEnd::Denied(Denial::TokenRevoked)));
    assert_eq!(code(&rest(&mut client).await), (false, 1008));
    client.write_all(&frame[60..]).await.unwrap();
    assert_eq!(rest(&mut upstream).await, frame[..60], "and no Close frame in the middle of it");
    drop((client, upstream));
    ending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn between_the_fragments_of_a_message_is_room_for_a_close_frame() {
    let (mut client, mut upstream, socket) = sides(1024);
    let first = formatted(Frame::message(b"one".to_vec(), OpCode::Data(Data::Text), false));
    upstream.write_all(&first).await.unwrap();
    client.write_all(&first).await.unwrap();
    let ending = tokio::spawn(end(socket, LeaseEnd::Closing));
    assert_eq!(code(rest(&mut client).await.strip_prefix(first.as_slice()).unwrap()), (false, 1001));
    assert_eq!(code(rest(&mut upstream).await.strip_prefix(first.as_slice()).unwrap()), (true, 1001));
    drop((client, upstream));
    ending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_a_side_has_said_close_nothing_is_added() {
    let (mut client, mut upstream, socket) = sides(1024);
    let own = formatted(Frame::close(Some(CloseFrame { code: CloseCode::Normal, reason: "done".into() })));
    upstream.write_all(&own).await.unwrap();
    client.write_all(&own).await.unwrap();
    let ending = tokio::spawn(end(socket, LeaseEnd::Closing));
    assert_eq!((rest(&mut client).await, rest(&mut upstream).await), (own.clone(), own));
    drop((client, upstream));
    ending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn t9_what_is_no_frame_passes_until_the_end_and_is_cut_off_then() {
    let (mut client, mut upstream, socket) = sides(1024);
    let begin = Instant::now();
    upstream.write_all(b"\x83\x01who knows").await.unwrap();
    client.write_all(b"\x83\x01neither").await.unwrap();
    let ending = tokio::spawn(end(socket, LeaseEnd::Closing));
    assert_eq!(rest(&mut client).await, b"\x83\x01who knows");
    assert_eq!(rest(&mut upstream).await, b"\x83\x01neither");
    assert!(begin.elapsed() <= Duration::from_secs(1) + FAREWELL);
    drop((client, upstream));
    ending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_side_that_ends_is_passed_on_and_the_other_may_go_on() {
    let (mut client, mut upstream, mut socket) = sides(1024);
    let carrying = tokio::spawn(async move { socket.carry(|| None, || {}).await });
    client.write_all(&binary(b"last")).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut upstream).await, binary(b"last"));
    upstream.write_all(&binary(b"still there")).await.unwrap();
    upstream.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, binary(b"still there"));
    carrying.await.unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Byte for byte, whatever the pieces are and however little each side takes at once.
    #[test]
    fn what_passes_is_what_was_sent(
        there in proptest::collection::vec(any::<u8>(), 0..60_000),
        back in proptest::collection::vec(any::<u8>(), 0..60_000),
        piece in 1_usize..20_000,
        room in prop_oneof![1_usize..40, 1000_usize..100_000],
    ) {
        // Both directions carry frames, and bytes that are no frames.
        let (there, back) = ([binary(&there), there].concat(), [back.clone(), binary(&back)].concat());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (got_there, got_back) = runtime.block_on(async {
            let (client, upstream, mut socket) = sides(room);
            let talk = |side: DuplexStream, says: Vec<u8>| async move {
                let (mut reads, mut writes) = tokio::io::split(side);
                let mut heard = Vec::new();
                let write = async {
                    for piece in says.chunks(piece) {
                        writes.write_all(piece).await.unwrap();
                    }
                    writes.shutdown().await.unwrap();
                };
                tokio::join!(write, async { reads.read_to_end(&mut heard).await.unwrap() });
                heard
            };
            let (carried, back, there) =
                tokio::join!(socket.carry(|| None, || {}), talk(client, there.clone()), talk(upstream, back.clone()));
            carried.unwrap();
            (there, back)
        });
        prop_assert!(got_there == there && got_back == back);
    }
}

#[tokio::test(start_paused = true)]
async fn t40_a_service_that_leaves_when_its_lease_has_ended_leaves_the_close_frame_to_the_gate() {
    let revoked = || Some(LeaseEnd::Denied(Denial::TokenRevoked));
    for late in [false, true] {
        let (mut client, mut upstream, mut socket) = sides(1024);
        upstream.write_all(&binary(b"back")).await.unwrap();
        drop(upstream);
        if late {
            // The upstream is gone: the gate cannot forward these bytes.
            client.write_all(&binary(b"there")).await.unwrap();
        }
        let why = socket.carry(revoked, || {}).await.unwrap().expect("the lease has ended");
        let ending = tokio::spawn(async move { socket.end(&why).await });
        let said = rest(&mut client).await;
        // A failed write may lose the last bytes of the service.
        let close = said.strip_prefix(binary(b"back").as_slice());
        assert!(close.is_some() || late, "{said:?}");
        assert_eq!(code(close.unwrap_or(&said)), (false, 1008));
        drop(client);
        ending.await.unwrap();
    }
    // A Close frame of its own passes, and one that leaves before the end of its lease is not spoken for.
    let own = formatted(Frame::close(Some(CloseFrame { code: CloseCode::Normal, reason: "bye".into() })));
    for (sent, lease_end) in [(own.clone(), true), (Vec::new(), false)] {
        let (mut client, mut upstream, mut socket) = sides(1024);
        upstream.write_all(&sent).await.unwrap();
        drop(upstream);
        let ended = move || if lease_end { revoked() } else { None };
        let carrying = tokio::spawn(async move { socket.carry(ended, || {}).await.map(|why| why.is_none()) });
        assert_eq!(rest(&mut client).await, sent);
        drop(client);
        assert!(carrying.await.unwrap().unwrap());
    }
}

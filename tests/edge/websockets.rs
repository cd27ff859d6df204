//! The end of a WebSocket by the gate: the close frames of both sides, and the current frame. Tests that depend on time
//! are beside the code: `src/proxy/upgrade/websocket/tests.rs`.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use tokio::time::Instant;
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Error, Message, WebSocket};

use super::browser;
use super::streams::{config, kuzzle};
use super::upgrades::{PATIENCE, ask_with, gate_with, head, is};
use support::stub::Edge;
use support::{CONFIG, Gate};

/// An upstream that takes every upgrade, and leaves to the test what comes then.
pub(super) fn upstream() -> (u16, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (opened, sockets) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            head(&mut BufReader::with_capacity(1, stream.try_clone().unwrap()));
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(agreed.as_bytes()).unwrap();
            if opened.send(stream).is_err() {
                return;
            }
        }
    });
    (port, sockets)
}

/// Both sides of a WebSocket through the gate.
pub(super) fn open(gate: &Gate, sockets: &Receiver<TcpStream>, token: &str) -> (TcpStream, TcpStream) {
    let (answer, client) = ask_with(gate, "/ws", "WebSocket", &format!("authorization: Bearer {token}"), "");
    assert!(is(&answer, 101), "{answer}");
    (client.into_inner(), sockets.recv_timeout(PATIENCE).unwrap())
}

pub(super) type Sides = (WebSocket<TcpStream>, WebSocket<TcpStream>);

pub(super) fn sides((client, upstream): (TcpStream, TcpStream)) -> Sides {
    let client = WebSocket::from_raw_socket(client, Role::Client, None);
    // This side refuses a frame that is not masked.
    (client, WebSocket::from_raw_socket(upstream, Role::Server, None))
}

/// Text goes there and back.
pub(super) fn talk((client, upstream): &mut Sides) {
    client.send(Message::text("there")).unwrap();
    assert_eq!(upstream.read().unwrap(), Message::text("there"));
    upstream.send(Message::text("back")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("back"));
}

/// The code with which the other side closes, as the next thing that it says; its end comes behind it.
fn closed(side: &mut WebSocket<TcpStream>) -> u16 {
    let Message::Close(Some(close)) = side.read().unwrap() else { panic!("something else came") };
    assert!(!close.reason.is_empty());
    let end = side.read();
    assert!(matches!(end, Err(Error::ConnectionClosed)), "{end:?}");
    close.code.into()
}

pub(super) fn both_closed((client, upstream): &mut Sides) -> (u16, u16) {
    (closed(client), closed(upstream))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_both_sides_are_told_that_a_session_was_revoked_and_nothing_passes_then() {
    let (port, sockets) = upstream();
    let mut place = None;
    let gate = gate_with(CONFIG, port, &mut place);
    let tokens = gate.login().await;
    let mut ends = sides(open(&gate, &sockets, &tokens.access));
    talk(&mut ends);
    gate.revoke(&tokens.refresh).await;
    let (client, upstream) = &mut ends;
    let Message::Close(Some(close)) = client.read().unwrap() else { panic!("something else came") };
    assert_eq!(u16::from(close.code), 1008);
    let late = Frame::message("late", OpCode::Data(Data::Text), true);
    let mut bytes = Vec::new();
    late.format(&mut bytes).unwrap();
    // The gate reads it, and drops it.
    let _ = client.get_mut().write_all(&bytes);
    assert_eq!(closed(upstream), 1008);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_both_sides_are_told_that_a_token_expired_or_that_it_lasted_long_enough() {
    let (port, sockets) = upstream();
    let mut place = None;
    let gate = gate_with(&config(), port, &mut place);
    let token = kuzzle(&gate, "/k/_login/local?expiresIn=3s", None).await;
    let mut ends = sides(open(&gate, &sockets, &token));
    talk(&mut ends);
    assert_eq!(both_closed(&mut ends), (1008, 1008));

    let mut place = None;
    let gate = gate_with(&support::with(&config(), "sessions", "for_tests.max_stream = \"1s\""), port, &mut place);
    let mut ends = sides(open(&gate, &sockets, &gate.login().await.access));
    assert_eq!(both_closed(&mut ends), (1012, 1012));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_are_told_that_the_gate_stops_and_it_waits_for_them() {
    let (port, sockets) = upstream();
    let mut place = None;
    let config = support::with(CONFIG, "server", "drain_timeout = \"1h\"");
    let mut gate = gate_with(&config, port, &mut place);
    let mut ends = sides(open(&gate, &sockets, &gate.login().await.access));
    talk(&mut ends);
    assert!(Command::new("kill").arg("-TERM").arg(gate.child.id().to_string()).status().unwrap().success());
    assert_eq!(both_closed(&mut ends), (1001, 1001));
    drop(ends);
    assert!(gate.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_a_client_that_does_nothing_but_send_hears_of_the_end_all_the_same() {
    let (port, sockets) = upstream();
    let mut place = None;
    let gate = gate_with(CONFIG, port, &mut place);
    let tokens = gate.login().await;
    // The upstream reads nothing, so that bytes wait at each place where they can.
    let (client, upstream) = open(&gate, &sockets, &tokens.access);
    let sends = client.try_clone().unwrap();
    let stop = AtomicBool::new(false);
    let frame = [&[0x82, 0xfe, 0xff, 0xff, 0, 0, 0, 0], [0_u8; 0xffff].as_slice()].concat();
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Frames whose ends never coincide with the end of a write.
            let send = |part: &[u8]| (&sends).write_all(part).is_ok();
            frame.chunks(10_007).cycle().map(send).find(|sent| !sent || stop.load(Ordering::Relaxed));
            let _ = sends.shutdown(Shutdown::Write);
        });
        let revoke = async { gate.revoke(&tokens.refresh).await };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(revoke));
        let told = WebSocket::from_raw_socket(client, Role::Client, None).read();
        stop.store(true, Ordering::Relaxed);
        told
    });
    let Ok(Message::Close(Some(close))) = told else { panic!("something else came: {told:?}") };
    assert_eq!(u16::from(close.code), 1008);
    drop(upstream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_a_frame_that_stops_in_its_middle_is_no_reason_to_stay() {
    let (port, sockets) = upstream();
    let mut place = None;
    let gate = gate_with(CONFIG, port, &mut place);
    let tokens = gate.login().await;
    let (mut client, mut upstream) = open(&gate, &sockets, &tokens.access);
    let half = [&[0x82, 100], [7; 50].as_slice()].concat();
    upstream.write_all(&half).unwrap();
    let mut got = vec![0; half.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, half);
    gate.revoke(&tokens.refresh).await;
    let mut rest = Vec::new();
    if let Err(error) = client.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    assert_eq!(rest, b"", "nothing fits in the middle of a frame");
    assert_eq!(closed(&mut WebSocket::from_raw_socket(upstream, Role::Server, None)), 1008);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_between_the_upstream_and_the_client_is_theirs() {
    let (port, sockets) = upstream();
    let mut place = None;
    let gate = gate_with(CONFIG, port, &mut place);
    let tokens = gate.login().await;
    let (mut client, mut upstream) = open(&gate, &sockets, &tokens.access);
    let own = [0x88, 2, 0x0f, 0xa0];
    upstream.write_all(&own).unwrap();
    let mut got = [0; 4];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, own);
    gate.revoke(&tokens.refresh).await;
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "4000 was said, and stays the last word");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_in_many_fragments_pass_byte_for_byte_there_and_back() {
    let (port, sockets) = upstream();
    let mut place = None;
    let gate = gate_with(CONFIG, port, &mut place);
    let tokens = gate.login().await;
    let ends = sides(open(&gate, &sockets, &tokens.access));
    let message = |seed: u32| -> Vec<u8> { (0..3_000_001_u32).map(|at| (at.wrapping_mul(seed) >> 7) as u8).collect() };
    let exchange = |mut side: WebSocket<TcpStream>, says: Vec<u8>, hears: Vec<u8>| {
        let fragments: Vec<&[u8]> = says.chunks(70_001).collect();
        for (at, part) in fragments.iter().enumerate() {
            let kind = if at == 0 { Data::Binary } else { Data::Continue };
            let frame = Frame::message(part.to_vec(), OpCode::Data(kind), at + 1 == fragments.len());
            side.write(Message::Frame(frame)).unwrap();
        }
        side.flush().unwrap();
        assert!(side.read().unwrap() == Message::binary(hears), "something else came");
        side
    };
    let (there, back) = (message(2_654_435_761), message(40_503));
    let mut ends = std::thread::scope(|scope| {
        let client = scope.spawn(|| exchange(ends.0, there.clone(), back.clone()));
        let upstream = scope.spawn(|| {
            let mut upstream = ends.1;
            assert!(upstream.read().unwrap() == Message::binary(there.clone()), "something else came");
            upstream.send(Message::binary(back.clone())).unwrap();
            upstream
        });
        (client.join().unwrap(), upstream.join().unwrap())
    });
    gate.revoke(&tokens.refresh).await;
    assert_eq!(both_closed(&mut ends), (1008, 1008), "the end of a frame was known after all this");
}

#[test]
fn b11_what_a_page_sends_over_a_websocket_renews_its_session() {
    let (port, sockets) = upstream();
    let more = format!(
        "[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n[[routes]]\npath = \"/live\"\n\
         credentials = [\"session\"]\nupgrade = true\nupstream = \"ws\"\n"
    );
    let short = "profile = { access_ttl = \"2s\", grace = \"1s\", lost_response_window = \"1s\" }";
    let edge = Edge::with(&browser::config(short, &more), |_| {}, |_| {});
    let held = browser::cookie(&browser::post_json(&edge, &[browser::OWN], &browser::credentials(&edge)));
    // The question is no activity.
    let idle_end = || browser::state(&edge, &held)["idle_expires"].as_u64().unwrap();
    let first = idle_end();
    let (answer, client) = ask_with(&edge.gate, "/live", "WebSocket", &format!("{held}\r\n{}", browser::OWN), "");
    assert!(is(&answer, 101), "{answer}");
    let mut ends = sides((client.into_inner(), sockets.recv_timeout(PATIENCE).unwrap()));
    let begun = Instant::now();
    while idle_end() == first {
        assert!(begun.elapsed() < PATIENCE, "nothing renewed the session");
        talk(&mut ends);
    }
}

//! T15: abuse of an HTTP/2 connection ends only that connection.

use support::frames::{CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS, frame, get};
use support::stub::{Edge, HEAD, ROUTES};
use support::tls_client::Connection;
use support::until;

const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn edge(server: &str) -> Edge {
    let config = support::with(HEAD, "server", server);
    Edge::with(&format!("{config}{ROUTES}"), |_| {}, |_| {})
}

fn others_are_served(edge: &Edge) {
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
}

#[test]
fn t15_requests_that_are_reset_at_once_end_the_connection() {
    let edge = edge("");
    let mut frames = Frames::open(edge.gate.address);
    let mut flood = Vec::new();
    for stream in (1..2000).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/public/silent")));
        flood.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    frames.send(&flood);
    assert!(matches!(frames.goaway(), Some(ENHANCE_YOUR_CALM) | None));
    others_are_served(&edge);
}

#[test]
fn t15_requests_that_are_reset_once_the_gate_works_on_them_end_the_connection() {
    let edge = edge("");
    let mut frames = Frames::open(edge.gate.address);
    let mut stream = 1;
    // Far more than the gate tolerates, but never more at once than is allowed.
    let ended = (0..100).find_map(|_| {
        let streams: Vec<u32> = (0..50).map(|n| stream + 2 * n).collect();
        stream += 100;
        let all = |kind, flags, payload: &[u8]| -> Vec<u8> {
            streams.iter().flat_map(|stream| frame(kind, flags, *stream, payload)).collect()
        };
        frames.send(&all(HEADERS, END_STREAM | END_HEADERS, &get("/public/silent")));
        // All streams are upstream: the library counts only streams that the gate has not seen, so it counts none of
        // these.
        let mut arrived = 0;
        while arrived < streams.len() {
            if let Some(ended) = frames.ended() {
                return Some(ended);
            }
            arrived += edge.stub.take().len();
        }
        frames.send(&all(RST_STREAM, 0, &CANCEL));
        frames.ended()
    });
    // The connection ends in order; at the library's own bound it would end as a flood.
    assert_eq!(ended, Some(Some(NO_ERROR)), "5000 resets");
    assert!(edge.gate.log().contains("too many resets"));
    others_are_served(&edge);
}

#[tokio::test(flavor = "multi_thread")]
async fn t15_pings_and_settings_that_are_answered_keep_no_connection_and_hold_nobody_up() {
    let edge = edge("for_tests.idle_timeout = \"1s\"");
    for flood in [frame(PING, 0, 0, &[1; 8]), frame(SETTINGS, 0, 0, &[])] {
        let address = edge.gate.address;
        let flooding = tokio::task::spawn_blocking(move || {
            let mut frames = Frames::open(address);
            let many = flood.repeat(100);
            std::iter::repeat_with(|| {
                frames.send(&many);
                frames.ended()
            })
            .flatten()
            .next()
        });
        // The client made no request, so the connection ends without an error of a request.
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), flooding).await;
        let ended = ended.expect("a flood keeps its connection").unwrap();
        assert!(matches!(ended, Some(Some(NO_ERROR) | None)), "{ended:?}");
        others_are_served(&edge);
    }
}

#[test]
fn t15_a_header_block_without_end_ends_the_connection() {
    let edge = edge("");
    let mut frames = Frames::open(edge.gate.address);
    frames.send(&frame(HEADERS, END_STREAM, 1, &get("/public/x")));
    // A literal field that no table remembers.
    let field = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    // More than the buffers of both ends hold, so that a slow gate does not look like a gate that reads everything.
    let sent = (0..200_000).take_while(|_| frames.send(&frame(CONTINUATION, 0, 1, &field))).count();
    assert!(sent < 200_000, "22 MB of headers were taken");
    // Unread bytes may have hidden the last frame.
    assert!(matches!(frames.goaway(), Some(ENHANCE_YOUR_CALM) | None));
    others_are_served(&edge);
}

#[test]
fn t15_header_blocks_of_nothing_end_the_connection() {
    let edge = edge("");
    let mut frames = Frames::open(edge.gate.address);
    frames.send(&frame(HEADERS, END_STREAM, 1, &get("/public/x")));
    let ended = (0..2_000_000).any(|_| !frames.send(&frame(CONTINUATION, 0, 1, &[])));
    assert!(ended, "two million empty frames were taken");
    others_are_served(&edge);
}

#[test]
fn t15_a_head_that_is_too_long_is_431_and_the_connection_goes_on() {
    let edge = edge("");
    let mut frames = Frames::open(edge.gate.address);
    let field = [&[0, 1, b'x', 126][..], &[b'y'; 126]].concat().repeat(120);
    let block = [get("/public/x"), field].concat();
    for (stream, rest) in [(1, 4), (3, 0)] {
        let flags = if rest == 0 { END_STREAM | END_HEADERS } else { END_STREAM };
        frames.send(&frame(HEADERS, flags, stream, &block));
        for left in (0..rest).rev() {
            let flags = if left == 0 { END_HEADERS } else { 0 };
            frames.send(&frame(CONTINUATION, flags, stream, &block[get("/public/x").len()..]));
        }
        let answer = std::iter::from_fn(|| frames.next()).find(|frame| frame.kind == HEADERS).unwrap();
        // `:status` is the first field: 200 has an index of its own, 431 is written out in the code of RFC 7541 §B.
        let status: &[u8] = if rest == 0 { &[0x88] } else { &[0x48, 0x83, 0x69, 0x90, 0xff] };
        assert!(answer.payload.starts_with(status), "{:x?}", answer.payload);
    }
}

#[test]
fn t15_pings_and_settings_whose_answers_nobody_reads_end_the_connection() {
    let edge = edge("for_tests.idle_timeout = \"1s\"");
    for flood in [frame(PING, 0, 0, &[1; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut frames = Frames::open(edge.gate.address);
        let many = flood.repeat(10_000);
        // Blocks when the gate takes no more, until it closes the connection.
        assert!((0..10_000).any(|_| !frames.send(&many)), "a gigabyte of frames was taken");
        others_are_served(&edge);
    }
}

#[tokio::test]
async fn a4_a_connection_on_which_nothing_is_asked_is_told_to_go() {
    let edge = edge("for_tests.idle_timeout = \"1s\"");
    let mut connection = Connection::h2c(edge.gate.address).await;
    assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, 200);
    let edge = &edge;
    until("the connection is told to go", async || edge.gate.log().contains("idle timeout")).await;
    until("the client has heard it", async || connection.get("gate.test", "/public/x").await.is_err()).await;
    // A silent connection gets GOAWAY, too, and is closed.
    let mut silent = Frames::open(edge.gate.address);
    assert_eq!(
        tokio::task::spawn_blocking(move || (silent.goaway(), silent.next().is_none())).await.unwrap().0,
        Some(0)
    );
}

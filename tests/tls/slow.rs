//! A4: clients that are slow, in either direction.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;

use support::pki::Pki;
use support::stub::{Edge, HEAD, ROUTES};
use support::tls_client::{Client, Connection};
use support::until;

fn edge(server: &str) -> Edge {
    edge_with(server, |_| {})
}

fn edge_with(server: &str, files: impl FnOnce(&support::Place)) -> Edge {
    let config = support::with(HEAD, "server", server);
    Edge::with(&format!("{config}{ROUTES}"), files, |_| {})
}

/// Sends a byte of a body every tenth of a second, until it is whole or the gate answers, and returns the status.
fn trickled(edge: &Edge, path: &str, length: usize) -> String {
    let mut stream = TcpStream::connect(edge.gate.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: gate.test\r\nContent-Length: {length}\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    for _ in 0..length {
        // The tolerated time for reading makes this test slow.
        match stream.read_exact(&mut answer) {
            Ok(()) => return String::from_utf8_lossy(&answer).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return error.to_string(),
        }
        let _ = stream.write_all(b"x");
    }
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a4_a_body_that_comes_more_slowly_than_it_may_is_408() {
    let edge = edge("for_tests.idle_timeout = \"1s\"\nfor_tests.min_body_rate = 1000");
    assert_eq!(trickled(&edge, "/public/x", 1000), "HTTP/1.1 408");
    // Half of the body never arrived anywhere.
    assert!(edge.stub.take().is_empty());
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
}

#[test]
fn a_slow_body_passes_where_any_rate_will_do() {
    let edge = edge("for_tests.idle_timeout = \"1s\"\nfor_tests.min_body_rate = 0");
    assert_eq!(trickled(&edge, "/public/x", 25), "HTTP/1.1 200");
    assert_eq!(edge.stub.one().body, [b'x'; 25]);
}

#[tokio::test]
async fn a4_a_client_that_does_not_read_is_cut_off() {
    let pki = Pki::new();
    let edge =
        edge_with("for_tests.idle_timeout = \"1s\"\ntls = { cert = \"server.pem\", key = \"server.key\" }", |place| {
            pki.issue(&["gate.test"]).write(place, "server");
        });
    let mut stream = Client::new(&pki, &["http/1.1"]).connect(edge.gate.address, "gate.test").await.unwrap();
    stream.write_all(b"GET /public/endless HTTP/1.1\r\nHost: gate.test\r\n\r\n").await.unwrap();
    until("the client is cut off", async || {
        edge.gate.log().contains("the client does not read the response, or reads it too slowly")
    })
    .await;
}

#[tokio::test]
async fn a4_a_reply_that_is_not_read_is_reset_and_the_others_on_its_connection_go_on() {
    let edge = edge("for_tests.idle_timeout = \"1s\"");
    let mut connection = Connection::h2c(edge.gate.address).await;
    let endless = Request::get("http://gate.test/public/endless").body(Full::default()).unwrap();
    let mut unread = connection.send(endless).await.unwrap();
    until("the reply is reset", async || {
        // Other streams make progress meanwhile.
        assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, 200);
        edge.gate.log().contains("response not read by the client")
    })
    .await;
    assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, 200);
    // The sent bytes arrive, followed by an abort instead of an orderly end.
    let broken = loop {
        match unread.body_mut().frame().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("an endless body ended"),
        }
    };
    assert!(format!("{broken:?}").contains("CANCEL"), "{broken:?}");
}

#[tokio::test]
async fn a_reply_that_is_read_may_last_longer_than_the_idle_timeout() {
    let edge = edge("for_tests.idle_timeout = \"1s\"");
    let mut connection = Connection::h2c(edge.gate.address).await;
    let endless = Request::get("http://gate.test/public/endless").body(Full::default()).unwrap();
    let mut read = connection.send(endless).await.unwrap();
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        assert!(read.body_mut().frame().await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a4_http_2_over_tls_that_does_not_begin_ends() {
    let pki = Pki::new();
    let edge = edge_with("head_timeout = \"1s\"\ntls = { cert = \"server.pem\", key = \"server.key\" }", |place| {
        pki.issue(&["gate.test"]).write(place, "server");
    });
    for begun in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut stream = Client::new(&pki, &["h2"]).connect(edge.gate.address, "gate.test").await.unwrap();
        stream.write_all(begun).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
        assert!(ended.is_ok(), "the gate waits for ever");
    }
}

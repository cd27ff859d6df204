//! A4: the most connections of one address.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use support::pki::with_server;
use support::{Gate, Place, until};

/// A connection from this local address, if a request on it is answered.
async fn served(gate: &Gate, from: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse::<SocketAddr>().unwrap()).unwrap();
    let mut stream = socket.connect(gate.address).await.unwrap();
    stream.write_all(b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\n\r\n").await.ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.ok()?;
    assert_eq!(&answer, b"HTTP/1.1 200");
    Some(stream)
}

#[tokio::test]
async fn a4_connections_beyond_those_of_one_address_are_closed_and_others_are_served() {
    let place = Place::new(&with_server("max_connections_per_address = 3"));
    let gate = place.start();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(served(&gate, "127.0.0.1").await.unwrap());
    }
    for _ in 0..3 {
        assert!(served(&gate, "127.0.0.1").await.is_none());
    }
    assert!(served(&gate, "127.0.0.2").await.is_some());
    // One line for all closed connections.
    assert_eq!(gate.log().matches("connection limit of an address reached").count(), 1);
    held.pop();
    until("the place is free again", async || served(&gate, "127.0.0.1").await.is_some()).await;
}

#[tokio::test]
async fn a_trusted_proxy_has_the_connections_of_all_its_clients() {
    let lines = "max_connections_per_address = 1\ntrusted_proxies = [\"127.0.0.1\"]";
    let place = Place::new(&with_server(lines));
    let gate = place.start();
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(served(&gate, "127.0.0.1").await.unwrap());
    }
    held.push(served(&gate, "127.0.0.2").await.unwrap());
    assert!(served(&gate, "127.0.0.2").await.is_none());
}

//! Connections that a proxy forwards with the PROXY protocol, version 2.

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::pki::{Pki, with_server};
use support::tls_client::{Client, Connection};
use support::{Gate, Place, until};

/// Signature, version 2 and this command, TCP over IPv4, and an address.
fn header(command: u8, client: [u8; 4]) -> Vec<u8> {
    let addresses = [&client[..], &[10, 0, 0, 1, 0x12, 0x34, 1, 187]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | command, 0x11, 0, 12], &addresses].concat()
}

const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const CLIENT: [u8; 4] = [203, 0, 113, 7];

fn gate(more: &str) -> (Place, Gate) {
    let listener = "[[server.listeners]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true";
    let config = with_server(more).replace("listen = \"127.0.0.1:0\"\npublic_url", "public_url").replacen(
        "[admin]",
        &format!("{listener}\n[admin]"),
        1,
    );
    let place = Place::new(&config);
    let gate = place.start();
    (place, gate)
}

/// Sends these bytes, and returns the whole answer.
async fn answer(gate: &Gate, bytes: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let _ = stream.write_all(&bytes.concat()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The `X-Forwarded-For` that the upstream sees.
async fn seen(gate: &Gate, header: &[u8], forwarded: &str) -> String {
    let request = format!(
        "GET /public/x HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\nX-Forwarded-For: {forwarded}\r\n\r\n"
    );
    let answer = answer(gate, &[header, request.as_bytes()]).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    let headers = json["headers"].as_array().unwrap();
    headers.iter().find(|pair| pair[0] == "x-forwarded-for").unwrap()[1].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn p31_t6_t28_the_client_is_who_the_proxy_says_and_not_who_its_headers_say() {
    let (_place, gate) = gate("trusted_proxies = [\"127.0.0.1\", \"198.51.100.0/24\"]");
    assert_eq!(seen(&gate, &header(PROXY, CLIENT), "192.0.2.1").await, "203.0.113.7");
    // A client in a trusted network is still a client: the PROXY header names it, and its own headers are not trusted.
    assert_eq!(seen(&gate, &header(PROXY, [198, 51, 100, 9]), "192.0.2.1").await, "198.51.100.9");
    // The proxy's own connection (LOCAL), without a client.
    assert_eq!(seen(&gate, &header(LOCAL, CLIENT), "192.0.2.1").await, "127.0.0.1");
    // The access log has the client and the proxy.
    let log = gate.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("url.path=/public/x")).collect();
    assert_eq!(lines.len(), 3, "{log}");
    // In any order, because each worker writes its own lines.
    for client in ["203.0.113.7", "198.51.100.9", "127.0.0.1"] {
        let named = lines.iter().filter(|line| line.contains(&format!(" client.address={client} ")));
        assert_eq!(named.count(), 1, "{client}: {log}");
    }
    assert!(lines.iter().all(|line| line.contains(" network.peer.address=127.0.0.1 ")), "{log}");
}

#[tokio::test]
async fn t6_a_connection_without_a_sound_header_is_closed() {
    let (_place, gate) = gate("trusted_proxies = [\"127.0.0.1\"]\nhead_timeout = \"1s\"");
    let request = b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";
    let mut unspecified = header(PROXY, CLIENT);
    unspecified[13] = 0;
    for bytes in [
        &[][..],
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        &unspecified,
        &header(3, CLIENT),
    ] {
        assert_eq!(answer(&gate, &[bytes, request]).await, "", "{bytes:x?}");
    }
    // A header that never arrives.
    assert_eq!(answer(&gate, &[]).await, "");
    assert!(answer(&gate, &[&header(PROXY, CLIENT), request]).await.starts_with("HTTP/1.1 200"));
    // A second header is not a request.
    let twice = answer(&gate, &[&header(PROXY, CLIENT), &header(PROXY, [1, 2, 3, 4]), request]).await;
    assert!(!twice.contains("200"), "{twice}");
}

#[tokio::test]
async fn t6_only_a_trusted_proxy_may_say_who_the_client_is() {
    let (_place, gate) = gate("trusted_proxies = [\"198.51.100.1\"]");
    let request = b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";
    assert_eq!(answer(&gate, &[&header(PROXY, CLIENT), request]).await, "");
    // A listener without `proxy_protocol` accepts no PROXY header, from any peer.
    let plain_place = Place::new(&with_server("trusted_proxies = [\"127.0.0.1\"]"));
    let plain = plain_place.start();
    assert!(!answer(&plain, &[&header(PROXY, CLIENT), request]).await.contains("200"));
}

#[tokio::test]
async fn a4_connections_are_counted_for_the_client_and_not_for_the_proxy() {
    let (_place, gate) = gate("trusted_proxies = [\"127.0.0.1\"]\nmax_connections_per_address = 1");
    let open = async |client: [u8; 4]| {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let request = b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\n\r\n";
        stream.write_all(&[&header(PROXY, client), &request[..]].concat()).await.ok()?;
        stream.read_exact(&mut [0; 12]).await.ok()?;
        Some(stream)
    };
    let _held = open(CLIENT).await.unwrap();
    assert!(open(CLIENT).await.is_none());
    assert!(open([203, 0, 113, 8]).await.is_some());
}

#[tokio::test]
async fn t43_a_connection_ends_once_the_proxy_that_carries_it_is_not_trusted() {
    let (place, gate) = gate("trusted_proxies = [\"127.0.0.1\", \"192.0.2.1\"]");
    let mut open = Vec::new();
    for command in [PROXY, LOCAL] {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(&header(command, CLIENT)).await.unwrap();
        open.push(Connection::h1_over(stream).await);
    }
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    let reload = async |config: &str, times: usize| {
        place.write_config(config);
        gate.signal("HUP");
        let reloaded = async || gate.log().matches("configuration reloaded").count() >= times;
        until("the gate has reloaded", reloaded).await;
    };
    let config = config.replace(", \"192.0.2.1\"", "");
    reload(&config, 1).await;
    for connection in &mut open {
        let answer = connection.get("gate.test", "/public/x").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "another proxy is not trusted");
    }
    reload(&config.replace("\"127.0.0.1\"", "\"192.0.2.1\""), 2).await;
    for connection in &mut open {
        // Each request begins the idle timeout again, so that it does not end the connection.
        until("the connection ends", async || connection.get("gate.test", "/public/x").await.is_err()).await;
    }
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let pki = Pki::new();
    let place = Place::new("");
    pki.issue(&["gate.test"]).write(&place, "server");
    let listener = "[[server.listeners]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n\
                    tls = { cert = \"server.pem\", key = \"server.key\" }";
    let config = with_server("trusted_proxies = [\"127.0.0.1\"]")
        .replace("listen = \"127.0.0.1:0\"\npublic_url", "public_url")
        .replacen("[admin]", &format!("{listener}\n[admin]"), 1);
    place.write_config(&config);
    let gate = place.start();
    let client = Client::new(&pki, &["h2"]);
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(&header(PROXY, CLIENT)).await.unwrap();
    let mut connection = Connection::over(client.connect_over(stream, "gate.test").await.unwrap()).await;
    let answer = connection.get("gate.test", "/public/x").await.unwrap();
    assert_eq!(answer.echoed("x-forwarded-for"), ["203.0.113.7"]);
    assert_eq!(answer.echoed("x-forwarded-proto"), ["https"]);
    assert!(client.connect(gate.address, "gate.test").await.is_err());
}

/// A header for TCP over IPv6, with an address of this /64 below 2001:db8::/32.
fn header_v6(network: u32) -> Vec<u8> {
    let client = (0x2001_0db8_u128 << 96 | u128::from(network) << 64 | 1).to_be_bytes();
    let addresses = [&client[..], &[0; 15], &[1, 0x12, 0x34, 1, 187]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | PROXY, 0x21, 0, 36], &addresses].concat()
}

#[tokio::test]
async fn a28_a_48_never_has_more_than_half_of_all_connections_and_others_are_served() {
    let (_place, gate) =
        gate("trusted_proxies = [\"127.0.0.1\"]\nmax_connections = 8\nmax_connections_per_address = 1");
    let request = b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    let open = async |network: u32| {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let _ = stream.write_all(&[&header_v6(network)[..], request].concat()).await;
        let read = stream.read(&mut [0; 64]).await.unwrap_or_default();
        (read > 0).then_some(stream)
    };
    // Each in a separate /56: the bound of the /48 is 32 times that of an address, four times the number here.
    let mut held = Vec::new();
    for network in 0..8 {
        held.extend(open(network << 8).await);
    }
    assert_eq!(held.len(), 4);
    assert!(open(1 << 16).await.is_some(), "another /48");
}

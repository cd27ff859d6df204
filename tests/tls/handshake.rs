//! T16: accepted handshakes, and the protocols on their connections.

use std::io::{Read, Write};

use http::StatusCode;
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::pki::{Pki, secure_place};
use support::tls_client::{Client, refusal};
use support::{raw, until};

#[tokio::test]
async fn t16_alpn_decides_between_http_2_and_http_1() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    for (offered, is_http2) in [
        (&["h2", "http/1.1"][..], true),
        (&["h2"], true),
        (&["http/1.1"], false),
        (&["ftp", "http/1.1"], false),
        (&[], false),
    ] {
        let mut connection = Client::new(&pki, offered).open(gate.address, "gate.test").await.unwrap();
        assert_eq!(connection.is_http2(), is_http2, "{offered:?}");
        for _ in 0..2 {
            let answer = connection.get("gate.test", "/public/x").await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{offered:?}");
            assert_eq!(answer.echoed("x-forwarded-proto"), ["https"]);
        }
        assert_eq!(connection.get("gate.test", "/private").await.unwrap().status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn t16_who_offers_only_other_protocols_is_refused() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    for offered in [&["ftp"][..], &["http/1.0"], &["h2c", "imap"]] {
        let said = refusal(Client::new(&pki, offered).connect(gate.address, "gate.test").await).await;
        assert!(said.contains("NoApplicationProtocol"), "{offered:?}: {said}");
    }
    // Prior knowledge is for clear text: over TLS these bytes are a malformed request.
    let mut stream = Client::new(&pki, &[]).connect(gate.address, "gate.test").await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
}

/// The first message of a client with this version at most, and one cipher suite.
fn hello(version: [u8; 2], suite: [u8; 2]) -> Vec<u8> {
    // P-256 and ECDSA with SHA-256, so that only the tested part can cause a refusal.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0];
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 2]);
    body.extend(suite);
    body.extend([1, 0]);
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut message = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    message.extend(body);
    message
}

fn answer_to(address: std::net::SocketAddr, hello: &[u8]) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    stream.write_all(hello).unwrap();
    let mut answer = vec![0; 7];
    stream.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn t16_old_versions_and_old_suites_are_refused() {
    const ECDHE_ECDSA_AES_128_GCM: [u8; 2] = [0xc0, 0x2b];
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let alert = |answer: &[u8]| (answer[0] == 21 && answer[5] == 2).then(|| answer[6]);
    // A valid TLS 1.2 client gets a hello.
    assert_eq!(answer_to(gate.address, &hello([3, 3], ECDHE_ECDSA_AES_128_GCM))[0], 22);
    for old in [[3, 0], [3, 1], [3, 2]] {
        assert_eq!(alert(&answer_to(gate.address, &hello(old, ECDHE_ECDSA_AES_128_GCM))), Some(70), "{old:?}");
    }
    // RSA key exchange, CBC, RC4, 3DES, anonymous, null.
    for suite in [[0, 0x2f], [0xc0, 0x09], [0xc0, 0x07], [0xc0, 0x08], [0, 0x9c], [0xc0, 0x18], [0xc0, 0x06]] {
        assert_eq!(alert(&answer_to(gate.address, &hello([3, 3], suite))), Some(40), "{suite:?}");
    }
}

#[tokio::test]
async fn t16_a_session_is_resumed_and_never_with_early_data() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let mut client = Client::new(&pki, &["http/1.1"]);
    client.config.enable_early_data = true;
    for round in 0..2 {
        let mut stream = client.connect(gate.address, "gate.test").await.unwrap();
        let request = b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        let (_, session) = stream.get_ref();
        let kind = if round == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
        assert_eq!(session.handshake_kind(), Some(kind));
        assert!(!session.is_early_data_accepted());
        // The ticket allowed no early data.
        assert!(stream.get_mut().1.early_data().is_none());
    }
}

#[tokio::test]
async fn p69_clear_text_and_tls_listen_side_by_side_and_say_which_they_are() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let config = support::pki::with_server("").replace(
        "[admin]",
        "[[server.listeners]]\naddress = \"127.0.0.1:0\"\ntls = { cert = \"server.pem\", key = \"server.key\" }\n[admin]",
    );
    place.write_config(&config);
    let gate = place.start();
    let [clear, secure] = gate.addresses[..] else { panic!("{:?}", gate.addresses) };
    assert!(
        raw(clear, b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 200")
    );
    let mut connection = Client::new(&pki, &["h2"]).open(secure, "gate.test").await.unwrap();
    assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK);
    // Neither protocol is read as the other.
    let told = raw(secure, b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n");
    let (head, body) = told.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{told}"));
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("https://"), "{told}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{told}");
    assert!(Client::new(&pki, &["h2"]).connect(clear, "gate.test").await.is_err());
}

#[tokio::test]
async fn a4_a_handshake_that_does_not_go_on_ends_and_holds_nobody_up() {
    let pki = Pki::new();
    let place = secure_place(&pki, "head_timeout = \"1s\"");
    let gate = place.start();
    let mut silent: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(gate.address).unwrap()).collect();
    for (stream, sent) in silent.iter_mut().zip(0_usize..) {
        stream.write_all(&hello([3, 3], [0xc0, 0x2b])[..sent]).unwrap();
    }
    let mut connection = Client::new(&pki, &["h2"]).open(gate.address, "gate.test").await.unwrap();
    assert_eq!(connection.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK);
    for mut stream in silent {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        // A reset also ends the connection; a hang does not.
        let ended = stream.read(&mut [0; 64]);
        assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
}

#[tokio::test]
async fn t9_an_upgrade_passes_over_tls() {
    let pki = Pki::new();
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = upstream.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = upstream.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(AGREED).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let place = secure_place(&pki, "");
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&format!(
        "{config}[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/ws\"\nupgrade = true\nupstream = \"ws\"\n\
         [[server.listeners]]\naddress = \"127.0.0.1:0\"\n"
    ));
    let mut gate = place.start();
    // The helper uses clear text.
    let secure = std::mem::replace(&mut gate.address, gate.addresses[1]);
    let token = gate.login().await.access;
    let mut stream = Client::new(&pki, &["http/1.1"]).connect(secure, "gate.test").await.unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\nConnection: upgrade\r\n\
         Upgrade: websocket\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{:?}", String::from_utf8_lossy(&answer));
    stream.write_all(b"both ways").await.unwrap();
    let mut echoed = [0; 9];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"both ways");
}

const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test]
async fn a_stop_does_not_wait_for_handshakes() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let silent: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(gate.address).unwrap()).collect();
    let log = gate.log.clone();
    assert_eq!(tokio::task::spawn_blocking(move || gate.stop()).await.unwrap(), Some(0));
    assert!(!std::fs::read_to_string(log).unwrap().contains("the gate closed the remaining requests"));
    drop(silent);
}

#[tokio::test]
async fn a_stop_lets_requests_over_tls_finish() {
    let pki = Pki::new();
    let place = secure_place(&pki, "");
    let gate = place.start();
    let (address, admin) = (gate.address, gate.admin);
    let mut idle = Client::new(&pki, &["h2"]).open(address, "gate.test").await.unwrap();
    assert_eq!(idle.get("gate.test", "/public/x").await.unwrap().status, StatusCode::OK);
    // A request whose body the gate waits for.
    let mut stream = Client::new(&pki, &["http/1.1"]).connect(address, "gate.test").await.unwrap();
    let head = "POST /public/x HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let stopping = tokio::task::spawn_blocking(move || gate.stop());
    let ready = |answer: String| answer.starts_with("HTTP/1.1 200");
    until("readiness is red", async || {
        !ready(raw(admin, b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    })
    .await;
    stream.write_all(b"body").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(stopping.await.unwrap(), Some(0));
    assert!(idle.get("gate.test", "/public/x").await.is_err());
}

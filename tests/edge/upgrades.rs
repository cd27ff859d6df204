//! Upgrades (requirement T9): which requests may upgrade, what the upstream sees, and when the connection ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use support::{CONFIG, Gate, Place};

/// Longer than anything here takes; only a hang ends by it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// An upstream that takes every upgrade that it is asked for and then sends back what it is sent, in upper case. Says
/// what heads it got.
pub(crate) fn upstream() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heads, got) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, heads) = (stream.unwrap(), heads.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let head = head(&mut reader);
                let lower = head.to_ascii_lowercase();
                let protocol = lower.lines().find_map(|line| line.strip_prefix("upgrade: ").map(str::to_owned));
                heads.send(head).unwrap();
                let mut stream = stream;
                let Some(protocol) = protocol else {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nplain");
                    return;
                };
                let agreed = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\
                     sec-websocket-accept: x\r\n\r\n"
                );
                stream.write_all(agreed.as_bytes()).unwrap();
                let mut bytes = [0; 64];
                while let Ok(n @ 1..) = reader.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..n].to_ascii_uppercase());
                }
            });
        }
    });
    (port, got)
}

/// Reads a head, its last line included.
pub(super) fn head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
    head
}

pub(super) fn gate(port: u16, place: &mut Option<Place>) -> Gate {
    gate_with(CONFIG, port, place)
}

/// As above, with another configuration before its routes.
pub(super) fn gate_with(config: &str, port: u16, place: &mut Option<Place>) -> Gate {
    let open = format!(
        "[[upstreams]]\nname = \"ws\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/ws\"\nupgrade = true\ncookie = \"token\"\nupstream = \"ws\"\n\
         [[routes]]\npath = \"/public/ws\"\nauth = \"optional\"\nupgrade = true\nupstream = \"ws\"\n\
         [[routes]]\npath = \"/plain\"\nupstream = \"ws\"\n"
    );
    place.insert(Place::new(&format!("{config}{open}"))).start()
}

/// Sends a request for an upgrade and some bytes behind it. Gives the head of the answer, and the connection.
pub(crate) fn ask(gate: &Gate, path: &str, protocol: &str, header: &str) -> (String, BufReader<TcpStream>) {
    ask_with(gate, path, protocol, header, "hello")
}

/// As above, followed by other bytes.
pub(super) fn ask_with(
    gate: &Gate,
    path: &str,
    protocol: &str,
    header: &str,
    behind: &str,
) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(gate.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: gate.test\r\nconnection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\n\
         sec-websocket-key: k\r\nx-auth-subject: forged\r\n{header}\r\n\r\n{behind}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    (head(&mut reader), reader)
}

pub(super) fn is(head: &str, status: u16) -> bool {
    head.starts_with(&format!("HTTP/1.1 {status} "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_a_tunnel_carries_bytes_until_its_token_is_revoked() {
    let (port, heads) = upstream();
    let mut place = None;
    let gate = gate(port, &mut place);
    let tokens = gate.login().await;
    let (answer, mut tunnel) = ask(&gate, "/ws", "chat/1", &format!("authorization: Bearer {}", tokens.access));
    assert!(is(&answer, 101) && answer.contains("sec-websocket-accept: x\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nupgrade: chat/1\r\n"), "{answer}");
    let mut bytes = [0; 5];
    tunnel.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"HELLO", "what came behind the head waited for the upstream's word");
    tunnel.get_mut().write_all(b"again").unwrap();
    tunnel.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"AGAIN");

    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(
        head.contains("sec-websocket-key: k\r\n") && head.to_ascii_lowercase().contains("\r\nconnection: upgrade\r\n")
    );
    assert!(!head.contains("authorization") && !head.contains("forged") && head.contains("x-auth-subject: "));

    gate.revoke(&tokens.refresh).await;
    let mut rest = Vec::new();
    // A reset would do as well; only a connection that stays open would not.
    match tunnel.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    assert_eq!(rest, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_nobody_else_has_a_tunnel_and_no_other_form_of_http() {
    let (port, heads) = upstream();
    let mut place = None;
    let gate = gate(port, &mut place);
    let bearer = format!("authorization: Bearer {}", gate.login().await.access);
    let (answer, _) = ask(&gate, "/ws", "websocket", "x: y");
    assert!(is(&answer, 401), "{answer}");
    assert!(heads.try_recv().is_err(), "nothing arrived");
    for (path, protocol, header) in [
        ("/public/ws", "websocket", "x: y"),
        ("/plain", "websocket", bearer.as_str()),
        ("/ws", "h2c", &bearer),
        ("/ws", "websocket, h2c", &bearer),
    ] {
        let (answer, _) = ask(&gate, path, protocol, header);
        let head = heads.recv_timeout(PATIENCE).unwrap().to_ascii_lowercase();
        assert!(is(&answer, 200) && !head.contains("upgrade"), "{path} {protocol}: {answer} {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_a_page_of_another_origin_has_no_tunnel_by_cookie() {
    let (port, heads) = upstream();
    let mut place = None;
    let gate = gate(port, &mut place);
    let access = gate.login().await.access;
    for origin in ["https://evil.test", "null", "https://gate.test.evil.test", "https://gate.test:1"] {
        let (answer, _) = ask(&gate, "/ws", "websocket", &format!("cookie: token={access}\r\norigin: {origin}"));
        assert!(is(&answer, 403), "{origin}: {answer}");
    }
    // A browser says where a page is from.
    let (answer, _) = ask(&gate, "/ws", "websocket", &format!("cookie: token={access}"));
    assert!(is(&answer, 403), "{answer}");
    assert!(heads.try_recv().is_err(), "nothing arrived");
    for header in [
        format!("cookie: token={access}\r\norigin: http://gate.test"),
        format!("cookie: token={access}\r\nsec-fetch-site: same-origin"),
        format!("authorization: Bearer {access}\r\norigin: https://app.test"),
    ] {
        let (answer, _) = ask(&gate, "/ws", "websocket", &header);
        assert!(is(&answer, 101), "{answer}");
    }
}

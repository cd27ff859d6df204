//! Connections that crowd the admin listener and the listener for probes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use support::wire::Wire;
use support::{CONFIG, Place, raw, until, with};

use super::probes::address;
use super::{Ask, admin_token};

/// The number of places for strangers.
const PLACES: usize = 64;
/// The time limit of a wait, which only a hang reaches.
const PATIENCE: Duration = Duration::from_secs(30);

const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request on an open connection. `None` if the connection is closed.
fn ask(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(LIVE).ok()?;
    let read = stream.read(&mut [0; 4096]).ok()?;
    (read > 0).then_some(())
}

/// Connections with repeated requests, in a separate thread.
struct Crowd {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Crowd {
    /// Each connection has sent one request.
    fn gather(at: SocketAddr, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (is_there, all_there) = mpsc::channel();
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut all: Vec<_> = (0..count).map(|_| connect(at)).collect();
            while !is_over.load(Ordering::Relaxed) {
                all.retain_mut(|stream| ask(stream).is_some());
                let _ = is_there.send(());
            }
            // Removes connections that were closed since the last request on them.
            all.retain_mut(|stream| ask(stream).is_some());
            all.len()
        });
        all_there.recv_timeout(PATIENCE).unwrap();
        Self { stop, thread }
    }

    /// The number of connections that were never closed.
    fn disperse(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn place() -> Place {
    Place::new(&with(CONFIG, "admin", "probes = \"0.0.0.0:0\""))
}

fn status(address: SocketAddr, path: &str, token: &str) -> String {
    let head = format!("Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    let answer = raw(address, format!("GET {path} HTTP/1.1\r\n{head}").as_bytes());
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a25_connections_that_ask_again_and_again_keep_no_probe_and_no_operator_out() {
    let place = place();
    let gate = place.start();
    let (token, probes) = (admin_token(&place), address(&place, &gate).await);
    for (at, path) in [(probes, "/livez"), (probes, "/readyz"), (gate.admin, "/readyz"), (gate.admin, "/v1/status")] {
        let crowd = Crowd::gather(at, PLACES);
        assert_eq!(status(at, path, &token), "200", "{path}");
        // At most one connection of the crowd gave way.
        assert!(crowd.disperse() >= PLACES - 1, "{path}");
    }
    assert!(gate.log().contains("admin connections without a token have reached their limit"));
}

#[tokio::test]
async fn a25_readers_that_stopped_keep_no_operator_out() {
    let place = place();
    let gate = place.start();
    let token = admin_token(&place);
    let request = b"GET /v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(300);
    let stopped: Vec<_> = (0..PLACES)
        .map(|_| {
            let mut stream = connect(gate.admin);
            stream.write_all(&request).unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            stream
        })
        .collect();
    assert_eq!(status(gate.admin, "/v1/status", &token), "200");
    drop(stopped);
}

#[tokio::test]
async fn a26_no_connection_of_an_operator_gives_way_to_strangers() {
    let place = place();
    let gate = place.start();
    let authorization = format!("Authorization: Bearer {}", admin_token(&place));
    let mut own: Vec<_> = (0..40).map(|_| Wire::open(gate.admin)).collect();
    let mut all_answered = || {
        own.iter_mut().all(|wire| {
            wire.head("GET /v1/status", &["Host: 127.0.0.1", &authorization]);
            wire.reply().status == 200
        })
    };
    assert!(all_answered());
    let (mut stranger, mut others) = (connect(gate.admin), Vec::new());
    until("a later connection gave way", async || {
        others.push(connect(gate.admin));
        ask(&mut stranger).is_none()
    })
    .await;
    assert!(all_answered(), "on the same connections");
}

/// Silent connections, each replaced by a new one when it is closed, in a separate thread: at most 1000 in a second, and
/// too few to use up all ports.
fn reconnect(at: SocketAddr, until: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut open = VecDeque::new();
        for _ in 0..5000 {
            if until.load(Ordering::Relaxed) {
                return;
            }
            open.extend(TcpStream::connect(at));
            if open.len() > 4 * PLACES {
                open.pop_front();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

#[tokio::test]
async fn a32_a_crowd_that_connects_again_and_again_keeps_no_probe_and_no_operator_out() {
    let place = place();
    let gate = place.start();
    let (token, probes) = (admin_token(&place), address(&place, &gate).await);
    for (at, path) in [(probes, "/livez"), (gate.admin, "/readyz"), (gate.admin, "/v1/status")] {
        let is_over = Arc::new(AtomicBool::new(false));
        let crowd = reconnect(at, Arc::clone(&is_over));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let attempt = || {
            let mut stream = TcpStream::connect(at)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
        };
        for _ in 0..20 {
            until(path, async || attempt().unwrap_or(false)).await;
        }
        is_over.store(true, Ordering::Relaxed);
        crowd.join().unwrap();
    }
}

#[tokio::test]
async fn a27_a_connection_whose_peer_reads_nothing_is_closed() {
    let place = Place::new(&with(CONFIG, "server", "for_tests.idle_timeout = \"500ms\""));
    let gate = place.start();
    let mut stream = connect(gate.admin);
    stream.write_all(&b"GET /v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(300)).unwrap();
    stream.set_nonblocking(true).unwrap();
    let is_broken = |error: std::io::Error| error.kind() != std::io::ErrorKind::WouldBlock;
    until("the connection is closed", async || stream.write(b"G").is_err_and(is_broken)).await;
    assert_eq!(Ask::without(&gate).get("/livez").await.status, 200);
}

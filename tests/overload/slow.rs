//! Several hundred deliberately slow clients, which reconnect when they are cut off.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use support::frames::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, get};

const SLOW_HEADS: usize = 300;
const SLOW_BODIES: usize = 100;
const SLOW_READERS: usize = 100;
/// The number of clients with a hundred requests each whose replies they never read.
const SLOW_HTTP2: usize = 3;
const EVERY: Duration = Duration::from_millis(300);
/// Longer than the timeouts of the gate.
const LONG: Duration = Duration::from_secs(10);
const WINDOW_UPDATE: u8 = 8;

/// The number of times that each kind was cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut([u64; 4]);

impl Cut {
    /// Whether any client was cut off. Clients that do not read notice it late.
    pub(crate) fn are_cut(&self) -> bool {
        let [heads, bodies, ..] = self.0;
        heads + bodies > 0
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [heads, bodies, readers, http2] = self.0;
        write!(
            f,
            "{SLOW_HEADS} heads ({heads} times cut off), {SLOW_BODIES} bodies ({bodies}), {SLOW_READERS} readers \
             ({readers}), {SLOW_HTTP2} readers of HTTP/2 ({http2})"
        )
    }
}

pub(crate) struct Slow {
    /// Ends the clients when it is dropped.
    _clients: JoinSet<()>,
    cut: Arc<[AtomicU64; 4]>,
}

impl Slow {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let cut = Arc::<[AtomicU64; 4]>::default();
        let mut clients = JoinSet::new();
        let kinds = [SLOW_HEADS, SLOW_BODIES, SLOW_READERS, SLOW_HTTP2];
        for (kind, count) in kinds.into_iter().enumerate() {
            for _ in 0..count {
                let cut = Arc::clone(&cut);
                clients.spawn(async move {
                    loop {
                        let ended = match kind {
                            0 => {
                                trickle(address, b"GET /public/x HTTP/1.1\r\nHost: gate.test\r\n", b"X-A: b\r\n").await
                            }
                            1 => {
                                let head =
                                    b"POST /public/x HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 100000\r\n\r\n";
                                trickle(address, head, b"x").await
                            }
                            2 => sip(address, b"GET /public/big HTTP/1.1\r\nHost: gate.test\r\n\r\n").await,
                            _ => sip(address, &unread()).await,
                        };
                        if ended.is_some() {
                            cut[kind].fetch_add(1, Ordering::Relaxed);
                        }
                        tokio::time::sleep(EVERY).await;
                    }
                });
            }
        }
        Self { _clients: clients, cut }
    }

    /// Ends all clients.
    pub(crate) fn end(self) -> Cut {
        Cut([0, 1, 2, 3].map(|kind| self.cut[kind].load(Ordering::Relaxed)))
    }
}

/// A hundred HTTP/2 requests of a client that opens its window for every reply, and reads no reply.
fn unread() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let window = 0x7fff_ffff_u32.to_be_bytes();
    // SETTINGS_INITIAL_WINDOW_SIZE, and as much for the connection (RFC 9113 §6.5.2, §6.9).
    bytes.extend(frame(SETTINGS, 0, 0, &[&[0, 4][..], &window].concat()));
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes()));
    for request in 0..100 {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * request + 1, &get("/public/big")));
    }
    bytes
}

/// Sends some bytes, then a few more at a time, until the gate answers or closes the connection.
async fn trickle(address: SocketAddr, begin: &[u8], more: &[u8]) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(begin).await.ok()?;
    loop {
        match tokio::time::timeout(EVERY, stream.read(&mut [0; 64])).await {
            Ok(_) => return Some(()),
            Err(_) if stream.write_all(more).await.is_err() => return Some(()),
            Err(_) => {}
        }
    }
}

/// Sends a request, and reads almost nothing of the answer.
async fn sip(address: SocketAddr, ask: &[u8]) -> Option<()> {
    let socket = TcpSocket::new_v4().ok()?;
    // The gate cannot bound the system's buffer for the client, through which gigabytes would pass here.
    socket.set_recv_buffer_size(8 * 1024).ok()?;
    let mut stream = socket.connect(address).await.ok()?;
    stream.write_all(ask).await.ok()?;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < LONG {
        tokio::time::sleep(EVERY).await;
        if !matches!(stream.read(&mut [0; 1]).await, Ok(1)) {
            return Some(());
        }
    }
    None
}

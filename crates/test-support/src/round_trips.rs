//! A proxy that counts consecutive round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Gate;

/// The first delay of a reply, in milliseconds. Concurrent requests must arrive within this delay. Further attempts
/// have longer delays.
const WAIT: u64 = 20;
const LONGEST: u64 = 300;
const PAUSES: u32 = 20;

/// The proxy, which numbers round trips. A request's number is one higher than the number of the previous reply.
pub struct RoundTrips {
    pub port: u16,
    seen: Arc<AtomicU64>,
    wait: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl RoundTrips {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let seen = Arc::new(AtomicU64::new(0));
        let wait = Arc::new(AtomicU64::new(WAIT));
        let shared = (Arc::clone(&seen), Arc::clone(&wait));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (seen, wait) = shared.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                        pass(client, server, &seen, &wait).await;
                    }
                });
            }
        });
        Self { port: own, seen, wait, task }
    }

    /// Returns the minimum over several attempts. Stops after an attempt with at most `most` round trips. Concurrent
    /// work can only add round trips.
    pub async fn least<T>(&self, (attempts, most): (u32, u64), mut work: impl AsyncFnMut() -> T) -> u64 {
        let mut least = u64::MAX;
        for attempt in 0..u64::from(attempts) {
            if least <= most {
                break;
            }
            self.wait.store((WAIT + 10 * attempt).min(LONGEST), Ordering::SeqCst);
            self.pause().await;
            let before = self.seen.load(Ordering::SeqCst);
            work().await;
            least = least.min(self.seen.load(Ordering::SeqCst) - before);
        }
        self.wait.store(WAIT, Ordering::SeqCst);
        least
    }

    /// Waits until the count stops changing, so that the next work does not count late round trips.
    async fn pause(&self) {
        for _ in 0..PAUSES {
            let before = self.seen.load(Ordering::SeqCst);
            tokio::time::sleep(2 * delay(&self.wait)).await;
            if self.seen.load(Ordering::SeqCst) == before {
                return;
            }
        }
    }
}

impl Drop for RoundTrips {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn delay(wait: &AtomicU64) -> Duration {
    Duration::from_millis(wait.load(Ordering::SeqCst))
}

async fn pass(client: TcpStream, server: TcpStream, seen: &AtomicU64, wait: &AtomicU64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = AtomicU64::new(0);
    let requests = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            asked.store(seen.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
            if to_server.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    let replies = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            let trip = asked.load(Ordering::SeqCst);
            tokio::time::sleep(delay(wait)).await;
            seen.fetch_max(trip, Ordering::SeqCst);
            if to_client.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = replies => {}
    }
}

/// Checks the round trips of a login, a refresh and a logout. The refresh is sent to the same gate, and to another
/// gate.
pub async fn counts_round_trips(way: &RoundTrips, a: &Gate, b: &Gate, login: u64) {
    for _ in 0..4 {
        a.login().await;
    }
    let took = way.least((60, login), async || a.login().await).await;
    assert!(took <= login, "a login: {took}");
    let mut tokens = a.login().await;
    let took = way.least((60, 1), async || tokens = a.refresh(&tokens.refresh).await.tokens()).await;
    assert!(took <= 1, "a refresh at the gate that made the last one: {took}");
    let mut turn = 0;
    let took = way
        .least((60, 2), async || {
            turn += 1;
            tokens = [a, b][turn % 2].refresh(&tokens.refresh).await.tokens();
        })
        .await;
    assert!(took <= 2, "a refresh at another gate: {took}");
    let mut ended = Vec::new();
    for _ in 0..3 {
        ended.push(a.login().await.refresh);
    }
    let took = way
        .least((3, 2), async || {
            let refresh = ended.pop().unwrap();
            assert_eq!(b.revoke(&refresh).await.status, http::StatusCode::OK);
        })
        .await;
    assert!(took <= 2, "a logout: {took}");
}

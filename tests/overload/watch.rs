//! Observers: health checks, and clients that wait for each answer before the next request.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use support::tls_client::Connection;
use support::try_send;

/// Far longer than any timeout of a health check: only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// An observer, until it is stopped.
pub(crate) struct Watching<T> {
    task: JoinHandle<T>,
    ending: Arc<AtomicBool>,
}

impl<T> Watching<T> {
    pub(crate) async fn end(self) -> T {
        self.ending.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// The observations.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    took: Vec<Duration>,
    served: usize,
    /// 503 with `Retry-After`.
    told: usize,
    /// Any other answer.
    wrong: Vec<String>,
}

impl Seen {
    pub(crate) fn is_well(&self) -> bool {
        self.wrong.is_empty() && self.told == 0 && self.served > 0
    }

    pub(crate) fn are_told_when(&self) -> bool {
        self.wrong.is_empty()
    }

    pub(crate) fn served(&self) -> usize {
        self.served
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = |part: usize| took.get((took.len() * part / 100).min(took.len().saturating_sub(1)));
        let millis = |part| at(part).map_or(0, Duration::as_millis);
        write!(
            f,
            "{} served, {} refused, {} wrong, p50 {} ms, p99 {} ms, at most {} ms",
            self.served,
            self.told,
            self.wrong.len(),
            millis(50),
            millis(99),
            millis(100)
        )
    }
}

/// The result of a request.
enum Came {
    Served,
    Told,
    /// With nothing more to come.
    Wrong(String),
}

/// Sends a health check to the admin listener, each over a new connection.
pub(crate) fn health(admin: SocketAddr) -> Watching<Seen> {
    let mut paths = ["/livez", "/readyz"].into_iter().cycle();
    watch(move || {
        let url = format!("http://{admin}{}", paths.next().unwrap_or_default());
        let request = Request::get(&url).body(Full::default()).unwrap();
        async move {
            match try_send(request).await {
                Ok(answer) if answer.status == StatusCode::OK => Came::Served,
                other => Came::Wrong(format!("{url}: {other:?}")),
            }
        }
    })
}

/// Requests this path over one connection.
pub(crate) fn ask(connection: Connection, path: &str, token: &str) -> Watching<Seen> {
    let url = if connection.is_http2() { format!("https://gate.test{path}") } else { path.to_owned() };
    let bearer = format!("Bearer {token}");
    let connection = Arc::new(Mutex::new(connection));
    watch(move || {
        let request = Request::get(&url).header("host", "gate.test").header("authorization", &bearer);
        let (request, connection) = (request.body(Full::default()).unwrap(), Arc::clone(&connection));
        async move {
            let answer = async {
                let (parts, body) = connection.lock().await.send(request).await?.into_parts();
                body.collect().await.map(|_| parts)
            };
            match answer.await {
                Ok(parts) if parts.status == StatusCode::OK => Came::Served,
                Ok(parts) if parts.status == 503 && parts.headers.get("retry-after").is_some_and(|s| s == "1") => {
                    Came::Told
                }
                other => Came::Wrong(format!("{other:?}")),
            }
        }
    })
}

fn watch<F>(mut look: impl FnMut() -> F + Send + 'static) -> Watching<Seen>
where
    F: Future<Output = Came> + Send,
{
    let ending = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&ending);
    let task = tokio::spawn(async move {
        let mut seen = Seen::default();
        while !ended.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let came = tokio::time::timeout(PATIENCE, look()).await;
            seen.took.push(begun.elapsed());
            match came.unwrap_or_else(|_| Came::Wrong("no answer".to_owned())) {
                Came::Served => seen.served += 1,
                Came::Told => seen.told += 1,
                Came::Wrong(what) => {
                    seen.wrong.push(what);
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        seen
    });
    Watching { task, ending }
}

//! Accepting connections, and speaking HTTP/1.1 or HTTP/2 on them: over TLS as ALPN says, in clear HTTP/2 with prior
//! knowledge (RFC 9113 §3.3).

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::listener::{Established, Listener};
use super::request::{self, State};
use crate::config::ServerConfig;
use crate::proxy::Seat;

/// How long to wait when the system has no file descriptor left, or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many requests one HTTP/2 connection may have under way (requirement T15).
const MAX_STREAMS: u32 = 100;
/// How often an HTTP/2 connection is asked whether it is alive, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What bounds connections.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    connections: Arc<Semaphore>,
    most: u32,
    head_timeout: Duration,
    max_head: usize,
}

impl Limits {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(config.max_connections)),
            most: u32::try_from(config.max_connections).unwrap_or(u32::MAX),
            head_timeout: config.head_timeout,
            max_head: config.max_head,
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_buf_size(self.max_head)
            .max_headers(100);
        builder
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(self.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        builder
    }
}

/// Serves a listener until `stopped`, then waits for what runs.
pub(super) async fn serve(listener: Listener, state: Arc<State>, limits: Limits, mut stopped: watch::Receiver<bool>) {
    let listener = Arc::new(listener);
    loop {
        // The permit first: what cannot be served yet waits in the system's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&limits.connections).acquire_owned() => permit,
            () = stop(&mut stopped) => break,
        };
        let Ok(permit) = permit else { break };
        let (stream, peer) = tokio::select! {
            accepted = listener.socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop(&mut stopped) => break,
        };
        let _ = stream.set_nodelay(true);
        let (listener, state, limits) = (Arc::clone(&listener), Arc::clone(&state), limits.clone());
        let stopped = stopped.clone();
        tokio::spawn(async move {
            let seat = Seat(Arc::new(permit));
            let ended = speak(&listener, stream, peer, state, &limits, stopped, seat).await;
            if let Err(error) = ended {
                tracing::debug!(%peer, error = ?crate::denial::Chain(&*error), "a connection ended early");
            }
        });
    }
    drop(listener);
    // Each connection holds its place to the end, also when it was upgraded.
    let _ = limits.connections.acquire_many(limits.most).await;
}

async fn speak(
    listener: &Listener,
    stream: TcpStream,
    peer: SocketAddr,
    state: Arc<State>,
    limits: &Limits,
    mut stopped: watch::Receiver<bool>,
    seat: Seat,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let established = tokio::time::timeout(limits.head_timeout, listener.establish(stream, peer)).await??;
    let Established { stream, origin, is_http2 } = established;
    let origin = Arc::new(origin);
    let service = service_fn(move |mut request: Request<Incoming>| {
        // Who upgrades keeps the place of the connection for as long as that lasts.
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(seat.clone());
        }
        request::serve(Arc::clone(&state), Arc::clone(&origin), request)
    });
    let stream = TokioIo::new(stream);
    // Each by its own builder: one that looks for itself takes the bytes of HTTP/2 where ALPN said HTTP/1.1.
    if is_http2 {
        let mut connection = pin!(limits.http2().serve_connection(stream, service));
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = stop(&mut stopped) => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    } else {
        let mut connection = pin!(limits.http1().serve_connection(stream, service).with_upgrades());
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = stop(&mut stopped) => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }
}

/// Ends when the gate is told to stop.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell: that is a stop, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

//! Accepting connections, and speaking HTTP/1.1 or HTTP/2 (in clear, with prior knowledge: RFC 9113 §3.3) on them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::request::{self, State};
use crate::config::ServerConfig;
use crate::proxy::Seat;

/// How long to wait when the system has no file descriptor left, or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for the rest of a preface that has begun.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);
/// What every HTTP/2 connection begins with (RFC 9113 §3.4). No HTTP/1.1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
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
}

/// Serves a listener until `stopped`, then waits for what runs.
pub(super) async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        // The permit first: what cannot be served yet waits in the system's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&limits.connections).acquire_owned() => permit,
            () = stop(&mut stopped) => break,
        };
        let Ok(permit) = permit else { break };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
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
        // Taken before the task begins: a connection that came just before the stop is not missed.
        let watcher = graceful.watcher();
        let (state, limits) = (Arc::clone(&state), limits.clone());
        tokio::spawn(async move {
            let seat = Seat(Arc::new(permit));
            let ended = speak(stream, peer, state, &limits, watcher, seat).await;
            if let Err(error) = ended {
                tracing::debug!(%peer, error = ?crate::denial::Chain(&*error), "a connection ended early");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    // Connections that were upgraded are waited for by nobody else. They hold their places to the end.
    let _ = limits.connections.acquire_many(limits.most).await;
}

async fn speak(
    stream: TcpStream,
    peer: SocketAddr,
    state: Arc<State>,
    limits: &Limits,
    watcher: Watcher,
    seat: Seat,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The library's own look at the preface has no deadline.
    let is_http2 = tokio::time::timeout(limits.head_timeout, begins_with_preface(&stream)).await??;
    let service = service_fn(move |mut request: Request<Incoming>| {
        // Who upgrades keeps the place of the connection for as long as that lasts.
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(seat.clone());
        }
        request::serve(Arc::clone(&state), peer, request)
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_head)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).await
}

/// Looks at the first bytes without taking them.
async fn begins_with_preface(stream: &TcpStream) -> std::io::Result<bool> {
    let mut bytes = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut bytes).await?;
        let begun = bytes.get(..seen).unwrap_or_default();
        if seen == PREFACE.len() || !PREFACE.starts_with(begun) || seen == 0 {
            return Ok(begun == PREFACE);
        }
        // What is there makes the socket readable, so only time brings the rest.
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

/// Ends when the gate is told to stop.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell: that is a stop, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

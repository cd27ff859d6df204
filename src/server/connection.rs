//! Accepting connections, and speaking HTTP/1.1 on them.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::request::{self, State};
use crate::config::ServerConfig;

/// How long to wait when the system has no file descriptor left, or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What bounds connections.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    connections: Arc<Semaphore>,
    head_timeout: Duration,
    max_head: usize,
}

impl Limits {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(config.max_connections)),
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
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_head)
        .max_headers(100);
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
        let state = Arc::clone(&state);
        let service = service_fn(move |request| request::serve(Arc::clone(&state), peer, request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        // Watched before the task begins: a connection that came just before the stop is not missed.
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error = ?crate::denial::Chain(&error), "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Ends when the gate is told to stop.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell: that is a stop, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

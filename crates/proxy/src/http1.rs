//! A pool of HTTP/1.1 connections to one address, without TLS.
//!
//! The most recently used connection is reused first, so that surplus connections time out.
//!
//! hyper-util's client is slower and limits neither the age of a connection nor its requests (docs/performance.md,
//! "Where the time of a proxied request goes").

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Parts, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::address::ConnectionUse;
use super::body::LentBody;
use super::dial::{ConnectionHold, Dial, UpstreamConnection};
use super::error::SendError;
use super::head_timeout::HeadTimeout;
use super::reread::{reread, wide};
use rotogate_kit::lazy_sleep::LazySleep;

#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    dial: Dial,
    builder: Builder,
    idle_timeout: Duration,
    max_idle: usize,
    requests_each: NonZeroU32,
    /// The connections are sorted by last use.
    idle: Mutex<Vec<IdleConnection>>,
    is_swept: AtomicBool,
}

struct IdleConnection {
    connection: Box<Connection>,
    since: Instant,
}

enum Checkout {
    Idle(Box<Connection>),
    /// There are idle connections, but their tasks have not yet processed the end of the last response.
    NotReadyYet,
    None,
}

/// The connection is boxed, because each request moves it several times.
struct Connection {
    sender: SendRequest<LentBody>,
    /// `None` until the connection first waits for a response head.
    timer: Option<LazySleep>,
    holding: ConnectionHold,
    requests: u32,
    /// `None` if the response of the connection may have all fields.
    remains: Option<oneshot::Receiver<Parts<TokioIo<UpstreamConnection>>>>,
}

impl Connections {
    pub(super) fn new(
        dial: Dial,
        builder: Builder,
        idle_timeout: Duration,
        max_idle: usize,
        requests_each: NonZeroU32,
    ) -> Self {
        let (idle, is_swept) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { dial, builder, idle_timeout, max_idle, requests_each, idle, is_swept }))
    }

    /// Sends the request, which must be in origin form. The returned guard keeps the connection while the body is read.
    ///
    /// If a pooled connection is closed and nothing was written, another connection is used.
    ///
    /// # Errors
    /// Fails with `None` if the response head timed out.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<LentBody>>,
        using: ConnectionUse,
        timeout: HeadTimeout<'_>,
    ) -> Result<(Response<Incoming>, ConnectionGuard), Option<SendError>> {
        loop {
            let kept = match self.0.check_out(using) {
                Checkout::Idle(connection) => Some(connection),
                Checkout::None => None,
                Checkout::NotReadyYet => {
                    tokio::task::yield_now().await;
                    match self.0.check_out(using) {
                        Checkout::Idle(connection) => Some(connection),
                        Checkout::None | Checkout::NotReadyYet => None,
                    }
                }
            };
            let is_new = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                // This rare future is boxed, because it would enlarge the future of every request.
                None => Box::pin(self.connect(using)).await?,
            };
            let taken = request.take().ok_or_else(SendError::nothing)?;
            let method = taken.method().clone();
            let Connection { sender, timer, .. } = &mut *connection;
            // The future is pinned in place, because awaiting by value would copy the future.
            let sending = pin!(sender.try_send_request(taken));
            let sent = timeout.within_on(timer, sending).await;
            let mut error = match sent.ok_or(None)? {
                Ok(response) => {
                    connection.requests = match using {
                        ConnectionUse::Shared => connection.requests.saturating_add(1),
                        ConnectionUse::Upgrade | ConnectionUse::Authenticate => u32::MAX,
                    };
                    let in_use = ConnectionGuard { connection: Some(connection), home: Arc::downgrade(&self.0) };
                    return Ok((response, in_use));
                }
                Err(error) if error.error().is_parse_too_large() => {
                    // hyper has dropped the request body, so nothing waits for the client any more.
                    timeout.progress.advance();
                    // This rare future is boxed as well.
                    let again = Box::pin(connection.read_again(&self.0.builder, method));
                    let response = timeout.within(again).await.ok_or(None)?;
                    let response = response.unwrap_or_else(|| Err(error.into_error()));
                    let in_use = ConnectionGuard { connection: Some(connection), home: Weak::new() };
                    return response.map(|response| (response, in_use)).map_err(|error| Some(SendError::sent(error)));
                }
                Err(error) => error,
            };
            match error.take_message() {
                Some(same) if !is_new => *request = Some(same),
                Some(_) => return Err(Some(SendError::unsent(error.into_error()))),
                None => return Err(Some(SendError::sent(error.into_error()))),
            }
        }
    }

    async fn connect(&self, using: ConnectionUse) -> Result<Box<Connection>, SendError> {
        let link = self.0.dial.clone().connect().await.map_err(SendError::unconnected)?;
        let (holding, io) = (link.holding(), TokioIo::new(link));
        let is_upgrade = using == ConnectionUse::Upgrade;
        let builder = if is_upgrade { wide(&self.0.builder) } else { self.0.builder.clone() };
        let (sender, connection) = builder.handshake(io).await.map_err(SendError::unconnected)?;
        let (give, remains) = oneshot::channel();
        tokio::spawn(async move {
            let ended = async {
                if is_upgrade {
                    return connection.with_upgrades().await;
                }
                let remains = connection.without_shutdown().await?;
                // Without unread bytes, the connection ended as usual.
                let closed = if remains.read_buf.is_empty() { Err(remains) } else { give.send(remains) };
                if let Err(remains) = closed {
                    let _ = remains.io.into_inner().shutdown().await;
                }
                Ok(())
            };
            if let Err(error) = ended.await {
                tracing::debug!(%error, "upstream connection ended early");
            }
        });
        let remains = (!is_upgrade).then_some(remains);
        Ok(Box::new(Connection { sender, timer: None, holding, requests: 0, remains }))
    }
}

impl Connection {
    /// Parses the response head once more, for more fields. Returns `None` if that is not possible.
    async fn read_again(&mut self, builder: &Builder, method: Method) -> Option<hyper::Result<Response<Incoming>>> {
        let remains = self.remains.take()?.await.ok()?;
        let mut request = Request::new(LentBody::none());
        *request.method_mut() = method;
        let read = reread(remains, builder, request).await;
        Some(read.map(|(sender, response)| {
            self.sender = sender;
            response
        }))
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        self.idle.lock()
    }

    fn check_out(&self, using: ConnectionUse) -> Checkout {
        // Only a new connection can change its protocol.
        if using == ConnectionUse::Upgrade {
            return Checkout::None;
        }
        let mut idle = self.idle();
        for at in (0..idle.len()).rev() {
            let Some(sender) = idle.get(at).map(|idle| &idle.connection.sender) else { break };
            if sender.is_closed() {
                idle.remove(at);
            } else if sender.is_ready() {
                return Checkout::Idle(idle.remove(at).connection);
            }
        }
        if idle.is_empty() { Checkout::None } else { Checkout::NotReadyYet }
    }

    fn check_in(self: Arc<Self>, connection: Box<Connection>) {
        if connection.requests >= self.requests_each.get() {
            return;
        }
        let mut idle = self.idle();
        if idle.len() < self.max_idle {
            idle.push(IdleConnection { connection, since: Instant::now() });
            drop(idle);
            if !self.is_swept.load(Ordering::Relaxed)
                && let Ok(runtime) = Handle::try_current()
                && !self.is_swept.swap(true, Ordering::Relaxed)
            {
                runtime.spawn(sweep(Arc::downgrade(&self), self.idle_timeout));
            }
        }
    }

    /// Returns the time of the next check, or `None` if no idle connection is left.
    fn close_old(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.idle();
        idle.retain(|idle| now.saturating_duration_since(idle.since) < self.idle_timeout);
        let next = idle.iter().map(|idle| idle.since).min();
        if next.is_none() {
            self.is_swept.store(false, Ordering::Relaxed);
        }
        next.map(|oldest| oldest + self.idle_timeout)
    }
}

/// Runs while there are idle connections.
async fn sweep(connections: Weak<Shared>, first: Duration) {
    let mut next = Instant::now() + first;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(again) = connections.upgrade().and_then(|shared| shared.close_old(Instant::now())) else { return };
        next = again;
    }
}

/// The connection of a response. Dropping the guard reuses the connection, or closes it if the response is incomplete.
pub(super) struct ConnectionGuard {
    connection: Option<Box<Connection>>,
    home: Weak<Shared>,
}

impl ConnectionGuard {
    pub(super) fn upgraded(mut self) -> Option<ConnectionHold> {
        self.connection.take().map(|connection| connection.holding)
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if let (Some(connection), Some(home)) = (self.connection.take(), self.home.upgrade())
            && !connection.sender.is_closed()
        {
            home.check_in(connection);
        }
    }
}

rotogate_core::debug_with!(ConnectionGuard);

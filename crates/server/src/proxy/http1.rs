//! HTTP/1.1 in clear to one address: connections that are kept and used again.
//!
//! A connection is nobody's while it is idle, and a request's from then on until the response was taken in full. The one
//! that was used last is used next, so that those which are not needed grow old and are closed.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::body::Lent;
use super::dial::{Dial, Holding};
use super::error::Unanswered;

/// The connections to one address.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    dial: Dial,
    builder: Builder,
    /// How long one is kept that nobody uses, and how many.
    keep_for: Duration,
    most: usize,
    /// A connection that carried so many requests is closed.
    requests_each: NonZeroU32,
    /// The one that was used last is the last.
    idle: Mutex<Vec<Idle>>,
    is_swept: AtomicBool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

enum Taken {
    Idle(Connection),
    /// Some were given back a moment ago, and their tasks have not seen the end of the response yet.
    NoneYet,
    None,
}

struct Connection {
    sender: SendRequest<Lent>,
    holding: Holding,
    /// How many requests it carried.
    requests: u32,
}

impl Connections {
    /// None yet.
    pub(super) fn new(
        dial: Dial,
        builder: Builder,
        keep_for: Duration,
        most: usize,
        requests_each: NonZeroU32,
    ) -> Self {
        let (idle, is_swept) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { dial, builder, keep_for, most, requests_each, idle, is_swept }))
    }

    /// Sends a request, in origin form, and brings back the head of the response, with the connection that its body
    /// comes over.
    ///
    /// One that was kept may turn out to be closed. As long as nothing of the request was written, it goes out on
    /// another.
    pub(super) async fn send(&self, mut request: Request<Lent>) -> Result<(Response<Incoming>, InUse), Unanswered> {
        loop {
            let kept = match self.0.take() {
                Taken::Idle(connection) => Some(connection),
                Taken::None => None,
                Taken::NoneYet => {
                    tokio::task::yield_now().await;
                    match self.0.take() {
                        Taken::Idle(connection) => Some(connection),
                        Taken::None | Taken::NoneYet => None,
                    }
                }
            };
            let is_new = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                // Boxed, as whatever is rare on this way: every request would carry its size about.
                None => Box::pin(self.connect()).await?,
            };
            let mut error = match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    connection.requests = connection.requests.saturating_add(1);
                    let in_use = InUse { connection: Some(connection), home: Arc::downgrade(&self.0) };
                    return Ok((response, in_use));
                }
                Err(error) => error,
            };
            match error.take_message() {
                Some(same) if !is_new => request = same,
                Some(_) => return Err(Unanswered::unsent(error.into_error())),
                None => return Err(Unanswered::sent(error.into_error())),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Unanswered> {
        let link = self.0.dial.clone().connect().await.map_err(Unanswered::unconnected)?;
        let holding = link.holding();
        let (sender, connection) =
            self.0.builder.handshake(TokioIo::new(link)).await.map_err(Unanswered::unconnected)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to an upstream ended early");
            }
        });
        Ok(Connection { sender, holding, requests: 0 })
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Taken {
        let mut idle = self.idle();
        for at in (0..idle.len()).rev() {
            let Some(sender) = idle.get(at).map(|idle| &idle.connection.sender) else { break };
            if sender.is_closed() {
                idle.remove(at);
            } else if sender.is_ready() {
                return Taken::Idle(idle.remove(at).connection);
            }
        }
        if idle.is_empty() { Taken::None } else { Taken::NoneYet }
    }

    fn keep(self: Arc<Self>, connection: Connection) {
        if connection.requests >= self.requests_each.get() {
            return;
        }
        let mut idle = self.idle();
        if idle.len() < self.most {
            idle.push(Idle { connection, since: Instant::now() });
            drop(idle);
            if !self.is_swept.load(Ordering::Relaxed)
                && let Ok(runtime) = Handle::try_current()
                && !self.is_swept.swap(true, Ordering::Relaxed)
            {
                runtime.spawn(sweep(Arc::downgrade(&self), self.keep_for));
            }
        }
    }

    /// Closes what nobody has used for long, and says when to look again. `None`: there is nothing left.
    fn close_old(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.idle();
        idle.retain(|idle| now.saturating_duration_since(idle.since) < self.keep_for);
        let next = idle.iter().map(|idle| idle.since).min();
        if next.is_none() {
            self.is_swept.store(false, Ordering::Relaxed);
        }
        next.map(|oldest| oldest + self.keep_for)
    }
}

/// As long as there is anything to close.
async fn sweep(connections: Weak<Shared>, first: Duration) {
    let mut next = Instant::now() + first;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(again) = connections.upgrade().and_then(|shared| shared.close_old(Instant::now())) else { return };
        next = again;
    }
}

/// The connection that a response comes over. Dropped, it is kept for the next request, or closed where the response
/// was left before its end.
pub(super) struct InUse {
    connection: Option<Connection>,
    /// Gone if connections are made anew since.
    home: Weak<Shared>,
}

impl InUse {
    /// It speaks another protocol from now on.
    pub(super) fn upgraded(mut self) -> Option<Holding> {
        self.connection.take().map(|connection| connection.holding)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let (Some(connection), Some(home)) = (self.connection.take(), self.home.upgrade())
            && !connection.sender.is_closed()
        {
            home.keep(connection);
        }
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InUse")
    }
}

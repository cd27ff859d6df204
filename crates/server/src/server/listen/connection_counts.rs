//! Counts the open connections, and the connections that were closed before their first request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The reason why a connection was closed before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectCause {
    /// The client address already has the maximum number of connections.
    PerAddress,
    /// The TLS handshake failed.
    Tls,
    /// The header of the PROXY protocol is missing or malformed, or the peer is not trusted.
    ProxyProtocol,
    /// The connection was not ready for requests within the time limit.
    HeadTimeout,
    /// The connection ended or broke before it was ready for requests.
    Broken,
}

impl RejectCause {
    pub(crate) const ALL: [Self; 5] =
        [Self::PerAddress, Self::Tls, Self::ProxyProtocol, Self::HeadTimeout, Self::Broken];

    /// Returns the label of the cause.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PerAddress => "per_address",
            Self::Tls => "tls",
            Self::ProxyProtocol => "proxy_protocol",
            Self::HeadTimeout => "head_timeout",
            Self::Broken => "broken",
        }
    }
}

/// The protocols of connections, as labels. The protocol of a connection is `none` before its first bytes or its TLS
/// handshake.
pub(crate) const PROTOCOLS: [&str; 3] = ["h1", "h2", "none"];
const NONE: usize = 2;

/// The counters of one listener.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCounts {
    /// The numbers in the order of [`PROTOCOLS`].
    open: [AtomicUsize; PROTOCOLS.len()],
    /// The numbers in the order of [`RejectCause::ALL`].
    rejected: [AtomicU64; RejectCause::ALL.len()],
}

impl ConnectionCounts {
    /// Counts an accepted connection until the returned value is dropped.
    pub(crate) fn accept(self: &Arc<Self>) -> OpenConnection {
        OpenConnection::new(Arc::clone(self), NONE)
    }

    /// Counts a connection that was closed before its first request.
    pub(crate) fn reject(&self, cause: RejectCause) {
        if let Some(rejected) = self.rejected.get(cause as usize) {
            rejected.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of open connections for each of [`PROTOCOLS`].
    pub(crate) fn now(&self) -> [usize; PROTOCOLS.len()] {
        self.open.each_ref().map(|open| open.load(Ordering::Relaxed))
    }

    /// The number of rejected connections for each of [`RejectCause::ALL`].
    pub(crate) fn rejected(&self) -> [u64; RejectCause::ALL.len()] {
        self.rejected.each_ref().map(|rejected| rejected.load(Ordering::Relaxed))
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    counts: Arc<ConnectionCounts>,
    place: usize,
}

impl OpenConnection {
    fn new(counts: Arc<ConnectionCounts>, place: usize) -> Self {
        if let Some(open) = counts.open.get(place) {
            open.fetch_add(1, Ordering::Relaxed);
        }
        Self { counts, place }
    }

    /// Sets the protocol of the connection, once it is known.
    pub(crate) fn established(self, is_http2: bool) -> Self {
        Self::new(Arc::clone(&self.counts), usize::from(is_http2))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(open) = self.counts.open.get(self.place) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

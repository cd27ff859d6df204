//! Connection counts for each listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectCause {
    PerAddress,
    Tls,
    /// The PROXY protocol header is missing or malformed, or the peer is not trusted.
    ProxyProtocol,
    HeadTimeout,
    Broken,
}

impl RejectCause {
    pub(crate) const ALL: [Self; 5] =
        [Self::PerAddress, Self::Tls, Self::ProxyProtocol, Self::HeadTimeout, Self::Broken];

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

/// The values of the protocol label in metrics. `none` means that the protocol is not known yet.
pub(crate) const PROTOCOLS: [&str; 3] = ["h1", "h2", "none"];
const NONE: usize = 2;

#[derive(Debug, Default)]
pub(crate) struct ConnectionCounts {
    open: [AtomicUsize; PROTOCOLS.len()],
    rejected: [AtomicU64; RejectCause::ALL.len()],
}

impl ConnectionCounts {
    /// Counts a connection until the returned value is dropped.
    pub(crate) fn accept(self: &Arc<Self>) -> OpenConnection {
        OpenConnection::new(Arc::clone(self), NONE)
    }

    pub(crate) fn reject(&self, cause: RejectCause) {
        if let Some(rejected) = self.rejected.get(cause as usize) {
            rejected.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn now(&self) -> [usize; PROTOCOLS.len()] {
        self.open.each_ref().map(|open| open.load(Ordering::Relaxed))
    }

    pub(crate) fn rejected(&self) -> [u64; RejectCause::ALL.len()] {
        self.rejected.each_ref().map(|rejected| rejected.load(Ordering::Relaxed))
    }
}

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

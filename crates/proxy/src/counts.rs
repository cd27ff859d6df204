//! Counters for an upstream. Each worker thread has its own counters. A report adds them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

use super::error::ProxyError;
use rotogate_kit::durations::Durations;
use rotogate_kit::worker_id::WorkerId;

/// The result of an attempt at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// A response head arrived.
    Ok,
    /// No connection could be opened.
    Unreachable,
    /// The upstream did not respond in time.
    Timeout,
    /// The upstream closed the connection.
    Reset,
    /// The TLS handshake failed.
    Tls,
    /// The response was not HTTP.
    Protocol,
    /// No slot became free in time.
    Saturated,
    /// The client disconnected, or its request ended early.
    ClientGone,
}

impl AttemptResult {
    /// All results.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Unreachable,
        Self::Timeout,
        Self::Reset,
        Self::Tls,
        Self::Protocol,
        Self::Saturated,
        Self::ClientGone,
    ];

    /// The name of the result in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Saturated => "saturated",
            Self::ClientGone => "client_gone",
        }
    }

    pub(super) const fn from_error(error: ProxyError) -> Option<Self> {
        match error {
            ProxyError::Unreachable => Some(Self::Unreachable),
            ProxyError::ConnectTimeout | ProxyError::HeadTimeout => Some(Self::Timeout),
            ProxyError::UpstreamReset => Some(Self::Reset),
            ProxyError::UpstreamTls => Some(Self::Tls),
            ProxyError::UpstreamProtocol => Some(Self::Protocol),
            ProxyError::Overloaded | ProxyError::ShareTaken => Some(Self::Saturated),
            ProxyError::ClientIdle | ProxyError::ClientBroken | ProxyError::TooLarge => Some(Self::ClientGone),
            ProxyError::NotCanonical | ProxyError::Tunnel | ProxyError::NoUpstream | ProxyError::Miswired => None,
        }
    }
}

/// Classes of status codes.
pub const CODE_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The counts of one thread or of all threads.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Attempts by result, in the order of [`AttemptResult::ALL`].
    pub results: [u64; AttemptResult::ALL.len()],
    /// Responses by class, in the order of [`CODE_CLASSES`].
    pub classes: [u64; CODE_CLASSES.len()],
    /// The number of repeated attempts.
    pub retries: u64,
    /// The durations until the response head arrived.
    pub durations: Durations,
}

/// The counters are kept when the upstream's configuration changes.
#[derive(Debug)]
pub(super) struct UpstreamCounts {
    of_threads: Box<[Mutex<Counted>]>,
    connections: AtomicUsize,
}

impl UpstreamCounts {
    pub(super) fn new(workers: usize) -> Self {
        Self { of_threads: WorkerId::per_worker(workers, Mutex::default), connections: AtomicUsize::new(0) }
    }

    fn with(&self, count: impl FnOnce(&mut Counted)) {
        if let Some(own) = WorkerId::current(&self.of_threads) {
            count(&mut own.lock());
        }
    }

    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        self.with(|counted| {
            counted.count(AttemptResult::Ok);
            let class = usize::from(status.as_u16() / 100).wrapping_sub(1).min(CODE_CLASSES.len() - 1);
            if let Some(class) = counted.classes.get_mut(class) {
                *class += 1;
            }
            counted.durations.count(took);
        });
    }

    pub(super) fn failed(&self, result: AttemptResult) {
        self.with(|counted| counted.count(result));
    }

    pub(super) fn retried(&self) {
        self.with(|counted| counted.retries += 1);
    }

    pub(super) fn total(&self) -> Counted {
        let mut total = Counted::default();
        for counted in &self.of_threads {
            total.add(&counted.lock());
        }
        total
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Counted {
    fn count(&mut self, result: AttemptResult) {
        if let Some(count) = self.results.get_mut(result as usize) {
            *count += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        self.results.iter_mut().zip(other.results).for_each(|(own, other)| *own += other);
        self.classes.iter_mut().zip(other.classes).for_each(|(own, other)| *own += other);
        self.retries += other.retries;
        self.durations.add(&other.durations);
    }
}

/// A running attempt. Dropping this value counts a disconnected client.
pub(super) struct Attempt<'a>(Option<&'a UpstreamCounts>);

impl<'a> Attempt<'a> {
    pub(super) const fn begin(counts: &'a UpstreamCounts) -> Self {
        Self(Some(counts))
    }

    pub(super) fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.0 {
            counts.failed(AttemptResult::ClientGone);
        }
    }
}

/// An open connection, counted until dropped.
pub(super) struct OpenConnection(Arc<UpstreamCounts>);

impl OpenConnection {
    pub(super) fn new(counts: &Arc<UpstreamCounts>) -> Self {
        counts.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

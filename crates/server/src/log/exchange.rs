//! What the server counts of one request and its response while they pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The progress of one exchange. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExchangeProgress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    is_answered: AtomicBool,
    received: AtomicU64,
}

impl ExchangeProgress {
    pub(crate) fn set_response_started(&self) {
        self.0.is_answered.store(true, Ordering::Relaxed);
    }

    /// Whether the response has begun.
    pub(crate) fn is_response_started(&self) -> bool {
        self.0.is_answered.load(Ordering::Relaxed)
    }

    /// Counts bytes of the request body.
    pub(crate) fn add_received(&self, bytes: u64) {
        self.0.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes of the request body received so far.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

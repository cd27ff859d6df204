//! What the server counts of one request and its response while they pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Has the answer to a request begun?
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered(Arc<Exchange>);

#[derive(Debug, Default)]
struct Exchange {
    is_answered: AtomicBool,
    received: AtomicU64,
}

impl Answered {
    pub(crate) fn set(&self) {
        self.0.is_answered.store(true, Ordering::Relaxed);
    }

    /// Has it begun?
    pub(crate) fn is_set(&self) -> bool {
        self.0.is_answered.load(Ordering::Relaxed)
    }

    /// So many bytes more of the request's body came.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes of the request's body came.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

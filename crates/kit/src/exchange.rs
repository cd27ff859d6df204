//! Data about an exchange that is updated while the request is in progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::HeaderValue;
use parking_lot::Mutex;

/// The progress of one exchange. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ExchangeProgress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    is_answered: AtomicBool,
    received: AtomicU64,
}

impl ExchangeProgress {
    /// Records that the response has begun.
    pub fn set_response_started(&self) {
        self.0.is_answered.store(true, Ordering::Relaxed);
    }

    /// Returns whether the response has begun.
    pub fn is_response_started(&self) -> bool {
        self.0.is_answered.load(Ordering::Relaxed)
    }

    /// Counts bytes of the request body.
    pub fn add_received(&self, bytes: u64) {
        self.0.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The received bytes of the request body.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

/// A finished exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeEnd {
    /// The bytes of the request body.
    pub received: u64,
    /// The bytes of the response body.
    pub sent: u64,
    /// The gRPC status of the response.
    pub grpc: Option<u64>,
    /// How the response ended.
    pub end: &'static str,
    /// Whether the response is a stream or a tunnel.
    pub is_stream: bool,
}

impl Default for ExchangeEnd {
    fn default() -> Self {
        Self { received: 0, sent: 0, grpc: None, end: "client_gone", is_stream: false }
    }
}

impl ExchangeEnd {
    /// Sets the gRPC status of the response.
    pub fn set_grpc_status(&mut self, status: Option<&HeaderValue>) {
        if let Some(status) = status.and_then(|status| status.to_str().ok()?.parse().ok()) {
            self.grpc = Some(status);
        }
    }
}

/// Reports the end of a tunnel. The report is sent when the last clone is dropped.
#[derive(Clone, Default)]
pub struct TunnelEnd(Arc<Mutex<Tunnel>>);

struct Tunnel {
    end: &'static str,
    told: Option<Box<dyn FnOnce(&'static str) + Send>>,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { end: "complete", told: None }
    }
}

impl TunnelEnd {
    /// Begins the tunnel. When the tunnel ends, `told` is called with the reason.
    pub fn begin(&self, told: impl FnOnce(&'static str) + Send + 'static) {
        self.0.lock().told = Some(Box::new(told));
    }

    /// Sets the reason for the end of the tunnel.
    pub fn set_end(&self, end: &'static str) {
        self.0.lock().end = end;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(self.end);
        }
    }
}

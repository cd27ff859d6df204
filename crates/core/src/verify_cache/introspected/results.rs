//! Counts the results of introspections.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::introspection::IntrospectionFault;

/// The names of the results.
const RESULTS: [&str; 17] = [
    "active",
    "inactive",
    "refused",
    IntrospectionFault::CLIENT_REFUSED,
    IntrospectionFault::MALFORMED,
    "status",
    "dns",
    "connect",
    "tls",
    "timeout",
    "too_large",
    "redirect",
    "encoding",
    "refused_address",
    "http",
    "busy",
    "other",
];

/// The count of each result.
#[derive(Debug, Default)]
pub(in crate::verify_cache) struct Results([AtomicU64; RESULTS.len()]);

impl Results {
    pub(super) fn count(&self, result: &str) {
        let place = RESULTS.iter().position(|known| *known == result).unwrap_or(RESULTS.len() - 1);
        if let Some(counter) = self.0.get(place) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns each result that occurred, with its count.
    pub(in crate::verify_cache) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|counter| counter.load(Ordering::Relaxed));
        RESULTS.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }
}

//! The figures of the directories.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the buckets, in seconds.
const BUCKET_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

fn durations() -> Histogram {
    Histogram::new(BUCKET_SECONDS)
}

type Durations = Family<[(&'static str, &'static str); 2], Histogram, fn() -> Histogram>;

/// Requests to a directory, and how long they took. Labels are from fixed sets (requirement I43).
#[derive(Clone, Debug)]
pub(crate) struct DirectoryMetrics {
    requests: Family<[(&'static str, &'static str); 3], Counter>,
    durations: Durations,
}

impl Default for DirectoryMetrics {
    fn default() -> Self {
        Self { requests: Family::default(), durations: Durations::new_with_constructor(durations) }
    }
}

impl DirectoryMetrics {
    /// Counts a request that ended.
    pub(super) fn count(&self, kind: &'static str, operation: &'static str, result: &'static str) {
        self.requests.get_or_create(&[("kind", kind), ("operation", operation), ("result", result)]).inc();
    }

    /// Counts how long the source took.
    pub(super) fn took(&self, kind: &'static str, operation: &'static str, time: Duration) {
        self.durations.get_or_create(&[("kind", kind), ("operation", operation)]).observe(time.as_secs_f64());
    }

    #[cfg(test)]
    pub(super) fn get(&self, kind: &'static str, operation: &'static str, result: &'static str) -> u64 {
        self.requests.get_or_create(&[("kind", kind), ("operation", operation), ("result", result)]).get()
    }

    /// Adds the metrics to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("directory_requests", "Requests to the directory", self.requests.clone());
        registry.register("directory_duration_seconds", "Time that the directory took", self.durations.clone());
    }
}

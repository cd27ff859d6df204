//! The metrics of the directories.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use rotogate_kit::metric_families as names;

const BUCKET_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

fn durations() -> Histogram {
    Histogram::new(BUCKET_SECONDS)
}

type Durations = Family<[(&'static str, String); 3], Histogram, fn() -> Histogram>;

/// Counts of the requests to directories, and their durations. The values of the labels come from fixed sets and from
/// the configuration (requirement I43).
#[derive(Clone, Debug)]
pub struct DirectoryMetrics {
    requests: Family<[(&'static str, String); 4], Counter>,
    durations: Durations,
}

impl Default for DirectoryMetrics {
    fn default() -> Self {
        Self { requests: Family::default(), durations: Durations::new_with_constructor(durations) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) directory: String,
    pub(super) kind: &'static str,
}

impl DirectoryMetrics {
    fn requests(&self, of: &Label, operation: &str, result: &str) -> Counter {
        let labels = [
            ("directory", of.directory.clone()),
            ("kind", of.kind.to_owned()),
            ("operation", operation.to_owned()),
            ("result", result.to_owned()),
        ];
        self.requests.get_or_create(&labels).clone()
    }

    pub(super) fn count(&self, of: &Label, operation: &'static str, result: &'static str) {
        self.requests(of, operation, result).inc();
    }

    pub(super) fn took(&self, of: &Label, operation: &'static str, time: Duration) {
        let labels =
            [("directory", of.directory.clone()), ("kind", of.kind.to_owned()), ("operation", operation.to_owned())];
        self.durations.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// Writes the metric families.
    ///
    /// # Errors
    /// Returns the writer's errors.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (requests, durations) = (&names::DIRECTORY_REQUESTS, &names::DIRECTORY_DURATION);
        let counters = encoder.encode_descriptor(requests.name, requests.help, None, MetricType::Counter)?;
        self.requests.encode(counters)?;
        let histograms = encoder.encode_descriptor(durations.name, durations.help, None, MetricType::Histogram)?;
        self.durations.encode(histograms)
    }
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl DirectoryMetrics {
        pub(crate) fn get(&self, directory: &str, operation: &'static str, result: &'static str) -> u64 {
            self.requests(&Label { directory: directory.to_owned(), kind: "fake" }, operation, result).get()
        }
    }
}

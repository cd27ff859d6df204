//! Histograms of durations.

use std::time::Duration;

/// The upper bounds of the buckets, in seconds: OpenTelemetry's advice for HTTP, and three below it.
pub(crate) const BUCKET_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, f64::INFINITY];

/// How often something took how long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations {
    /// Those up to each of [`BUCKET_SECONDS`] and above the bucket before.
    pub(crate) buckets: [u64; BUCKET_SECONDS.len()],
    /// In seconds.
    pub(crate) sum: f64,
}

impl Durations {
    /// Counts one.
    pub(crate) fn count(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut bounds = BUCKET_SECONDS.iter().zip(&mut self.buckets);
        if let Some(bucket) = bounds.find_map(|(bound, n)| (seconds <= *bound).then_some(n)) {
            *bucket += 1;
        }
        self.sum += seconds;
    }

    /// Adds those that another thread counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, other)| *own += other);
        self.sum += other.sum;
    }
}

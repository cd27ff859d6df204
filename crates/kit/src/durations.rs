//! Histograms of durations.

use std::time::Duration;

/// The upper bounds of the buckets, in seconds: OpenTelemetry's HTTP buckets and three smaller ones.
pub const BUCKET_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, f64::INFINITY];

/// A histogram of durations.
#[derive(Clone, Debug)]
pub struct Durations<const N: usize = { BUCKET_SECONDS.len() }> {
    /// The number of durations in each bucket.
    pub buckets: [u64; N],
    /// The sum of all durations, in seconds.
    pub sum: f64,
}

impl<const N: usize> Default for Durations<N> {
    fn default() -> Self {
        Self { buckets: [0; N], sum: 0.0 }
    }
}

impl Durations {
    /// Counts a duration in the buckets of [`BUCKET_SECONDS`].
    pub fn count(&mut self, took: Duration) {
        self.count_in(&BUCKET_SECONDS, took);
    }
}

impl<const N: usize> Durations<N> {
    /// Counts a duration. `bounds` are the upper bounds of the buckets, in seconds.
    pub fn count_in(&mut self, bounds: &[f64; N], took: Duration) {
        let seconds = took.as_secs_f64();
        let mut bounds = bounds.iter().zip(&mut self.buckets);
        if let Some(bucket) = bounds.find_map(|(bound, n)| (seconds <= *bound).then_some(n)) {
            *bucket += 1;
        }
        self.sum += seconds;
    }

    /// Adds another thread's counts.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, other)| *own += other);
        self.sum += other.sum;
    }
}

/// Returns the quantile `share` of a histogram, in the unit of its bounds, interpolated as in Prometheus. `None` if the
/// histogram is empty.
pub fn quantile(buckets: &[u64], bounds: &[f64], share: f64) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    let (mut below, rank) = (0.0, share * total as f64);
    let mut lower = 0.0;
    for (number, bound) in buckets.iter().zip(bounds) {
        let number = *number as f64;
        if number > 0.0 && below + number >= rank {
            let upper = if bound.is_finite() { *bound } else { lower };
            return Some(lower + (upper - lower) * (rank - below) / number);
        }
        below += number;
        lower = *bound;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_interpolated_within_its_bucket() {
        let bounds = [0.1, 0.2, 0.4, f64::INFINITY];
        assert_eq!(quantile(&[0; 4], &bounds, 0.5), None);
        assert_eq!(quantile(&[10, 0, 0, 0], &bounds, 0.5), Some(0.05));
        assert_eq!(quantile(&[5, 0, 5, 0], &bounds, 0.9).map(|it| (it * 1000.0).round()), Some(360.0));
        assert_eq!(quantile(&[0, 0, 0, 3], &bounds, 0.99), Some(0.4), "longer than the last bound");
    }
}

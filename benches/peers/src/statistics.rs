//! The samples of a cell, one for each round, and their summary.

use std::fmt;

/// One cell in one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// CPU time of the gateway for each answer, in microseconds.
    pub cpu: f64,
    /// Answers a second.
    pub rate: f64,
    /// Median latency, in milliseconds.
    pub p50: f64,
    /// In milliseconds.
    pub p99: f64,
    /// In milliseconds.
    pub p999: f64,
    /// The share of its processor that the gateway used.
    pub busy: f64,
    /// Resident memory at the end, in MiB.
    pub resident: f64,
    /// From the start of the process until its first answer, in milliseconds.
    pub start: f64,
    /// Rotations a second beside the requests, if any.
    pub rotations: f64,
    /// Forged tokens a second answered beside the requests.
    pub forged: f64,
}

/// A median with the lowest and the highest value.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let half = sorted.len() / 2;
        let median =
            if sorted.len().is_multiple_of(2) { (at(half.wrapping_sub(1)) + at(half)) / 2.0 } else { at(half) };
        Self { low: at(0), median, high: at(sorted.len().wrapping_sub(1)) }
    }

    /// Ratios within rounds: what slows a round slows both sides of it.
    pub fn ratio(dear: &[Sample], cheap: &[Sample]) -> Self {
        Self::of(dear.iter().zip(cheap).map(|(dear, cheap)| dear.cpu / cheap.cpu))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        write!(f, "{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0]).median, 2.5);
        assert_eq!(Spread::of([7.0]).to_string(), "7.00 (7.00 to 7.00)");
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let sample = |cpu| Sample { cpu, ..Sample::default() };
        let ratio = Spread::ratio(&[sample(2.0), sample(40.0)], &[sample(1.0), sample(20.0)]);
        assert_eq!((ratio.low, ratio.high), (2.0, 2.0));
    }
}

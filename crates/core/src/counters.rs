//! Counters for metrics. If possible, each thread has its own lane, to avoid contention. A reader sums the lanes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

const LANES: usize = 32;

thread_local! {
    static LANE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % LANES
    };
}

/// Two lanes do not share a cache line, nor the adjacent line that a processor prefetches.
#[derive(Debug)]
#[repr(align(128))]
struct CounterLane<const N: usize>([AtomicU64; N]);

/// A set of `N` counters.
#[derive(Debug)]
pub struct Counters<const N: usize>(Box<[CounterLane<N>]>);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self((0..LANES).map(|_| CounterLane(std::array::from_fn(|_| AtomicU64::new(0)))).collect())
    }
}

impl<const N: usize> Counters<N> {
    /// Adds to one of the counters.
    pub fn add(&self, which: usize, number: u64) {
        // A thread that exits may have dropped its lane already.
        let lane = LANE.try_with(|lane| *lane).unwrap_or_default();
        if let Some(count) = self.0.get(lane).and_then(|lane| lane.0.get(which)) {
            count.fetch_add(number, Ordering::Relaxed);
        }
    }

    /// The sums over all threads.
    pub fn sums(&self) -> [u64; N] {
        let mut sums = [0; N];
        for CounterLane(counts) in &self.0 {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.load(Ordering::Relaxed));
        }
        sums
    }
}

/// Counts the results of queries to each party. Queries are rare enough for a single lock.
#[derive(Debug, Default)]
pub struct ResultCounts(Mutex<BTreeMap<(Arc<str>, &'static str), u64>>);

impl ResultCounts {
    /// Counts one result.
    pub fn count(&self, party: &Arc<str>, result: &'static str) {
        *self.0.lock().entry((Arc::clone(party), result)).or_default() += 1;
    }

    /// The counts by party and result.
    pub fn counted(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let results = self.0.lock();
        results.iter().map(|((party, result), count)| (Arc::clone(party), *result, *count)).collect()
    }
}

const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A rate limit for a log message: once a minute.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Duration>,
}

impl Seldom {
    /// Returns whether the message should be written now.
    pub fn is_due(&mut self, now: Duration) -> bool {
        let is_due = self.said.is_none_or(|said| now >= said + SAY_AGAIN_AFTER);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }
}

/// A rate limit for each kind of log message.
// Requirements O31, O48.
#[derive(Debug, Default)]
pub struct SeldomByKind(Mutex<BTreeMap<&'static str, (Seldom, u64)>>);

impl SeldomByKind {
    /// The number of skipped messages, or `None` to skip this message.
    pub fn is_due(&self, kind: &'static str, now: Duration) -> Option<u64> {
        let mut kinds = self.0.lock();
        let (seldom, others) = kinds.entry(kind).or_default();
        if seldom.is_due(now) {
            return Some(std::mem::take(others));
        }
        *others = others.saturating_add(1);
        None
    }
}

/// The upper bounds of the buckets for short durations, in seconds.
pub const FINE_SECONDS: [f64; 14] = [
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    f64::INFINITY,
];
/// The upper bounds of the buckets for long durations, in seconds.
pub const COARSE_SECONDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, f64::INFINITY];

/// A histogram of durations.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedDurations {
    /// The upper bounds of the buckets, in seconds.
    pub bounds: &'static [f64],
    /// The number of durations in each bucket.
    pub buckets: Vec<u64>,
    /// The sum of the durations, in seconds.
    pub sum: f64,
}

#[derive(Debug)]
pub(crate) struct Durations<const N: usize> {
    bounds: &'static [f64],
    /// The buckets, then the sum in nanoseconds.
    counters: Counters<N>,
}

impl<const N: usize> Durations<N> {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counters: Counters::default() }
    }

    pub(crate) fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or_default();
        self.counters.add(bucket, 1);
        self.counters.add(self.bounds.len(), u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn counted(&self) -> CountedDurations {
        let sums = self.counters.sums();
        let (buckets, rest) = sums.split_at(self.bounds.len().min(N));
        let nanos = rest.first().copied().unwrap_or_default();
        let sum = Duration::from_nanos(nanos).as_secs_f64();
        CountedDurations { bounds: self.bounds, buckets: buckets.to_vec(), sum }
    }
}

/// Counts the durable writes of a store.
#[derive(Debug)]
pub struct Commits {
    durations: Durations<{ COARSE_SECONDS.len() + 1 }>,
    failed: AtomicU64,
}

impl Default for Commits {
    fn default() -> Self {
        Self { durations: Durations::new(&COARSE_SECONDS), failed: AtomicU64::new(0) }
    }
}

impl Commits {
    /// Counts one write.
    pub fn add(&self, took: Duration, is_done: bool) {
        if is_done {
            self.durations.add(took);
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts so far.
    pub fn counted(&self) -> CountedCommits {
        CountedCommits { done: self.durations.counted(), failed: self.failed.load(Ordering::Relaxed) }
    }
}

/// A store's durable writes.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedCommits {
    /// The durations of successful writes.
    pub done: CountedDurations,
    /// The number of failed writes.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_added_up() {
        let counters = Counters::<3>::default();
        let durations = Durations::<15>::new(&FINE_SECONDS);
        std::thread::scope(|scope| {
            for _ in 0..2 * LANES {
                scope.spawn(|| {
                    counters.add(0, 1);
                    counters.add(2, 5);
                    durations.add(Duration::from_micros(10));
                    durations.add(Duration::from_micros(11));
                    durations.add(Duration::from_secs(1));
                });
            }
        });
        let threads = 2 * LANES as u64;
        assert_eq!(counters.sums(), [threads, 0, 5 * threads]);
        let counted = durations.counted();
        assert_eq!((counted.buckets[0], counted.buckets[1], counted.buckets[13]), (threads, threads, threads));
        assert_eq!(counted.buckets.len(), FINE_SECONDS.len());
        assert!((counted.sum - threads as f64 * 1.000_021).abs() < 1e-9, "{counted:?}");
    }

    #[test]
    fn o31_o48_a_message_of_each_kind_is_due_once_a_minute_with_the_number_of_the_others() {
        let (seldom, at) = (SeldomByKind::default(), Duration::from_secs);
        assert_eq!(seldom.is_due("one", at(0)), Some(0));
        assert!((0..1000).all(|request| seldom.is_due("one", at(request / 17)).is_none()));
        assert_eq!(seldom.is_due("other", at(59)), Some(0), "another kind is not held back");
        assert_eq!(seldom.is_due("one", at(60)), Some(1000));
        assert_eq!(seldom.is_due("one", at(120)), Some(0));
    }

    #[test]
    fn p28_no_two_threads_write_the_same_line_of_memory() {
        assert_eq!((align_of::<CounterLane<1>>(), size_of::<CounterLane<1>>()), (128, 128));
        let counters = Counters::<1>::default();
        let lines: std::collections::BTreeSet<_> =
            counters.0.iter().map(|lane| std::ptr::from_ref(lane).addr() / 128).collect();
        assert_eq!(lines.len(), LANES);
    }
}

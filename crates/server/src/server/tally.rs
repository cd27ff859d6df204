//! Counts answered requests: how many, with what outcome, how fast. Each thread has a counter of its own, so that no
//! thread waits for another; a scrape adds them up.
//!
//! prometheus-client encodes the result. Its `Family` does not count: all threads would share its lock and the mutex of
//! each histogram, and each metric would look its labels up. A family of counters and one of histograms take 950
//! instructions (112 ns) for a request, this module 350 (27 ns), on one thread without contention.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use http::StatusCode;

use super::metrics::RouteLabel;
use crate::durations::Durations;
use crate::worker_id::WorkerId;

/// The counters of all threads.
#[derive(Debug)]
pub(super) struct Tally(Box<[Mutex<RouteCounts>]>);

/// The counters of one thread. A counted route is kept alive, so no other route gets its address in memory.
type RouteCounts = HashMap<RouteLabel, RouteTally>;

/// How a request ended: outcome and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestEnd {
    pub(super) outcome: &'static str,
    pub(super) code: Option<StatusCode>,
}

/// The requests of one route.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteTally {
    /// The outcomes come from a fixed set, and a route sees few of them.
    pub(super) outcomes: Vec<(RequestEnd, u64)>,
    pub(super) durations: Durations,
}

impl Tally {
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        Self(WorkerId::per_worker(threads.get(), Mutex::default))
    }

    /// Counts one request.
    pub(super) fn count(&self, route: &RouteLabel, end: RequestEnd, took: Duration) {
        let Some(counted) = WorkerId::current(&self.0) else { return };
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.get_mut(route) {
            Some(known) => known.count(end, took),
            None => counted.entry(route.clone()).or_default().count(end, took),
        }
    }

    /// The sum over all threads, by the id of the route.
    pub(super) fn total(&self) -> BTreeMap<Arc<str>, RouteTally> {
        let mut total: BTreeMap<Arc<str>, RouteTally> = BTreeMap::new();
        for counted in &self.0 {
            for (route, of_route) in counted.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                total.entry(route.id().into()).or_default().add(of_route);
            }
        }
        total
    }
}

impl RouteTally {
    fn count(&mut self, end: RequestEnd, took: Duration) {
        self.counted(end, 1);
        self.durations.count(took);
    }

    fn counted(&mut self, end: RequestEnd, number: u64) {
        match self.outcomes.iter_mut().find(|(known, _)| *known == end) {
            Some((_, count)) => *count += number,
            None => self.outcomes.push((end, number)),
        }
    }

    fn add(&mut self, other: &Self) {
        other.outcomes.iter().for_each(|(end, number)| self.counted(*end, *number));
        self.durations.add(&other.durations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_added_up() {
        let threads = NonZeroUsize::new(3).unwrap();
        let tally = Tally::new(threads);
        let answered = RequestEnd { outcome: "answered", code: Some(StatusCode::OK) };
        let lost = RequestEnd { outcome: "no_route", code: Some(StatusCode::NOT_FOUND) };
        std::thread::scope(|scope| {
            for worker in WorkerId::ids(threads) {
                let tally = &tally;
                scope.spawn(move || {
                    worker.enter();
                    let no_route = RouteLabel::default();
                    tally.count(&no_route, answered, Duration::from_micros(50));
                    tally.count(&no_route, answered, Duration::from_micros(100));
                    tally.count(&no_route, lost, Duration::from_secs(100));
                });
            }
        });
        let total = tally.total();
        let [(name, of_route)] = total.iter().collect::<Vec<_>>()[..] else { panic!("{total:?}") };
        assert_eq!(&**name, "_none");
        assert_eq!(of_route.outcomes, [(answered, 6), (lost, 3)]);
        assert_eq!(of_route.durations.buckets, [6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert!((of_route.durations.sum - 300.00045).abs() < 1e-9, "{of_route:?}");
    }
}

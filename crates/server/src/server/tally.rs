//! How many requests were answered, how, and how fast. Each thread counts for itself, so that none waits for another;
//! whoever reads adds it all up.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use http::StatusCode;

use super::metrics::RouteLabel;
use crate::lane::Lane;

/// In seconds: from 100 us to 26 s, by fours.
pub(super) const BUCKETS: [f64; 11] = {
    let mut bounds = [0.0001; 11];
    let mut at = 1;
    while at < 10 {
        bounds[at] = bounds[at - 1] * 4.0;
        at += 1;
    }
    bounds[10] = f64::INFINITY;
    bounds
};

/// See the module.
#[derive(Debug)]
pub(super) struct Tally(Box<[Mutex<Counted>]>);

/// What one thread counted. The route is held by what counts it, so none takes its place in memory.
type Counted = HashMap<RouteLabel, OfRoute>;

/// How a request ended: its outcome, and its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) outcome: &'static str,
    pub(super) code: Option<StatusCode>,
}

/// Requests of one route.
#[derive(Clone, Debug, Default)]
pub(super) struct OfRoute {
    /// From a fixed set, of which a route sees few.
    pub(super) outcomes: Vec<(End, u64)>,
    /// Those up to each of [`BUCKETS`] that are not in one before.
    pub(super) buckets: [u64; BUCKETS.len()],
    /// In seconds.
    pub(super) sum: f64,
}

impl Tally {
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        Self(Lane::each(threads.get(), Mutex::default))
    }

    /// One more.
    pub(super) fn count(&self, route: &RouteLabel, end: End, took: Duration) {
        let Some(counted) = Lane::of(&self.0) else { return };
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.get_mut(route) {
            Some(known) => known.count(end, took),
            None => counted.entry(route.clone()).or_default().count(end, took),
        }
    }

    /// All together, by the name of the route.
    pub(super) fn total(&self) -> BTreeMap<Arc<str>, OfRoute> {
        let mut total: BTreeMap<Arc<str>, OfRoute> = BTreeMap::new();
        for counted in &self.0 {
            for (route, of_route) in counted.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                total.entry(route.id().into()).or_default().add(of_route);
            }
        }
        total
    }
}

impl OfRoute {
    fn count(&mut self, end: End, took: Duration) {
        self.counted(end, 1);
        let seconds = took.as_secs_f64();
        if let Some(bucket) =
            BUCKETS.iter().zip(&mut self.buckets).find_map(|(bound, n)| (seconds <= *bound).then_some(n))
        {
            *bucket += 1;
        }
        self.sum += seconds;
    }

    fn counted(&mut self, end: End, number: u64) {
        match self.outcomes.iter_mut().find(|(known, _)| *known == end) {
            Some((_, count)) => *count += number,
            None => self.outcomes.push((end, number)),
        }
    }

    fn add(&mut self, other: &Self) {
        other.outcomes.iter().for_each(|(end, number)| self.counted(*end, *number));
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, other)| *own += other);
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_added_up() {
        let threads = NonZeroUsize::new(3).unwrap();
        let tally = Tally::new(threads);
        let answered = End { outcome: "answered", code: Some(StatusCode::OK) };
        let lost = End { outcome: "no_route", code: Some(StatusCode::NOT_FOUND) };
        std::thread::scope(|scope| {
            for lane in Lane::all(threads) {
                let tally = &tally;
                scope.spawn(move || {
                    lane.take();
                    let nobody = RouteLabel::default();
                    tally.count(&nobody, answered, Duration::from_micros(50));
                    tally.count(&nobody, answered, Duration::from_micros(100));
                    tally.count(&nobody, lost, Duration::from_secs(100));
                });
            }
        });
        let total = tally.total();
        let [(name, of_route)] = total.iter().collect::<Vec<_>>()[..] else { panic!("{total:?}") };
        assert_eq!(&**name, "_none");
        assert_eq!(of_route.outcomes, [(answered, 6), (lost, 3)]);
        assert_eq!(of_route.buckets, [6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert!((of_route.sum - 300.00045).abs() < 1e-9, "{of_route:?}");
    }
}

//! The requests of each route in the last 15 minutes, from the counters of the metrics (requirement P71). A task reads
//! the counters once a minute, so requests are not slowed down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rotogate_kit::durations::{BUCKET_SECONDS, quantile};
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::operate::reload::InForce;
use crate::server::serve::tally::RouteTally;

/// One reading a minute: the oldest was taken 14 to 15 minutes ago.
const READINGS: usize = 15;

/// The requests of a route in the last 15 minutes.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(super) struct RouteFigures {
    /// The number of requests.
    pub(super) requests: u64,
    /// The requests that ended with 5xx, from the gate or the upstream.
    pub(super) errors: u64,
    /// The requests that the gate refused with another status.
    pub(super) refused: u64,
    /// 99 % of the responses began within this time, in seconds. It is interpolated between the bounds of the
    /// histogram `rotogate_request_duration_seconds`. `null` without requests.
    pub(super) p99_seconds: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    errors: u64,
    refused: u64,
    durations: [u64; BUCKET_SECONDS.len()],
}

impl Counts {
    fn new(of_route: &RouteTally) -> Self {
        let mut counts = Self { durations: of_route.durations.buckets, ..Self::default() };
        for (end, number) in &of_route.outcomes {
            counts.requests += number;
            counts.errors += if end.has_failed() { *number } else { 0 };
            counts.refused += if end.is_refused() { *number } else { 0 };
        }
        counts
    }

    fn subtract(&mut self, before: &Self) {
        self.requests = self.requests.saturating_sub(before.requests);
        self.errors = self.errors.saturating_sub(before.errors);
        self.refused = self.refused.saturating_sub(before.refused);
        self.durations.iter_mut().zip(before.durations).for_each(|(now, before)| *now = now.saturating_sub(before));
    }
}

/// The counts of all routes with requests, by the route's id.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteCounts(BTreeMap<Arc<str>, Counts>);

impl RouteCounts {
    pub(super) fn read(sources: &InForce) -> Self {
        Self(sources.tally.total().into_iter().map(|(id, of_route)| (id, Counts::new(&of_route))).collect())
    }

    pub(super) fn figures(&self, id: &str) -> RouteFigures {
        let Counts { requests, errors, refused, durations } = self.0.get(id).copied().unwrap_or_default();
        RouteFigures { requests, errors, refused, p99_seconds: quantile(&durations, &BUCKET_SECONDS, 0.99) }
    }
}

/// The readings, the newest first.
#[derive(Debug, Default)]
pub(super) struct RouteHistory(VecDeque<RouteCounts>);

impl RouteHistory {
    pub(super) fn take(&mut self, now: RouteCounts) {
        self.0.truncate(READINGS - 1);
        self.0.push_front(now);
    }

    /// Returns the increases since the oldest reading, or since the start.
    pub(super) fn since_oldest(&self, mut now: RouteCounts) -> RouteCounts {
        for (id, before) in self.0.back().into_iter().flat_map(|oldest| &oldest.0) {
            if let Some(counts) = now.0.get_mut(id) {
                counts.subtract(before);
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::server::serve::tally::RequestEnd;

    fn counted(ends: &[(&'static str, u16, u64)]) -> RouteCounts {
        let mut tally = RouteTally::default();
        for (outcome, code, number) in ends {
            let code = StatusCode::from_u16(*code).ok();
            tally.outcomes.push((RequestEnd { outcome, code }, *number));
            tally.durations.buckets[3] += number;
        }
        RouteCounts([("api".into(), Counts::new(&tally))].into())
    }

    #[test]
    fn p71_errors_and_refusals_of_a_route_are_counted_apart() {
        let all = counted(&[
            ("passed", 200, 80),
            ("passed", 404, 8),
            ("passed", 500, 4),
            ("upstream_unreachable", 502, 2),
            ("missing_token", 401, 5),
            ("client_gone", 0, 1),
        ]);
        let RouteFigures { requests, errors, refused, p99_seconds } = all.figures("api");
        assert_eq!((requests, errors, refused), (100, 6, 5));
        assert!(p99_seconds.is_some_and(|it| (0.0025..=0.005).contains(&it)), "{p99_seconds:?}");
        let none = all.figures("other");
        assert_eq!((none.requests, none.p99_seconds), (0, None));
    }

    #[test]
    fn p71_the_figures_of_a_route_are_those_of_15_minutes() {
        let mut history = RouteHistory::default();
        let figures =
            |history: &RouteHistory, number| history.since_oldest(counted(&[("passed", 200, number)])).figures("api");
        assert_eq!(figures(&history, 7).requests, 7, "since the start");
        for minute in 0..100 {
            history.take(counted(&[("passed", 200, minute * 10)]));
            assert!(history.0.len() <= READINGS);
        }
        assert_eq!(figures(&history, 1000).requests, 150);
        assert_eq!(figures(&history, 850).p99_seconds, None, "no request since the oldest reading");
        // A reload may reset counters.
        assert_eq!(figures(&history, 3).requests, 0);
    }
}

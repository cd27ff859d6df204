//! The counts of the last 15 minutes, for the overview (requirement P71). A task reads the counters every five seconds,
//! so requests are not slowed down.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rotogate_core::clock::Timestamp;
use rotogate_core::counters::FINE_SECONDS;
use rotogate_core::engine::Event;
use rotogate_core::store::Filter;
use rotogate_kit::durations::BUCKET_SECONDS;
use rotogate_proxy::{AttemptResult, Counted};

use crate::log;
use crate::server::build::files;
use crate::server::operate::admin::routes::{RouteCounts, RouteHistory};
use crate::server::operate::admin::{AdminState, sessions};
use crate::server::operate::reload::InForce;

pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(5);
pub(super) const SAMPLES: usize = 180;
const MINUTE: usize = 12;
/// Further upstreams get no chart.
pub(super) const MAX_UPSTREAMS: usize = 16;
const MAX_COUNTED: usize = 100_000;
const COUNT_EVERY: Duration = Duration::from_secs(60);

pub(super) const SESSION_EVENTS: [(Event, &str); 4] = [
    (Event::Login, "Logins"),
    (Event::LoginRefused, "Refused logins"),
    (Event::Rotated, "Refreshes"),
    (Event::Revoked, "Revocations"),
];

/// The counters at one time, or their increases within a period.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    /// Responses with a 5xx status, from the gate or an upstream.
    pub(super) failed: u64,
    pub(super) refused: u64,
    /// The gate's own processing time, as counts in the buckets of [`FINE_SECONDS`].
    pub(super) own: [u64; FINE_SECONDS.len()],
    /// Each upstream's durations, as counts in the buckets of [`BUCKET_SECONDS`], and its failed attempts.
    pub(super) upstreams: Vec<(Arc<str>, [u64; BUCKET_SECONDS.len()], u64)>,
    /// The list is bounded, because the set of outcomes is fixed.
    pub(super) refusals: Vec<(&'static str, u64)>,
    pub(super) sessions: [u64; SESSION_EVENTS.len()],
    pub(super) lost_lines: u64,
    /// The number of live sessions at the time, while an operator looks at it.
    pub(super) live: Option<usize>,
}

impl Totals {
    fn read(sources: &InForce) -> Self {
        let mut now = Self { own: sources.tally.steps().map(|step| step.buckets)[0], ..Self::default() };
        for (end, number) in sources.tally.total().into_values().flat_map(|route| route.outcomes) {
            now.requests += number;
            now.failed += if end.has_failed() { number } else { 0 };
            now.refused += if end.is_refused() { number } else { 0 };
            if !end.is_served() || end.has_failed() {
                add(&mut now.refusals, end.outcome, number);
            }
        }
        let upstreams = sources.serving.load().proxy.report().into_iter().take(MAX_UPSTREAMS);
        now.upstreams =
            upstreams.map(|it| (it.name.into(), it.counted.durations.buckets, failures(&it.counted))).collect();
        now.sessions = SESSION_EVENTS.map(|(event, _)| sources.gate.session_counts().get(event));
        now.lost_lines = log::counts().iter().map(|(_, [_, dropped, errors])| dropped + errors).sum();
        now
    }

    /// Returns the increases since `before`. A reload may reset counters.
    fn since(mut self, before: &Self) -> Self {
        let subtract = |now: &mut u64, before: u64| *now = now.saturating_sub(before);
        subtract(&mut self.requests, before.requests);
        subtract(&mut self.failed, before.failed);
        subtract(&mut self.refused, before.refused);
        subtract(&mut self.lost_lines, before.lost_lines);
        self.own.iter_mut().zip(before.own).for_each(|(now, before)| subtract(now, before));
        self.sessions.iter_mut().zip(before.sessions).for_each(|(now, before)| subtract(now, before));
        for (name, now, failed) in &mut self.upstreams {
            let Some((_, old, old_failed)) = before.upstreams.iter().find(|(known, ..)| known == name) else {
                continue;
            };
            now.iter_mut().zip(*old).for_each(|(now, old)| subtract(now, old));
            subtract(failed, *old_failed);
        }
        for (word, now) in &mut self.refusals {
            let known = before.refusals.iter().find(|(known, _)| known == word);
            subtract(now, known.map_or(0, |(_, number)| *number));
        }
        self.refusals.retain(|(_, number)| *number > 0);
        self
    }

    /// Adds the counts of `other`, without durations.
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.refused += other.refused;
        self.lost_lines += other.lost_lines;
        self.sessions.iter_mut().zip(other.sessions).for_each(|(sum, number)| *sum += number);
        other.refusals.iter().for_each(|(word, number)| add(&mut self.refusals, word, *number));
    }
}

/// The attempts at an upstream that got no response, except those that a client ended.
fn failures(counted: &Counted) -> u64 {
    let is_failure = |result: AttemptResult| !matches!(result, AttemptResult::Ok | AttemptResult::ClientGone);
    AttemptResult::ALL
        .into_iter()
        .zip(counted.results)
        .filter(|(result, _)| is_failure(*result))
        .map(|(_, it)| it)
        .sum()
}

fn add(counts: &mut Vec<(&'static str, u64)>, word: &'static str, number: u64) {
    match counts.iter_mut().find(|(known, _)| *known == word) {
        Some((_, count)) => *count += number,
        None => counts.push((word, number)),
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct LiveSessions {
    pub(super) number: usize,
    /// Whether the number is a minimum, because not all records were read.
    pub(super) is_least: bool,
    pub(super) at: Timestamp,
}

impl LiveSessions {
    pub(super) fn in_words(self) -> String {
        let (number, more) = (self.number, if self.is_least { " or more" } else { "" });
        format!("{number}{more} live in total")
    }
}

#[derive(Debug, Default)]
struct Kept {
    ring: VecDeque<Totals>,
    last: Option<Totals>,
    live: Option<LiveSessions>,
    looked_at: Option<Timestamp>,
    routes: RouteHistory,
}

#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Kept>);

impl History {
    fn take(&self, mut now: Totals) {
        let mut kept = self.0.lock();
        let (at, live) = (files::now(), kept.live);
        now.live = live.filter(|live| at.since(live.at) < 2 * COUNT_EVERY).map(|live| live.number);
        if let Some(before) = kept.last.replace(now.clone()) {
            kept.ring.truncate(SAMPLES - 1);
            kept.ring.push_front(now.since(&before));
        }
    }

    /// Returns the counts of each route in the last 15 minutes. `now` has the counts since the start.
    pub(super) fn routes(&self, now: RouteCounts) -> RouteCounts {
        self.0.lock().routes.since_oldest(now)
    }

    /// Returns the increases for each period of five seconds, newest first.
    pub(super) fn samples(&self) -> Vec<Totals> {
        self.0.lock().ring.iter().cloned().collect()
    }

    pub(super) fn minute(&self) -> Totals {
        sum(self.0.lock().ring.iter().take(MINUTE))
    }

    pub(super) fn lost_lines(&self) -> u64 {
        self.0.lock().ring.iter().map(|sample| sample.lost_lines).sum()
    }

    /// Returns the number of live sessions. The task counts the sessions only while an operator calls this function.
    pub(super) fn live_sessions(&self) -> Option<LiveSessions> {
        let mut kept = self.0.lock();
        kept.looked_at = Some(files::now());
        kept.live
    }

    fn count_is_due(&self) -> bool {
        let (now, kept) = (files::now(), self.0.lock());
        kept.looked_at.is_some_and(|at| now.since(at) < COUNT_EVERY)
            && kept.live.is_none_or(|live| now.since(live.at) >= COUNT_EVERY)
    }
}

pub(super) fn sum<'a>(samples: impl Iterator<Item = &'a Totals>) -> Totals {
    samples.fold(Totals::default(), |mut sum, sample| {
        sum.add(sample);
        sum
    })
}

pub(crate) async fn watch(state: Arc<AdminState>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for reading in 0_usize.. {
        ticks.tick().await;
        state.history.take(Totals::read(&state));
        if reading.is_multiple_of(MINUTE) {
            state.history.0.lock().routes.take(RouteCounts::read(&state));
        }
        if state.history.count_is_due() {
            let live = count_live(&state).await;
            state.history.0.lock().live = live;
        }
    }
}

async fn count_live(state: &AdminState) -> Option<LiveSessions> {
    let (sessions, at) = (state.gate.sessions(), files::now());
    let (mut number, mut read, mut after) = (0, 0, None);
    loop {
        let page = sessions.list(Filter::All, after, 1000).await.ok()?;
        number += page.sessions.iter().filter(|session| sessions::is_live(&sessions, session)).count();
        read += page.sessions.len();
        after = page.next;
        if after.is_none() || read >= MAX_COUNTED {
            return Some(LiveSessions { number, is_least: after.is_some(), at });
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p71_the_ring_has_a_fixed_size_and_keeps_differences() {
        let history = History::default();
        for second in 0..SAMPLES as u64 + 10 {
            let buckets = [second; BUCKET_SECONDS.len()];
            // After a reload, the upstream's counters start at zero.
            let buckets = if second == 150 { [0; BUCKET_SECONDS.len()] } else { buckets };
            history.take(Totals {
                requests: second * 7,
                failed: second * 2,
                upstreams: vec![("app".into(), buckets, second)],
                refusals: vec![("no_route", second * second), ("bad_path", 3)],
                ..Totals::default()
            });
        }
        let samples = history.samples();
        assert_eq!(samples.len(), SAMPLES);
        assert!(samples.iter().all(|sample| (sample.requests, sample.failed) == (7, 2)), "{samples:?}");
        let newest = 2 * (SAMPLES as u64 + 9) - 1;
        assert_eq!(samples[0].refusals, [("no_route", newest)], "refusals that did not recur are left out");
        assert_eq!(samples[SAMPLES + 9 - 150].upstreams[0].1, [0; BUCKET_SECONDS.len()], "not below zero");
        assert_eq!(samples[0].upstreams[0].2, 1, "failures");
        assert_eq!(history.minute().requests, 7 * MINUTE as u64);
    }

    #[test]
    fn p70_lost_log_lines_are_a_problem_for_15_minutes() {
        let history = History::default();
        let lost = |lost_lines| Totals { lost_lines, ..Totals::default() };
        history.take(lost(2));
        assert_eq!(history.lost_lines(), 0, "the first reading has no predecessor");
        history.take(lost(5));
        (1..SAMPLES).for_each(|_| history.take(lost(5)));
        assert_eq!(history.lost_lines(), 3);
        history.take(lost(5));
        assert_eq!(history.lost_lines(), 0);
    }
}

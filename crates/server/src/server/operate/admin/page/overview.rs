//! The overview of the gate's health.

use std::fmt::Write;

use rotogate_core::counters::FINE_SECONDS;
use rotogate_kit::durations::BUCKET_SECONDS;

use super::view::link;
use crate::log;
use crate::server::operate::admin::AdminState;
use crate::server::operate::admin::history::{self, SAMPLE_EVERY, SAMPLES, SESSION_EVENTS, Totals, quantile};
use crate::server::operate::admin::state::{
    Aging, GateState, Grade, MANY_ERRORS, MOST, NEARLY_ALL, certificates, key_sets, own_keys, percent,
};
use crate::server::operate::admin::status::{self, Status};
use crate::server::operate::admin::traffic::{self, UpstreamInfo};
use crate::server::operate::metrics::process;

const OUTCOMES: &str = include_str!("../../../../../outcomes.md");
const TOP: usize = 10;
const WIDTH: usize = 2 * (SAMPLES - 1);
const HEIGHT: f64 = 80.0;

pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) grade: Grade,
}

pub(super) struct TopRefusal {
    pub(super) word: &'static str,
    pub(super) number: u64,
    pub(super) status: &'static str,
    pub(super) meaning: String,
}

pub(super) struct ChartLine {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) latest: String,
    pub(super) path: String,
}

pub(super) struct Chart {
    pub(super) title: String,
    /// The label at the chart's upper edge.
    pub(super) top: String,
    pub(super) lines: Vec<ChartLine>,
}

pub(super) struct Overview {
    pub(super) state: GateState,
    pub(super) status: Status,
    pub(super) figures: Vec<Figure>,
    pub(super) charts: Vec<Chart>,
    pub(super) refusals: Vec<TopRefusal>,
    pub(super) upstreams: Vec<UpstreamInfo>,
    pub(super) aging: Vec<Aging>,
    pub(super) logs: Vec<(&'static str, [u64; 3])>,
    pub(super) feed: String,
}

impl Overview {
    pub(super) async fn now(state: &AdminState) -> Self {
        let samples = state.history.samples();
        let quarter = history::sum(samples.iter());
        let status = status::show(state).await;
        let gate = &state.gate;
        let feed = match gate.store_staleness() {
            None => "only one gate uses the store".to_owned(),
            Some(unheard) if gate.is_store_stale() => format!("no update for {:.1} s: stale", unheard.as_secs_f64()),
            Some(unheard) => format!("last update {:.1} s ago", unheard.as_secs_f64()),
        };
        Self {
            state: GateState::now(state).await,
            figures: figures(state, &samples, &quarter, &status),
            charts: charts(&samples),
            refusals: top(quarter.refusals),
            upstreams: traffic::upstreams(state).upstreams,
            aging: own_keys(state).into_iter().chain(key_sets(state)).chain(certificates(state)).collect(),
            logs: log::counts().into(),
            feed,
            status,
        }
    }
}

fn figures(state: &AdminState, samples: &[Totals], quarter: &Totals, status: &Status) -> Vec<Figure> {
    let plain = |name, value: String| Figure { name, value, grade: Grade::Good };
    let minute = state.history.minute();
    let (seconds, requests) = (samples.len().clamp(1, 12) as f64 * SAMPLE_EVERY.as_secs_f64(), minute.requests);
    let share = |number: u64| if requests == 0 { 0.0 } else { number as f64 / requests as f64 };
    let graded = |name, number: u64, doubtful: f64, bad: f64| {
        let (grade, word) = match share(number) {
            share if share >= bad => (Grade::Bad, ", too many"),
            share if share >= doubtful => (Grade::Doubtful, ", many"),
            _ => (Grade::Good, ""),
        };
        Figure { name, value: percent(share(number)) + word, grade }
    };
    let live = match state.history.live_sessions() {
        None => "being counted".to_owned(),
        Some(live) => format!("{}{}", live.number, if live.is_least { " or more" } else { "" }),
    };
    let mut figures = vec![
        plain("Requests a second", format!("{:.1}", requests as f64 / seconds)),
        graded("Errors (5xx)", minute.failed, MANY_ERRORS, MOST),
        graded("Refused (4xx)", minute.refused, MOST, NEARLY_ALL),
        plain("Live sessions", live),
    ];
    figures
        .extend(SESSION_EVENTS.iter().zip(quarter.sessions).map(|((_, name), number)| plain(name, number.to_string())));
    let bytes = process::resident_memory().unwrap_or_default() as f64;
    figures.extend([
        plain("Client connections", status.connections.to_string()),
        plain("In flight to upstreams", status.requests_in_flight.to_string()),
        plain("Memory", format!("{:.0} MiB", bytes / f64::from(1 << 20))),
    ]);
    figures
}

fn charts(samples: &[Totals]) -> Vec<Chart> {
    let seconds = SAMPLE_EVERY.as_secs_f64();
    let rate = |read: fn(&Totals) -> u64| samples.iter().map(|it| Some(read(it) as f64 / seconds)).collect::<Vec<_>>();
    let requests = [
        ("requests", "first", rate(|it| it.requests)),
        ("refused (4xx)", "second", rate(|it| it.refused)),
        ("errors (5xx)", "third", rate(|it| it.failed)),
    ];
    let latency = |title: String, of: &dyn Fn(&Totals, f64) -> Option<f64>| {
        let line = |share| samples.iter().map(|it| of(it, share)).collect::<Vec<_>>();
        Chart::new(title, [("p50", "first", line(0.5)), ("p99", "second", line(0.99))], milliseconds)
    };
    let mut charts = vec![
        Chart::new("Requests a second".to_owned(), requests, |value| format!("{value:.1}")),
        latency("Latency of the gate itself".to_owned(), &|it, share| quantile(&it.own, &FINE_SECONDS, share)),
    ];
    for (name, _) in samples.first().map_or(&[][..], |newest| &newest.upstreams) {
        let of = |it: &Totals, share| {
            let (_, buckets) = it.upstreams.iter().find(|(known, _)| known == name)?;
            quantile(buckets, &BUCKET_SECONDS, share)
        };
        charts.push(latency(format!("Latency of the upstream {name}"), &of));
    }
    charts
}

impl Chart {
    /// Each line has a name, a class and values, with the newest value first. A missing value leaves a gap.
    fn new<const N: usize>(
        title: String,
        lines: [(&'static str, &'static str, Vec<Option<f64>>); N],
        told: impl Fn(f64) -> String,
    ) -> Self {
        let most = lines.iter().flat_map(|(.., values)| values).flatten().fold(0.0, |most, value| value.max(most));
        let lines = lines.map(|(name, class, values)| ChartLine {
            class,
            name,
            latest: values.first().copied().flatten().map_or_else(|| "none".to_owned(), &told),
            path: path(&values, most),
        });
        Self { title, top: told(most), lines: lines.into() }
    }
}

/// Returns the values as an SVG path, with the newest at the right edge.
fn path(values: &[Option<f64>], most: f64) -> String {
    let (mut path, mut is_on) = (String::new(), false);
    for (place, value) in values.iter().enumerate().rev() {
        if let Some(value) = value {
            let (x, y) = (WIDTH.saturating_sub(2 * place), HEIGHT - HEIGHT * value / most.max(f64::MIN_POSITIVE));
            // A single point is drawn as a line of length 1. Writing to a `String` cannot fail.
            let _ = write!(path, "{}{x} {y:.0}{}", if is_on { 'L' } else { 'M' }, if is_on { "" } else { "h1" });
        }
        is_on = value.is_some();
    }
    path
}

fn milliseconds(seconds: f64) -> String {
    match seconds * 1000.0 {
        ms if ms >= 10_000.0 => format!("{seconds:.1} s"),
        ms if ms >= 10.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

fn top(mut refusals: Vec<(&'static str, u64)>) -> Vec<TopRefusal> {
    refusals.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let told = |(word, number)| {
        let (status, meaning, _) = explained(word).unwrap_or_default();
        TopRefusal { word, number, status, meaning }
    };
    refusals.into_iter().take(TOP).map(told).collect()
}

pub(super) fn explained(word: &str) -> Option<(&'static str, String, String)> {
    let row = OUTCOMES.lines().find_map(|line| line.strip_prefix(&format!("| `{word}` | ")))?;
    let mut cells = row.trim_end_matches('|').splitn(3, " | ").map(str::trim);
    Some((cells.next()?, unlinked(cells.next()?), unlinked(cells.next()?)))
}

fn unlinked(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, (label, after))) =
        rest.split_once('[').and_then(|(before, after)| Some((before, after.split_once("](")?)))
    {
        plain.extend([before, label]);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.replace('`', "")
}

pub(super) fn of_outcome(word: &str) -> String {
    link("/ui/outcome", &[("word", word)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_the_newest_value_at_its_right_edge_and_gaps_without_values() {
        let values = [Some(2.0), Some(1.0), None, Some(4.0)];
        assert_eq!(path(&values, 4.0), "M352 0h1M356 60h1L358 40");
        assert_eq!(path(&[None, None], 0.0), "");
        assert_eq!(path(&[Some(0.0)], 0.0), "M358 80h1");
        let chart = Chart::new(String::new(), [("p99", "second", vec![None, Some(0.25)])], milliseconds);
        assert_eq!((&*chart.top, &*chart.lines[0].latest), ("250 ms", "none"));
    }

    #[test]
    fn p70_each_outcome_is_explained_in_plain_text() {
        let (status, meaning, remedy) = explained("insufficient_authentication").unwrap();
        let expected = ("401", "the route requires a step-up", "log in again; the new token needs acr and auth_time");
        assert_eq!((status, &*meaning, &*remedy), expected);
        assert!(explained("no_such_word").is_none());
        let (table, _) = OUTCOMES.split_once("| limit | counts |").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let all: Vec<_> = rows.map(|(word, _)| explained(word)).collect();
        assert!(all.len() > 100 && all.iter().all(Option::is_some), "{}", all.len());
    }
}

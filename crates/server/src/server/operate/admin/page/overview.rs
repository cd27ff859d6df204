//! The overview of the gate's health.

use rotogate_core::clock::Timestamp;
use rotogate_core::counters::FINE_SECONDS;
use rotogate_kit::durations::BUCKET_SECONDS;

use super::advice::{Advice, advice};
use super::charts::{Chart, MINUTE, Read, Trend, Unit, in_words, latency, level, rate};
use super::documents::outcome;
use super::view::link;
use crate::log;
use crate::server::build::files;
use crate::server::operate::admin::AdminState;
use crate::server::operate::admin::history::{self, SAMPLE_EVERY, SAMPLES, SESSION_EVENTS, Totals};
use crate::server::operate::admin::state::{
    Aging, GateState, Grade, MANY_ERRORS, MOST, NEARLY_ALL, certificates, key_sets, own_keys, percent,
};
use crate::server::operate::admin::status::{self, Status};
use crate::server::operate::admin::traffic::{self, UpstreamInfo};
use crate::server::operate::metrics::process;

const TOP: usize = 6;

/// A figure of the last minute or the last 15 minutes, with its trend.
pub(super) struct Tile {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) unit: &'static str,
    /// Puts the value into perspective.
    pub(super) note: String,
    pub(super) grade: Grade,
    pub(super) trend: Trend,
}

pub(super) struct TopRefusal {
    pub(super) word: &'static str,
    pub(super) number: u64,
    pub(super) status: &'static str,
    pub(super) meaning: String,
}

pub(super) struct LogInfo {
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) grade: Grade,
}

pub(super) struct Overview {
    pub(super) state: GateState,
    /// Whether the gate started less than 15 minutes ago, and the time of the figures, such as `15 min`.
    pub(super) is_young: bool,
    pub(super) span: String,
    pub(super) advice: Vec<Advice>,
    pub(super) status: Status,
    pub(super) tiles: Vec<Tile>,
    pub(super) charts: Vec<Chart>,
    pub(super) refusals: Vec<TopRefusal>,
    pub(super) upstreams: Vec<UpstreamInfo>,
    pub(super) aging: Vec<Aging>,
    /// The session events of the last 15 minutes.
    pub(super) events: Vec<(&'static str, u64)>,
    pub(super) logs: Vec<LogInfo>,
    pub(super) memory: String,
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
        let found = GateState::now(state).await;
        let upstreams = traffic::upstreams(state).upstreams;
        Self {
            advice: advice(state, &found, &quarter, &upstreams),
            state: found,
            is_young: samples.len() < SAMPLES,
            span: span_of(&samples),
            tiles: tiles(state, &samples, &quarter),
            charts: charts(&samples),
            events: SESSION_EVENTS.iter().zip(quarter.sessions).map(|((_, name), number)| (*name, number)).collect(),
            refusals: top(quarter.refusals),
            upstreams,
            aging: own_keys(state).into_iter().chain(key_sets(state)).chain(certificates(state)).collect(),
            logs: logs(state),
            memory: format!("{:.0} MiB", process::resident_memory().unwrap_or_default() as f64 / f64::from(1 << 20)),
            feed,
            status,
        }
    }
}

fn tiles(state: &AdminState, samples: &[Totals], quarter: &Totals) -> Vec<Tile> {
    let (minute, span) = (state.history.minute(), span_of(samples));
    let last_minute = &samples[..samples.len().min(MINUTE)];
    let requests = minute.requests;
    let own = |share| latency(|it: &Totals| Some(it.own), &FINE_SECONDS, share);
    let (half, most) = (own(0.5)(last_minute), own(0.99)(last_minute));
    let [logins, refused, refreshes, _] = quarter.sessions;
    let (live, is_live_known) = match state.history.live_sessions() {
        None => ("…".to_owned(), false),
        Some(live) => (format!("{}{}", grouped(live.number), if live.is_least { "+" } else { "" }), true),
    };
    let plain = |name, (value, unit), note, trend| Tile { name, value, unit, note, grade: Grade::Good, trend };
    vec![
        plain(
            "Requests",
            (format!("{:.1}", requests as f64 / seconds_of(last_minute)), "/s"),
            format!("{requests} in 1 min"),
            Trend::new(samples, 1.0, &rate(|it| it.requests)),
        ),
        graded("Errors (5xx)", (minute.failed, requests), (MANY_ERRORS, MOST), (samples, |it| it.failed)),
        graded("Refused (4xx)", (minute.refused, requests), (MOST, NEARLY_ALL), (samples, |it| it.refused)),
        plain(
            "Gate time (p99)",
            most.map_or_else(|| ("–".to_owned(), ""), |value| (Unit::Milliseconds.number(value), "ms")),
            half.map_or_else(
                || "no recent request".to_owned(),
                |value| format!("median {}", Unit::Milliseconds.text(value)),
            ),
            Trend::new(samples, 0.1, &own(0.99)),
        ),
        plain(
            "Logins",
            (grouped_count(logins), ""),
            format!("in {span}, {refused} refused"),
            Trend::new(samples, 1.0, &|samples| Some(samples.iter().map(|it| it.sessions[0]).sum::<u64>() as f64)),
        ),
        plain(
            "Live sessions",
            (live, ""),
            match is_live_known {
                true => format!("{} in {span}", counted(refreshes, "refresh")),
                false => "being counted".to_owned(),
            },
            level(samples, |it| it.live.map(|live| live as f64)),
        ),
    ]
}

/// A share of the last minute's requests, with its trend.
fn graded(
    name: &'static str,
    (number, requests): (u64, u64),
    (doubtful, bad): (f64, f64),
    (samples, read): (&[Totals], fn(&Totals) -> u64),
) -> Tile {
    let share = if requests == 0 { 0.0 } else { number as f64 / requests as f64 };
    let (grade, word) = match share {
        share if share >= bad => (Grade::Bad, ", too many"),
        share if share >= doubtful => (Grade::Doubtful, ", many"),
        _ => (Grade::Good, " in 1 min"),
    };
    let of_sample = |samples: &[Totals]| {
        let requests = samples.iter().map(|it| it.requests).sum::<u64>();
        Some(if requests == 0 { 0.0 } else { samples.iter().map(read).sum::<u64>() as f64 / requests as f64 })
    };
    Tile {
        name,
        value: percent(share).trim_end_matches(" %").to_owned(),
        unit: "%",
        note: format!("{number}{word}"),
        grade,
        trend: Trend::new(samples, 0.05, &of_sample),
    }
}

fn charts(samples: &[Totals]) -> Vec<Chart> {
    let now = files::now();
    let (requests, refused, failed) = (rate(|it| it.requests), rate(|it| it.refused), rate(|it| it.failed));
    let lines: [(_, _, Read<'_>); 3] =
        [("all", "first", &requests), ("refused", "second", &refused), ("errors", "third", &failed)];
    let named = |id: &str, title: String| (format!("chart-{id}"), title);
    let [half, most] = [0.5, 0.99].map(|share| latency(|it: &Totals| Some(it.own), &FINE_SECONDS, share));
    let own: [(_, _, Read<'_>); 2] = [("median", "first", &half), ("p99", "calm", &most)];
    let mut charts = vec![
        Chart::new(named("requests", "Requests per second".to_owned()), Unit::PerSecond, (samples, now), &lines),
        Chart::new(named("own", "Time added by the gate".to_owned()), Unit::Milliseconds, (samples, now), &own),
    ];
    let upstreams = samples.first().map_or(&[][..], |newest| &newest.upstreams);
    charts.extend(upstreams.iter().enumerate().map(|(number, (name, ..))| {
        let id = format!("chart-upstream-{number}");
        chart_of_upstream(id, name, (samples, now))
    }));
    charts
}

/// The response times of an upstream, or its failures if it does not respond.
fn chart_of_upstream(id: String, name: &str, (samples, now): (&[Totals], Timestamp)) -> Chart {
    let find = |it: &Totals| it.upstreams.iter().find(|(known, ..)| &**known == name).cloned();
    let times = |it: &Totals| find(it).map(|(_, buckets, _)| buckets);
    let failures = |samples: &[Totals]| samples.iter().filter_map(find).map(|(.., failed)| failed).sum::<u64>();
    let [half, most] = [0.5, 0.99].map(|share| latency(times, &BUCKET_SECONDS, share));
    let last_minute = &samples[..samples.len().min(MINUTE)];
    if half(last_minute).is_none() && failures(last_minute) > 0 {
        let failed = |samples: &[Totals]| Some(failures(samples) as f64 / seconds_of(samples));
        let lines: [(_, _, Read<'_>); 1] = [("failures", "third", &failed)];
        return Chart::new((id, format!("Failures of {name} per second")), Unit::PerSecond, (samples, now), &lines);
    }
    let lines: [(_, _, Read<'_>); 2] = [("median", "first", &half), ("p99", "calm", &most)];
    Chart::new((id, format!("Response time of {name}")), Unit::Milliseconds, (samples, now), &lines)
}

/// The time of the samples in words, such as `15 min`.
fn span_of(samples: &[Totals]) -> String {
    in_words(samples.len() as u64 * SAMPLE_EVERY.as_secs())
}

fn seconds_of(samples: &[Totals]) -> f64 {
    samples.len().max(1) as f64 * SAMPLE_EVERY.as_secs_f64()
}

fn logs(state: &AdminState) -> Vec<LogInfo> {
    let is_audit_apart = state.config.load().audit_log.output.is_some();
    let info = |(name, [written, dropped, errors]): (&str, [u64; 3])| {
        let (name, grade) = match name {
            "app" => ("Application log", dropped + errors),
            "access" => ("Access log", dropped + errors),
            _ => ("Audit log", dropped + errors),
        };
        let text = match name {
            "Audit log" if !is_audit_apart => "part of the application log".to_owned(),
            _ => format!("{} lines written, {dropped} dropped, {errors} not written", grouped_count(written)),
        };
        LogInfo { name, text, grade: if grade > 0 { Grade::Doubtful } else { Grade::Good } }
    };
    log::counts().into_iter().map(info).collect()
}

/// A number with its noun, such as `2 logins`.
fn counted(number: u64, noun: &str) -> String {
    let ending = match noun {
        _ if number == 1 => "",
        noun if noun.ends_with("sh") => "es",
        _ => "s",
    };
    format!("{} {noun}{ending}", grouped_count(number))
}

/// A number with a space between its thousands.
fn grouped_count(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let rest = tail.as_bytes().chunks(3).map(|three| String::from_utf8_lossy(three).into_owned());
    let parts = std::iter::once(head.to_owned()).filter(|head| !head.is_empty()).chain(rest);
    parts.collect::<Vec<_>>().join("\u{202f}")
}

fn grouped(number: usize) -> String {
    grouped_count(number as u64)
}

fn top(mut refusals: Vec<(&'static str, u64)>) -> Vec<TopRefusal> {
    refusals.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let told = |(word, number)| {
        let (status, meaning, _) = outcome(word).unwrap_or_default();
        TopRefusal { word, number, status, meaning }
    };
    refusals.into_iter().take(TOP).map(told).collect()
}

/// The requests with this outcome: at each moment, those of the minute before.
pub(super) fn chart_of_outcome(samples: &[Totals], word: &str) -> Chart {
    let number_of = |samples: &[Totals]| {
        let counted = samples.iter().flat_map(|it| &it.refusals).filter(|(known, _)| *known == word);
        counted.map(|(_, number)| number).sum::<u64>()
    };
    let minute_at = |at: usize| number_of(&samples[at..samples.len().min(at + MINUTE)]);
    let minutes = (0..samples.len()).map(|at| Totals { requests: minute_at(at), ..Totals::default() });
    let title = format!("Requests per minute, {} in the last {}", grouped_count(number_of(samples)), span_of(samples));
    let newest = |samples: &[Totals]| samples.first().map(|it| it.requests as f64);
    let lines: [(_, _, Read<'_>); 1] = [("requests", "first", &newest)];
    let named = ("chart-outcome".to_owned(), title);
    Chart::new(named, Unit::PerMinute, (&Vec::from_iter(minutes), files::now()), &lines)
}

pub(super) fn of_outcome(word: &str) -> String {
    link("/ui/outcome", &[("word", word)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p71_the_chart_of_an_outcome_counts_the_minute_before_each_moment() {
        let sample = |number| Totals { refusals: vec![("bad_signature", number), ("other", 9)], ..Totals::default() };
        let samples: Vec<_> = [5, 0, 1].into_iter().chain([1; MINUTE]).map(sample).collect();
        let chart = chart_of_outcome(&samples, "bad_signature");
        assert_eq!(
            (&*chart.title, &*chart.series[0].latest),
            ("Requests per minute, 18 in the last 75 s", "15 req/min")
        );
        let minutes: Vec<_> = chart.rows().into_iter().flat_map(|(_, cells)| cells).map(str::to_owned).collect();
        assert_eq!(minutes, ["15 req/min", "3 req/min"]);
    }

    #[test]
    fn a_count_is_told_in_the_number_of_its_noun() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "login")), ["0 logins", "1 login", "2 logins"]);
    }
}

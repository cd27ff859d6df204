//! The overview, which an operator sees first: whether the gate works, and if not, where to look.

use std::fmt::Write;
use std::time::Duration;

use rotogate_core::clock::Timestamp;
use rotogate_core::counters::FINE_SECONDS;
use rotogate_kit::durations::BUCKET_SECONDS;

use super::history::{self, SAMPLE_EVERY, SAMPLES, SESSION_EVENTS, Totals, quantile};
use super::view::link;
use crate::log;
use crate::server::build::files;
use crate::server::build::issuers::IssuerReport;
use crate::server::operate::admin::status::{self, Status};
use crate::server::operate::admin::traffic::{self, UpstreamInfo};
use crate::server::operate::admin::{AdminState, health, issuers, keys, rfc3339};
use crate::server::operate::metrics::process;
use crate::server::operate::reload::ReloadSource;

/// The text of docs/outcomes.md, which explains each outcome.
const OUTCOMES: &str = include_str!("../../../../../outcomes.md");
/// The least number of requests in a minute from which a share of failures means anything.
const MIN_REQUESTS: u64 = 5;
/// The thresholds of the alerts RotogateUpstreamErrors and RotogateCertificateExpires.
const MANY_ERRORS: f64 = 0.05;
/// The share of failed requests from which a gate counts as failing, and of refused requests from which it
/// counts as refusing.
const MOST: f64 = 0.5;
const NEARLY_ALL: f64 = 0.9;
const ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);
const ENDS_NOW: Duration = Duration::from_secs(3 * 86_400);
/// How many refusals are listed.
const TOP: usize = 10;
/// The size of a chart, in its own units.
const WIDTH: usize = 2 * (SAMPLES - 1);
const HEIGHT: f64 = 80.0;

/// How good a figure is. The page shows a word beside the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    Good,
    Doubtful,
    Bad,
}

impl Grade {
    /// The class of the grade in the style sheet.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Doubtful => "doubtful",
            Self::Bad => "bad",
        }
    }
}

/// The state of the gate, in the head of every view.
#[derive(Clone, Debug)]
pub(super) struct GateState {
    pub(super) grade: Grade,
    pub(super) word: &'static str,
    /// The problems, the worst first.
    pub(super) reasons: Vec<(Grade, String)>,
}

impl GateState {
    /// The state of the gate now. A gate whose requests fail is not shown as ready (requirement P70).
    pub(super) async fn now(state: &AdminState) -> Self {
        let (is_ready, readiness) = health::readiness(state).await;
        let (work, word) = judge(&state.history.minute());
        let mut reasons = Vec::from_iter(work);
        if !is_ready || readiness != "ready" {
            reasons.push((if is_ready { Grade::Doubtful } else { Grade::Bad }, readiness));
        }
        for upstream in traffic::upstreams(state).upstreams {
            if !upstream.addresses.is_empty() && !upstream.addresses.iter().any(|it| it.state == "up") {
                reasons.push((Grade::Bad, format!("upstream {}: no address is up", upstream.name)));
            }
        }
        let ends = certificates(state).into_iter().filter(|it| it.grade > Grade::Good);
        reasons.extend(ends.map(|it| (it.grade, format!("certificate {}: {}", it.name, it.state))));
        let sets = key_sets(state).into_iter().filter(|it| it.grade > Grade::Good);
        reasons.extend(sets.map(|it| (it.grade, format!("keys of issuer {}: {}", it.name, it.state))));
        let refused = ReloadSource::ALL.into_iter().filter(|source| state.outcomes.get(*source).0);
        reasons
            .extend(refused.map(|it| (Grade::Doubtful, format!("reload of {} refused; the log says why", it.name()))));
        let lost = state.history.lost_lines();
        if lost > 0 {
            let what = format!("log lines dropped or not written in the last 15 minutes: {lost}");
            reasons.push((Grade::Doubtful, what));
        }
        reasons.sort_by_key(|(grade, _)| std::cmp::Reverse(*grade));
        let grade = reasons.iter().map(|(grade, _)| *grade).max().unwrap_or(Grade::Good);
        let word = match (is_ready, word, grade) {
            (false, ..) => "not ready",
            (true, Some(word), _) => word,
            (true, None, Grade::Good) => "ready",
            (true, None, _) => "ready, with problems",
        };
        Self { grade, word, reasons }
    }
}

/// The problem that the requests of the last minute show, if any.
fn judge(minute: &Totals) -> (Option<(Grade, String)>, Option<&'static str>) {
    let share = |number: u64| number as f64 / minute.requests.max(1) as f64;
    let (failed, refused) = (share(minute.failed), share(minute.refused));
    let (grade, number, what, word) = match minute.requests >= MIN_REQUESTS {
        true if failed >= MOST => (Grade::Bad, failed, "failed (5xx)", "failing"),
        true if failed + refused >= NEARLY_ALL => (Grade::Bad, refused, "were refused by the gate", "refusing"),
        true if failed >= MANY_ERRORS => (Grade::Doubtful, failed, "failed (5xx)", "serving with errors"),
        true | false => return (None, None),
    };
    (Some((grade, format!("{} of the requests of the last minute {what}", percent(number)))), Some(word))
}

/// A number with its name and its grade.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) grade: Grade,
}

/// A refusal or a failure that happened often.
pub(super) struct TopRefusal {
    pub(super) word: &'static str,
    pub(super) number: u64,
    pub(super) status: &'static str,
    pub(super) meaning: String,
}

/// A thing with an age or an end: a key, a set of keys, a certificate.
pub(super) struct Aging {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) grade: Grade,
    pub(super) state: String,
    pub(super) age: String,
    /// In RFC 3339.
    pub(super) end: Option<String>,
    /// What ends a thing that has no such time.
    pub(super) until: &'static str,
}

/// A line of a chart.
pub(super) struct ChartLine {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    /// The newest value of the line, in words.
    pub(super) latest: String,
    pub(super) path: String,
}

/// The last 15 minutes as lines.
pub(super) struct Chart {
    pub(super) title: String,
    /// The value at the chart's upper edge.
    pub(super) top: String,
    pub(super) lines: Vec<ChartLine>,
}

/// Everything on the overview that changes.
pub(super) struct Overview {
    pub(super) state: GateState,
    pub(super) status: Status,
    pub(super) figures: Vec<Figure>,
    pub(super) charts: Vec<Chart>,
    pub(super) refusals: Vec<TopRefusal>,
    pub(super) upstreams: Vec<UpstreamInfo>,
    pub(super) aging: Vec<Aging>,
    pub(super) logs: Vec<(&'static str, [u64; 3])>,
    /// The state of the store and of its feed.
    pub(super) feed: String,
}

impl Overview {
    pub(super) async fn now(state: &AdminState) -> Self {
        let samples = state.history.samples();
        let quarter = history::sum(samples.iter());
        let status = status::show(state).await;
        let gate = &state.gate;
        let feed = match gate.store_staleness() {
            None => "one gate alone uses it".to_owned(),
            Some(unheard) if gate.is_store_stale() => format!("no news for {:.1} s: stale", unheard.as_secs_f64()),
            Some(unheard) => format!("news {:.1} s ago", unheard.as_secs_f64()),
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
    /// `lines` have a name, a class and values, the newest first. Where a value is missing, the line has a
    /// gap.
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

/// The values as an SVG path, from the oldest to the newest at the right edge.
fn path(values: &[Option<f64>], most: f64) -> String {
    let (mut path, mut is_on) = (String::new(), false);
    for (place, value) in values.iter().enumerate().rev() {
        if let Some(value) = value {
            let (x, y) = (WIDTH.saturating_sub(2 * place), HEIGHT - HEIGHT * value / most.max(f64::MIN_POSITIVE));
            // A point between two gaps becomes a line of one unit. Writing into a `String` does not fail.
            let _ = write!(path, "{}{x} {y:.0}{}", if is_on { 'L' } else { 'M' }, if is_on { "" } else { "h1" });
        }
        is_on = value.is_some();
    }
    path
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        share if share < 1.0 => format!("{share:.2} %"),
        share => format!("{share:.0} %"),
    }
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

/// Status, meaning and remedy of an outcome, from the document.
pub(super) fn explained(word: &str) -> Option<(&'static str, String, String)> {
    let row = OUTCOMES.lines().find_map(|line| line.strip_prefix(&format!("| `{word}` | ")))?;
    let mut cells = row.trim_end_matches('|').splitn(3, " | ").map(str::trim);
    Some((cells.next()?, unlinked(cells.next()?), unlinked(cells.next()?)))
}

/// Removes links and code marks from Markdown.
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

fn own_keys(state: &AdminState) -> Vec<Aging> {
    let keys::Keys { keys, refresh } = keys::list(state);
    let own = |kind, name, state: &'static str, age: String| Aging {
        kind,
        name,
        grade: Grade::Good,
        state: state.to_owned(),
        age,
        end: None,
        until: "when it is retired",
    };
    let mut all: Vec<_> = keys.into_iter().map(|it| own("key", it.kid, it.state.word(), it.age.in_words())).collect();
    all.extend(refresh.into_iter().map(|it| own("secret", it.kid, it.state.word(), it.age.in_words())));
    all
}

/// The keys of other issuers that the gate fetches.
fn key_sets(state: &AdminState) -> Vec<Aging> {
    let fetched = issuers::list(state).issuers.into_iter().filter(|it| it.keys.is_some());
    fetched.map(key_set).collect()
}

fn key_set(issuer: IssuerReport) -> Aging {
    let failure = issuer.failure.map(|failure| failure.cause);
    let grade = match &*issuer.state {
        "fresh" => Grade::Good,
        // Another set is due, and is perhaps being fetched.
        "aging" if failure.is_none() => Grade::Good,
        "aging" => Grade::Doubtful,
        _ => Grade::Bad,
    };
    let state = failure.map_or_else(|| issuer.state.clone(), |cause| format!("{}, {cause}", issuer.state));
    let age = issuer.last_success.as_deref().map_or_else(|| "never fetched".to_owned(), super::view::ago);
    Aging { kind: "key set", name: issuer.name, grade, state, age, end: None, until: "at the next fetch" }
}

fn certificates(state: &AdminState) -> Vec<Aging> {
    let periods = state.listeners.iter().filter_map(|it| it.tls.as_ref()).flat_map(|tls| tls.periods());
    let shown = |(file, begin, end): (String, Option<u64>, u64)| {
        certificate(file, begin.map(Timestamp::from_secs), Timestamp::from_secs(end), files::now())
    };
    let mut all: Vec<_> = periods.map(shown).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| a.name == b.name);
    all
}

fn certificate(name: String, begin: Option<Timestamp>, end: Timestamp, now: Timestamp) -> Aging {
    let left = end.since(now);
    let (grade, word) = match left {
        _ if begin.is_some_and(|begin| begin > now) => (Grade::Bad, "not valid yet"),
        _ if end <= now => (Grade::Bad, "expired"),
        _ if left < ENDS_NOW => (Grade::Bad, "ends within 3 days"),
        _ if left < ENDS_SOON => (Grade::Doubtful, "ends within 14 days"),
        _ => (Grade::Good, "valid"),
    };
    let age = begin.map(|begin| keys::Age::new(begin, now).in_words()).unwrap_or_default();
    Aging { kind: "certificate", name, grade, state: word.to_owned(), age, end: Some(rfc3339(end)), until: "" }
}

/// The link to the explanation of a refusal.
pub(super) fn of_outcome(word: &str) -> String {
    link("/ui/outcome", &[("word", word)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::build::issuers::IssuerFailure;

    fn minute(requests: u64, failed: u64, refused: u64) -> Option<&'static str> {
        judge(&Totals { requests, failed, refused, ..Totals::default() }).1
    }

    #[test]
    fn p70_a_gate_whose_requests_fail_says_so() {
        assert_eq!(minute(0, 0, 0), None);
        assert_eq!(minute(4, 4, 0), None, "too few say nothing");
        assert_eq!(minute(100, 100, 0), Some("failing"));
        assert_eq!(minute(100, 50, 0), Some("failing"));
        assert_eq!(minute(100, 0, 95), Some("refusing"));
        assert_eq!(minute(100, 6, 50), Some("serving with errors"));
        assert_eq!(minute(100, 4, 50), None, "refusing some is its work");
    }

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
        assert_eq!((status, &*meaning, &*remedy), ("401", "step-up", "the access token needs acr and auth_time"));
        assert!(explained("no_such_word").is_none());
        let (table, _) = OUTCOMES.split_once("| limit | counts |").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let all: Vec<_> = rows.map(|(word, _)| explained(word)).collect();
        assert!(all.len() > 100 && all.iter().all(Option::is_some), "{}", all.len());
    }

    #[test]
    fn a_certificate_that_ends_is_told_in_a_word() {
        let at = |days: u64| Timestamp::from_secs(days * 86_400);
        for (end, grade, word) in [
            (100, Grade::Good, "valid"),
            (33, Grade::Doubtful, "ends within 14 days"),
            (22, Grade::Bad, "ends within 3 days"),
            (20, Grade::Bad, "expired"),
        ] {
            let told = certificate("a.pem".to_owned(), Some(at(10)), at(end), at(20));
            assert_eq!((told.grade, &*told.state, &*told.age), (grade, word, "10 days old"));
        }
        let early = certificate("a.pem".to_owned(), Some(at(21)), at(100), at(20));
        assert_eq!((early.grade, &*early.state), (Grade::Bad, "not valid yet"));
    }

    #[test]
    fn p70_a_key_set_is_bad_without_keys_and_doubtful_when_it_cannot_be_renewed() {
        for (state, cause, grade, told) in [
            ("fresh", None, Grade::Good, "fresh"),
            ("aging", None, Grade::Good, "aging"),
            ("aging", Some("timeout"), Grade::Doubtful, "aging, timeout"),
            ("stale", Some("timeout"), Grade::Bad, "stale, timeout"),
            ("empty", None, Grade::Bad, "empty"),
        ] {
            let report = IssuerReport {
                name: "a".to_owned(),
                url: String::new(),
                state: state.to_owned(),
                keys: Some(1),
                file: None,
                dropped: false,
                required: false,
                last_success: None,
                failure: cause.map(|cause: &str| IssuerFailure { cause: cause.to_owned(), message: String::new() }),
                refused_keys: Vec::new(),
            };
            let set = key_set(report);
            assert_eq!((set.grade, &*set.state), (grade, told));
        }
    }
}

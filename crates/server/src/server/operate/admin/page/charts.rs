//! The charts and trends of the overview: SVG paths for a browser without script, the figures of each minute as a table,
//! and the same figures as JSON, from which `charts.js` draws.

use std::fmt::Write;

use rotogate_core::clock::Timestamp;
use rotogate_kit::durations::quantile;
use serde_json::json;

use crate::server::operate::admin::history::{SAMPLE_EVERY, SAMPLES, Totals};

/// The samples of one minute.
pub(super) const MINUTE: usize = 12;
const CHART_HEIGHT: f64 = 80.0;
const TREND_HEIGHT: f64 = 28.0;
/// The area of a trend goes on below the line of zero, so that the card does not cut that line.
const TREND_BOTTOM: u32 = 31;
/// A line continues over up to so many steps without a value, as with little traffic. `charts.js` has the same number.
const MAX_GAP: usize = 6;
/// The step between two ticks of an axis is one of these, times a power of ten. They divide the axis into equal parts.
const STEPS: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    PerMinute,
    Milliseconds,
}

impl Unit {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::PerSecond => "req/s",
            Self::PerMinute => "req/min",
            Self::Milliseconds => "ms",
        }
    }

    /// What follows a number at an axis. The titles of charts in requests per second name the unit.
    const fn of_axis(self) -> &'static str {
        match self {
            Self::PerSecond | Self::PerMinute => "",
            Self::Milliseconds => " ms",
        }
    }

    pub(super) fn number(self, value: f64) -> String {
        match self {
            Self::PerSecond if value >= 100.0 => format!("{value:.0}"),
            Self::PerSecond => format!("{value:.1}"),
            Self::PerMinute => format!("{value:.0}"),
            Self::Milliseconds if value >= 10.0 => format!("{value:.0}"),
            Self::Milliseconds => format!("{value:.2}"),
        }
    }

    pub(super) fn text(self, value: f64) -> String {
        format!("{} {}", self.number(value), self.word())
    }
}

/// Reads one figure of consecutive samples. `None` if there is nothing to measure.
pub(super) type Read<'a> = &'a dyn Fn(&[Totals]) -> Option<f64>;

pub(super) struct ChartLine {
    /// The class that gives the line its colour.
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    /// The figure of the last minute.
    pub(super) latest: String,
    pub(super) path: String,
    minutes: Vec<String>,
}

pub(super) struct Chart {
    pub(super) id: String,
    pub(super) title: String,
    /// The labels of the axis, from the top to zero.
    pub(super) ticks: [String; 3],
    pub(super) series: Vec<ChartLine>,
    /// The time from the left edge to now, such as `15 min`: the time of the samples, but at least a minute.
    pub(super) span: String,
    /// Half of that time.
    pub(super) half: String,
    /// The width of the lines' coordinates.
    pub(super) width: usize,
    /// What stands in place of a chart without values.
    pub(super) none: Option<&'static str>,
    /// The newest moment, the time from edge to edge and between two values in seconds, the unit, and each line's
    /// values, the newest first.
    pub(super) data: String,
}

impl Chart {
    /// `lines` has the name, the class and the figure of each line. `samples` has the newest first.
    pub(super) fn new(
        (id, title): (String, String),
        unit: Unit,
        (samples, now): (&[Totals], Timestamp),
        lines: &[(&'static str, &'static str, Read<'_>)],
    ) -> Self {
        let steps = samples.len().clamp(MINUTE + 1, SAMPLES) - 1;
        let width = 2 * steps;
        let of_samples = |read: Read<'_>, number| samples.chunks(number).map(read).collect::<Vec<_>>();
        let values: Vec<_> = lines.iter().map(|(.., read)| of_samples(*read, 1)).collect();
        let top = top_of_axis(values.iter().flatten().copied().flatten().fold(0.0, f64::max));
        let text = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| unit.text(value));
        let series = lines.iter().zip(&values).map(|((name, class, read), values)| {
            let minutes: Vec<_> = of_samples(*read, MINUTE).into_iter().map(text).collect();
            let latest = minutes.first().cloned().unwrap_or_else(|| text(None));
            ChartLine { class, name, latest, path: drawn_line(values, top, width), minutes }
        });
        let shown = |value: &Option<f64>| value.map(|value| (value * 1000.0).round() / 1000.0);
        let data = json!({
            "end": now.as_secs(),
            "span": steps as u64 * SAMPLE_EVERY.as_secs(),
            "every": SAMPLE_EVERY.as_secs(),
            "unit": unit.word(),
            "values": values.iter().map(|line| line.iter().map(shown).collect()).collect::<Vec<Vec<_>>>(),
        });
        let ticks = [top, top / 2.0, 0.0].map(|tick| format!("{}{}", plain(tick), unit.of_axis()));
        let none = match values.iter().flatten().all(Option::is_none) {
            false => None,
            true if samples.is_empty() => Some("No data yet"),
            true => Some("No requests in the last 15 minutes"),
        };
        let [span, half] = [1, 2].map(|part| in_words(steps as u64 * SAMPLE_EVERY.as_secs() / part));
        Self { id, title, ticks, series: series.collect(), span, half, width, none, data: data.to_string() }
    }

    /// The rows of the table: each minute, with one cell for each line.
    pub(super) fn rows(&self) -> Vec<(String, Vec<&str>)> {
        let number = self.series.first().map_or(0, |line| line.minutes.len());
        let name = |minute: usize| match minute {
            0 => "last minute".to_owned(),
            1 => "1 min before".to_owned(),
            _ => format!("{minute} min before"),
        };
        let row = |minute: usize| {
            let cells = self.series.iter().map(|line| line.minutes.get(minute).map_or("–", String::as_str));
            (name(minute), cells.collect())
        };
        (0..number).map(row).collect()
    }
}

pub(super) fn in_words(seconds: u64) -> String {
    if seconds < 90 { format!("{seconds} s") } else { format!("{} min", (seconds + 30) / 60) }
}

/// The smallest round number that is not below `most`.
fn top_of_axis(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    STEPS.into_iter().map(|step| step * power).find(|top| *top >= most).unwrap_or(most)
}

fn plain(tick: f64) -> String {
    let text = format!("{tick:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A small line without an axis, and the area below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trend {
    pub(super) line: String,
    pub(super) area: String,
    /// The width of the coordinates.
    pub(super) width: usize,
}

impl Trend {
    /// The trend begins with the oldest value at the left edge, and has no gaps. Its upper edge is `least` or a quarter
    /// above the 95th percentile, whichever is larger. Rare larger values, as at a start, are cut off there.
    pub(super) fn new(samples: &[Totals], least: f64, read: Read<'_>) -> Self {
        let mut values: Vec<_> = samples.chunks(1).map(read).collect();
        values.truncate(values.iter().rposition(Option::is_some).map_or(0, |oldest| oldest + 1));
        // A single value is a level.
        if let [only] = values[..] {
            values.push(only);
        }
        let mut sorted: Vec<_> = values.iter().copied().flatten().collect();
        sorted.sort_by(f64::total_cmp);
        let usual = sorted.get(sorted.len() * 95 / 100).copied().unwrap_or_default();
        let most = sorted.last().map_or(least, |most| most.min(1.25 * usual).max(least));
        values.iter_mut().flatten().for_each(|value| *value = value.min(most));
        let width = 2 * values.len().saturating_sub(1).max(1);
        let drawn = pieces(&values, width, usize::MAX).into_iter().map(|piece| {
            let (Some((first, _)), Some((last, _))) = (piece.first(), piece.last()) else { return Default::default() };
            let line = drawn(&piece, most, TREND_HEIGHT);
            let area = format!("M{first} {TREND_BOTTOM}{}L{last} {TREND_BOTTOM}Z", line.replacen('M', "L", 1));
            (line, area)
        });
        let (line, area) = drawn.unzip();
        Self { line, area, width }
    }
}

/// The line of a chart. A line that stays at zero is not drawn: it would look like a warning.
fn drawn_line(values: &[Option<f64>], top: f64, width: usize) -> String {
    let is_zero = values.iter().flatten().all(|value| *value <= 0.0);
    if is_zero { String::new() } else { line(values, top, (width, CHART_HEIGHT)) }
}

/// The values as an SVG path, the newest at the right edge.
fn line(values: &[Option<f64>], most: f64, (width, height): (usize, f64)) -> String {
    pieces(values, width, MAX_GAP).iter().map(|piece| drawn(piece, most, height)).collect()
}

/// The values without longer gaps between them, the oldest first, each with its place from left to right.
fn pieces(values: &[Option<f64>], width: usize, longest_gap: usize) -> Vec<Vec<(usize, f64)>> {
    let places = values.iter().enumerate().rev().map(|(place, value)| (width.saturating_sub(2 * place), *value));
    let (mut pieces, mut last): (Vec<Vec<_>>, _) = (Vec::new(), None);
    for (x, value) in places {
        let Some(value) = value else { continue };
        let is_near = last.is_some_and(|last| (x - last) / 2 <= longest_gap);
        match pieces.last_mut() {
            Some(piece) if is_near => piece.push((x, value)),
            Some(_) | None => pieces.push(vec![(x, value)]),
        }
        last = Some(x);
    }
    pieces
}

fn drawn(piece: &[(usize, f64)], most: f64, height: f64) -> String {
    let mut path = String::new();
    for (place, (x, value)) in piece.iter().enumerate() {
        let y = height - height * value / most.max(f64::MIN_POSITIVE);
        // Writing to a `String` cannot fail.
        let _ = write!(path, "{}{x} {y:.1}", if place == 0 { 'M' } else { 'L' });
    }
    // A line of length 0 has round ends, and so is a dot.
    if piece.len() == 1 { path + "h0" } else { path }
}

/// A trend of a level, such as a number of sessions: a constant level is at half of the height.
pub(super) fn level(samples: &[Totals], read: impl Fn(&Totals) -> Option<f64>) -> Trend {
    let (low, high) = samples
        .iter()
        .filter_map(&read)
        .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let span = (high - low).max(1.0);
    let base = f64::midpoint(low, high) - span;
    Trend::new(samples, 2.0 * span, &|samples| samples.first().and_then(&read).map(|value| value - base))
}

/// Requests, or other counts, for each second.
pub(super) fn rate(read: fn(&Totals) -> u64) -> impl Fn(&[Totals]) -> Option<f64> {
    move |samples| {
        let seconds = samples.len() as f64 * SAMPLE_EVERY.as_secs_f64();
        Some(samples.iter().map(read).sum::<u64>() as f64 / seconds)
    }
}

/// The quantile `share` of durations, in milliseconds.
pub(super) fn latency<'a, const N: usize>(
    read: impl Fn(&Totals) -> Option<[u64; N]> + 'a,
    bounds: &'a [f64; N],
    share: f64,
) -> impl Fn(&[Totals]) -> Option<f64> + 'a {
    move |samples| {
        let mut sum = [0; N];
        for buckets in samples.iter().filter_map(&read) {
            sum.iter_mut().zip(buckets).for_each(|(sum, number)| *sum += number);
        }
        quantile(&sum, bounds, share).map(|seconds| seconds * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn samples(requests: &[u64]) -> Vec<Totals> {
        requests.iter().map(|requests| Totals { requests: *requests, ..Totals::default() }).collect()
    }

    #[test]
    fn a_line_has_the_newest_value_at_its_right_edge_and_gaps_without_values() {
        let line = |values: &[Option<f64>], most| line(values, most, (358, 80.0));
        let values = [Some(2.0), Some(1.0), None, Some(4.0)];
        assert_eq!(line(&values, 4.0), "M352 0.0L356 60.0L358 40.0", "a short gap");
        let values = [&values[..2], &[None; MAX_GAP], &values[3..]].concat();
        assert_eq!(line(&values, 4.0), "M342 0.0h0M356 60.0L358 40.0", "a long gap");
        assert_eq!(line(&[None, None], 0.0), "");
        assert_eq!(line(&[Some(0.0)], 0.0), "M358 80.0h0");
    }

    #[test]
    fn a_trend_goes_from_edge_to_edge() {
        let requests = rate(|it| it.requests);
        let trend = |numbers: &[u64], least| {
            let Trend { line, area, width } = Trend::new(&samples(numbers), least, &requests);
            (line, area, width)
        };
        let (line, area) = ("M0 14.0L2 0.0", "M0 31L0 14.0L2 0.0L2 31Z");
        assert_eq!(trend(&[10, 5], 0.0), (line.to_owned(), area.to_owned(), 2));
        assert_eq!(trend(&[5], 2.0).0, "M0 14.0L2 14.0", "a level at half of the least top");
        assert_eq!(trend(&[0, 0], 2.0).0, "M0 28.0L2 28.0", "a flat line");
        let start = [vec![10; 38], vec![500]].concat();
        assert!(trend(&start, 0.0).0.starts_with("M0 0.0L2 5.6L4 5.6"), "a peak at the start is cut off");
        assert_eq!(Trend::new(&[], 1.0, &requests), Trend { width: 2, ..Trend::default() });
        // The figures of the live sessions begin when an operator opens the page.
        let live = |number| Totals { live: number, ..Totals::default() };
        let since: Vec<_> = [Some(2), None, None, None, None, Some(1), None].into_iter().map(live).collect();
        let trend = Trend::new(&since, 1.0, &|samples| samples.first()?.live.map(|live| live as f64));
        assert_eq!((&*trend.line, trend.width), ("M0 14.0L10 0.0", 10));
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (most, top) in
            [(0.0, 1.0), (9.8, 10.0), (10.0, 10.0), (10.1, 20.0), (0.3, 0.5), (0.002, 0.002), (730.0, 1e3)]
        {
            assert!((top_of_axis(most) - top).abs() < 1e-9, "{most}: {}", top_of_axis(most));
        }
        assert_eq!([10.0, 2.5, 0.05, 0.0].map(plain), ["10", "2.5", "0.05", "0"]);
        assert_eq!(Unit::PerSecond.text(9.84), "9.8 req/s");
        assert_eq!([0.4, 12.3].map(|ms| Unit::Milliseconds.text(ms)), ["0.40 ms", "12 ms"]);
    }

    #[test]
    fn p71_a_chart_its_table_and_its_data_have_the_same_figures() {
        // 30 requests in each sample of the last minute, and 60 in the minute before.
        let samples = samples(&[[30; MINUTE], [60; MINUTE]].concat());
        let requests = rate(|it| it.requests);
        let never = latency(|_| None, &[0.1, f64::INFINITY], 0.5);
        let now = Timestamp::from_secs(1_800_000_000);
        let named = ("requests".to_owned(), "Requests".to_owned());
        let lines: [(_, _, Read<'_>); 2] = [("requests", "first", &requests), ("p50", "second", &never)];
        let chart = Chart::new(named, Unit::PerSecond, (&samples, now), &lines);
        assert_eq!(chart.ticks, ["20", "10", "0"]);
        assert_eq!((&*chart.span, chart.width, chart.none), ("2 min", 2 * (2 * MINUTE - 1), None));
        assert_eq!(chart.series[0].latest, "6.0 req/s");
        let rows = chart.rows();
        assert_eq!(rows[0], ("last minute".to_owned(), vec!["6.0 req/s", "–"]));
        assert_eq!(rows[1], ("1 min before".to_owned(), vec!["12.0 req/s", "–"]));
        assert_eq!(rows.len(), 2);
        let data: Value = serde_json::from_str(&chart.data).unwrap();
        assert_eq!((&data["end"], &data["every"], &data["unit"]), (&1_800_000_000.into(), &5.into(), &"req/s".into()));
        assert_eq!((data["values"][0][0].as_f64(), data["values"][0][23].as_f64()), (Some(6.0), Some(12.0)));
        assert!(data["values"][1][0].is_null());
    }

    #[test]
    fn a_chart_begins_with_its_data_and_says_that_it_has_none() {
        let (requests, never) = (rate(|it| it.requests), latency(|_| None, &[0.1, f64::INFINITY], 0.5));
        let chart = |number: usize, read: Read<'_>| {
            let named = ("requests".to_owned(), "Requests".to_owned());
            let all = samples(&vec![1; number]);
            Chart::new(named, Unit::PerSecond, (&all, Timestamp::from_secs(1_800_000_000)), &[("all", "first", read)])
        };
        for (number, span, seconds) in [(0, "60 s", 60), (13, "60 s", 60), (14, "65 s", 65), (SAMPLES, "15 min", 895)] {
            let chart = chart(number, &requests);
            let data: Value = serde_json::from_str(&chart.data).unwrap();
            assert_eq!((&*chart.span, &data["span"]), (span, &seconds.into()), "{number}");
            assert_eq!(chart.width as u64, 2 * seconds / 5);
        }
        assert_ne!(chart(13, &requests).series[0].path, "");
        assert_eq!(chart(13, &|_| Some(0.0)).series[0].path, "", "a line at zero would look like a warning");
        assert_eq!(chart(0, &requests).none, Some("No data yet"));
        assert_eq!(chart(1, &requests).none, None);
        assert_eq!(chart(9, &never).none, Some("No requests in the last 15 minutes"));
    }

    #[test]
    fn a_latency_is_that_of_all_requests_of_the_samples() {
        let bounds = [0.1, 0.2, f64::INFINITY];
        let samples: Vec<_> = [1, 3].iter().map(|n| Totals { requests: *n, ..Totals::default() }).collect();
        let median = latency(|it| Some([it.requests, 0, 0]), &bounds, 0.5);
        assert_eq!(median(&samples), Some(50.0));
        assert_eq!(latency(|_| Some([0, 0, 0]), &bounds, 0.5)(&samples), None);
    }
}

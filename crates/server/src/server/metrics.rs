//! What an operator's graphs are made of, in the text format of Prometheus (OpenMetrics).
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `rotogate_requests_total` | `route`, `outcome`, `code` | requests answered; `outcome` as in the access log (docs/logs.md) |
//! | `rotogate_request_duration_seconds` | `route` | from the request's head to the reply's head |
//! | `rotogate_session_events_total` | `event` | logins, rotations, replays, reuses, revocations … |
//! | `rotogate_revocations` | | entries of the revocation list |
//! | `rotogate_verified_tokens` | | access tokens in the cache |
//! | `rotogate_requests_in_flight` | | requests under way, streams included; `max_requests` is their bound |
//! | `rotogate_log_lines_total`, `rotogate_log_dropped_lines_total`, `rotogate_log_write_errors_total` | `sink` | what became of log lines |
//! | `rotogate_pending_bodies` | | requests to endpoints whose body is not there yet |
//! | `rotogate_own_streams` | | streams that the gate answers itself |
//! | `rotogate_tunnels` | | upgraded connections |
//! | `rotogate_buffered_bytes` | | bytes kept of bodies, messages and queues |
//! | `rotogate_ready` | | 1, or 0 while `/readyz` is red |
//!
//! Every label comes from the configuration or from a fixed set, never from a request (requirement A7): a client cannot
//! make another series.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::tally::{BUCKETS, End, Tally};
use rotogate::engine::Event;
use rotogate::gate::{Gate, Reason, Verdict};
use rotogate::route::Route;

/// A route as a label: its id, which is the configuration's, without a copy of the text for each request.
#[derive(Clone, Debug, Default)]
pub(super) enum RouteLabel {
    Route(Arc<Route>),
    /// One of our own endpoints.
    Endpoint,
    /// A CORS preflight that was answered before routes were looked at.
    Preflight,
    /// Refused before a route was found.
    #[default]
    None,
}

impl RouteLabel {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Route(route) => &route.id,
            Self::Endpoint => "_endpoint",
            Self::Preflight => "_preflight",
            Self::None => "_none",
        }
    }

    fn of(verdict: Option<&Verdict>) -> Self {
        let Some(verdict) = verdict else { return Self::Preflight };
        match (&verdict.route, verdict.operation) {
            (Some(route), _) => Self::Route(Arc::clone(route)),
            (None, Some(_)) => Self::Endpoint,
            (None, None) => Self::None,
        }
    }
}

impl PartialEq for RouteLabel {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for RouteLabel {}

impl Hash for RouteLabel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    tally: Arc<Tally>,
    ready: Gauge,
}

impl Metrics {
    /// For requests that are answered on so many threads.
    pub(super) fn new(gate: Gate, threads: NonZeroUsize) -> Self {
        let mut registry = Registry::with_prefix("rotogate");
        let tally = Arc::new(Tally::new(threads));
        let ready = Gauge::default();
        registry.register("ready", "1, or 0 while /readyz is red", ready.clone());
        registry.register_collector(Box::new(OfGate { gate, tally: Arc::clone(&tally) }));
        Self { registry, tally, ready }
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&self, verdict: Option<&Verdict>, code: Option<StatusCode>, took: Duration) {
        let end = End { outcome: outcome(verdict).word(), code };
        self.tally.count(&RouteLabel::of(verdict), end, took);
    }

    /// Everything, as it is now.
    ///
    /// In OpenMetrics, or in the older text format of Prometheus.
    pub(crate) fn text(&self, is_ready: bool, is_open: bool) -> String {
        let mut text = String::new();
        self.ready.set(i64::from(is_ready));
        // Writing into a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        if is_open { text } else { plain(&text) }
    }
}

/// What the access log and the metrics call the end of a request.
pub(super) fn outcome(verdict: Option<&Verdict>) -> Reason {
    verdict.map_or(Reason::PREFLIGHT, |verdict| verdict.reason)
}

/// A status as a label. An upstream may answer with any number: only those that IANA lists are told apart.
fn code(status: Option<StatusCode>) -> String {
    match status {
        // The client was gone before there was a status.
        None => "none".to_owned(),
        Some(status) if status.canonical_reason().is_some() => status.as_u16().to_string(),
        Some(_) => "other".to_owned(),
    }
}

/// The same metrics in Prometheus' text format 0.0.4: there a counter's name ends in `_total` in its head lines too, and
/// the text has no end mark and no units.
fn plain(open: &str) -> String {
    let heads = || open.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters: BTreeSet<&str> = heads().filter_map(|head| head.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len() + 256);
    for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let head = ["# HELP ", "# TYPE "].into_iter().find_map(|mark| Some((mark, line.strip_prefix(mark)?)));
        match head.and_then(|(mark, rest)| Some((mark, rest.split_once(' ')?))) {
            Some((mark, (name, rest))) if counters.contains(name) => {
                text.push_str(&format!("{mark}{name}_total {rest}"));
            }
            Some(_) | None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// What is known elsewhere.
struct OfGate {
    gate: Gate,
    tally: Arc<Tally>,
}

impl fmt::Debug for OfGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfGate")
    }
}

impl Collector for OfGate {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let routes = self.tally.total();
        let mut requests = encoder.encode_descriptor("requests", "Requests answered", None, MetricType::Counter)?;
        for (route, of_route) in &routes {
            // Two statuses that are no known ones are one.
            let mut counts: BTreeMap<(&str, String), u64> = BTreeMap::new();
            for (end, number) in &of_route.outcomes {
                *counts.entry((end.outcome, code(end.code))).or_default() += number;
            }
            for ((outcome, code), number) in counts {
                let labels = [("route", &**route), ("outcome", outcome), ("code", &code)];
                ConstCounter::new(number).encode(requests.encode_family(&labels)?)?;
            }
        }
        let help = "From the request's head to the reply's head";
        let mut durations = encoder.encode_descriptor("request_duration_seconds", help, None, MetricType::Histogram)?;
        for (route, of_route) in &routes {
            let buckets: Vec<(f64, u64)> = BUCKETS.into_iter().zip(of_route.buckets).collect();
            let labels = [("route", &**route)];
            let mut of_labels = durations.encode_family(&labels)?;
            of_labels.encode_histogram::<NoLabelSet>(of_route.sum, of_route.buckets.iter().sum(), &buckets, None)?;
        }
        let mut events =
            encoder.encode_descriptor("session_events", "What happened to sessions", None, MetricType::Counter)?;
        for event in Event::ALL {
            let count = ConstCounter::new(self.gate.events().get(event));
            count.encode(events.encode_family(&[("event", event.name())])?)?;
        }
        let logs = crate::log::counts();
        for (place, name, help) in [
            (0, "log_lines", "Log lines written"),
            (1, "log_dropped_lines", "Log lines dropped, because an output was too slow or failed"),
            (2, "log_write_errors", "Writes to a log output that failed"),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (sink, counts) in &logs {
                let count = ConstCounter::new(counts.get(place).copied().unwrap_or_default());
                count.encode(family.encode_family(&[("sink", *sink)])?)?;
            }
        }
        let (tokens, revocations) = self.gate.counts();
        let revocations = u64::try_from(revocations).unwrap_or(u64::MAX);
        let held = |pool: &rotogate::overload::Pool| u64::try_from(pool.now()).unwrap_or(u64::MAX);
        let overload = self.gate.overload();
        for (name, help, value) in [
            ("revocations", "Entries of the revocation list", revocations),
            ("requests_in_flight", "Requests under way", held(&overload.requests)),
            ("pending_bodies", "Requests to endpoints whose body is not there yet", held(&overload.bodies)),
            ("own_streams", "Streams that the gate answers itself", held(&overload.streams)),
            ("tunnels", "Upgraded connections", held(&overload.tunnels)),
            ("buffered_bytes", "Bytes kept of bodies, messages and queues", held(&overload.buffered)),
            ("verified_tokens", "Access tokens in the cache", tokens),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

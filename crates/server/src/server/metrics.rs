//! The metrics, in OpenMetrics or Prometheus text format.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `rotogate_requests_total` | `route`, `outcome`, `code` | requests answered; `outcome` as in the access log (docs/logs.md) |
//! | `rotogate_request_duration_seconds` | `route` | from the request's head to the response's head |
//! | `rotogate_session_events_total` | `event` | events of sessions, by the names of [`Event`] |
//! | `rotogate_revocations` | | entries of the revocation list |
//! | `rotogate_verified_tokens` | | access tokens in the cache |
//! | `rotogate_requests_in_flight` | | requests in flight, streams included; bounded by `max_requests` |
//! | `rotogate_log_lines_total`, `rotogate_log_dropped_lines_total`, `rotogate_log_write_errors_total` | `sink` | log lines written and dropped, and failed writes |
//! | `rotogate_issuer_introspections_total` | `issuer`, `result` | questions about opaque tokens to their issuer |
//! | `rotogate_pending_bodies` | | requests to endpoints whose body has not arrived yet |
//! | `rotogate_own_streams` | | streams that the gate answers itself |
//! | `rotogate_tunnels` | | upgraded connections |
//! | `rotogate_buffered_bytes` | | buffered bytes of bodies, messages and queues |
//! | `rotogate_directory_requests_total` | `directory`, `kind`, `operation`, `result` | requests to a directory in another system |
//! | `rotogate_directory_duration_seconds` | `directory`, `kind`, `operation` | the time that it took |
//! | `rotogate_issuer_keys`, `rotogate_issuer_state`, `rotogate_issuer_last_success_timestamp_seconds`, `rotogate_issuer_waiting` | `issuer` | the fetched keys of an issuer |
//! | `rotogate_issuer_refused_keys` | `issuer`, `cause` | keys of its set that are not used |
//! | `rotogate_issuer_fetches_total` | `issuer`, `result` | attempts to fetch them |
//! | `rotogate_issuer_unknown_kid_total` | `issuer` | tokens that name another key |
//! | `rotogate_store_next_puts_total` | `result` | writes that went to `[store.next]`, too |
//! | `rotogate_store_next_missed` | | sessions that wait to be put there again |
//! | `rotogate_ready` | | 1, or 0 while `/readyz` fails |
//!
//! Each label value comes from the configuration or from a fixed set, never from a request (requirement A7): a client
//! cannot create a series.

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

use super::issuers::RemoteIssuers;
use super::tally::{BUCKET_SECONDS, RequestEnd, Tally};
use crate::directories::DirectoryMetrics;
use rotogate::engine::Event;
use rotogate::gate::{Gate, Reason, Verdict};
use rotogate::route::Route;
use rotogate::store::moving::MovingStore;

/// A route as a label. Shares the route, so that no request copies its id.
#[derive(Clone, Debug, Default)]
pub(super) enum RouteLabel {
    Route(Arc<Route>),
    /// One of the gate's own endpoints.
    Endpoint,
    /// A CORS preflight, answered before routing.
    Preflight,
    /// Refused before a route was found.
    #[default]
    None,
}

impl RouteLabel {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Route(route) => route.id.as_str(),
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

/// All metrics of a gate.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    tally: Arc<Tally>,
    ready: Gauge,
}

impl Metrics {
    /// `threads` is the number of threads that answer requests.
    pub(super) fn new(
        gate: Gate,
        threads: NonZeroUsize,
        directories: &DirectoryMetrics,
        issuers: RemoteIssuers,
        moving: Option<MovingStore>,
    ) -> Self {
        let mut registry = Registry::with_prefix("rotogate");
        let tally = Arc::new(Tally::new(threads));
        let ready = Gauge::default();
        registry.register("ready", "1, or 0 while /readyz is red", ready.clone());
        directories.register(&mut registry);
        registry.register_collector(Box::new(GateCollector { gate, tally: Arc::clone(&tally), issuers, moving }));
        Self { registry, tally, ready }
    }

    /// Counts an answered request.
    pub(super) fn record(&self, verdict: Option<&Verdict>, code: Option<StatusCode>, took: Duration) {
        let end = RequestEnd { outcome: outcome(verdict).word(), code };
        self.tally.count(&RouteLabel::of(verdict), end, took);
    }

    /// All metrics as text: in OpenMetrics, or in the older text format of Prometheus.
    pub(crate) fn text(&self, is_ready: bool, is_open: bool) -> String {
        let mut text = String::new();
        self.ready.set(i64::from(is_ready));
        // Writing into a `String` does not fail.
        let _ = text::encode(&mut text, &self.registry);
        if is_open { text } else { plain(&text) }
    }
}

/// The outcome of a request, as in the access log and the metrics.
pub(super) fn outcome(verdict: Option<&Verdict>) -> Reason {
    verdict.map_or(Reason::PREFLIGHT, |verdict| verdict.reason)
}

/// A status as a label. An upstream may send any number: those that IANA does not list become `other`.
fn code(status: Option<StatusCode>) -> String {
    match status {
        // The client closed the connection before there was a status.
        None => "none".to_owned(),
        Some(status) if status.canonical_reason().is_some() => status.as_u16().to_string(),
        Some(_) => "other".to_owned(),
    }
}

/// Converts OpenMetrics to Prometheus text format 0.0.4. There the HELP and TYPE lines of a counter name it with
/// `_total`, and the text has neither end mark nor units.
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

/// Reads the figures that other modules keep.
struct GateCollector {
    gate: Gate,
    tally: Arc<Tally>,
    issuers: RemoteIssuers,
    moving: Option<MovingStore>,
}

impl fmt::Debug for GateCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateCollector")
    }
}

impl Collector for GateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let routes = self.tally.total();
        let mut requests = encoder.encode_descriptor("requests", "Requests answered", None, MetricType::Counter)?;
        for (route, of_route) in &routes {
            // Unknown statuses share one label.
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
            let buckets: Vec<(f64, u64)> = BUCKET_SECONDS.into_iter().zip(of_route.buckets).collect();
            let labels = [("route", &**route)];
            let mut of_labels = durations.encode_family(&labels)?;
            of_labels.encode_histogram::<NoLabelSet>(of_route.sum, of_route.buckets.iter().sum(), &buckets, None)?;
        }
        let mut events = encoder.encode_descriptor("session_events", "Session events", None, MetricType::Counter)?;
        for event in Event::ALL {
            let count = ConstCounter::new(self.gate.events().get(event));
            count.encode(events.encode_family(&[("event", event.name())])?)?;
        }
        let help = "Questions about opaque tokens to their issuer";
        let mut introspections = encoder.encode_descriptor("issuer_introspections", help, None, MetricType::Counter)?;
        for (issuer, result, count) in self.gate.introspections() {
            let labels = [("issuer", &*issuer), ("result", result)];
            ConstCounter::new(count).encode(introspections.encode_family(&labels)?)?;
        }
        let logs = crate::log::counts();
        for (index, name, help) in [
            (0, "log_lines", "Log lines written"),
            (1, "log_dropped_lines", "Log lines dropped, because an output was too slow or failed"),
            (2, "log_write_errors", "Writes to a log output that failed"),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (sink, counts) in &logs {
                let count = ConstCounter::new(counts.get(index).copied().unwrap_or_default());
                count.encode(family.encode_family(&[("sink", *sink)])?)?;
            }
        }
        let (tokens, revocations) = self.gate.counts();
        let revocations = u64::try_from(revocations).unwrap_or(u64::MAX);
        let held = |pool: &rotogate::overload::Pool| u64::try_from(pool.now()).unwrap_or(u64::MAX);
        let overload = self.gate.overload();
        for (name, help, value) in [
            ("revocations", "Entries of the revocation list", revocations),
            ("requests_in_flight", "Requests in flight", held(&overload.requests)),
            ("pending_bodies", "Requests to endpoints whose body has not arrived yet", held(&overload.bodies)),
            ("own_streams", "Streams that the gate answers itself", held(&overload.streams)),
            ("tunnels", "Upgraded connections", held(&overload.tunnels)),
            ("buffered_bytes", "Buffered bytes of bodies, messages and queues", held(&overload.buffered)),
            ("verified_tokens", "Access tokens in the cache", tokens),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        if let Some(unheard) = self.gate.store_staleness() {
            let gauge = ConstGauge::new(unheard.as_secs_f64());
            let help = "Time since a store that gates share was last heard of";
            let name = "store_staleness_seconds";
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        if let Some(mirrored) = self.moving.as_ref().map(MovingStore::mirrored) {
            let help = "Writes that went to the store to move to, too";
            let mut puts = encoder.encode_descriptor("store_next_puts", help, None, MetricType::Counter)?;
            for (result, number) in [("ok", mirrored.put), ("failed", mirrored.failed)] {
                ConstCounter::new(number).encode(puts.encode_family(&[("result", result)])?)?;
            }
            let gauge = ConstGauge::new(mirrored.missed);
            let help = "Sessions that wait to be put into the store to move to";
            gauge.encode(encoder.encode_descriptor("store_next_missed", help, None, gauge.metric_type())?)?;
        }
        self.issuers.encode(&mut encoder)
    }
}

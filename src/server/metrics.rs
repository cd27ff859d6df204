//! What an operator's graphs are made of, in the text format of Prometheus (OpenMetrics).
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `rotogate_requests_total` | `route`, `outcome` | requests answered; `outcome` is the `reason` of the access log |
//! | `rotogate_request_duration_seconds` | `route` | from the request's head to the reply's head |
//! | `rotogate_session_events_total` | `event` | logins, rotations, replays, reuses, revocations … |
//! | `rotogate_revocations` | | entries of the revocation list |
//! | `rotogate_verified_tokens` | | access tokens in the cache |
//! | `rotogate_requests_in_flight` | | requests under way, streams included; `max_requests` is their bound |
//! | `rotogate_ready` | | 1, or 0 while `/readyz` is red |
//!
//! Every label comes from the configuration or from a fixed set, never from a request (requirement A7): a client cannot
//! make another series.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::shed::InFlight;
use crate::gate::{Gate, Verdict};
use crate::route::Route;
use crate::session::engine::Event;

/// The route of requests that none matched: our own endpoints, and refusals before a route was found.
const NO_ROUTE: &str = "";

/// A route as a label: its id, which is the configuration's, without a copy of the text for each request.
#[derive(Clone, Debug)]
struct RouteLabel(Option<Arc<Route>>);

impl RouteLabel {
    fn id(&self) -> &str {
        self.0.as_ref().map_or(NO_ROUTE, |route| route.id.as_str())
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

impl EncodeLabelValue for RouteLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.id().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    route: RouteLabel,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    route: RouteLabel,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<ByOutcome, Counter>,
    durations: Family<ByRoute, Histogram, fn() -> Histogram>,
    ready: Gauge,
}

impl Metrics {
    pub(super) fn new(gate: Gate, in_flight: Arc<InFlight>) -> Self {
        let mut registry = Registry::with_prefix("rotogate");
        let requests = Family::default();
        // From 100 us to 26 s, by fours.
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0001, 4.0, 10));
        let durations = Family::new_with_constructor(buckets);
        registry.register("requests", "Requests answered", requests.clone());
        registry.register("request_duration_seconds", "From the request's head to the reply's head", durations.clone());
        let ready = Gauge::default();
        registry.register("ready", "1, or 0 while /readyz is red", ready.clone());
        registry.register_collector(Box::new(OfGate { gate, in_flight }));
        Self { registry, requests, durations, ready }
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&self, verdict: Option<&Verdict>, took: Duration) {
        let route = RouteLabel(verdict.and_then(|verdict| verdict.route.clone()));
        let outcome = outcome(verdict);
        let labels = ByOutcome { route, outcome };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&ByRoute { route: labels.route }).observe(took.as_secs_f64());
    }

    /// Everything, as it is now.
    pub(crate) fn text(&self, is_ready: bool) -> String {
        let mut text = String::new();
        self.ready.set(i64::from(is_ready));
        // Writing into a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// What the access log and the metrics call the end of a request.
pub(super) fn outcome(verdict: Option<&Verdict>) -> &'static str {
    verdict.map_or("preflight", |verdict| verdict.reason)
}

/// What the gate knows itself.
struct OfGate {
    gate: Gate,
    in_flight: Arc<InFlight>,
}

impl fmt::Debug for OfGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfGate")
    }
}

impl Collector for OfGate {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut events =
            encoder.encode_descriptor("session_events", "What happened to sessions", None, MetricType::Counter)?;
        for event in Event::ALL {
            let count = ConstCounter::new(self.gate.events().get(event));
            count.encode(events.encode_family(&[("event", event.name())])?)?;
        }
        let (tokens, revocations) = self.gate.counts();
        let revocations = u64::try_from(revocations).unwrap_or(u64::MAX);
        let in_flight = u64::try_from(self.in_flight.now()).unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("revocations", "Entries of the revocation list", revocations),
            ("requests_in_flight", "Requests under way", in_flight),
            ("verified_tokens", "Access tokens in the cache", tokens),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

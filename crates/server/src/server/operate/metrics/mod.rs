//! The metrics. [`metric_families`](rotogate_kit::metric_families) lists them, and `docs/metrics.md` is generated from
//! the list.

mod issuers;
mod output;
pub(crate) mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use self::output::ScrapeOutput;
use self::process::ProcessCollector;
use super::reload::{InForce, ReloadSource};
use crate::server::build::assemble::GateParts;
use crate::server::listen::connection_counts::{PROTOCOLS, RejectCause};
use crate::server::serve::tally::{GRPC_STATUSES, Step};
use crate::trace::COUNTS;
use rotogate::program::NAMES as DIALECTS;
use rotogate::store::redb;
use rotogate_core::counters::FINE_SECONDS;
use rotogate_core::engine::Event;
use rotogate_core::session::RevokedBecause;
use rotogate_core::token::Keyring;
use rotogate_kit::metric_families as names;
use rotogate_proxy::{AttemptResult, CODE_CLASSES, UpstreamReport};

#[derive(Debug)]
pub(crate) struct Metrics {
    of_gate: Registry,
    of_process: Registry,
    collector: GateCollector,
}

/// Determined at each scrape.
#[derive(Debug, Default)]
struct ScrapeState {
    is_ready: AtomicBool,
    is_store_up: AtomicBool,
}

impl Metrics {
    pub(crate) fn new(sources: Arc<InForce>) -> Self {
        let mut of_gate = Registry::with_prefix("rotogate");
        let collector = GateCollector { sources, state: Arc::default() };
        of_gate.register_collector(Box::new(collector.clone()));
        let mut of_process = Registry::default();
        of_process.register_collector(Box::new(ProcessCollector));
        Self { of_gate, of_process, collector }
    }

    pub(crate) fn sources(&self) -> &InForce {
        &self.collector.sources
    }

    pub(crate) fn text(&self, is_ready: bool, is_store_up: bool, is_open: bool) -> String {
        let mut text = String::new();
        let state = &self.collector.state;
        state.is_ready.store(is_ready, Ordering::Relaxed);
        state.is_store_up.store(is_store_up, Ordering::Relaxed);
        // Writing to a `String` cannot fail.
        let _ = text::encode_registry(&mut text, &self.of_gate);
        let _ = text::encode_registry(&mut text, &self.of_process);
        let _ = text::encode_eof(&mut text);
        if is_open { text } else { plain(&text) }
    }
}

/// Returns a status as a label. Statuses that IANA does not list become `other`.
fn code(status: Option<StatusCode>) -> String {
    match status {
        // The client closed the connection before a status was known.
        None => "none".to_owned(),
        Some(status) if status.canonical_reason().is_some() => status.as_u16().to_string(),
        Some(_) => "other".to_owned(),
    }
}

/// Converts OpenMetrics to Prometheus' text format 0.0.4. The HELP and TYPE lines of a counter then use its name with
/// `_total`. Units and the end marker are omitted.
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

#[derive(Clone, Debug)]
struct GateCollector {
    sources: Arc<InForce>,
    state: Arc<ScrapeState>,
}

impl Collector for GateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let output = &mut ScrapeOutput::new(&mut encoder);
        process::build_info(output)?;
        output.one(&names::READY, u64::from(self.state.is_ready.load(Ordering::Relaxed)))?;
        output.one(&names::ENGINE_TIME_SKEW, self.sources.gate.time_skew())?;
        self.requests(output)?;
        self.connections(output)?;
        self.upstreams(output)?;
        self.sessions(output)?;
        self.store(output)?;
        self.reloads(output)?;
        self.logs(output)?;
        issuers::write(&self.sources.remote_issuers, output)?;
        self.sources.directories.metrics().encode(&mut encoder)
    }
}

impl GateCollector {
    fn requests(&self, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
        let routes = self.sources.tally.total();
        let mut requests = output.family(&names::REQUESTS)?;
        for (route, of_route) in &routes {
            // Unknown statuses share one label.
            let mut counts: BTreeMap<(&str, String), u64> = BTreeMap::new();
            for (end, number) in &of_route.outcomes {
                *counts.entry((end.outcome, code(end.code))).or_default() += number;
            }
            for ((outcome, code), number) in counts {
                requests.add([route, outcome, &code], number)?;
            }
        }
        let mut durations = output.family(&names::REQUEST_DURATION)?;
        for (route, of_route) in &routes {
            durations.add_durations([route], &of_route.durations)?;
        }
        let mut own = output.family(&names::GATE_DURATION)?;
        for (step, durations) in Step::ALL.into_iter().zip(self.sources.tally.steps()) {
            own.add_histogram([step.name()], &FINE_SECONDS, &durations.buckets, durations.sum)?;
        }
        let mut grpc = output.family(&names::GRPC_RESPONSES)?;
        for (route, of_route) in &routes {
            for (status, number) in &of_route.grpc {
                let status = if *status < GRPC_STATUSES { status.to_string() } else { "other".to_owned() };
                grpc.add([route, &status], *number)?;
            }
        }
        output.each(&names::REQUEST_BYTES, routes.iter().map(|(route, of)| (route, of.received)))?;
        output.each(&names::RESPONSE_BYTES, routes.iter().map(|(route, of)| (route, of.sent)))?;
        let streams = routes.iter().flat_map(|(route, of)| of.streams.iter().map(|(end, n)| ([&**route, *end], *n)));
        output.all(&names::STREAMS_ENDED, streams)?;
        output.all(&names::AUTHORIZER_VERDICTS, self.sources.tally.verdicts.all())?;
        let overload = self.sources.gate.overload();
        for (family, number) in [
            (&names::REQUESTS_IN_FLIGHT, overload.requests.now()),
            (&names::REQUESTS_LIMIT, overload.requests.bound()),
            (&names::PENDING_BODIES, overload.bodies.now()),
            (&names::OWN_STREAMS, overload.streams.now()),
            (&names::TUNNELS, overload.tunnels.now()),
            (&names::BUFFERED_BYTES, overload.buffered.now()),
        ] {
            output.one(family, number)?;
        }
        Ok(())
    }

    fn connections(&self, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
        let listeners = &self.sources.listeners;
        let mut open = output.family(&names::CONNECTIONS)?;
        for (index, listener) in listeners.iter().enumerate() {
            for (protocol, number) in PROTOCOLS.into_iter().zip(listener.counts.now()) {
                open.add([&index.to_string(), protocol], number)?;
            }
        }
        output.one(&names::CONNECTIONS_LIMIT, self.sources.limits.max())?;
        let mut rejected = output.family(&names::CONNECTIONS_REJECTED)?;
        for (place, cause) in RejectCause::ALL.into_iter().enumerate() {
            let of_listeners = listeners.iter().filter_map(|listener| listener.counts.rejected().get(place).copied());
            rejected.add([cause.name()], of_listeners.sum::<u64>())?;
        }
        let tls = listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let ends = tls.flat_map(|tls| tls.periods()).map(|(file, _, end)| (file, end));
        output.each(&names::CERTIFICATE_NOT_AFTER, ends.collect::<BTreeMap<_, _>>())
    }

    fn upstreams(&self, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
        let all = self.sources.serving.load().proxy.report();
        let mut requests = output.family(&names::UPSTREAM_REQUESTS)?;
        for upstream in &all {
            for (result, number) in AttemptResult::ALL.into_iter().zip(upstream.counted.results) {
                requests.add([&upstream.name, result.name()], number)?;
            }
        }
        let mut responses = output.family(&names::UPSTREAM_RESPONSES)?;
        for upstream in &all {
            for (class, number) in CODE_CLASSES.into_iter().zip(upstream.counted.classes) {
                responses.add([&upstream.name, class], number)?;
            }
        }
        let mut durations = output.family(&names::UPSTREAM_REQUEST_DURATION)?;
        for upstream in &all {
            durations.add_durations([&upstream.name], &upstream.counted.durations)?;
        }
        output.each(&names::UPSTREAM_RETRIES, all.iter().map(|it| (&it.name, it.counted.retries)))?;
        output.each(&names::UPSTREAM_IN_FLIGHT, all.iter().map(|it| (&it.name, it.in_flight)))?;
        output.each(&names::UPSTREAM_CONNECTIONS, all.iter().map(|it| (&it.name, it.connections)))?;
        let mut addresses = output.family(&names::UPSTREAM_ADDRESSES)?;
        for UpstreamReport { name, up, failing, ejected, unhealthy, .. } in &all {
            for (state, number) in
                [("up", *up), ("failing", *failing), ("ejected", *ejected), ("unhealthy", *unhealthy)]
            {
                addresses.add([name, state], number)?;
            }
        }
        Ok(())
    }

    fn sessions(&self, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
        let GateParts { gate, passwords, .. } = &self.sources.parts;
        let counts = gate.session_counts();
        output.each(&names::SESSION_EVENTS, Event::ALL.map(|event| (event.name(), counts.get(event))))?;
        output.each(&names::API_KEYS, gate.api_keys().iter().flat_map(rotogate::gate::GateApiKeys::counts))?;
        output.all(&names::GRANTS, gate.grants().into_iter().map(|(grant, result, n)| ([grant, result], n)))?;
        output.each(&names::BROWSER_LOGINS, gate.browser_logins())?;
        output.each(&names::BROWSER_DEVICE, gate.browser_devices())?;
        output.each(&names::BROWSER_RENEWALS, counts.renewals())?;
        let mut calls = output.family(&names::MCP_CALLS)?;
        for (pattern, [refused, permitted]) in gate.mcp_calls() {
            calls.add([&*pattern, "refused"], refused)?;
            calls.add([&*pattern, "permitted"], permitted)?;
        }
        let (tokens, revocations) = gate.counts();
        output.one(&names::VERIFIED_TOKENS, tokens)?;
        output.one(&names::REVOCATIONS, revocations)?;
        output.one(&names::PASSWORD_QUEUE, passwords.waiting())?;
        output.one(&names::PASSWORD_QUEUE_LIMIT, passwords.places())?;
        output.family(&names::PASSWORD_CHECK_DURATION)?.add_counted([], &passwords.durations())?;
        let mut by_dialect = counts.sessions_started();
        for dialect in DIALECTS {
            by_dialect.entry((*dialect).into()).or_default();
        }
        output.each(&names::SESSIONS_STARTED, by_dialect)?;
        let ended = RevokedBecause::ALL.map(RevokedBecause::word).into_iter().zip(counts.sessions_ended());
        output.each(&names::SESSIONS_ENDED, ended)?;
        let notices = counts.notices();
        for (family, by_issuer) in [(&names::ISSUER_NOTICES, notices.results()), (&names::EVENTS, notices.effects())] {
            output.all(family, by_issuer.iter().map(|(issuer, of, result, n)| ([&**issuer, *of, *result], *n)))?;
        }
        output.family(&names::ISSUER_NOTICE_AGE)?.add_counted([], &notices.ages())?;
        output.each(&names::VERIFICATIONS, gate.verifications())?;
        let mut signatures = output.family(&names::VERIFICATION_DURATION)?;
        for (algorithm, durations) in gate.signature_times() {
            signatures.add_counted([algorithm], &durations)?;
        }
        output.each(&names::RATE_LIMITED, gate.rate_limited())?;
        output.each(&names::RATE_REFUSED, gate.refused_requests())?;
        let mut keys = output.family(&names::SIGNING_KEY_CREATED)?;
        let (keyring, folder) = (gate.keyring(), self.sources.config.load().issuer.keys.clone());
        for key in keyring.signing_keys() {
            let written = Keyring::written_at(&folder, key.kid()).ok().flatten();
            if let Some(since) = written.and_then(|written| written.duration_since(UNIX_EPOCH).ok()) {
                let state = if key.kid() == keyring.signer().kid() { "signing" } else { "verifying" };
                keys.add([key.kid(), key.algorithm().name(), state], since.as_secs())?;
            }
        }
        self.elsewhere(output)
    }

    fn elsewhere(&self, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
        let gate = &self.sources.gate;
        output.each(&names::RELAY_EXCHANGES, gate.relay_exchanges())?;
        output.one(&names::RELAY_KEPT, gate.relay_kept())?;
        output.one(&names::RELAY_NOT_KEPT, gate.relay_not_kept())?;
        output.all(&names::ISSUER_INTROSPECTIONS, gate.introspections().iter().map(by_name))?;
        output.all(&names::EXCHANGES, gate.exchanges().iter().map(by_name))
    }

    fn store(&self, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
        let GateParts { gate, redb: store, .. } = &self.sources.parts;
        output.one(&names::STORE_UP, u64::from(self.state.is_store_up.load(Ordering::Relaxed)))?;
        let file = store.as_ref().and_then(|store| std::fs::metadata(store.path()).ok());
        output.maybe(&names::STORE_SIZE_BYTES, file.map(|file| file.len()))?;
        let commits = gate.shared_writes().or_else(|| store.as_ref().map(redb::counted_commits));
        let by_result =
            commits.iter().flat_map(|it| [("ok", it.done.buckets.iter().sum::<u64>()), ("failed", it.failed)]);
        output.each(&names::STORE_COMMITS, by_result)?;
        let mut durations = output.family(&names::STORE_COMMIT_DURATION)?;
        if let Some(commits) = &commits {
            durations.add_counted([], &commits.done)?;
        }
        output.maybe(&names::STORE_QUEUE, store.as_ref().map(redb::queued_commits))?;
        output.one(&names::STORE_STALE, u64::from(gate.is_store_stale()))?;
        output.maybe(&names::STORE_HEARD_AGE, gate.store_staleness().map(|unheard| unheard.as_secs_f64()))
    }

    fn reloads(&self, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
        let InForce { outcomes: reloads, parts: GateParts { users, .. }, .. } = &*self.sources;
        let of_files = ReloadSource::ALL.map(|source| (source.name(), !reloads.get(source).0));
        let of_users = users.iter().map(|users| ("users", !users.directory().is_broken()));
        let successful = of_files.into_iter().chain(of_users).map(|(source, is_good)| (source, u64::from(is_good)));
        output.each(&names::CONFIG_RELOAD_SUCCESSFUL, successful)?;
        let times = ReloadSource::ALL.map(|source| (source.name(), reloads.get(source).1));
        output.each(&names::CONFIG_RELOAD_TIME, times)?;
        output.each(&names::CONFIG_INFO, [(self.sources.config.load().hash(), 1_u64)])
    }

    fn logs(&self, output: &mut ScrapeOutput<'_, '_>) -> fmt::Result {
        let logs = crate::log::counts();
        let families = [&names::LOG_LINES, &names::LOG_DROPPED_LINES, &names::LOG_WRITE_ERRORS];
        for (index, family) in families.into_iter().enumerate() {
            output.each(family, logs.map(|(sink, counts)| (sink, counts.get(index).copied().unwrap_or_default())))?;
        }
        output.one(&names::TRACE_SPANS, COUNTS.sent())?;
        output.each(&names::TRACE_DROPPED_SPANS, COUNTS.dropped())
    }
}

fn by_name<'a>((name, result, number): &'a (Arc<str>, &'static str, u64)) -> ([&'a str; 2], u64) {
    ([name, result], *number)
}

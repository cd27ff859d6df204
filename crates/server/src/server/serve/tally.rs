//! Counts requests by outcome and duration. Each thread has its own counters, and a scrape adds them up.
//!
//! With prometheus-client's `Family`, all threads share locks. On one thread, counting a request takes 950
//! instructions (112 ns) with `Family`, and 350 (27 ns) with this module.
//!
//! A request is counted at the start of its response, and again at the end. Long streams are therefore visible while
//! they run.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::HashMap;
use http::StatusCode;
use parking_lot::Mutex;

use super::route_label::{RouteLabel, RouteRef, outcome};
use rotogate::gate::{Reason, Verdict};
use rotogate_config::AuthorizerKind;
use rotogate_core::counters::FINE_SECONDS;
use rotogate_kit::durations::Durations;
use rotogate_kit::exchange::ExchangeEnd;
use rotogate_kit::worker_id::WorkerId;

#[derive(Debug)]
pub(crate) struct Tally {
    threads: Box<[Mutex<ThreadCounts>]>,
    pub(crate) verdicts: VerdictCounts,
}

#[derive(Debug, Default)]
struct ThreadCounts {
    routes: HashMap<RouteLabel, RouteTally>,
    steps: [StepDurations; Step::ALL.len()],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Decide,
    Endpoint,
}

impl Step {
    pub(crate) const ALL: [Self; 2] = [Self::Decide, Self::Endpoint];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Endpoint => "endpoint",
        }
    }
}

/// The durations of the gate's own work.
pub(crate) type StepDurations = Durations<{ FINE_SECONDS.len() }>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestEnd {
    pub(crate) outcome: &'static str,
    pub(crate) code: Option<StatusCode>,
}

impl RequestEnd {
    pub(crate) fn is_served(self) -> bool {
        [Reason::PASSED, Reason::ANSWERED, Reason::PREFLIGHT].iter().any(|it| it.word() == self.outcome)
    }

    /// Returns whether the response has a 5xx status, from the gate or an upstream.
    pub(crate) fn has_failed(self) -> bool {
        self.code.is_some_and(|code| code.is_server_error())
    }

    /// Returns whether the gate refused the request with another status than 5xx. A redirect leads to a login.
    pub(crate) fn is_refused(self) -> bool {
        !self.is_served() && self.code.is_some_and(|code| !code.is_server_error() && !code.is_redirection())
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RouteTally {
    pub(crate) outcomes: Vec<(RequestEnd, u64)>,
    pub(crate) durations: Durations,
    /// The bytes of request bodies.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) grpc: Vec<(u64, u64)>,
    pub(crate) streams: Vec<(&'static str, u64)>,
}

impl Tally {
    pub(crate) fn new(threads: NonZeroUsize) -> Self {
        Self { threads: WorkerId::per_worker(threads.get(), Mutex::default), verdicts: VerdictCounts::default() }
    }

    /// Returns counters with a static lifetime. With a reference count, all threads would write to the same memory.
    pub(crate) fn of_process(threads: NonZeroUsize) -> &'static Self {
        Box::leak(Box::new(Self::new(threads)))
    }

    /// Counts a response. `took` is the time from the request head to the response head, and `upstream` is how long the
    /// upstream took.
    pub(super) fn count_answer(&self, verdict: Option<&Verdict>, code: StatusCode, took: Duration, upstream: Duration) {
        let end = RequestEnd { outcome: outcome(verdict).word(), code: Some(code) };
        let is_endpoint = verdict.is_some_and(|verdict| verdict.operation().is_some());
        let step = if is_endpoint { Step::Endpoint } else { Step::Decide };
        self.begin(RouteRef::borrowed_from(verdict), end, took, Some((step, took.saturating_sub(upstream))));
    }

    /// Counts a request whose client disconnected before the response.
    pub(super) fn count_abort(&self, took: Duration) {
        let end = RequestEnd { outcome: Reason::CLIENT_GONE.word(), code: None };
        self.begin(RouteRef::None, end, took, None);
    }

    /// Counts a response that begins. `took` is the time since the request's head.
    pub(crate) fn begin(&self, route: RouteRef<'_>, end: RequestEnd, took: Duration, own: Option<(Step, Duration)>) {
        self.with(|counts| {
            if let Some((step, own)) = own
                && let Some(durations) = counts.steps.get_mut(step as usize)
            {
                durations.count_in(&FINE_SECONDS, own);
            }
            match counts.routes.get_mut(route.id()) {
                Some(known) => known.count(end, took),
                None => counts.routes.entry(route.label()).or_default().count(end, took),
            }
        });
    }

    pub(crate) fn end(&self, route: &RouteLabel, end: &ExchangeEnd) {
        self.with(|counts| {
            // This thread has no entry for the route if the response began on another thread.
            match counts.routes.get_mut(route.id()) {
                Some(known) => known.count_end(end),
                None => counts.routes.entry(route.clone()).or_default().count_end(end),
            }
        });
    }

    fn with(&self, count: impl FnOnce(&mut ThreadCounts)) {
        if let Some(counts) = WorkerId::current(&self.threads) {
            count(&mut counts.lock());
        }
    }

    pub(crate) fn steps(&self) -> [StepDurations; Step::ALL.len()] {
        let mut sums: [StepDurations; Step::ALL.len()] = Default::default();
        for counts in &self.threads {
            let counts = counts.lock();
            sums.iter_mut().zip(&counts.steps).for_each(|(sum, own)| sum.add(own));
        }
        sums
    }

    /// Returns the sum over all threads, by the id of the route.
    pub(crate) fn total(&self) -> BTreeMap<Arc<str>, RouteTally> {
        let mut total: BTreeMap<Arc<str>, RouteTally> = BTreeMap::new();
        for counted in &self.threads {
            for (route, of_route) in &counted.lock().routes {
                total.entry(route.id().into()).or_default().add(of_route);
            }
        }
        total
    }
}

impl RouteTally {
    fn count(&mut self, end: RequestEnd, took: Duration) {
        add(&mut self.outcomes, end, 1);
        self.durations.count(took);
    }

    fn count_end(&mut self, end: &ExchangeEnd) {
        self.received = self.received.saturating_add(end.received);
        self.sent = self.sent.saturating_add(end.sent);
        if let Some(status) = end.grpc {
            // gRPC defines 17 statuses, but a server may send any number.
            add(&mut self.grpc, status.min(GRPC_STATUSES), 1);
        }
        if end.is_stream {
            add(&mut self.streams, end.end, 1);
        }
    }

    fn add(&mut self, other: &Self) {
        other.outcomes.iter().for_each(|(end, number)| add(&mut self.outcomes, *end, *number));
        other.grpc.iter().for_each(|(status, number)| add(&mut self.grpc, *status, *number));
        other.streams.iter().for_each(|(end, number)| add(&mut self.streams, *end, *number));
        self.durations.add(&other.durations);
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// The defined statuses are 0 to 16. All other values count as 17.
pub(crate) const GRPC_STATUSES: u64 = 17;

fn add<K: PartialEq>(counts: &mut Vec<(K, u64)>, key: K, number: u64) {
    match counts.iter_mut().find(|(known, _)| *known == key) {
        Some((_, count)) => *count += number,
        None => counts.push((key, number)),
    }
}

#[derive(Debug, Default)]
pub(crate) struct VerdictCounts([[AtomicU64; 3]; 2]);

impl VerdictCounts {
    const KINDS: [&str; 2] = ["forward-auth", "ext-authz"];
    const VERDICTS: [&str; 3] = ["allowed", "denied", "unavailable"];

    pub(super) fn count(&self, kind: AuthorizerKind, status: StatusCode) {
        let place = match status {
            status if status.is_success() => 0,
            StatusCode::TOO_MANY_REQUESTS => 2,
            status if status.is_client_error() => 1,
            _ => 2,
        };
        let of_kind = Self::KINDS.iter().position(|word| *word == kind.protocol());
        if let Some(count) = of_kind.and_then(|kind| self.0.get(kind)?.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = ([&'static str; 2], u64)> {
        let kinds = Self::KINDS.iter().zip(&self.0);
        kinds.flat_map(|(kind, counts)| {
            let of_kind = Self::VERDICTS.iter().zip(counts);
            of_kind.map(move |(verdict, count)| ([*kind, *verdict], count.load(Ordering::Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const REQUESTS: &str = "ROTOGATE_TEST_REQUESTS";
    /// 2 % of the 50 000 instructions for a request with a known token in a release build (docs/performance.md).
    const GOAL: u64 = 1000;
    /// For builds without optimization.
    const BOUND: u64 = 12_000;

    #[inline(never)]
    fn counted_requests(tally: &Tally, requests: u64) {
        let passed = RequestEnd { outcome: "passed", code: Some(StatusCode::OK) };
        let end = ExchangeEnd { sent: 1024, end: "complete", ..ExchangeEnd::default() };
        for number in 0..requests {
            let took = Duration::from_micros(200 + number % 700);
            tally.begin(RouteRef::Endpoint, passed, took, Some((Step::Decide, took / 10)));
            tally.end(&RouteLabel::Endpoint, &end);
        }
    }

    #[test]
    fn so_many_requests_are_counted() {
        let tally = Tally::new(NonZeroUsize::MIN);
        let requests = std::env::var(REQUESTS).map_or(10, |number| number.parse().unwrap());
        counted_requests(&tally, requests);
        assert_eq!(tally.total()["_endpoint"].sent, 1024 * requests);
    }

    #[test]
    fn p28_to_count_a_request_takes_few_instructions() {
        let requests = 2000;
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_requests*"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "server::serve::tally::tests::so_many_requests_are_counted", "--test-threads=1"])
            .env(REQUESTS, requests.to_string())
            .output()
            .expect("valgrind cannot be run; install it (Debian: valgrind)");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let collected =
            said.lines().find_map(|line| line.split_once("Collected : ")).expect("valgrind counted nothing");
        let each = collected.1.trim().parse::<u64>().unwrap() / requests;
        assert!(each > 100, "nothing was counted: {said}");
        let met = if each <= GOAL { "met" } else { "not met in this profile" };
        println!("figure: P28 instructions to count a request: {each}, at most {GOAL} in a release: {met}");
        assert!(each <= BOUND, "{each} instructions to count a request");
    }

    #[test]
    fn what_threads_count_is_added_up() {
        let threads = NonZeroUsize::new(3).unwrap();
        let tally = Tally::new(threads);
        let answered = RequestEnd { outcome: "answered", code: Some(StatusCode::OK) };
        let lost = RequestEnd { outcome: "no_route", code: Some(StatusCode::NOT_FOUND) };
        std::thread::scope(|scope| {
            for worker in WorkerId::ids(threads) {
                let tally = &tally;
                scope.spawn(move || {
                    worker.enter();
                    let own = Some((Step::Endpoint, Duration::from_micros(40)));
                    tally.begin(RouteRef::None, answered, Duration::from_micros(50), own);
                    tally.begin(RouteRef::None, answered, Duration::from_micros(100), None);
                    tally.begin(RouteRef::None, lost, Duration::from_secs(100), None);
                    let end = ExchangeEnd { received: 3, sent: 5, ..ExchangeEnd::default() };
                    let stream = ExchangeEnd { grpc: Some(14), is_stream: true, end: "revoked", ..end };
                    for end in [end, stream, ExchangeEnd { grpc: Some(99), ..end }] {
                        tally.end(&RouteLabel::None, &end);
                    }
                });
            }
        });
        let total = tally.total();
        let [(name, of_route)] = total.iter().collect::<Vec<_>>()[..] else { panic!("{total:?}") };
        assert_eq!(&**name, "_none");
        assert_eq!(of_route.outcomes, [(answered, 6), (lost, 3)]);
        assert_eq!(of_route.durations.buckets, [6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert!((of_route.durations.sum - 300.00045).abs() < 1e-9, "{of_route:?}");
        assert_eq!((of_route.received, of_route.sent), (27, 45));
        assert_eq!((&of_route.grpc[..], &of_route.streams[..]), (&[(14, 3), (17, 3)][..], &[("revoked", 3)][..]));
        let [decide, endpoint] = tally.steps().map(|step| step.buckets);
        assert_eq!(decide, [0; 14]);
        assert_eq!(endpoint[..4], [0, 0, 3, 0]);
    }
}

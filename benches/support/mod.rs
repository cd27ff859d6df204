//! Shared by the benches: interleaved measuring, a table of ratios, and requests through a service without a socket.
//!
//! The machines that these run on are shared, so a figure alone says little. Every case is measured once a round, the
//! order turned around every other round, and a ratio is the median of the ratios *within* rounds: what slows a round
//! slows both sides of it. A case that does not wait is measured in CPU time of its thread on Linux, which excludes the
//! time of other processes.

#![allow(dead_code, reason = "each bench uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

pub(crate) mod program;
pub(crate) mod sessions;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use rotogate_core::limit::{Rate, Rates};
use tower::Service;

/// How long one case runs in one round.
const SLICE: Duration = Duration::from_millis(15);

/// Is this `cargo bench`, not only a test that the bench works?
pub(crate) fn measures() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A case to measure: runs this many operations and returns the time that they took.
pub(crate) struct Case<'a> {
    name: String,
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'a> Case<'a> {
    /// One operation at a time, on this thread.
    pub(crate) fn new(name: impl Into<String>, mut operation: impl FnMut() + 'a) -> Self {
        Self::timed(name, move |operations| busy(|| (0..operations).for_each(|_| operation())))
    }

    /// A case that waits, measured in wall-clock time.
    pub(crate) fn waiting(name: impl Into<String>, mut operation: impl FnMut() + 'a) -> Self {
        Self::timed(name, move |operations| {
            let start = Instant::now();
            (0..operations).for_each(|_| operation());
            start.elapsed()
        })
    }

    /// A case that measures its own time.
    pub(crate) fn timed(name: impl Into<String>, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// The CPU time of this thread for the work; wall-clock time where the system does not report CPU time.
pub(crate) fn busy(work: impl FnOnce()) -> Duration {
    let (cpu, start) = (thread_time(), Instant::now());
    work();
    let elapsed = start.elapsed();
    thread_time().zip(cpu).map_or(elapsed, |(after, before)| after - before)
}

fn thread_time() -> Option<Duration> {
    // The kernel updates the figure when a thread yields.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// The results of the rounds.
pub(crate) struct Measured {
    names: Vec<String>,
    /// Nanoseconds per operation, by case and round.
    rounds: Vec<Vec<f64>>,
}

/// Runs the cases in turn.
pub(crate) fn interleave(mut cases: Vec<Case<'_>>, rounds: usize) -> Measured {
    let operations: Vec<u64> = cases.iter_mut().map(|case| calibrate(case)).collect();
    let mut measured =
        Measured { names: cases.iter().map(|case| case.name.clone()).collect(), rounds: vec![Vec::new(); cases.len()] };
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..cases.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let took = (cases[index].run)(operations[index]);
            measured.rounds[index].push(took.as_nanos() as f64 / operations[index] as f64);
        }
    }
    measured
}

fn calibrate(case: &mut Case<'_>) -> u64 {
    if !measures() {
        (case.run)(1);
        return 1;
    }
    let mut operations = 1;
    loop {
        let took = (case.run)(operations);
        if took > SLICE / 4 {
            return (operations * SLICE.as_nanos() as u64 / took.as_nanos() as u64).max(1);
        }
        operations *= 2;
    }
}

impl Measured {
    fn of(&self, name: &str) -> &[f64] {
        let index = self.names.iter().position(|known| known == name).expect("a case of that name");
        &self.rounds[index]
    }

    /// Prints all cases, each with its ratio to the named one.
    pub(crate) fn print(&self, title: &str, base: &str) {
        println!("\n{title}");
        println!("{:<58} {:>10} {:>21} {:>9}", "case", "median ns", "quartiles ns", "ratio");
        for (name, rounds) in self.names.iter().zip(&self.rounds) {
            let (low, high) = (quantile(rounds, 0.25), quantile(rounds, 0.75));
            let ratio = median_ratio(rounds, self.of(base), &[]);
            println!(
                "{name:<58} {:>10.0} {:>21} {ratio:>8.2}x",
                quantile(rounds, 0.5),
                format!("{low:.0} to {high:.0}")
            );
        }
    }

    /// The ratio of two cases within rounds.
    pub(crate) fn ratio(&self, dear: &str, cheap: &str) -> f64 {
        median_ratio(self.of(dear), self.of(cheap), &[])
    }

    /// The median of a case, in nanoseconds per operation.
    pub(crate) fn median(&self, name: &str) -> f64 {
        quantile(self.of(name), 0.5)
    }

    /// By how many nanoseconds one case is dearer than another, within rounds.
    pub(crate) fn difference(&self, dear: &str, cheap: &str) -> f64 {
        let more: Vec<f64> = self.of(dear).iter().zip(self.of(cheap)).map(|(dear, cheap)| dear - cheap).collect();
        quantile(&more, 0.5)
    }

    /// Prints the ratio of `dear` to `cheap`, and the ratio with `bare` subtracted from both; each within rounds.
    pub(crate) fn print_ratio(&self, dear: &str, cheap: &str, bare: &str) {
        let whole = median_ratio(self.of(dear), self.of(cheap), &[]);
        let net = median_ratio(self.of(dear), self.of(cheap), self.of(bare));
        println!("{dear} / {cheap}: {whole:.1}x whole requests, {net:.1}x without the bare service");
    }
}

fn median_ratio(dear: &[f64], cheap: &[f64], bare: &[f64]) -> f64 {
    let off = |round: usize| bare.get(round).copied().unwrap_or(0.0);
    let ratios: Vec<f64> =
        dear.iter().zip(cheap).enumerate().map(|(round, (d, c))| (d - off(round)) / (c - off(round))).collect();
    quantile(&ratios, 0.5)
}

/// A quantile of a sample, by the nearest rank.
pub(crate) fn quantile(sample: &[f64], q: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((sorted.len() - 1) as f64 * q).round() as usize;
    sorted[rank]
}

/// Limits that nothing here reaches.
pub(crate) fn open_rates() -> Rates {
    let open = Rate::new(u32::MAX, Duration::from_nanos(1));
    Rates {
        login_per_address: open,
        login_per_account: open,
        login_per_client: open,
        refresh_per_address: open,
        refresh_per_session: open,
        forged_per_address: open,
        refused_per_address: open,
        forged_overall: open,
    }
}

/// The inner service: answers 1 KiB immediately.
#[derive(Clone, Copy)]
pub(crate) struct Inner;

impl Service<Request<Full<Bytes>>> for Inner {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        static ANSWER: [u8; 1024] = [b'a'; 1024];
        drop(std::hint::black_box(request));
        std::future::ready(Ok(Response::new(Full::new(Bytes::from_static(&ANSWER)))))
    }
}

/// A service whose reply has a header, as that of every upstream.
#[derive(Clone, Copy)]
pub(crate) struct Typed(pub(crate) Inner);

impl Service<Request<Full<Bytes>>> for Typed {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let mut reply = self.0.call(request).into_inner();
        if let Ok(reply) = &mut reply {
            reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        std::future::ready(reply)
    }
}

/// The heads of requests, one for each token. Each request gets a new head, as in a server; the bytes are shared.
pub(crate) struct Heads {
    uri: Uri,
    /// Where the credential is.
    name: HeaderName,
    credentials: Vec<HeaderValue>,
    /// Whether a page of this gate sends them.
    is_page: bool,
    next: usize,
}

impl Heads {
    /// One head for each token.
    pub(crate) fn new<'t>(tokens: impl IntoIterator<Item = &'t str>) -> Self {
        let values: Vec<_> = tokens.into_iter().map(|token| format!("Bearer {token}")).collect();
        Self { is_page: false, ..Self::of_page(header::AUTHORIZATION, values.iter().map(String::as_str)) }
    }

    /// Requests of a page of this gate in a browser, one for each value of this header.
    pub(crate) fn of_page<'t>(name: HeaderName, values: impl IntoIterator<Item = &'t str>) -> Self {
        let value = |value: &str| HeaderValue::from_maybe_shared(Bytes::from(value.to_owned())).unwrap();
        let credentials = values.into_iter().map(value).collect();
        Self { uri: Uri::from_static("/orders/4711/lines?page=2"), name, credentials, is_page: true, next: 0 }
    }

    /// The same, to another path.
    pub(crate) fn at(self, path: &'static str) -> Self {
        Self { uri: Uri::from_static(path), ..self }
    }

    /// The next request.
    pub(crate) fn request(&mut self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.reserve(8);
        headers.insert(header::HOST, HeaderValue::from_static("api.example.com"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bench/1"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
        let credential = self.credentials[self.next].clone();
        // A server has read these bytes from its socket just now: the service finds them in the processor's cache.
        std::hint::black_box(credential.as_bytes().iter().fold(0, |all, byte| all ^ byte));
        headers.insert(self.name.clone(), credential);
        if self.is_page {
            headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        }
        self.next = (self.next + 1) % self.credentials.len();
        request
    }
}

/// A whole request: built, answered, its body read to the end. Panics unless the service inside answered.
pub(crate) fn exchange<S, B>(service: &mut S, request: Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let response = service.call(request).now_or_never().expect("an answer at once").unwrap();
    assert_eq!(response.status(), http::StatusCode::OK);
    let body = response.into_body().collect().now_or_never().expect("a body at once").unwrap();
    assert_eq!(body.to_bytes().len(), 1024);
}

/// CPU time of this process so far, all threads (Linux); nothing elsewhere.
pub(crate) fn cpu_time() -> Option<Duration> {
    process_time(std::process::id())
}

/// CPU time of the threads of a process so far (Linux); nothing elsewhere.
pub(crate) fn process_time(process: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let spent = threads.map(|thread| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    spent.sum::<Option<u64>>().map(Duration::from_nanos)
}

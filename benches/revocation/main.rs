//! How long each kind of verifier still accepts a revoked access token.
//!
//!     cargo bench --bench revocation                     # all columns, about eight minutes
//!     cargo bench --bench revocation -- gates providers  # some of them
//!
//! *t0* is the moment at which the revoker has its response. Requests are sent at a fixed rate, whether earlier ones were
//! answered or not. An accepted request counts if it is sent after t0; the latency of a token is the time from t0 to the
//! last such request. At gates, tokens are tested in sequence, with a request each millisecond. Where a verdict lasts for
//! seconds, 200 tokens of a column are tested in turn, each once a second (five times at a gate without its store), until
//! the last token is refused.
//!
//! The bench starts `redis-server`, PostgreSQL, HAProxy, nginx and Envoy
//! (`bash tests/neighbours/install.sh target/interop-cache/neighbours`), and says which column is missing without one
//! of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

#[path = "../support/mod.rs"]
mod support;

mod elsewhere;
mod gates;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/edge/issuer.rs"]
mod issuer;
mod probe;
mod provider;
mod scene;

use std::time::Duration;

use probe::Latency;

/// The lifetime of access tokens.
pub(crate) const ACCESS: Duration = Duration::from_secs(300);

type Part = (&'static str, fn(&mut Table));

/// The parts, in order.
const PARTS: [Part; 6] = [
    ("gates", gates::run),
    ("kill", gates::kill),
    ("cut", gates::cut),
    ("streams", gates::streams),
    ("providers", provider::run),
    ("elsewhere", elsewhere::run),
];

/// The number of tokens of a column.
pub(crate) fn tokens(number: usize) -> usize {
    if support::measures() { number } else { 2 }
}

/// The figures, a line a column.
#[derive(Default)]
pub(crate) struct Table(Vec<String>);

impl Table {
    /// Adds a column, and prints it. `goal`: the longest acceptance at the 99th percentile.
    pub(crate) fn add(&mut self, name: &str, sample: &[Latency], goal: Option<Duration>) {
        let millis: Vec<f64> = sample.iter().map(|one| one.last.as_secs_f64() * 1e3).collect();
        let accepted: usize = sample.iter().map(|one| one.accepted).sum();
        let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|q| support::quantile(&millis, q));
        let met = match goal {
            None => "",
            Some(goal) if p99 <= goal.as_secs_f64() * 1e3 => "met",
            Some(_) => "NOT MET",
        };
        let goal = goal.map(|goal| format!("{:.0} ms", goal.as_secs_f64() * 1e3)).unwrap_or_default();
        let line =
            format!("| {name} | {} | {accepted} | {p50:.1} | {p99:.1} | {longest:.1} | {goal} | {met} |", sample.len());
        println!("{line}");
        self.0.push(line);
    }
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average {}\n", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
    println!("| verifier | tokens | requests accepted after t0 | p50, ms | p99, ms | longest, ms | goal for p99 | |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut table = Table::default();
    for (name, run) in PARTS {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            run(&mut table);
        }
    }
    assert!(!table.0.is_empty(), "no part has this name: {asked:?}");
}

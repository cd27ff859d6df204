//! The goals, and whether this run meets them.

use std::fmt::Write;

use anyhow::Result;

use crate::contender::Contender;
use crate::run::Measured;
use crate::serve::Kind;
use crate::sets::{
    ALGORITHMS, BEHIND_NGINX, CHECKS_AT_A_RATE, CONTENDERS, ENVOY_CACHED, EXT_AUTHZ, FORWARD_AUTH, HYPER, NEIGHBOURS,
    REFRESH, REMEMBERS, REVOCATIONS, ROTOGATE, TLS, TLS_HTTP2, UNGUARDED, VERIFIES, logged,
};
use crate::statistics::{Sample, Spread};

/// Rows of the set of algorithms.
const NEW_TOKENS: &str = "rotogate, RS256, each token new";
const VERIFYING: &str = "plain hyper proxy + jsonwebtoken, RS256";

/// The table of goals with the figures of this run. A goal that it does not measure names the place that does.
pub fn table(measured: &[Measured], trial: bool) -> Result<String> {
    let set = |key| measured.iter().find(move |measured| measured.set.key == key);
    let ratio_in = |key, of: &str, to: &str| {
        let set = set(key)?;
        Some(Spread::ratio(set.of(of)?, set.of(to)?))
    };
    let ratio = |of: Contender, to: Contender| ratio_in(CONTENDERS, of.name(), to.name());
    let text = String::from("## Goals\n\n| what | goal | measured | |\n|---|---|---|---|\n");
    let mut rows = Rows { text, trial };
    let jwt_verify = Contender::Haproxy { jwt: true };
    let haproxy = Contender::Haproxy { jwt: false };
    rows.at_most(
        "CPU of a request, RS256 used before, x the same proxy without auth",
        1.05,
        ratio(ROTOGATE, UNGUARDED),
        2,
    )?;
    rows.at_most("the same, x a plain hyper proxy without any check", 1.15, ratio(ROTOGATE, HYPER), 2)?;
    let logs = ratio_in(CONTENDERS, &logged(ROTOGATE), HYPER.name());
    rows.at_most("the same with the access log to a file on disk, x that proxy", 1.25, logs, 2)?;
    rows.at_most(
        "CPU of a request, RS256 used before, access log on both, x the same proxy without auth",
        1.05,
        ratio_in(CONTENDERS, &logged(ROTOGATE), &logged(UNGUARDED)),
        2,
    )?;
    let logged = set(CONTENDERS).and_then(|set| Some((set.of(&logged(ROTOGATE))?, set.of(ROTOGATE.name())?)));
    let line = logged
        .map(|(with, without)| Spread::of(with.iter().zip(without).map(|(with, without)| with.cpu - without.cpu)));
    rows.at_most("an access line, JSON with all fields, to a file on disk, beyond no log, us of CPU", 1.5, line, 1)?;
    rows.at_most(
        "CPU of a request, RS256 used before, x HAProxy `jwt_verify` RS256",
        0.42,
        ratio(ROTOGATE, jwt_verify),
        2,
    )?;
    rows.at_most("the same, x Envoy `jwt_authn` that remembers tokens", 0.47, ratio(ROTOGATE, ENVOY_CACHED), 2)?;
    rows.at_most("the same, x HAProxy without any check", 1.0, ratio(ROTOGATE, haproxy), 2)?;
    let relay = ratio(ROTOGATE, Contender::Rust(Kind::Relay));
    rows.row("the same, x a raw byte relay", "", relay.map(|relay| relay.to_string()).as_deref(), "")?;

    let nginx = Contender::Nginx { auth: None };
    for (what, bound, key, to) in [
        ("over TLS 1.3 and HTTP/2, x Envoy `jwt_authn` that remembers tokens", 0.55, TLS_HTTP2, ENVOY_CACHED),
        ("over TLS 1.3 and HTTP/2, x nginx without any check", 1.0, TLS_HTTP2, nginx),
        ("over TLS 1.3 and HTTP/1.1, x Envoy `jwt_authn` that remembers tokens", 0.5, TLS, ENVOY_CACHED),
        ("over TLS 1.3 and HTTP/1.1, x nginx without any check", 1.1, TLS, nginx),
    ] {
        rows.at_most(what, bound, ratio_in(key, ROTOGATE.name(), to.name()), 2)?;
    }
    let new = ratio_in(ALGORITHMS, NEW_TOKENS, VERIFYING);
    rows.at_most("a new RS256 token, x the hyper proxy with jsonwebtoken", 1.0, new, 2)?;
    for (what, bound, of, to) in [
        ("N29: CPU of a verdict of forward-auth, x the same request proxied", 0.60, FORWARD_AUTH, ROTOGATE),
        ("N29: CPU of a verdict of ext_authz, x the same request proxied", 0.60, EXT_AUTHZ, ROTOGATE),
        ("N29: nginx that asks rotogate, x nginx that asks a server that verifies", 0.75, BEHIND_NGINX, VERIFIES),
        ("N29: the same, x nginx that asks a server that only remembers", 1.15, BEHIND_NGINX, REMEMBERS),
    ] {
        rows.at_most(what, bound, ratio_in(NEIGHBOURS, of.name(), to.name()), 2)?;
    }
    let checks = set(NEIGHBOURS).and_then(|set| set.of(CHECKS_AT_A_RATE));
    let wait = checks.map(|samples| Spread::of(samples.iter().map(|sample| sample.p99)));
    rows.at_most("N29: ext_authz at 5000 verdicts a second: p99, ms", 2.0, wait, 2)?;

    let revocations = set(REVOCATIONS);
    let [none, most] = [revocations.and_then(|set| set.samples.get(1)), revocations.and_then(|set| set.samples.get(3))];
    let difference = |figure: fn(&Sample) -> f64| {
        let pairs = none?.iter().zip(most?);
        Some(Spread::of(pairs.map(move |(none, most)| figure(most) - figure(none))))
    };
    let name =
        revocations.and_then(|set| set.set.cells.get(3)).map_or("rotogate, the most revocations", |cell| &cell.name);
    let memory = difference(|sample| sample.resident);
    rows.at_most(&format!("{name}: memory more than with none, MiB, the store's cache included"), 100.0, memory, 0)?;
    let check = difference(|sample| sample.cpu * 1000.0);
    rows.at_most(&format!("{name}: CPU of a request more than with none, ns"), 50.0, check, 0)?;
    let start = most.map(|most| Spread::of(most.iter().map(|sample| sample.start)));
    rows.at_most(&format!("{name}: start until its first answer, ms"), 500.0, start, 0)?;

    let refresh = set(REFRESH).and_then(|set| set.samples.first());
    let refresh = refresh.map(|samples| Spread::of(samples.iter().map(|sample| sample.rate)));
    rows.at_least("refreshes over HTTP, each durable, a second and core", 5000.0, refresh)?;
    for (what, goal, place) in [
        ("what the layer adds to a hit", "at most 150 ns", "`cargo bench --bench layer`: [results](../RESULTS.md)"),
        (
            "rotations a second, 256 in flight, each durable",
            "at least 40 000",
            "`cargo bench --bench rotation`: [results](../RESULTS.md)",
        ),
        (
            "a revocation on the same node",
            "the next request",
            "not a figure: tests prove it, [security](../../docs/security.md)",
        ),
        (
            "a revocation on another node",
            "p99 at most 50 ms",
            "`cargo bench --bench nodes -- spread`: [several gates](../nodes/RESULTS.md)",
        ),
        ("`kill -9` among 64 chains, 1000 times", "nothing lost, forked or revived", "`bash tests/long.sh`"),
    ] {
        rows.row(what, goal, Some(place), "")?;
    }
    Ok(rows.text)
}

struct Rows {
    text: String,
    /// The run is too short to judge by.
    trial: bool,
}

impl Rows {
    fn row(&mut self, what: &str, goal: &str, measured: Option<&str>, verdict: &str) -> Result<()> {
        let verdict = if self.trial { "" } else { verdict };
        Ok(writeln!(self.text, "| {what} | {goal} | {} | {verdict} |", measured.unwrap_or("not in this run"))?)
    }

    fn at_most(&mut self, what: &str, bound: f64, measured: Option<Spread>, digits: usize) -> Result<()> {
        let verdict = measured.map_or("", |Spread { low, median, high }| match bound {
            _ if high <= bound => "met",
            _ if low > bound => "**not met**",
            _ if high - low > bound => "unknown: the rounds differ by more than that",
            _ if median <= bound => "met in the median, not in every round",
            _ => "**not met** in the median",
        });
        let measured = measured.map(|measured| format!("{measured:.digits$}"));
        self.row(what, &format!("at most {bound:.digits$}"), measured.as_deref(), verdict)
    }

    fn at_least(&mut self, what: &str, bound: f64, measured: Option<Spread>) -> Result<()> {
        let verdict = measured.map_or("", |Spread { low, median, high }| match bound {
            _ if low >= bound => "met",
            _ if high < bound => "**not met**",
            _ if median >= bound => "met in the median, not in every round",
            _ => "**not met** in the median",
        });
        let measured = measured.map(|measured| format!("{measured:.0}"));
        self.row(what, &format!("at least {bound:.0}"), measured.as_deref(), verdict)
    }
}

//! Much state in a shared store: its memory, a start among a million revocations, and a million that arrive while a gate
//! serves (C23).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::support::redis::Redis;
use ::support::{CONFIG, Gate, Place};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rotogate::store::{NetworkOptions, RedisOptions, RedisStore};
use uuid::Uuid;

use crate::contents::{begin_sessions, revoke};
use crate::shared::{ISSUER, Keys, LEEWAY, info, redis_store};
use crate::support::program::goal;
use crate::support::{measures, quantile};
use crate::{runtime, say};

/// Bytes of a session and of a revocation by the design of the store: the goal of `benches/nodes/RESULTS.md`.
const SESSION: f64 = 569.0;
const REVOCATION: f64 = 284.0;
/// The number of connections with requests while revocations arrive, and the rate of each.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(1);
/// The time from start to readiness.
const READY_SECONDS: f64 = 5.0;
/// The most that arriving revocations may add to the 99th percentile of cached requests.
const HIT_MILLIS: f64 = 1.0;

pub(crate) fn memory() {
    let number = if measures() { 200_000 } else { 500 };
    let (server, keys, runtime) = (Redis::start(&[]), Keys::new(), runtime());
    let store = runtime.block_on(redis_store(&server, &keys));
    let mut before = info(&server, "memory", "used_memory");
    let mut each = || {
        let after = info(&server, "memory", "used_memory");
        let each = (after - before) / number as f64;
        before = after;
        each
    };
    runtime.block_on(begin_sessions(&store, number));
    let session = each();
    runtime.block_on(revoke(&store, number..2 * number));
    let revocation = each();
    within("Redis: a session, with its place in the subject's index", session, SESSION);
    within("Redis: a revocation, with its places in index and log", revocation, REVOCATION);
    // The log keeps 15 minutes.
    server.cli(&["XTRIM", "{rg:0}:log", "MAXLEN", "0"]);
    say("  of it in the log, for 15 minutes", -each(), "B");
    say("a million sessions, computed", session * 1e6 / 1048576.0, "MiB");
    say("a million revocations, computed", revocation * 1e6 / 1048576.0, "MiB");
}

/// Prints a figure, and whether it is within a tenth of the goal.
fn within(name: &str, measured: f64, written: f64) {
    let met = if (measured / written - 1.0).abs() <= 0.1 { "met" } else { "NOT MET" };
    println!("{name:<58} {measured:>8.0} B   goal {written:>6.0} B   +-10 % {met}");
}

/// A gate in its own process, on a server with a million revocations that the gate does not have yet.
struct Million {
    server: Redis,
    place: Place,
}

impl Million {
    fn new(number: usize) -> Self {
        let server = Redis::start(&[]);
        let url = format!("redis://127.0.0.1:{}", server.port);
        let options =
            RedisOptions::new(url.as_str(), NetworkOptions::new(ISSUER, Uuid::from_u128(7), LEEWAY)).prefix("fill");
        let runtime = runtime();
        runtime.block_on(async {
            let store = RedisStore::connect(options).await.unwrap();
            revoke(&store, 0..number).await;
        });
        // Reading a million again may take longer than the default, and the gate would close for the rest of that time.
        let store = format!("[store]\nkind = \"redis\"\nurls = [\"{url}\"]\nstaleness = \"60s\"\n");
        let place = Place::new(&format!("{CONFIG}{store}"));
        Self { server, place }
    }

    fn start(&self) -> Gate {
        self.place.start_with(|command: &mut Command| {
            command.env("ROTOGATE_LOG", "warn");
        })
    }

    fn rename(&self, from: &str, to: &str) {
        for name in ["r", "u"] {
            self.server.cli(&["RENAME", &format!("{{{from}:0}}:{name}"), &format!("{{{to}:0}}:{name}")]);
        }
    }

    /// The log of the gate's store begins after the position of every reader, so each reader reads all live revocations
    /// again.
    fn trim(&self) {
        let id = self.server.cli(&["XADD", "{fill:0}:mark", "*", "e", "1"]);
        self.server.cli(&["HSET", "{rg:0}:h", "floor", &id]);
    }
}

pub(crate) fn status(gate: &Gate, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

pub(crate) fn million() {
    let (number, rounds) = if measures() { (1_000_000, 5) } else { (2000, 1) };
    let runtime = runtime();
    let begun = Instant::now();
    let all = Million::new(number);
    say("revocations written through the store, a second", number as f64 / begun.elapsed().as_secs_f64(), "/s");
    // The first start makes the store and the keys.
    let empty = all.start();
    let resident = status(&empty, "VmRSS:");
    drop(empty);

    all.rename("fill", "rg");
    let (mut ready, mut memory, mut peak) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let gate = all.start();
        runtime.block_on(async {
            while gate.admin_get("/readyz").await.status != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        ready.push(begun.elapsed().as_secs_f64());
        memory.push(status(&gate, "VmRSS:") - resident);
        peak.push(status(&gate, "VmHWM:") - resident);
    }
    goal(&format!("start with {number} live revocations: ready after"), quantile(&ready, 0.5), READY_SECONDS, "s");
    say("memory of the gate, more than with none", quantile(&memory, 0.5), "MiB");
    say("the same at its peak", quantile(&peak, 0.5), "MiB");
    all.rename("rg", "fill");

    let mut rounds: Vec<Arrival> = (0..rounds).map(|_| runtime.block_on(arrival(&all, number))).collect();
    rounds.sort_by(|a, b| (a.during - a.before).total_cmp(&(b.during - b.before)));
    let of = |of: fn(&Arrival) -> f64| quantile(&rounds.iter().map(of).collect::<Vec<_>>(), 0.5);
    println!("{CLIENTS} connections, a cached request each millisecond, while {number} revocations arrive at once");
    say("until the gate refuses by the last of them", of(|round| round.seconds), "s");
    say("p50 of a request before", of(|round| round.p50_before), "ms");
    say("p50 of a request meanwhile", of(|round| round.p50_during), "ms");
    say("p99 of a request before", of(|round| round.before), "ms");
    say("p99 of a request meanwhile", of(|round| round.during), "ms");
    goal("p99 more than before", of(|round| round.during - round.before), HIT_MILLIS, "ms");
}

/// The times of requests in milliseconds, before and while revocations arrive.
struct Arrival {
    seconds: f64,
    p50_before: f64,
    p50_during: f64,
    before: f64,
    during: f64,
}

const WAITING: usize = 0;
const BEFORE: usize = 1;
const DURING: usize = 2;

async fn arrival(all: &Million, number: usize) -> Arrival {
    let gate = Arc::new(all.start());
    let tokens: Vec<String> = vec![gate.login().await.access, gate.login().await.access];
    let (phase, stop) = (Arc::new(AtomicUsize::new(WAITING)), Arc::new(AtomicBool::new(false)));
    let clients = (0..CLIENTS).map(|client| {
        let (phase, stop, url) = (Arc::clone(&phase), Arc::clone(&stop), gate.url("/hello"));
        let token = tokens[client % tokens.len()].clone();
        tokio::spawn(async move {
            let line: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
            let mut took: [Vec<f64>; 3] = Default::default();
            while !stop.load(Ordering::Relaxed) {
                let request = Request::get(&url).header("authorization", format!("Bearer {token}"));
                let (of, asked) = (phase.load(Ordering::Relaxed), Instant::now());
                let answer = line.request(request.body(Full::default()).unwrap()).await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK);
                answer.into_body().collect().await.unwrap();
                took[of].push(asked.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(PAUSE).await;
            }
            took
        })
    });
    let clients: Vec<_> = clients.collect();
    let window = if measures() { Duration::from_secs(3) } else { Duration::from_millis(50) };
    tokio::time::sleep(window / 3).await;
    phase.store(BEFORE, Ordering::Relaxed);
    tokio::time::sleep(window).await;
    phase.store(DURING, Ordering::Relaxed);
    let begun = Instant::now();
    all.rename("fill", "rg");
    all.trim();
    let known = async || gate.metric("rotogate_revocations").await as usize;
    while known().await < number {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let mut took: [Vec<f64>; 3] = Default::default();
    for client in clients {
        let of_client = client.await.unwrap();
        took.iter_mut().zip(of_client).for_each(|(all, more)| all.extend(more));
    }
    drop(gate);
    all.rename("rg", "fill");
    let [_, before, during] = &took;
    Arrival {
        seconds,
        p50_before: quantile(before, 0.5),
        p50_during: quantile(during, 0.5),
        before: quantile(before, 0.99),
        during: quantile(during, 0.99),
    }
}

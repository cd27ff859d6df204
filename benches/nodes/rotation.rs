//! Rotations on a shared store, compared with the embedded store and with the speed of the server itself.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::support::redis::Redis;
use futures_util::StreamExt;
use futures_util::stream;
use rotogate::Gate;
use rotogate::gate::NewSession;
use rotogate::session::Scope;
use rotogate::store::RedbStore;
use rotogate::store::redb::Options;
use tokio::runtime::Runtime;

use crate::shared::{DURABLE, ISSUER, Keys, LEEWAY, benchmark, cpu, gate, redis_store};
use crate::support::{cpu_time, measures, quantile};
use crate::{runtime, say};

pub(crate) const IN_FLIGHT: usize = 64;
/// Few sessions, so that each is soon at the other gate.
const IN_TURN: usize = 256;
/// The least share of the rate of `redis-benchmark`.
const GOAL: f64 = 0.7;
/// The commands of a rotation: read the record, write it with its end, and count the write.
const SAME: &str = "local known = redis.call('GET', KEYS[1]) \
    redis.call('HINCRBY', KEYS[2], 'seq', 1) \
    redis.call('SET', KEYS[1], ARGV[1], 'PXAT', 4102444800000) \
    return known";

/// Sessions that rotate in turn, each at the next gate.
pub(crate) struct Sessions {
    gates: Vec<Gate>,
    tokens: Arc<Vec<Mutex<String>>>,
}

impl Sessions {
    pub(crate) async fn new(gates: Vec<Gate>, number: usize) -> Self {
        let scope = Scope::parse("read write").unwrap();
        let begun = (0..number).map(async |number| {
            let new = NewSession::new(format!("user-{number}"), "web").scope(scope.as_str()).unwrap();
            let issued = gates[0].sessions().start(new).await.unwrap();
            Mutex::new(issued.refresh_token.unwrap().expose().to_owned())
        });
        let tokens = stream::iter(begun).buffered(IN_FLIGHT).collect().await;
        Self { gates, tokens: Arc::new(tokens) }
    }

    /// Rotates for this time. Returns rotations a second, processor time of this process for each, and latencies, in
    /// µs.
    pub(crate) async fn round(&self, time: Duration) -> (f64, f64, Vec<f64>) {
        let (cpu, start) = (cpu_time(), Instant::now());
        let workers = (0..IN_FLIGHT).map(|worker| {
            let (gates, tokens) = (self.gates.clone(), Arc::clone(&self.tokens));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let own = tokens.len().div_ceil(IN_FLIGHT);
                for (turn, place) in tokens.iter().skip(worker).step_by(IN_FLIGHT).cycle().enumerate() {
                    // In each round, a session is at the next gate.
                    let gate = &gates[turn / own % gates.len()];
                    let asked = Instant::now();
                    if asked - start > time {
                        break;
                    }
                    let token = std::mem::take(&mut *place.lock().unwrap());
                    let next = gate.sessions().refresh(&token).await.unwrap();
                    latencies.push(asked.elapsed().as_secs_f64() * 1e6);
                    *place.lock().unwrap() = next.refresh_token.unwrap().expose().to_owned();
                }
                latencies
            })
        });
        let mut latencies = Vec::new();
        for worker in workers.collect::<Vec<_>>() {
            latencies.extend(worker.await.unwrap());
        }
        let (took, number) = (start.elapsed().as_secs_f64(), latencies.len() as f64);
        let cpu = cpu_time().zip(cpu).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64());
        (number / took, cpu * 1e6 / number, latencies)
    }
}

/// The figures of one round.
#[derive(Default)]
pub(crate) struct Rounds {
    pub(crate) rates: Vec<f64>,
    own_cpu: Vec<f64>,
    server_cpu: Vec<f64>,
    latencies: Vec<f64>,
}

impl Rounds {
    pub(crate) fn add(&mut self, (rate, cpu, latencies): (f64, f64, Vec<f64>), server_seconds: f64, took: Duration) {
        self.rates.push(rate);
        self.own_cpu.push(cpu);
        self.server_cpu.push(server_seconds * 1e6 / (rate * took.as_secs_f64()));
        self.latencies.extend(latencies);
    }

    pub(crate) fn print(&self, name: &str) {
        let median = |sample: &[f64]| quantile(sample, 0.5);
        let range = format!("{:.0} to {:.0}", quantile(&self.rates, 0.0), quantile(&self.rates, 1.0));
        let latency = |q| if self.latencies.is_empty() { f64::NAN } else { quantile(&self.latencies, q) };
        println!(
            "| {name} | {:.0} | {range} | {:.1} | {:.1} | {:.0} | {:.0} |",
            median(&self.rates),
            median(&self.own_cpu),
            median(&self.server_cpu),
            latency(0.5),
            latency(0.99)
        );
    }
}

pub(crate) fn run() {
    let (sessions, rounds, time) =
        if measures() { (20_000, 7, Duration::from_millis(1500)) } else { (256, 1, Duration::from_millis(20)) };
    let runtime = runtime();
    let (server, keys) = (Redis::start(&DURABLE), Keys::new());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = Options::new(ISSUER, keys.load().id(), LEEWAY);
    let redb = RedbStore::open(folder.path().join("rotogate.redb"), options).unwrap();
    let begin = |runtime: &Runtime| {
        runtime.block_on(async {
            let gate_on_redis = async || gate(Arc::new(redis_store(&server, &keys).await), &keys).await;
            let on_redis = Sessions::new(vec![gate_on_redis().await], sessions).await;
            let in_turn = Sessions::new(vec![gate_on_redis().await, gate_on_redis().await], IN_TURN).await;
            let on_redb = Sessions::new(vec![gate(Arc::new(redb), &keys).await], sessions).await;
            (on_redis, in_turn, on_redb)
        })
    };
    let (on_redis, in_turn, on_redb) = begin(&runtime);
    let value = "x".repeat(length_of_record(&server));
    let script = server.cli(&["SCRIPT", "LOAD", SAME]);
    let requests = if measures() { 60_000 } else { 200 };
    let mut all: [Rounds; 5] = Default::default();
    let tool = |command: &[&str]| {
        let before = cpu(&server);
        let rate = benchmark(&server, requests, command);
        ((rate, f64::NAN, Vec::new()), cpu(&server) - before, Duration::from_secs_f64(requests as f64 / rate))
    };
    for round in 0..rounds {
        let mut order = [0, 1, 2, 3, 4];
        if round % 2 == 1 {
            order.reverse();
        }
        for case in order {
            let (before, start) = (cpu(&server), Instant::now());
            match case {
                0 => {
                    let done = runtime.block_on(on_redis.round(time));
                    all[0].add(done, cpu(&server) - before, start.elapsed());
                }
                1 => {
                    let done = runtime.block_on(on_redb.round(time));
                    all[1].add(done, f64::NAN, start.elapsed());
                }
                2 => {
                    let key = ["EVALSHA", &script, "2", "bench:{1}:__rand_int__", "bench:{1}:h", &value];
                    let (done, cpu, took) = tool(&key);
                    all[2].add(done, cpu, took);
                }
                4 => {
                    let done = runtime.block_on(in_turn.round(time));
                    all[4].add(done, cpu(&server) - before, start.elapsed());
                }
                _ => {
                    let (done, cpu, took) = tool(&["SET", "bench:{1}:__rand_int__", &value]);
                    all[3].add(done, cpu, took);
                }
            }
        }
    }
    println!("{IN_FLIGHT} in flight, {sessions} sessions, records of {} bytes, appendfsync always\n", value.len());
    println!("| | a second | worst to best | CPU us each | CPU us of Redis each | p50 us | p99 us |");
    println!("|---|---|---|---|---|---|---|");
    all[0].print("rotation by the gate on Redis that made the last one");
    all[4].print("rotation by two gates on Redis in turn");
    all[1].print("rotation by a gate on redb");
    all[2].print("redis-benchmark -c 64, EVALSHA of the same read and writes");
    all[3].print("redis-benchmark -c 64, SET of such a record");
    println!();
    let ratio = |ours: usize, other: usize| {
        let ratios: Vec<f64> = all[ours].rates.iter().zip(&all[other].rates).map(|(a, b)| a / b).collect();
        quantile(&ratios, 0.5)
    };
    at_least("rotations on Redis, x redis-benchmark with EVALSHA", ratio(0, 2), GOAL);
    say("the same by two gates in turn", ratio(4, 2), "x");
    say("the same by one gate, x redis-benchmark with SET", ratio(0, 3), "x");
    say("the same, x rotations on redb", ratio(0, 1), "x");
    let each = quantile(&all[0].server_cpu, 0.5);
    say("one core of Redis carries, computed from its CPU", 1e6 / each, "/s");
    say("the same at 40 % of it", 0.4e6 / each, "/s");
}

/// The length of a session's record.
fn length_of_record(server: &Redis) -> usize {
    // Their ids are binary, so a script asks for the length.
    let script = "local key = redis.call('SCAN', 0, 'MATCH', '{rg:0}:s:*', 'COUNT', 10000)[2][1] \
        return redis.call('STRLEN', key)";
    server.cli(&["EVAL", script, "0"]).parse().unwrap()
}

pub(crate) fn at_least(name: &str, measured: f64, limit: f64) {
    let met = if measured >= limit { "met" } else { "NOT MET" };
    println!("{name:<58} {measured:>8.2} x   goal {limit:>6.2} x   {met}");
}

pub(crate) fn at_most(name: &str, measured: f64, limit: f64) {
    let met = if measured <= limit { "met" } else { "NOT MET" };
    println!("{name:<58} {measured:>8.3} x   goal {limit:>6.2} x   {met}");
}

//! The cost of each further gate for the server, at rest and for each revocation, and a simulation of one server with
//! these costs and many gates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::support::redis::Redis;
use rotogate::store::{Cursor, RedisStore, Store};
use rotogate_core::clock::SystemTime;
use rotogate_core::store::Follow;
use rotogate_core::store::Staleness;
use tokio::task::JoinSet;

use crate::contents::revoke;
use crate::say;
use crate::shared::{Keys, cpu, info, redis_store};
use crate::support::{measures, quantile};

/// The number of gates that follow the store besides one.
const MORE: usize = 40;
/// Logouts a second of a million sessions, and rotations, as `benches/nodes/RESULTS.md` has them.
const LOGOUTS: f64 = 35.0;
const ROTATIONS: f64 = 1700.0;
/// Processor time of Redis for a rotation, in µs: the figure of the part `rotation`, if that part does not run.
const ROTATION_MICROS: f64 = 20.0;

/// Server time and traffic so far: seconds, bytes in, bytes out.
#[derive(Clone, Copy)]
struct Spent {
    at: Instant,
    cpu: f64,
    read: f64,
    written: f64,
}

impl Spent {
    fn now(server: &Redis) -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu(server),
            read: info(server, "stats", "total_net_input_bytes"),
            written: info(server, "stats", "total_net_output_bytes"),
        }
    }

    /// The costs since `before`, divided by `number`.
    fn since(self, before: Self, number: f64) -> Cost {
        Cost {
            micros: (self.cpu - before.cpu) * 1e6 / number,
            read: (self.read - before.read) / number,
            written: (self.written - before.written) / number,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Cost {
    micros: f64,
    read: f64,
    written: f64,
}

impl Cost {
    fn less(self, other: Self, number: f64) -> Self {
        Self {
            micros: (self.micros - other.micros) / number,
            read: (self.read - other.read) / number,
            written: (self.written - other.written) / number,
        }
    }
}

/// Follows as a gate does.
async fn follow(store: Arc<RedisStore>) {
    let follow = Follow { time: Arc::new(SystemTime::new()), every: Staleness::default().every(), row: Arc::default() };
    let (_, from) = store.revocations_since(Cursor::default()).await.unwrap();
    let mut feed = store.shared().unwrap().follow(from, follow).await.unwrap();
    loop {
        feed.next().await.unwrap();
    }
}

struct Measured {
    connections: f64,
    idle: Cost,
    entry: Cost,
}

/// The costs with this many followers: of a second without writes, and of a revocation, with pauses between
/// revocations.
async fn measure(server: &Redis, keys: &Keys, followers: usize) -> Measured {
    let (time, entries) = if measures() { (Duration::from_secs(8), 1500) } else { (Duration::from_millis(600), 20) };
    let writer = redis_store(server, keys).await;
    let alone = info(server, "clients", "connected_clients");
    let mut following = JoinSet::new();
    for _ in 0..followers {
        following.spawn(follow(Arc::new(redis_store(server, keys).await)));
    }
    tokio::time::sleep(time / 4).await;
    let connections = (info(server, "clients", "connected_clients") - alone) / followers as f64;
    let before = Spent::now(server);
    tokio::time::sleep(time).await;
    let idle = Spent::now(server);
    let seconds = (idle.at - before.at).as_secs_f64();
    let idle = idle.since(before, seconds);
    let before = Spent::now(server);
    let first = usize::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    for number in 0..entries {
        revoke(&writer, first + number..first + number + 1).await;
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    let spent = Spent::now(server);
    let seconds = (spent.at - before.at).as_secs_f64();
    let each = spent.since(before, entries as f64);
    // Without the costs of the followers at rest.
    let per = |idle: f64| idle * seconds / entries as f64;
    let rest = Cost { micros: per(idle.micros), read: per(idle.read), written: per(idle.written) };
    Measured { connections, idle, entry: each.less(rest, 1.0) }
}

pub(crate) fn run() {
    let more = if measures() { MORE } else { 2 };
    let runtime = crate::runtime();
    let (server, keys) = (Redis::start(&[]), Keys::new());
    let few = runtime.block_on(measure(&server, &keys, 1));
    let many = runtime.block_on(measure(&server, &keys, more + 1));
    let idle = many.idle.less(few.idle, more as f64);
    let entry = many.entry.less(few.entry, more as f64);
    say("connections of a node", many.connections, "");
    say("CPU of Redis for a node at rest, a second", idle.micros, "us");
    say("bytes to and from a node at rest, a second", idle.read + idle.written, "B");
    say("CPU of Redis for a revocation, and one node's feed", few.entry.micros, "us");
    say("CPU of Redis for it in each further node's feed", entry.micros, "us");
    say("bytes to each node for it", entry.written, "B");
    say("bytes from each node for it", entry.read, "B");

    let start = runtime.block_on(async {
        let entries = if measures() { 50_000 } else { 200 };
        let writer = redis_store(&server, &keys).await;
        revoke(&writer, 0..entries).await;
        let live = info_of_live(&server);
        let before = Spent::now(&server);
        writer.revocations().await.unwrap();
        Spent::now(&server).since(before, live)
    });
    say("a start: bytes for each live revocation", start.written, "B");
    say("a start: CPU of Redis for each live revocation", start.micros, "us");

    println!("\ncomputed from these, and simulated: one core of Redis, a million active sessions\n");
    println!(
        "| gates | beats/s | connections | bytes/s at rest | feed bytes/s | core used | revocation here: p50 ms | p99 ms | \
         with an entry a rotation: core used | all start at once, 1 M entries: GB | core s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let beat = idle.micros / (1.0 / Staleness::default().every().as_secs_f64());
    for nodes in [10.0, 100.0, 1000.0] {
        let costs = Costs { beat, entry: few.entry.micros, wake: entry.micros };
        let (used, delays) = simulate(nodes as usize, costs);
        let core = |entries: f64| {
            (nodes * (idle.micros + entries * entry.micros) + ROTATIONS * ROTATION_MICROS + entries * few.entry.micros)
                / 1e4
        };
        println!(
            "| {nodes} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} % | {:.1} | {:.1} | {:.0} % | {:.1} | {:.0} |",
            nodes / Staleness::default().every().as_secs_f64(),
            nodes * many.connections,
            nodes * (idle.read + idle.written),
            nodes * LOGOUTS * (entry.read + entry.written),
            used * 100.0,
            quantile(&delays, 0.5),
            quantile(&delays, 0.99),
            core(ROTATIONS),
            nodes * start.written * 1e6 / 1e9,
            nodes * start.micros,
        );
    }
}

fn info_of_live(server: &Redis) -> f64 {
    server.cli(&["HLEN", "{rg:0}:r"]).parse().unwrap()
}

/// Microseconds of the server.
#[derive(Clone, Copy)]
struct Costs {
    beat: f64,
    entry: f64,
    wake: f64,
}

/// Simulates one core that works in the order of arrival, for a minute: rotations and logouts at random times, the beats of
/// each node at regular times, and for each logout an answer to every node. Returns the used share of the core, and the
/// milliseconds from each acknowledgement to the answer of each node.
fn simulate(nodes: usize, costs: Costs) -> (f64, Vec<f64>) {
    const SECONDS: f64 = 60.0;
    let mut random = fastrand::Rng::with_seed(7);
    let mut arrivals: Vec<(f64, f64, bool)> = Vec::new();
    let mut at_random = |rate: f64, micros: f64, is_logout: bool, random: &mut fastrand::Rng| {
        let mut at = 0.0;
        loop {
            at += -(1.0 - random.f64()).ln() / rate;
            if at > SECONDS {
                break;
            }
            arrivals.push((at, micros, is_logout));
        }
    };
    at_random(ROTATIONS, ROTATION_MICROS, false, &mut random);
    at_random(LOGOUTS, costs.entry, true, &mut random);
    let every = Staleness::default().every().as_secs_f64();
    for _ in 0..nodes {
        let mut at = random.f64() * every;
        while at < SECONDS {
            arrivals.push((at, costs.beat, false));
            at += every;
        }
    }
    arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut free, mut used, mut delays) = (0.0_f64, 0.0, Vec::new());
    for (at, micros, is_logout) in arrivals {
        let mut spend = |micros: f64| {
            free = free.max(at) + micros / 1e6;
            used += micros / 1e6;
            free
        };
        let acknowledged = spend(micros);
        if is_logout {
            // Redis answers clients that wait for a key right after the command that wrote the key.
            delays.extend((0..nodes).map(|_| (spend(costs.wake) - acknowledged) * 1e3));
        }
    }
    (used / free.max(SECONDS), delays)
}

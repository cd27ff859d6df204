//! A4: four times the load that the machine carries, from wrk and h2load at once, together with slow clients of every
//! kind. The gate sheds the excess with `Retry-After`, answers health checks throughout, stays within its memory bound,
//! and is as before after the load.
//!
//! A few seconds of it run with all tests; `bash tests/long.sh overload` takes a minute, in two rounds. All programs
//! share this machine, so other load changes the printed figures.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod attacks;
mod slow;
mod tools;
mod upstream;
mod watch;

use std::fs;
use std::time::Duration;

use slow::Slow;
use support::pki::Pki;
use support::tls_client::Client;
use support::{CONFIG, Gate, Place, until};
use tokio::time::Instant;
use tools::{Load, h2load, wrk};

/// The bounds of the gate, so low that a machine with two cores exceeds each of them.
const MAX_REQUESTS: usize = 1000;
const MAX_CONNECTIONS: usize = 1500;
/// The connections of wrk for a measurement: so few that the gate refuses none.
const FEW: usize = 256;
/// The connections of wrk for the overload: with the slow clients, more than the gate has places.
const MANY: usize = 1400;
/// The connections of h2load, each with up to a hundred requests in flight.
const HTTP2: usize = 32;
/// The memory bound of a gate under the whole load, in MiB: for each connection and each request in flight, a head and
/// the buffered parts of its bodies.
const MEMORY: u64 = 500;

fn config(upstream: std::net::SocketAddr) -> String {
    let server = format!(
        "max_requests = {MAX_REQUESTS}\nmax_connections = {MAX_CONNECTIONS}\n\
         for_tests.max_requests_per_address = \"100%\"\nfor_tests.max_requests_per_caller = \"100%\"\n\
         max_connections_per_address = 100000\nhead_timeout = \"3s\"\nfor_tests.idle_timeout = \"3s\"\n"
    );
    let tls =
        "[[server.listeners]]\naddress = \"127.0.0.1:0\"\ntls = { cert = \"server.pem\", key = \"server.key\" }\n";
    let upstreams = format!(
        "urls = [\"http://{upstream}\"]\nmax_requests = 4096\nfor_tests.max_requests_per_caller = 4096\nfor_tests.max_requests_per_address = 4096\nidle_timeout = \"30s\""
    );
    let config = support::with(CONFIG, "server", &server).replace("urls = [\"echo:\"]", &upstreams);
    config.replace("[admin]\n", &format!("{tls}[admin]\n"))
}

/// The most memory that a process ever took, in MiB.
fn peak(gate: &Gate) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gate.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

async fn overload(rounds: usize, seconds: u64) {
    let upstream = upstream::start();
    let pki = Pki::new();
    let place = Place::new(&config(upstream));
    pki.issue(&["gate.test"]).write(&place, "server");
    let gate = place.start_with(|command| {
        command.env("ROTOGATE_LOG", "warn");
    });
    let [clear, secure] = gate.addresses[..] else { panic!("two listeners") };
    let token = gate.login().await.access;
    let url = |scheme: &str, address| format!("{scheme}://{address}/private");
    let quiet = peak(&gate);

    // The capacity of the machine, with the fewest clients that keep it busy.
    let measured = wrk(&url("http", clear), &token, FEW, seconds.div_ceil(5)).await;
    assert_eq!(measured.refused, 0, "{measured:?}");
    let capacity = measured.per_second();
    println!("carries {capacity:.0} requests a second; {quiet} MiB before");

    let mut peaks = Vec::new();
    for _ in 0..rounds {
        let health = watch::health(gate.admin);
        let client = Client::new(&pki, &["h2"]).open(secure, "gate.test").await.unwrap();
        let patient = watch::ask(client, "/private", &token);
        let client = Client::new(&pki, &["http/1.1"]).open(secure, "gate.test").await.unwrap();
        let patient_too = watch::ask(client, "/private", &token);
        let slow = Slow::start(clear);
        let (begun, refused) = (Instant::now(), overloaded(&gate).await);
        let offered = 4.0 * capacity;
        let (by_h2load, by_wrk) = (url("https", secure), url("http", clear));
        let [by_h2load, by_wrk]: [Load; 2] =
            tokio::join!(h2load(&by_h2load, &token, HTTP2, offered, seconds), wrk(&by_wrk, &token, MANY, seconds))
                .into();
        let took = begun.elapsed().as_secs_f64();
        let health = health.end().await;
        let asked = [patient.end().await, patient_too.end().await];
        let cut = slow.end();
        peaks.push(peak(&gate));

        println!(
            "{took:.0} s; h2load, which would send {offered:.0} a second: {by_h2load}\nwrk, {MANY} connections: {by_wrk}"
        );
        println!("clients that wait for each answer: {} and {}", asked[0], asked[1]);
        println!("health: {health}; slow clients, each of {cut}; at most {} MiB", peaks.last().unwrap());
        assert!(health.is_well(), "{health}");
        assert!(asked.iter().all(|asked| asked.are_told_when()), "{asked:?}");
        assert!(asked.iter().any(|asked| asked.served() > 0), "nobody was served any more: {asked:?}");
        assert!(overloaded(&gate).await > refused, "nothing was refused");
        assert!(by_h2load.served + by_wrk.served > 0, "nothing was served");
        assert!(cut.are_cut(), "{cut}");
        assert!(*peaks.last().unwrap() < MEMORY, "{peaks:?} MiB");

        // The gate recovers without help: the test waits only for the end of the load.
        until("nothing is under way", async || gate.metric("rotogate_requests_in_flight").await == 0).await;
        let mut normal = Client::new(&pki, &["h2"]).open(secure, "gate.test").await.unwrap();
        assert_eq!(normal.get("gate.test", "/public/x").await.unwrap().status, 200);
        assert_eq!(gate.get("/private", &token).await.status, 200);
        assert_eq!(gate.admin_get("/readyz").await.status, 200);
    }
    if let [first, .., last] = peaks[..] {
        assert!(last <= first + first / 4, "it grows with each round: {peaks:?} MiB");
    }
}

/// The number of requests to the route that were refused as too many.
async fn overloaded(gate: &Gate) -> u64 {
    gate.metric("rotogate_requests_total{route=\"/{*rest}\",outcome=\"overloaded\",code=\"503\"}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_four_times_too_much_is_shed_and_leaves_nothing_behind() {
    overload(1, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute: bash tests/long.sh overload"]
async fn a4_four_times_too_much_for_a_minute_is_shed_and_leaves_nothing_behind() {
    let seconds = std::env::var("OVERLOAD_SECONDS").map_or(60, |text| text.parse().expect("OVERLOAD_SECONDS"));
    tokio::time::timeout(Duration::from_secs(10 * seconds), overload(2, seconds / 2 - 4)).await.expect("a hang");
}

/// The shipped bounds, one token, an idle upstream: the first measurement of a gateway.
async fn alone(number: usize, shapes: &[(usize, usize)]) {
    let mut places = Vec::new();
    for urls in [format!("http://{}", upstream::start()), "echo:".to_owned()] {
        let config = CONFIG.replace("urls = [\"echo:\"]", &format!("urls = [\"{urls}\"]"));
        places.push(Place::new(&config));
    }
    for place in &places {
        let gate = place.start_with(|command| {
            command.env("ROTOGATE_LOG", "warn");
        });
        let token = gate.login().await.access;
        let url = format!("http://{}/private", gate.address);
        for (connections, streams) in shapes.iter().copied() {
            let load = tools::requests(&url, &token, number, connections, streams).await;
            println!("{number} over {connections} connections, {streams} at a time: {} refused", load.refused);
            assert_eq!(load.refused, 0, "{connections} x {streams}: {load:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a17_one_token_alone_is_never_refused() {
    alone(2000, &[(200, 1), (16, 16)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: bash tests/long.sh overload"]
async fn a17_one_token_alone_is_never_refused_in_many_requests() {
    alone(20_000, &[(32, 1), (128, 1), (256, 1), (1000, 1), (16, 16), (32, 32)]).await;
}

/// The present memory of a process, in MiB.
fn resident(gate: &Gate) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gate.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Connections that make the gate keep most of a head, and then end. Prints the memory before, at the peak, and after
/// this time.
async fn memory(rest: Duration) {
    use std::io::Write;
    use std::net::TcpStream;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    const HEADS: usize = 2500;
    let bounds = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: bounds.maximum, ..bounds }).unwrap();
    let server = "max_connections_per_address = 10000\nhead_timeout = \"60s\"\n";
    let gate_place = Place::new(&support::with(CONFIG, "server", server));
    let gate = gate_place.start();
    assert_eq!(gate.get("/public/x", "").await.status, 200);
    let before = resident(&gate);
    let head = format!("GET /public/x HTTP/1.1\r\nHost: gate.test\r\nX-A: {}", "x".repeat(30_000));
    let connections: Vec<TcpStream> = (0..HEADS)
        .map(|_| {
            let mut connection = TcpStream::connect(gate.address).unwrap();
            connection.write_all(head.as_bytes()).unwrap();
            connection
        })
        .collect();
    let all = HEADS as u64 * head.len() as u64 / (1 << 20);
    let mut peak = 0;
    until("the heads are kept", async || {
        peak = resident(&gate);
        peak > before + all
    })
    .await;
    drop(connections);
    until("most of it is given back", async || resident(&gate) < before + (peak - before) / 2).await;
    tokio::time::sleep(rest).await;
    println!("{before} MiB before, {peak} MiB at the peak, {} MiB {rest:?} later", resident(&gate));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a15_memory_goes_back_to_the_system_after_a_flood() {
    memory(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute: bash tests/long.sh overload"]
async fn a15_memory_a_minute_after_a_flood() {
    memory(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_an_attack_costs_others_next_to_nothing_and_memory_stays_within_its_bound() {
    attacks::attacks(&attacks::Settings { time: Duration::from_millis(1500), pinned: None }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: bash tests/long.sh attacks"]
async fn a16_each_attack_for_longer_costs_others_next_to_nothing() {
    let seconds = std::env::var("ATTACK_SECONDS").map_or(20, |text| text.parse().expect("ATTACK_SECONDS"));
    let pinned = std::env::var("ATTACK_GATE_CPU").ok().map(|text| text.parse().expect("ATTACK_GATE_CPU"));
    attacks::attacks(&attacks::Settings { time: Duration::from_secs(seconds), pinned }).await;
}

//! A16: the load of one address, one token, one client or one upstream hardly affects the others.
//!
//! Each attack runs alone, then all attacks together, from separate addresses. Meanwhile clients at other addresses
//! read, refresh and log in: at least 99 % of their requests get the right answer, and the gate's memory stays below the
//! bound in docs/edge.md. A short form runs with all tests; `bash tests/long.sh attacks` runs each attack longer, with
//! the gate on a separate processor, and prints the other clients' p99 with and without the attack.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::resident;
use support::{CONFIG, Place, until};

mod attack;
mod others;

use attack::{Attack, Target};
use others::{Others, Seen};

/// The part of the other clients' requests that must get the right answer.
const RIGHT: f64 = 0.99;
/// With fewer answers the share means nothing: a single wrong answer would exceed it.
const ANSWERS: usize = 200;
/// The factor by which the attack may lengthen the other clients' waits.
const SLOWER: f64 = 2.0;
/// The number of other clients, each with its own address and user.
const OTHERS: u8 = 16;
/// The number of users that attack from one address.
const TROLLS: u8 = 10;
const PASSWORD: &str = "a long enough password";

const MAX_CONNECTIONS: u64 = 1000;
const MAX_REQUESTS: u64 = 800;
const MAX_BUFFERED_MIB: u64 = 32;
const VERIFIED_CACHE_MIB: u64 = 16;
const WORKERS: u64 = 2;

/// The memory bound of a gate, in MiB, from docs/edge.md, "Memory".
const fn memory_bound() -> u64 {
    let base = 64;
    let (connections, requests) = (MAX_CONNECTIONS * 50 / 1024, MAX_REQUESTS * 225 / 1024);
    base + MAX_BUFFERED_MIB + VERIFIED_CACHE_MIB + WORKERS * 8 + connections + requests
}

fn config(quick: SocketAddr, hanging: SocketAddr) -> String {
    let server = format!(
        "workers = {WORKERS}\nmax_connections = {MAX_CONNECTIONS}\nmax_requests = {MAX_REQUESTS}\n\
         max_buffered = \"{MAX_BUFFERED_MIB}MiB\"\n"
    );
    // The shipped limits, unlike the wide limits of other tests.
    let (head, rest) = CONFIG.split_once("[limits]\n").unwrap();
    let (_, rest) = rest.split_once("[[clients]]").unwrap();
    let limits = format!("[limits]\nverified_cache = \"{VERIFIED_CACHE_MIB}MiB\"\n[[clients]]");
    let routes = format!(
        "[[endpoints]]\ndialect = \"kuzzle\"\npath = \"/kuzzle\"\n\
         [[endpoints]]\ndialect = \"knox\"\n\
         [[endpoints]]\ndialect = \"browser\"\n\
         [[upstreams]]\nname = \"hanging\"\nurls = [\"http://{hanging}\"]\nmax_requests = 200\n\
         [[routes]]\npath = \"/hanging/{{*rest}}\"\nupstream = \"hanging\"\n\
         [[routes]]\npath = \"/public-hanging/{{*rest}}\"\nauth = \"none\"\nupstream = \"hanging\"\n\
         [[routes]]\npath = \"/pages/{{*rest}}\"\ncredentials = [\"token\", \"session\"]\nupstream = \"hanging\"\n"
    );
    let config = format!("{head}{limits}{rest}{routes}");
    // Sessions of browsers need https, which a server in front of the gate ends.
    support::with(&config.replace("http://gate.test", "https://gate.test"), "server", &server)
        .replace("urls = [\"echo:\"]", &format!("urls = [\"http://{quick}\"]\nmax_requests = 200"))
}

/// The observations during an attack.
struct Round {
    name: &'static str,
    seen: Seen,
    peak: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:24} {}, at most {} MiB", self.name, self.seen, self.peak)
    }
}

/// The settings of a run.
pub(crate) struct Settings {
    /// The duration of each attack, or longer, until the other clients have enough answers.
    pub(crate) time: Duration,
    /// The processor of the gate; all other programs use the others.
    pub(crate) pinned: Option<usize>,
}

pub(crate) async fn attacks(settings: &Settings) {
    let (quick, hanging) = (crate::upstream::start(), others::hanging().await);
    let place = Place::new(&config(quick, hanging));
    let users: Vec<String> = (0..OTHERS).map(|n| format!("user{n}")).collect();
    let trolls: Vec<String> = (0..TROLLS).map(|n| format!("troll{n}")).collect();
    let names = users.iter().chain(&trolls).map(String::as_str).chain(["mallory"]);
    for name in names {
        assert_eq!(place.run(&["user", "add", name, "--scopes", "read"], PASSWORD).code, Some(0));
    }
    let gate = match settings.pinned {
        Some(processor) => place.start_in_shell(&format!("ROTOGATE_LOG=warn exec taskset -c {processor} \"$@\"")),
        None => place.start_with(|command| {
            command.env("ROTOGATE_LOG", "warn");
        }),
    };
    let target = Arc::new(Target::new(&gate, &trolls, PASSWORD).await);
    let watched = others::prepare(gate.address, &users, PASSWORD).await;
    let round = async |name, attacks: &[Attack], watched: Vec<others::Client>| {
        let mut running = JoinSet::new();
        for attack in attacks {
            attack.start(&target, &mut running);
        }
        let (others, begun) = (Others::start(watched), Instant::now());
        let mut peak = 0;
        while begun.elapsed() < settings.time || others.answers() < ANSWERS {
            peak = peak.max(resident(&gate));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (seen, watched) = others.end().await;
        running.shutdown().await;
        (Round { name, seen, peak }, watched)
    };

    let before = resident(&gate);
    let (quiet, mut watched) = round("no attack", &[], watched).await;
    println!("{quiet}; {before} MiB before; bound {} MiB", memory_bound());
    assert!(quiet.seen.right() >= RIGHT, "without any attack: {quiet}: {:?}", quiet.seen.wrong);
    let mut rounds = Vec::new();
    for attack in Attack::ALL {
        target.cookies();
        let begun = Instant::now();
        let (one, again) = round(attack.name(), &[attack], watched).await;
        watched = again;
        println!("{one}; {}", attack.offered());
        if matches!(attack, Attack::Cookies) {
            println!(
                "forged cookies answered a second: {:.0}",
                target.cookies() as f64 / begun.elapsed().as_secs_f64()
            );
        }
        rounds.push(one);
    }
    let (all, _) = round("all of them", &Attack::ALL, watched).await;
    println!("{all}");
    rounds.push(all);
    until("nothing is under way", async || gate.metric("rotogate_requests_in_flight").await == 0).await;
    println!("afterwards {} MiB", resident(&gate));
    for round in &rounds {
        let slower = round.seen.p99().as_secs_f64() / quiet.seen.p99().as_secs_f64().max(0.001);
        let met = if slower <= SLOWER { "met" } else { "not met" };
        println!("p99 of others, {}: {slower:.1} times that without an attack; goal {SLOWER}: {met}", round.name);
    }
    for round in &rounds {
        assert!(round.seen.right() >= RIGHT, "{round}: {:?}", round.seen.wrong);
        assert!(round.peak < memory_bound(), "{round}: bound {} MiB", memory_bound());
    }
}

//! A start of the program itself on a store of many live revocations: from exec to the first answer of its listener.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rotogate::store::redb::{Options, RedbStore};
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::keyring::Keyring;
use rustix::process::{Pid, Signal, kill_process};

use super::contents::{self, LEEWAY};
use super::support::program::{folder, free_port, goal, rotogate};
use super::support::{measures, quantile};
use super::{Kind, OPENED};

/// The goal for a million revocations.
const GOAL: Duration = Duration::from_millis(500);
const REVOCATIONS: usize = 1_000_000;
const URL: &str = "http://gate.test";
/// The time limit when the bench runs only as a test.
const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:PORT"
public_url = "http://gate.test"
[admin]
listen = "127.0.0.1:ADMIN"
[issuer]
audience = ["api"]
keys = "data/keys"
[store]
path = "data/rotogate.redb"
mark = "data/keys/store.mark"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

pub(super) fn print() {
    println!("\n## a start of the program\n");
    let many = if measures() { REVOCATIONS } else { 500 };
    let (empty, full) = (of(0), of(many));
    println!("with no revocation: {:.0} ms to the first answer; with {many}:", empty.0);
    goal("first answer after a clean end", full.0, GOAL.as_secs_f64() * 1e3, "ms");
    println!("first answer after a crash, which reads every page: {:.0} ms", full.1);
}

/// Milliseconds to the first answer, after a clean end and after a crash.
fn of(revocations: usize) -> (f64, f64) {
    let ports @ [port, admin] = [free_port(), free_port()];
    let folder = folder(|_| CONFIG.replace("PORT", &port.to_string()).replace("ADMIN", &admin.to_string()));
    let data = folder.path().join("data");
    let keyring = Keyring::create(&data.join("keys"), Algorithm::EdDsa).unwrap();
    let options = Options::new(URL, keyring.id(), LEEWAY).high_water(data.join("keys/store.mark"));
    contents::fill_store(
        &RedbStore::open(data.join("rotogate.redb"), options).unwrap(),
        Kind::Revocations,
        revocations,
    );
    let runs = if measures() { OPENED } else { 1 };
    let clean: Vec<f64> = (0..runs).map(|_| first_answer(folder.path(), ports, revocations, Signal::TERM)).collect();
    // The first start follows a clean end.
    let crashed: Vec<f64> =
        (0..=runs).map(|_| first_answer(folder.path(), ports, revocations, Signal::KILL)).skip(1).collect();
    (quantile(&clean, 0.5), quantile(&crashed, 0.5))
}

/// Starts the program, checks that it has this many revocations, and ends it after its first answer.
fn first_answer(folder: &Path, [port, admin]: [u16; 2], revocations: usize, end: Signal) -> f64 {
    let mut command = rotogate(folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut program = command.spawn().unwrap();
    while !get(port, "gate.test", "/").is_some_and(|answer| answer.starts_with("HTTP/1.1 401 ")) {
        assert!(program.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE, "the gate did not start");
        std::thread::sleep(Duration::from_micros(500));
    }
    let took = start.elapsed();
    let metrics = get(admin, "127.0.0.1", "/metrics").unwrap();
    assert!(metrics.lines().any(|line| line == format!("rotogate_revocations {revocations}")), "{metrics}");
    kill_process(pid(&program), end).unwrap();
    program.wait().unwrap();
    took.as_secs_f64() * 1e3
}

fn pid(program: &Child) -> Pid {
    Pid::from_raw(program.id().try_into().unwrap()).unwrap()
}

/// The answer to a request; `None` if there is none yet.
fn get(port: u16, host: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let mut answer = String::new();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    stream.read_to_string(&mut answer).ok().map(|_| answer)
}

//! The cost of a proxied request in the whole program, counted by callgrind: a gate of the test profile, a cached token,
//! one connection, sequential requests. Client and upstream are in this process, which is not counted.
//!
//! The program writes its counts to a file whenever it is asked whether it is ready, and counts from zero again. So one start
//! serves all rows, and each row is counted several times.
//!
//! Lines of code are those of the test profile, too: four times those of a release, of which benches/peers/instructions
//! reports them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::budget::Row;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use support::pki::Pki;
use support::tls_client::{Client, Connection};
use support::{CONFIG, Gate, Place, with};

/// Requests before the first count: they fill the caches, and grow the buffers of the connection.
const WARM: u64 = 100;
/// Requests that are counted together.
const REQUESTS: u64 = 100;
/// How often a row is counted. The median counts.
const PERIODS: usize = 3;
/// How often a row is counted whose first periods exceed the budget, because on a busy machine the gate's own timers fall
/// unevenly into the periods.
const MORE_PERIODS: usize = 9;
/// The bytes of a line.
const LINE: u64 = 64;
/// The function that the program calls for a request about readiness.
const MARK: &str = "rotogate_server::server::operate::admin::health::readiness::*";
/// The allocating functions: mimalloc for Rust, and the C library for the cryptography in C.
const ALLOCATORS: [&str; 4] = ["mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned", "malloc"];

/// The protocol between client and gate.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
    Tls(&'static str),
}

/// In the test profile, which optimises some dependencies alone.
const ROWS: [(Protocol, Row); 4] = [
    (Protocol::Http1, row("HTTP/1.1", 277_600.0, 20.1, 10_100.0)),
    (Protocol::Http2, row("HTTP/2 in clear", 357_900.0, 28.0, 12_380.0)),
    (Protocol::Tls("http/1.1"), row("TLS 1.3 with HTTP/1.1", 318_000.0, 23.3, 11_360.0)),
    (Protocol::Tls("h2"), row("TLS 1.3 with HTTP/2", 398_000.0, 31.8, 13_600.0)),
];

const fn row(name: &'static str, instructions: f64, allocations: f64, lines: f64) -> Row {
    Row { name, instructions, allocations, lines, file: "tests/cost/proxied.rs" }
}

/// The counts since the last mark.
struct Counts {
    instructions: u64,
    allocations: u64,
    /// The instructions at each address.
    addresses: HashMap<u64, u64>,
}

impl Counts {
    /// The number of lines with code that at least half of the requests execute. `idle` is what the program executes in
    /// that time without requests.
    fn lines(&self, idle: &Self) -> usize {
        let of_requests = |at: &u64, count: u64| count.saturating_sub(idle.addresses.get(at).copied().unwrap_or(0));
        let executed = self.addresses.iter().filter(|(at, count)| of_requests(at, **count) * 2 >= REQUESTS);
        executed.map(|(at, _)| at / LINE).collect::<HashSet<_>>().len()
    }
}

/// A gate under callgrind.
struct Counted {
    gate: Gate,
    folder: PathBuf,
    files: usize,
}

impl Counted {
    fn start(place: &Place) -> Self {
        let folder = place.path("counts");
        fs::create_dir(&folder).unwrap();
        let out = format!("--callgrind-out-file={}/%p", folder.display());
        let gate = place.start_with(|command| {
            let mut counted = Command::new("valgrind");
            counted.args(["--tool=callgrind", "--quiet", "--trace-children=yes", &out]);
            counted.args([&format!("--dump-before={MARK}"), "--dump-instr=yes", "--compress-pos=no"]);
            counted.arg(command.get_program()).args(command.get_args());
            counted.current_dir(command.get_current_dir().unwrap()).env("ROTOGATE_LOG", "info");
            let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
            counted.stdout(std::process::Stdio::piped()).stderr(log);
            *command = counted;
        });
        Self { gate, folder, files: 0 }
    }

    /// The counts since the last mark, or since the start.
    async fn mark(&mut self) -> Counts {
        assert_eq!(self.gate.admin_get("/readyz").await.status, StatusCode::OK);
        let files = self.files();
        // callgrind writes another dump if a waiting check is entered again.
        let first = files.get(self.files).unwrap_or_else(|| panic!("callgrind knows no function {MARK}"));
        let counts = read(first);
        self.files = files.len();
        counts
    }

    /// The counts that were written, in the order of their numbers.
    fn files(&self) -> Vec<PathBuf> {
        let number = |path: &Path| path.extension()?.to_str()?.parse::<u32>().ok();
        let paths = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = paths.filter(|path| number(path).is_some()).collect();
        files.sort_by_key(|path| number(path));
        files
    }
}

/// The counts in a file of callgrind, whose manual describes the format.
fn read(path: &Path) -> Counts {
    let text = fs::read_to_string(path).unwrap();
    let mut counts = Counts { instructions: 0, allocations: 0, addresses: HashMap::new() };
    let mut allocators = Vec::new();
    let (mut allocates, mut is_call) = (false, false);
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("totals: ") {
            counts.instructions = total.trim().parse().unwrap();
        } else if let Some(position) = line.strip_prefix("0x") {
            // The line after a call has the cost of what is called, which counts where it is spent.
            if !std::mem::take(&mut is_call) {
                let (address, cost) = (position.split(' ').next().unwrap(), position.rsplit(' ').next().unwrap());
                let address = u64::from_str_radix(address, 16).unwrap();
                *counts.addresses.entry(address).or_default() += cost.trim().parse::<u64>().unwrap();
            }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            is_call = true;
            if allocates {
                counts.allocations += calls.split(' ').next().unwrap().parse::<u64>().unwrap();
            }
        } else if let Some(name) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            // callgrind writes a name at its first use, and later only its number.
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            if ALLOCATORS.contains(&name) {
                allocators.push(number.to_owned());
            }
            if line.starts_with('c') {
                allocates = allocators.iter().any(|known| known == number);
            }
        }
    }
    assert!(counts.instructions > 0, "no total in {}", path.display());
    counts
}

/// Answers each request with 1 KiB, for as long as this process runs.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _ = std::thread::spawn(move || {
        let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n".as_slice(), &[b'a'; 1024]].concat();
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            stream.set_nodelay(true).unwrap();
            let _ = std::thread::spawn(move || {
                let (mut head, mut piece) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut piece) {
                    head.extend_from_slice(&piece[..read]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        stream.write_all(&answer).unwrap();
                    }
                }
            });
        }
    });
    address
}

/// The instructions, allocations and lines of a request.
async fn period(counted: &mut Counted, connection: &mut Connection, token: &str) -> [f64; 3] {
    let began = tokio::time::Instant::now();
    requests(connection, token, REQUESTS).await;
    let took = began.elapsed();
    let counts = counted.mark().await;
    // The cost of the gate in that time without requests, and of the mark.
    tokio::time::sleep(took).await;
    let idle = counted.mark().await;
    let each = |counts: u64, idle: u64| (counts as f64 - idle as f64) / REQUESTS as f64;
    let instructions = each(counts.instructions, idle.instructions);
    [instructions, each(counts.allocations, idle.allocations), counts.lines(&idle) as f64]
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Sequential requests.
async fn requests(connection: &mut Connection, token: &str, number: u64) {
    for _ in 0..number {
        let path = "/orders/4711/lines?page=2";
        let request = match connection.is_http2() {
            true => Request::get(format!("https://gate.test{path}")),
            false => Request::get(path).header("host", "gate.test"),
        };
        let request = request.header("accept", "application/json").header("accept-encoding", "gzip, br");
        let request = request.header("user-agent", "test/1").header("authorization", format!("Bearer {token}"));
        let response = connection.send(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 1024);
    }
}

#[tokio::test]
async fn a_proxied_request_with_a_cached_token_costs_so_many_instructions_and_allocations() {
    let pki = Pki::new();
    let secure =
        "[[server.listeners]]\naddress = \"127.0.0.1:0\"\ntls = { cert = \"server.pem\", key = \"server.key\" }";
    // The connection waits for its next request during a counted period without requests, which is long on a busy
    // machine.
    let server = "workers = 1\nhead_timeout = \"5m\"\nfor_tests.idle_timeout = \"5m\"";
    let config = with(&with(CONFIG, "server", server), "sessions", "access_ttl = \"12h\"");
    let config = config.replacen("[admin]", &format!("{secure}\n[admin]"), 1);
    let place = Place::new(&config.replace("echo:", &format!("http://{}", upstream())));
    pki.issue(&["gate.test"]).write(&place, "server");
    // The password is hashed outside of callgrind, where that does not take minutes.
    let gate = place.start();
    let token = gate.login().await.access;
    gate.stop();

    let mut counted = Counted::start(&place);
    let (clear, secure) = (counted.gate.addresses[0], counted.gate.addresses[1]);
    counted.mark().await;
    let mut exceeded = Vec::new();
    for (protocol, row) in ROWS {
        let mut connection = match protocol {
            Protocol::Http1 => Connection::h1(clear).await,
            Protocol::Http2 => Connection::h2c(clear).await,
            Protocol::Tls(protocol) => Client::new(&pki, &[protocol]).open(secure, "gate.test").await.unwrap(),
        };
        requests(&mut connection, &token, WARM).await;
        counted.mark().await;
        let mut periods = Vec::new();
        let (mut measured, mut over) = ([0.0; 3], Vec::new());
        while periods.len() < PERIODS || (!over.is_empty() && periods.len() < MORE_PERIODS) {
            periods.push(period(&mut counted, &mut connection, &token).await);
            measured = std::array::from_fn(|column| median(periods.iter().map(|period| period[column])));
            over = row.judge(measured);
        }
        let [instructions, allocations, lines] = measured;
        println!(
            "{}: {instructions:.0} instructions of a request, {allocations:.2} allocations, {lines:.0} lines",
            row.name
        );
        exceeded.extend(over);
    }
    assert!(exceeded.is_empty(), "{}", exceeded.join("\n"));
}

//! The admin API and page with a hundred thousand and with a million sessions (requirement P57): the first page of a list, a
//! search by a user's name, and the page's view of sessions, as a client on this machine sees them.
//!
//!     cargo bench --bench admin              # 100 000, then 1 000 000
//!     cargo bench --bench admin -- 10000     # another size
//!
//! The program itself runs, on a store that was filled before. The times are medians over new connections.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use rotogate::session::Session;
use rotogate::store::redb::{Options, RedbStore};
use rotogate::store::{Inserted, Store, SubjectBound};
use rotogate::token::Keyring;
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::token::seal::sealed;

use support::program::{self, Gate, free_port, goal};
use support::sessions::{begun_session, numbered_id};
use support::{measures, quantile};

const URL: &str = "http://gate.test";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The number of writes in flight.
const AT_ONCE: usize = 4096;
/// The subject of the searched user, who has one session in ten thousand.
const SUBJECT: &str = "0198f0a4-0000-7000-8000-000000000001";

fn session(number: usize, of: usize, now: Timestamp) -> Session {
    // Spread over the last day; each session is live.
    let age = DAY.mul_f64(1.0 - number as f64 / of as f64);
    let created = now.minus(age);
    let subject = if number.is_multiple_of(10_000) { SUBJECT.to_owned() } else { format!("user-{number}") };
    begun_session(numbered_id(number, created), subject)
}

/// Fills the store of a gate that has run once, so that its keys exist.
fn fill(folder: &Path, number: usize) {
    let keyring = Keyring::load(&folder.join("data/keys")).unwrap();
    let options = Options::new(URL, keyring.id(), Duration::from_secs(30));
    let store = RedbStore::open(folder.join("data/rotogate.redb"), options).unwrap();
    let now = SystemTime::new().wall();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let write = |n: usize| {
            let (store, keys) = (&store, keyring.refresh_keys());
            async move {
                let session = sealed(keys, session(n, number, now)).unwrap();
                let inserted = store.insert(session, SubjectBound::NONE).await.unwrap();
                assert_eq!(inserted, Inserted::Inserted(Vec::new()));
            }
        };
        stream::iter(0..number).map(write).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
        store.close().await.unwrap();
    });
}

/// A response.
fn ask(port: u16, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "{head}\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n{body}").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// The median time of a `GET`, in ms, and the size of its response.
fn timed(port: u16, path: &str, header: &str, expected: &str) -> (f64, usize) {
    let rounds = if measures() { 31 } else { 1 };
    let mut size = 0;
    let times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let said = ask(port, &format!("GET {path} HTTP/1.1\r\n{header}"), "");
            let took = start.elapsed().as_secs_f64() * 1000.0;
            assert!(said.starts_with("HTTP/1.1 200 ") && said.contains(expected), "{path}: {said:.300}");
            size = said.len();
            took
        })
        .collect();
    (quantile(&times, 0.5), size)
}

/// The cookie of a sign-in at the page, and its folder.
fn sign_in(port: u16, token: &str) -> (String, String) {
    let said = ask(port, "GET /ui/sign-in HTTP/1.1", "");
    let cookie = |said: &str, name: &str| {
        let set = said.lines().find_map(|line| line.strip_prefix("set-cookie: ")?.strip_prefix(name)).unwrap();
        format!("{name}{}", set.split(';').next().unwrap())
    };
    let form = cookie(&said, "rotogate-admin-form=");
    let body = format!("csrf={}&token={token}", form.split_once('=').unwrap().1);
    let head = format!(
        "POST /ui/sign-in HTTP/1.1\r\ncookie: {form}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}",
        body.len()
    );
    let said = ask(port, &head, &body);
    let folder = said.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned();
    (cookie(&said, "rotogate-admin="), folder)
}

fn measure(number: usize) {
    let port = free_port();
    let folder = program::folder(|_| program::CONFIG.replace("ADMIN", &port.to_string()));
    let folder = folder.path();
    let users = format!(
        "[[users]]\nsubject = \"{SUBJECT}\"\nusername = \"ada\"\npassword = \"$argon2id$v=19$m=19456,t=2,\
         p=1$000000000000000000000A$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc\"\nactive = true\n"
    );
    let path = folder.join("data/users.toml");
    fs::write(&path, users).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    drop(Gate::start(folder));
    let start = Instant::now();
    fill(folder, number);
    println!("\n{number} sessions, written in {:.1} s", start.elapsed().as_secs_f64());
    let _gate = Gate::start(folder);
    let token = fs::read_to_string(folder.join("data/admin.token")).unwrap().trim().to_owned();
    let bearer = format!("authorization: Bearer {token}");
    for (name, path, limit) in [
        ("P57: first page of all sessions", "/v1/sessions?limit=100", 100.0),
        ("P57: the same, of the live ones of a client", "/v1/sessions?limit=100&status=live&client=web", 100.0),
        ("search by a user's name", "/v1/sessions?user=ada", 50.0),
    ] {
        goal(name, timed(port, path, &bearer, "\"sessions\":[{").0, limit, "ms");
    }
    {
        let (cookie, folder) = sign_in(port, &token);
        let (cookie, view) = (format!("cookie: {cookie}"), |view: &str| format!("{folder}{view}"));
        let (took, first) = timed(port, &folder, &cookie, "<h1>Overview</h1>");
        goal("the page's first view", took, 200.0, "ms");
        let files = ["/ui/page.css", "/ui/page.js", "/ui/icon.svg"].map(|path| timed(port, path, &cookie, "").1);
        let size = (first + files.iter().sum::<usize>()) as f64 / 1024.0;
        goal("the page's first view with style and script", size, 100.0, "KiB");
        goal("the page's view of sessions", timed(port, &view("sessions"), &cookie, "<tbody><tr>").0, 200.0, "ms");
        for name in ["sessions?order=oldest", "sessions?status=any&client=web", "events", "routes", "keys", "config"] {
            let took = timed(port, &view(name), &cookie, "<h1>").0;
            goal(&format!("the page's view {name}"), took, 200.0, "ms");
        }
        let path = &view("sessions?user=ada");
        goal("the page's search by a user's name", timed(port, path, &cookie, "Revoke all").0, 50.0, "ms");
    }
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let sizes = match asked {
        Some(size) => vec![size],
        None if measures() => vec![100_000, 1_000_000],
        None => vec![300],
    };
    sizes.into_iter().for_each(measure);
}

//! Password checks: whether their time reveals a user (A2), with each kind of directory (I49) and with imported hashes (I32),
//! and the effect of a flood of checks on concurrent requests (A3). `-- directories` measures only the kinds of directory,
//! with the program that `cargo build --release` makes. A missed goal makes the bench fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

#[path = "password/directories.rs"]
mod directories;
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::Directory;
use rotogate::gate::{Endpoint, GateService, NewSession};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::password::Passwords;
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::keyring::Keyring;
use rotogate_directories::users::FileDirectory;
use support::{Case, Heads, Inner, exchange, interleave, measures, quantile};
use tower::{Layer, ServiceExt};

const CLIENT: &str = "web";
/// Concurrent logins of the flood: more than the queue holds, so that some are rejected unchecked.
const FLOOD: usize = 128;

async fn login(service: &GateService<Inner>, username: &str, password: &str) -> StatusCode {
    let form = format!("grant_type=password&client_id={CLIENT}&username={username}&password={password}");
    let mut request = Request::new(Full::new(Bytes::from(form)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static("/connect/token");
    let form_type = http::HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, form_type);
    request.headers_mut().insert(header::HOST, http::HeaderValue::from_static("api.example.com"));
    service.clone().oneshot(request).await.unwrap().status()
}

/// Requests with a verified token, one every 200 us, on a separate thread: the delay of each answer from the moment
/// when the request was due, and the duration of the request, both in microseconds.
fn data_plane(service: &GateService<Inner>, token: &str, requests: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut heads, mut service) = (Heads::new([token]), service.clone());
    let every = Duration::from_micros(200);
    let start = Instant::now();
    let (mut late, mut took) = (Vec::new(), Vec::new());
    for number in 0..requests {
        let due = start + every * u32::try_from(number).unwrap();
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        exchange(&mut service, heads.request());
        took.push(begun.elapsed().as_secs_f64() * 1e6);
        late.push(due.elapsed().as_secs_f64() * 1e6);
    }
    (late, took)
}

/// Users with hashes of other systems. A login must take as long with each of them as without a user.
fn imported(runtime: &tokio::runtime::Runtime) {
    const BCRYPT: &str = "mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6";
    const ARGON2ID: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
    const KEY: &str = "ERn9ISUu7/jpw7t1FT3s5w7ZgUFStVKKigIYguwbI3A=";
    let directories = [
        ("bcrypt 6 and 10", [format!("$2b$06${BCRYPT}"), format!("$2b$10${BCRYPT}")]),
        ("bcrypt 10 and ours", [ARGON2ID.to_owned(), format!("$2b$10${BCRYPT}")]),
        ("PBKDF2 of 600 000 and ours", [ARGON2ID.to_owned(), format!("pbkdf2_sha256$600000$salt${KEY}")]),
        ("PBKDF2 of 10 000 and ours", [format!("pbkdf2_sha256$10000$salt${KEY}"), ARGON2ID.to_owned()]),
        ("scrypt of 16 MiB and bcrypt 6", [format!("$2b$06${BCRYPT}"), format!("scrypt$16384$salt$8$1${KEY}")]),
    ];
    println!("I32: a refused login with imported hashes, to be alike within 10 %");
    println!("{:<32} {:>12} {:>12} {:>12} {:>9}", "hashes", "unknown ms", "cheap ms", "dear ms", "spread");
    for (name, [cheap, dear]) in directories {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("users.toml");
        let user = |name: &str, hash: &str| {
            format!("[[users]]\nsubject = \"{name}\"\nusername = \"{name}\"\npassword = \"{hash}\"\n")
        };
        let text = user("cheap", &cheap) + &user("dear", &dear);
        rotogate_core::private_file::write_private_atomic(&path, text.as_bytes()).unwrap();
        let directory = FileDirectory::open(&path, Arc::new(Passwords::new(1, 1))).unwrap();
        let wrong = rotogate::SecretString::from("wrong".to_owned());
        let users = ["nobody", "cheap", "dear"];
        let mut times = [const { Vec::new() }; 3];
        for round in 0..if measures() { 101 } else { 1 } {
            // The cases alternate, in the reverse order in the next round, so that other load slows all three.
            for index in if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] } {
                let start = Instant::now();
                let found = runtime.block_on(directory.authenticate(None, users[index], &wrong)).unwrap();
                times[index].push(start.elapsed().as_secs_f64() * 1e3);
                assert_eq!(found, None);
            }
        }
        let [unknown, cheap, dear] = times.map(|times| quantile(&times, 0.5));
        let (least, most) = (unknown.min(cheap).min(dear), unknown.max(cheap).max(dear));
        let spread = most / least - 1.0;
        let met = if spread <= 0.1 { "met" } else { "NOT MET" };
        println!("{name:<32} {unknown:>12.2} {cheap:>12.2} {dear:>12.2} {:>8.1}% {met}", spread * 100.0);
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let are_alike = directories::measure(&runtime);
    let ended = if are_alike { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if std::env::args().any(|argument| argument == "directories") {
        return ended;
    }
    imported(&runtime);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let passwords = Arc::new(Passwords::default());
    let now = SystemTime::new().wall();
    let path = folder.path().join("users").join("users.toml");
    let (directory, user) = FileDirectory::create_with_first_user(&path, Arc::clone(&passwords), now).unwrap();
    let (gate, token) = runtime.block_on(async {
        let gate = Gate::builder()
            .issuer("https://auth.example.com")
            .keys(Keyring::generate(Algorithm::EdDsa).unwrap())
            .directory(Arc::new(directory))
            .passwords(passwords)
            .client(Client::public(CLIENT))
            .endpoint(Endpoint::new(OAuth2))
            .rates(support::open_rates())
            .build()
            .await
            .unwrap();
        let issued = gate.sessions().start(NewSession::new("ada", CLIENT)).await.unwrap();
        (gate, issued.access_token.expose().to_owned())
    });
    let service = gate.layer().layer(Inner);

    let refused = |username: &str| {
        let (service, runtime, username) = (service.clone(), &runtime, username.to_owned());
        move || assert_eq!(runtime.block_on(login(&service, &username, "wrong")), StatusCode::BAD_REQUEST)
    };
    let rounds = if measures() { 101 } else { 1 };
    let cases = vec![
        Case::waiting("known user, wrong password", refused(&user.username)),
        Case::waiting("unknown user", refused("nobody")),
    ];
    interleave(cases, rounds).print("A2: a refused login, to be alike within 10 %", "known user, wrong password");

    let requests = if measures() { 5_000 } else { 10 };
    let flooding = Arc::new(AtomicBool::new(false));
    let (checked, turned_away) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let [mut idle, mut flood] = [const { (Vec::new(), Vec::new()) }; 2];
    for _ in 0..if measures() { 5 } else { 1 } {
        let (late, took) = data_plane(&service, &token, requests);
        idle.0.push(quantile(&late, 0.99));
        idle.1.push(quantile(&took, 0.99));
        flooding.store(true, Ordering::SeqCst);
        let attackers = (0..FLOOD).map(|number| {
            let (service, flooding) = (service.clone(), Arc::clone(&flooding));
            let (checked, turned_away) = (Arc::clone(&checked), Arc::clone(&turned_away));
            runtime.spawn(async move {
                while flooding.load(Ordering::SeqCst) {
                    if login(&service, &format!("user-{number}"), "guess").await == StatusCode::BAD_REQUEST {
                        checked.fetch_add(1, Ordering::SeqCst);
                    } else {
                        turned_away.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            })
        });
        let attackers: Vec<_> = attackers.collect();
        let (late, took) = data_plane(&service, &token, requests);
        flooding.store(false, Ordering::SeqCst);
        runtime.block_on(async {
            for attacker in attackers {
                attacker.await.unwrap();
            }
        });
        flood.0.push(quantile(&late, 0.99));
        flood.1.push(quantile(&took, 0.99));
    }
    println!("\nA3: p99 of requests with a cached token beside a flood of logins, to stay within 2x of idle");
    println!("{:<38} {:>10} {:>10} {:>8}", "", "idle us", "flood us", "ratio");
    for (name, idle, flood) in
        [("time in the layer", &idle.1, &flood.1), ("from when due, the wake-up included", &idle.0, &flood.0)]
    {
        let (idle, flood) = (quantile(idle, 0.5), quantile(flood, 0.5));
        println!("{name:<38} {idle:>10.1} {flood:>10.1} {:>7.2}x", flood / idle);
    }
    println!(
        "logins checked {}, rejected unchecked {}",
        checked.load(Ordering::SeqCst),
        turned_away.load(Ordering::SeqCst)
    );
    ended
}

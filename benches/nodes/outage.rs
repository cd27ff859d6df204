//! C12 and C13: how soon gates serve again after an outage of their store, and give up connections that died silently.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::support::redis::{PRIMARY, Redis, Replicated};
use ::support::{CONFIG, Gate, Place, Tokens};
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::shared::DURABLE;
use crate::support::measures;
use crate::support::program::goal;
use crate::{runtime, say};

/// The time from the store's return until every gate serves.
const BACK_SECONDS: f64 = 5.0;
/// The time for which dead connections may block a gate.
const DEAD_SECONDS: f64 = 3.0;

/// Gates with a common folder, each with a client.
async fn gates(store: &str) -> (Place, Vec<(Gate, Tokens)>) {
    let place = Place::new(&format!("{CONFIG}[store]\nkind = \"redis\"\n{store}"));
    let mut gates = Vec::new();
    for _ in 0..3 {
        let gate = place.start_with(|command: &mut Command| {
            command.env("ROTOGATE_LOG", "error");
        });
        let tokens = gate.login().await;
        gates.push((gate, tokens));
    }
    (place, gates)
}

/// The seconds until each client has refreshed, and the longest request meanwhile.
async fn until_all_serve(gates: &mut [(Gate, Tokens)]) -> (f64, f64) {
    let begun = Instant::now();
    let clients = gates.iter_mut().map(|(gate, tokens)| async move {
        let mut longest = 0.0_f64;
        loop {
            let asked = Instant::now();
            let answer = gate.refresh(&tokens.refresh).await;
            longest = longest.max(asked.elapsed().as_secs_f64());
            if answer.status == StatusCode::OK {
                *tokens = answer.tokens();
                return (begun.elapsed().as_secs_f64(), longest);
            }
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "a fault is no decision");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let done = futures_util::future::join_all(clients).await;
    done.into_iter().fold((0.0, 0.0), |(last, longest), (at, took)| (f64::max(last, at), f64::max(longest, took)))
}

pub(crate) fn run() {
    let rounds = if measures() { 3 } else { 1 };
    let runtime = runtime();
    runtime.block_on(async {
        restarts(rounds).await;
        silence(rounds).await;
        failovers(if measures() { 2 } else { 1 }).await;
    });
}

/// The longest of the rounds counts.
async fn restarts(rounds: usize) {
    for (how, settings) in [("appendfsync always", DURABLE.as_slice()), ("without a file: all is lost", &[])] {
        let mut server = Redis::start(settings);
        let (_place, mut gates) = gates(&format!("urls = [\"redis://127.0.0.1:{}\"]\n", server.port)).await;
        let mut longest = 0.0_f64;
        // A server that lost everything answers nothing until its gates start again.
        if settings.is_empty() {
            server.kill();
            server.start_again();
            tokio::time::sleep(Duration::from_secs(3)).await;
            let answer = gates[0].0.refresh(&gates[0].1.refresh).await.status;
            println!("{how:<58} {answer} to a refresh, for as long as the gates run");
            continue;
        }
        for _ in 0..rounds {
            server.kill();
            tokio::time::sleep(Duration::from_secs(3)).await;
            server.start_again();
            longest = longest.max(until_all_serve(&mut gates).await.0);
        }
        goal(&format!("crash and restart, {how}: 3 gates serve after"), longest, BACK_SECONDS, "s");
    }
}

/// A proxy between gates and their server that can forget connections without closing them.
struct Forgetful {
    port: u16,
    /// Older connections are dead.
    alive_from: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
}

impl Forgetful {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (alive_from, made) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (from, count) = (Arc::clone(&alive_from), Arc::clone(&made));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                tokio::spawn(pass_on(client_read, server_write, number, Arc::clone(&from)));
                tokio::spawn(pass_on(server_read, client_write, number, Arc::clone(&from)));
            }
        });
        Self { port, alive_from, made }
    }

    /// All present connections die; new connections work.
    fn forget(&self) {
        self.alive_from.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

async fn pass_on(
    from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    number: u64,
    alive_from: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if from.readable().await.is_err() {
            return;
        }
        if number < alive_from.load(Ordering::SeqCst) {
            // The connection is neither read nor closed, as after a power failure of the other side.
            return std::future::pending().await;
        }
        match from.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

async fn silence(rounds: usize) {
    let server = Redis::start(&DURABLE);
    let proxy = Forgetful::start(server.port).await;
    let (_place, mut gates) = gates(&format!("urls = [\"redis://127.0.0.1:{}\"]\n", proxy.port)).await;
    let (mut served, mut answered) = (0.0_f64, 0.0_f64);
    for _ in 0..rounds {
        proxy.forget();
        let (last, longest) = until_all_serve(&mut gates).await;
        (served, answered) = (served.max(last), answered.max(longest));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    goal("connections die without a sign: 3 gates serve after", served, DEAD_SECONDS, "s");
    goal("the same, longest wait for an answer", answered, DEAD_SECONDS, "s");
    server.signal("STOP");
    let asked = Instant::now();
    let status = gates[0].0.refresh(&gates[0].1.refresh).await.status;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    goal("a server that stands still: a refresh is answered after", asked.elapsed().as_secs_f64(), DEAD_SECONDS, "s");
    server.signal("CONT");
    let (last, _) = until_all_serve(&mut gates).await;
    goal("it goes on: 3 gates serve after", last, BACK_SECONDS, "s");
}

async fn failovers(rounds: usize) {
    let mut all = Vec::new();
    let mut promotions = Vec::new();
    for _ in 0..rounds {
        let mut servers = Replicated::start(&[]);
        let urls: Vec<_> = servers.urls().iter().map(|url| format!("{url:?}")).collect();
        let store = format!("urls = [{}]\nsentinel = \"{PRIMARY}\"\n", urls.join(", "));
        let (_place, mut gates) = gates(&store).await;
        let old = servers.servers[0].port;
        servers.servers[0].kill();
        let killed = Instant::now();
        servers.until("a replica becomes the primary", || servers.primary() != old);
        promotions.push(killed.elapsed().as_secs_f64());
        all.push(until_all_serve(&mut gates).await.0);
    }
    let longest = |sample: &[f64]| sample.iter().copied().fold(0.0, f64::max);
    say("Sentinels: from the primary's death to a promotion", longest(&promotions), "s");
    goal("from there until 3 gates serve", longest(&all), BACK_SECONDS, "s");
}

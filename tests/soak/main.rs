//! Ten minutes under all kinds of load at once, after which the process must be as large as before: sessions that
//! begin, refresh, repeat and end, data requests, WebSockets, Kuzzle's tokens, and texts that are not tokens. Every
//! answer is checked, as in the crash tests.
//!
//! `bash tests/long.sh soak` runs it; `SOAK_SECONDS` makes it shorter or longer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod memory;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memory::Samples;
use support::chain::{Http, Pace};
use support::random::Random;
use support::{CONFIG, Place};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

const SECONDS: u64 = 600;
const EVERY: Duration = Duration::from_secs(5);
/// The number of concurrent clients with sessions.
const CLIENTS: usize = 12;
/// Requests a second, of all clients with sessions; as many with bad tokens; messages over WebSockets. Any machine can
/// keep up with this pace: the kept state depends on the load, which must not depend on the machine.
const PACE: [u32; 3] = [100, 200, 20];

fn pace(per_second: u32) -> Pace {
    let mut interval = tokio::time::interval(Duration::from_secs(1) / per_second);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Arc::new(Mutex::new(interval))
}

/// State of a token ends at its expiry at the latest, soon enough for the memory to reach a level within the first
/// third.
fn config() -> String {
    let quick = "[sessions]\ngrace = \"60s\"\naccess_ttl = \"2m\"\nmax_sessions_per_subject = 10000\n[store]\ncache_size = \"1MiB\"\n";
    format!("{CONFIG}\n[[endpoints]]\ndialect = \"kuzzle\"\nprofile = {{ access_ttl = \"2m\" }}\n{quick}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten minutes: bash tests/long.sh soak"]
async fn ten_minutes_of_everything_leave_memory_flat() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(SECONDS, |text| text.parse().expect("SOAK_SECONDS is a number"));
    let mut random = Random::new("soak", "SOAK_SEED");
    let place = Place::new(&config());
    // The log level of production, because more lines would only test the disk.
    let mut gate = place.start_with(|command| {
        command.env("ROTOGATE_LOG", "warn");
    });
    let counts: [Arc<AtomicU64>; 3] = Default::default();
    let [replies, refused, messages] = &counts;
    let [sessions_pace, refusals_pace, messages_pace] = PACE.map(pace);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let http = Http::new(gate.address, &gate.password).at_pace(&sessions_pace);
        let (random, replies) = (random.fork(), Arc::clone(replies));
        clients.spawn(async move { support::chain::work(http, None, random, &replies).await.wrong });
    }
    let mut others = JoinSet::new();
    others.spawn(work::bad_tokens(gate.address, random.fork(), Arc::clone(refused), refusals_pace));
    others.spawn(work::socket(gate.address, gate.password.clone(), Arc::clone(messages), messages_pace));

    let mut samples = Samples::default();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(EVERY).await;
        samples.take(gate.child.id());
        let done: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        println!("{:>4} s: {samples}, replies, refusals and messages so far: {done:?}", begun.elapsed().as_secs());
        assert!(clients.len() == CLIENTS && others.len() == 2, "a client stopped: {:?}", clients.join_next().await);
    }
    gate.kill();
    while let Some(wrong) = clients.join_next().await {
        assert_eq!(wrong.unwrap(), []);
    }
    others.shutdown().await;
    for count in &counts {
        assert!(count.load(Ordering::Relaxed) > 5 * seconds, "a part of the load hardly ran: {counts:?}");
    }
    println!("{}", samples.verdict());
    assert!(samples.is_flat(), "{}", samples.verdict());
}

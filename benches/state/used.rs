//! The cost of a session look-up and of a rotation at a size. The rotations are in the store only: nothing is
//! signed.

use std::path::Path;
use std::time::{Duration, Instant};

use rotogate::session::{Session, SessionId};
use rotogate::store::{RedbStore, Store, Swap};
use rotogate_core::revocation::raised_minimum;
use rotogate_core::session::rotation::RaisedMinimum;

use super::contents::{id, store, unknown};
use super::support::{cpu_time, quantile};

const LOOK_UPS: usize = 50_000;
const IN_FLIGHT: usize = 256;
const LEEWAY: Duration = Duration::from_secs(30);
const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// Microseconds of a look-up of a session that exists, and of one that does not; rotations a second, CPU microseconds
/// of each, and their p99 latency in milliseconds; the same for rotations that revoke earlier access tokens.
pub(super) fn measure(number: usize, folder: &Path) -> Vec<f64> {
    let store = store(folder);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let look_ups = if long() { LOOK_UPS } else { 100 };
    let look_up = |make: fn(usize, usize) -> SessionId| {
        let ids: Vec<_> = (0..look_ups).map(|n| make(any(n, number), number)).collect();
        let start = Instant::now();
        for id in &ids {
            std::hint::black_box(runtime.block_on(store.load(*id)).unwrap());
        }
        start.elapsed().as_secs_f64() * 1e6 / look_ups as f64
    };
    let mut figures = vec![look_up(id), look_up(unknown)];
    let time = Duration::from_millis(if long() { 5000 } else { 50 });
    for ends_previous in [false, true] {
        let done = runtime.block_on(rotations(&store, number, IN_FLIGHT, time, ends_previous));
        figures.extend([done.per_second, done.cpu_micros, done.p99_millis]);
    }
    figures
}

/// Sessions in an order where neighbours are far apart; the same in every run.
fn any(n: usize, number: usize) -> usize {
    (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) as usize % number
}

pub(super) fn long() -> bool {
    std::env::var_os(super::SHORT).is_none()
}

/// The result of many rotations.
pub(super) struct Rotations {
    pub(super) per_second: f64,
    pub(super) commits_per_second: f64,
    pub(super) cpu_micros: f64,
    pub(super) p50_millis: f64,
    pub(super) p99_millis: f64,
}

/// Rotates sessions of a store for this time, with this many in flight.
pub(super) async fn rotations(
    store: &RedbStore,
    number: usize,
    in_flight: usize,
    time: Duration,
    ends_previous: bool,
) -> Rotations {
    let (commits, cpu, start) = (store.commits(), cpu_time(), Instant::now());
    let workers: Vec<_> = (0..in_flight)
        .map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for n in (worker..).step_by(in_flight) {
                    let asked = Instant::now();
                    if asked - start > time {
                        break;
                    }
                    rotate(&store, id(any(n, number), number), ends_previous).await;
                    latencies.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await.unwrap());
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = cpu_time().zip(cpu).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64());
    let done = latencies.len() as f64;
    Rotations {
        per_second: done / took,
        commits_per_second: (store.commits() - commits) as f64 / took,
        cpu_micros: cpu * 1e6 / done,
        p50_millis: quantile(&latencies, 0.5),
        p99_millis: quantile(&latencies, 0.99),
    }
}

/// The store's part of a rotation.
async fn rotate(store: &dyn Store, id: SessionId, ends_previous: bool) {
    let known = store.load(id).await.unwrap().unwrap();
    let now = known.issued_at.plus(Duration::from_secs(60));
    let access_expires = now.plus(FIVE_MINUTES);
    let raised = RaisedMinimum {
        minimum: known.current.next().unwrap(),
        effective_from: now.plus(Duration::from_secs(10)),
        before: known.current,
        until: known.latest_access_expires,
    };
    let mut next = Session {
        current: known.current.next().unwrap(),
        previous: known.current,
        rotated_at: now,
        issued_at: now,
        latest_access_expires: known.latest_access_expires.max(access_expires),
        revision: known.revision + 1,
        ..known.clone()
    };
    next.last.access_expires = access_expires;
    let revocation = ends_previous.then(|| raised_minimum(id, raised, LEEWAY));
    let swap = store.compare_and_swap(known.revision, next, revocation).await.unwrap();
    // With few sessions, two workers may choose the same one.
    assert!(matches!(swap, Swap::Swapped | Swap::Changed(_)));
}

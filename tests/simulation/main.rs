//! The engine of production under all faults of its surroundings, in many histories, each reproducible by a number. The
//! store is slow, fails before or after a write, loses its last writes, or acknowledges writes that it has not made. The
//! process dies at any await. Replies are lost, the clock steps and jumps, and there are several concurrent holders, a
//! thief and an operator. Time is virtual, and requests have no threads: in each step, the number selects the request that
//! continues.
//!
//! `simulation/oracle.rs` has the invariants of every history: the promises to holders of tokens, and the permitted
//! changes of a commit. While the store keeps its word, an acknowledged rotation and an acknowledged revocation survive
//! (R2), one presented token has one successor (R1), and lost replies and crashes end no session. When it does not, a
//! token ahead of the store is refused, and still not reported as reuse (O5). In both cases a logout by refresh token
//! ends its session, and failed writes are written once the store works (R25, R26).
//!
//! `SIM_HISTORIES` makes a longer run. A history that breaks a promise prints its `SIM_SEED`.
//! `SIM_SEED=… SIM_HISTORIES=1` runs only that history again, and prints its steps. Planted faults show that the
//! simulation finds broken promises.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod gate;
mod oracle;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use store::{Plant, Trust};
use support::random::Random;
use world::{Counts, World};

/// Weekly runs have two million. A history takes four milliseconds of a debug build.
const HISTORIES: u64 = 4_000;
/// The number of histories within which a planted fault must be found.
const FOUND_WITHIN: u64 = 20_000;

fn number(name: &str, otherwise: impl FnOnce() -> u64) -> u64 {
    std::env::var(name)
        .map_or_else(|_| otherwise(), |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs one history, every second one with a reliable store. The error names the broken promise.
fn history(seed: u64, plant: Plant, tells: bool, counts: &mut Counts) -> Result<(), String> {
    let mut random = Random::from_seed(seed);
    let trust = if plant == Plant::Nothing && random.one_in(2) { Trust::LosesWrites } else { Trust::KeepsItsWord };
    let run = AssertUnwindSafe(|| World::new(random, trust, plant, tells).run(counts));
    catch_unwind(run).unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// Runs histories on every core until one is bad. Returns the seed of the bad history, and the broken promise.
fn search(first: u64, histories: u64, plant: Plant) -> (Counts, Option<(u64, String)>) {
    let next = AtomicU64::new(0);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        let mut counts = Counts::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= histories {
                return (counts, None);
            }
            let seed = first.wrapping_add(at);
            if let Err(broken) = history(seed, plant, histories == 1, &mut counts) {
                // The other threads stop at their next history.
                next.store(histories, Ordering::Relaxed);
                return (counts, Some((seed, broken)));
            }
        }
    };
    let all: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut total = Counts::default();
    let mut found = None;
    for (counts, bad) in all {
        total.add(&counts);
        found = found.or(bad);
    }
    (total, found)
}

#[test]
fn r1_r2_o5_every_promise_holds_in_every_history() {
    let first = number("SIM_SEED", || Random::new("simulation", "SIM_SEED").below(u64::MAX));
    let histories = number("SIM_HISTORIES", || HISTORIES);
    let (counts, found) = search(first, histories, Plant::Nothing);
    if let Some((seed, broken)) = found {
        panic!("SIM_SEED={seed} SIM_HISTORIES=1: {broken}");
    }
    println!("{histories} histories from {first}: {counts:?}");
    if histories >= 1000 {
        counts.assert_everything_happened();
    }
}

fn is_found(plant: Plant, expected: &str) {
    // A fault may break another promise, too.
    let (mut begin, mut others) = (0, Vec::new());
    while begin < FOUND_WITHIN {
        let (_, found) = search(begin, FOUND_WITHIN - begin, plant);
        let Some((seed, broken)) = found else { break };
        println!("{plant:?}: found by history {seed}: {broken}");
        if broken.contains(expected) {
            return;
        }
        others.push(broken);
        begin = seed + 1;
    }
    panic!("{plant:?}: not found in {FOUND_WITHIN} histories, which broke {others:?}");
}

#[test]
fn a_store_that_acknowledges_before_it_commits_is_found() {
    is_found(Plant::AcknowledgesFirst, "R2");
}

#[test]
fn a_replay_past_grace_is_found() {
    is_found(Plant::ReplaysPastGrace, "R3");
}

#[test]
fn a_revocation_that_is_only_acknowledged_is_found() {
    is_found(Plant::RevocationIsForgotten, "R2");
}

#[test]
fn a_revocation_whose_repetition_is_only_acknowledged_is_found() {
    is_found(Plant::RepetitionIsForgotten, "R2");
}

#[test]
fn a_swap_that_does_not_compare_is_found() {
    is_found(Plant::SwapsWithoutComparing, "R1");
}

#[test]
fn a_generation_that_is_confirmed_by_nobody_is_found() {
    is_found(Plant::ConfirmsByItself, "promise 2");
}

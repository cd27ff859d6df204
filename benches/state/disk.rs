//! Rotations on a slow disk: a delay is added to each sync. Nothing is signed.

use std::path::Path;
use std::time::Duration;

use super::contents::store;
use super::used::{long, rotations};
use super::{Kind, child};

/// The delays, in milliseconds.
const SLOWER: [usize; 3] = [0, 5, 20];
const IN_FLIGHT: [usize; 4] = [1, 64, 256, 1024];
const SESSIONS: usize = 20_000;

pub(super) fn print() {
    if !cfg!(feature = "failpoints") {
        println!("\nA slow disk is measured only with --features failpoints.");
        return;
    }
    println!("\n## a slow disk\n");
    println!("| a sync takes longer by ms | in flight | rotations/s | syncs/s | rotations a sync | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|---|");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    child("fill", Kind::Sessions, SESSIONS, folder.path());
    for slower in SLOWER {
        let figures = child("disk", Kind::Sessions, slower, folder.path());
        for (in_flight, of) in IN_FLIGHT.iter().zip(figures.chunks(4)) {
            let [rate, commits, p50, p99] = of else { panic!("four figures each") };
            println!(
                "| {slower} | {in_flight} | {rate:.0} | {commits:.0} | {:.1} | {p50:.1} | {p99:.1} |",
                rate / commits
            );
        }
    }
}

/// For each number in flight: rotations and commits a second, p50 and p99 in milliseconds. [`child`] has set the delay
/// of the disk.
pub(super) fn measure(folder: &Path) -> Vec<f64> {
    let store = store(folder);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let time = Duration::from_millis(if long() { 3000 } else { 50 });
    let one = |in_flight| {
        let done = runtime.block_on(rotations(&store, SESSIONS, in_flight, time, false));
        [done.per_second, done.commits_per_second, done.p50_millis, done.p99_millis]
    };
    IN_FLIGHT.into_iter().flat_map(one).collect()
}

//! The cost of large stores: ten thousand to ten million sessions or revocations. Measures the time to fill a store,
//! its size, the start on it and the memory that it needs then; look-up, check, rotation and sweep at that
//! size; and rotations on a slow disk.
//!
//!     cargo bench --bench state                             # 10 000 to 1 000 000
//!     cargo bench --bench state -- revocations 10000000     # one part, one size
//!     cargo bench --bench state -- start                    # of the program, with a million revocations
//!     cargo bench --bench state --features failpoints -- disk
//!
//! Each measurement runs in its own process, with the allocator of the program, so that its memory is that of the store
//! only. The file was just written: it is read from the page cache, not from the disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

#[path = "../support/mod.rs"]
mod support;

mod contents;
mod disk;
mod opened;
mod start;
mod swept;
mod used;

use std::path::Path;
use std::process::Command;

use support::measures;
use support::program::goal;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set for a child process if this is only a test that the bench works.
const SHORT: &str = "ROTOGATE_BENCH_SHORT";
/// How often a store is opened. The median is printed.
const OPENED: usize = 5;

/// The longest that a step of a sweep may block the writer, for 999 of 1000 steps.
const SWEEP_GOAL_MILLIS: f64 = 10.0;

/// The contents of a store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sessions,
    Revocations,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Revocations => "revocations",
        }
    }

    fn of(name: &str) -> Self {
        if name == "sessions" { Self::Sessions } else { Self::Revocations }
    }
}

/// Runs one part of the work in a new process of this program, and returns the numbers that it printed.
fn child(part: &str, kind: Kind, number: usize, folder: &Path) -> Vec<f64> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", part, kind.name(), &number.to_string()]).arg(folder);
    command.envs((!measures()).then_some((SHORT, "yes")));
    if part == "disk" {
        command.env("ROTOGATE_FAILPOINT", format!("slow-sync:{number}"));
    }
    let output = command.stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{part} of {number} {} failed", kind.name());
    let said = String::from_utf8(output.stdout).unwrap();
    said.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn as_child(arguments: &[String]) {
    let [part, kind, number, folder] = arguments else { panic!("an argument is missing") };
    let (kind, number, folder) = (Kind::of(kind), number.parse().unwrap(), Path::new(folder));
    let numbers = match part.as_str() {
        "fill" => contents::fill(kind, number, folder),
        "open" => opened::open(folder),
        "check" => opened::check(number, folder),
        "use" => used::measure(number, folder),
        "sweep" => swept::measure(kind, number, folder),
        "disk" => disk::measure(folder),
        other => panic!("there is no part {other}"),
    };
    numbers.iter().for_each(|number| println!("{number}"));
}

/// The median of each number that a child prints, over several runs.
fn medians(runs: usize, run: impl Fn() -> Vec<f64>) -> Vec<f64> {
    let all: Vec<Vec<f64>> = (0..runs).map(|_| run()).collect();
    let of = |index: usize| support::quantile(&all.iter().map(|one| one[index]).collect::<Vec<_>>(), 0.5);
    (0..all[0].len()).map(of).collect()
}

/// The figures of an empty store. They are subtracted.
fn empty(runs: usize) -> Vec<f64> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    child("fill", Kind::Sessions, 0, folder.path());
    medians(runs, || child("open", Kind::Sessions, 0, folder.path()))
}

fn state(kind: Kind, sizes: &[usize]) {
    let runs = if measures() { OPENED } else { 1 };
    let none = empty(runs);
    println!("\n## {}\n", kind.name());
    let more = match kind {
        Kind::Sessions => {
            "found us | not found us | rotations/s | CPU us each | p99 ms | with an entry each: rotations/s | CPU us each | p99 ms"
        }
        Kind::Revocations => "check, not listed ns | check, listed ns",
    };
    println!(
        "| {} | filled s | a second | file MiB | bytes each | open ms | load ms | after a crash, open ms | memory more than \
         empty, MiB | the same at its peak | sweep, a second | step ms, p50 | p99 | p99.9 | longest | {more} |",
        kind.name()
    );
    println!("|{}", "---|".repeat(15 + more.split('|').count()));
    let mut slowest = Vec::new();
    for &number in sizes {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let filled = child("fill", kind, number, folder.path());
        let opened = medians(runs, || child("open", kind, number, folder.path()));
        let crashed = medians(runs.min(3), || {
            contents::crash(folder.path());
            child("open", kind, number, &folder.path().join("crashed"))
        });
        print!(
            "| {number} | {:.1} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} ",
            filled[0],
            number as f64 / filled[0],
            filled[1] / 1048576.0,
            filled[1] / number as f64,
            opened[0],
            opened[1],
            crashed[0],
            (opened[2] - none[2]) / 1048576.0,
            (opened[3] - none[3]) / 1048576.0,
        );
        let used = match kind {
            Kind::Sessions => child("use", kind, number, folder.path()),
            Kind::Revocations => child("check", kind, number, folder.path()),
        };
        let swept = child("sweep", kind, number, folder.path());
        print!("| {:.0} | {:.1} | {:.1} | {:.1} | {:.1} ", swept[0], swept[1], swept[2], swept[3], swept[4]);
        match kind {
            Kind::Sessions => {
                print!("| {:.1} | {:.1} ", used[0], used[1]);
                used[2..].chunks(3).for_each(|of| print!("| {:.0} | {:.1} | {:.1} ", of[0], of[1], of[2]));
                println!("|");
            }
            Kind::Revocations => println!("| {:.0} | {:.0} |", used[0], used[1]),
        }
        slowest.push((number, swept[3]));
    }
    println!();
    for (number, millis) in slowest {
        goal(&format!("p99.9 of sweep steps of {number} {}", kind.name()), millis, SWEEP_GOAL_MILLIS, "ms");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "child") {
        return as_child(&arguments[1..]);
    }
    let mut sizes: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = if measures() { vec![10_000, 100_000, 1_000_000] } else { vec![500] };
    }
    let parts: Vec<&str> = ["sessions", "revocations", "start", "disk"]
        .into_iter()
        .filter(|part| arguments.iter().any(|a| a == part))
        .collect();
    let asked = |part| parts.is_empty() || parts.contains(&part);
    for kind in [Kind::Sessions, Kind::Revocations] {
        if asked(kind.name()) {
            state(kind, &sizes);
        }
    }
    if asked("start") {
        start::print();
    }
    if asked("disk") {
        disk::print();
    }
}

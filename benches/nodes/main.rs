//! Stores that several gates share: the rate of rotations, how soon a revocation holds at another gate, what a cached
//! request costs, a start among a million revocations, memory, and how soon gates serve after an outage.
//!
//!     cargo bench --bench nodes                       # all parts
//!     cargo bench --bench nodes -- rotation spread    # some of them
//!
//! The bench starts `redis-server` and PostgreSQL, and needs `redis-cli`, `redis-benchmark` and `pgbench`. Compared cases alternate in one
//! run, and each figure is a median. If there is a goal, the line says whether it is met.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

#[path = "../support/mod.rs"]
mod support;

mod cached;
mod contents;
mod fleet;
mod many;
mod outage;
mod postgres;
mod rotation;
mod shared;
mod spread;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The parts, in order.
const PARTS: [(&str, fn()); 7] = [
    ("rotation", || {
        rotation::run();
        println!();
        postgres::rotation();
    }),
    ("spread", spread::run),
    ("cached", cached::run),
    ("fleet", fleet::run),
    ("memory", || {
        many::memory();
        postgres::memory();
    }),
    ("million", || {
        many::million();
        postgres::million();
    }),
    ("outage", outage::run),
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, run) in PARTS {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            println!("\n## {name} (load average {})\n", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
            run();
        }
    }
}

/// Uses as many workers as the program.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Prints a figure.
fn say(name: &str, measured: f64, unit: &str) {
    println!("{name:<58} {measured:>10.2} {unit}");
}

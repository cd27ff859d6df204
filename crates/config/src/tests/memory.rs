//! The memory that the bounds of a configuration permit, as docs/edge.md adds them up.

use std::path::Path;

use crate::{Config, parse};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The counters of limits, known callers, and notes of first uses.
const COUNTERS: u64 = (22 + 20 + 40) * MIB;
/// What a pod has left for sessions, revocations and uploads.
const REST: u64 = 96 * MIB;

fn most(config: &Config) -> u64 {
    let server = &config.server;
    let number = |count: usize| u64::try_from(count).unwrap();
    64 * MIB
        + number(server.overload.buffered.all)
        + config.limits.verified_cache
        + 8 * MIB * number(server.workers.get())
        + 50 * KIB * number(server.max_connections)
        + 225 * KIB * number(server.overload.requests.all)
}

fn read(text: &str) -> Config {
    parse(text, Path::new("/etc/rotogate/gateway.toml"), &()).unwrap()
}

/// The limit of memory in a manifest.
fn limit(manifest: &str) -> u64 {
    let limits = manifest.split_once("limits:").unwrap().1;
    let value = limits.split_once("memory: ").unwrap().1.split([' ', '\n']).next().unwrap();
    let unit = |suffix: &str| value.strip_suffix(suffix).map(|number| number.parse::<u64>().unwrap());
    unit("Gi").map(|number| number * 1024 * MIB).or_else(|| unit("Mi").map(|number| number * MIB)).unwrap()
}

#[test]
fn the_bounds_of_the_chart_fit_the_limit_of_its_pods() {
    let gate = |server: &str| {
        most(&read(&format!("[server]\npublic_url = \"http://gate.test\"\n{server}\n[issuer]\naudience = [\"api\"]\n")))
    };
    let values = include_str!("../../../../packaging/helm/rotogate/values.yaml");
    let bounds = values.split_once("server: |\n").unwrap().1.lines().take_while(|line| line.starts_with("  "));
    let bounds: Vec<_> = bounds.map(str::trim).collect();
    assert_eq!(bounds.len(), 4, "{bounds:?}");
    let (most, limit) = (gate(&bounds.join("\n")), limit(values));
    assert!(most + COUNTERS + REST <= limit, "{} MiB of {}", (most + COUNTERS) / MIB, limit / MIB);
    // Of the documentation: the defaults with two threads.
    let defaults = gate("workers = 2");
    assert_eq!((defaults + 512 * MIB) / (1024 * MIB), 3, "{} MiB", defaults / MIB);
}

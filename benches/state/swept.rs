//! How long each step of the sweep holds the writer.

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use rotogate::store::{Store, Swept};

use super::Kind;
use super::contents::{OVER, store};
use super::support::quantile;

/// Sweeps a whole store. Returns the records removed a second, and the milliseconds of a step: median, p99, p99.9, longest.
///
/// The sweep requests its next step when the last one is done, and the store has no other work. So the time between two
/// wake-ups is the duration of a step.
pub(super) fn measure(kind: Kind, number: usize, folder: &Path) -> Vec<f64> {
    let store = store(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut steps = Vec::new();
    let start = Instant::now();
    let swept = runtime.block_on(async {
        let mut sweep = pin!(store.sweep(OVER));
        let mut last = start;
        poll_fn(|context| {
            let now = Instant::now();
            steps.push(std::mem::replace(&mut last, now).elapsed());
            sweep.as_mut().poll(context)
        })
        .await
        .unwrap()
    });
    let took = start.elapsed();
    let there = number as u64;
    match kind {
        // Rotated sessions have left entries, too.
        Kind::Sessions => assert_eq!(swept.sessions, there),
        Kind::Revocations => assert_eq!(swept, Swept { sessions: 0, revocations: there }),
    }
    let millis: Vec<f64> = steps.iter().map(Duration::as_secs_f64).map(|seconds| seconds * 1e3).collect();
    let steps = [0.5, 0.99, 0.999, 1.0].map(|of| quantile(&millis, of));
    std::iter::once(number as f64 / took.as_secs_f64()).chain(steps).collect()
}

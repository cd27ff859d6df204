//! The threads of load and upstream. None of them sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::{Builder, Handle};

use crate::sets::Weight;

/// Threads with a runtime each, on processors of their own.
pub struct Crew {
    /// Of the load: the calling thread first.
    pub load: Vec<Handle>,
    /// Of the upstream.
    pub upstream: Vec<Handle>,
    others: Vec<Other>,
}

/// Pins this thread, and whatever it starts later, to these processors.
pub fn pin(processors: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor));
    Ok(sched_setaffinity(None, &set)?)
}

/// Keeps a thread of the load or the upstream from sleeping. Over loopback the sender spends CPU time to wake a
/// sleeping receiver, and a slower gateway would find it asleep more often; over a network a gateway never pays for
/// that.
pub async fn stay_awake(over: impl Fn() -> bool) {
    while !over() {
        tokio::task::yield_now().await;
    }
}

impl Crew {
    /// The calling thread, which is in a runtime, and one more for each other processor.
    pub fn on(seats: &Seats) -> Result<Self> {
        pin(&seats.load[..1])?;
        let here = Handle::current();
        let mut crew = Self { load: vec![here.clone()], upstream: Vec::new(), others: Vec::new() };
        for processor in &seats.load[1..] {
            crew.others.push(Other::start(*processor)?);
        }
        crew.load.extend(crew.others.iter().map(|other| other.handle.clone()));
        for processor in &seats.upstream {
            let other = Other::start(*processor)?;
            crew.upstream.push(other.handle.clone());
            crew.others.push(other);
        }
        if crew.upstream.is_empty() {
            crew.upstream.push(here);
        }
        Ok(crew)
    }
}

/// The processors of gateways, load and upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats {
    /// One for each thread of the load; the first is the main thread's.
    pub load: Vec<usize>,
    /// Without any, the main thread has the upstream, too.
    pub upstream: Vec<usize>,
}

impl Seats {
    /// The gateway has the first processors, one for each worker. `None`: the others are too few.
    pub fn of(workers: usize, weight: Weight, processors: usize) -> Option<Self> {
        let left = processors.checked_sub(workers)?;
        let (load, upstream) = match (weight, left) {
            (Weight::Light, 1..) | (Weight::Heavy, 1) => (1, 0),
            (Weight::Heavy, 2) => (1, 1),
            (Weight::Heavy, 3..) => (2, 1),
            (Weight::ByWorkers, _) => (workers.div_ceil(2), workers.div_ceil(4)),
            (_, 0) => return None,
        };
        let first = workers + load;
        (load + upstream <= left)
            .then(|| Self { load: (workers..first).collect(), upstream: (first..first + upstream).collect() })
    }
}

/// A thread that ends when it is dropped.
struct Other {
    handle: Handle,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Other {
    fn start(processor: usize) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, over) = (runtime.handle().clone(), Arc::new(AtomicBool::new(false)));
        let (is_over, (said, pinned)) = (Arc::clone(&over), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            // The receiver is gone only if this thread's result does not matter.
            let _ = said.send(pin(&[processor]));
            runtime.block_on(stay_awake(|| is_over.load(Ordering::Relaxed)));
        });
        pinned.recv().context("a thread of the load")??;
        Ok(Self { handle, over, thread: Some(thread) })
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_shares_a_processor_that_another_needs() {
        let seats =
            |workers, weight, processors| Seats::of(workers, weight, processors).map(|it| (it.load, it.upstream));
        assert_eq!(seats(1, Weight::Light, 1), None);
        assert_eq!(seats(1, Weight::Light, 8), Some((vec![1], vec![])));
        assert_eq!(seats(1, Weight::Heavy, 2), Some((vec![1], vec![])));
        assert_eq!(seats(1, Weight::Heavy, 3), Some((vec![1], vec![2])));
        assert_eq!(seats(1, Weight::Heavy, 8), Some((vec![1, 2], vec![3])));
        assert_eq!(seats(2, Weight::ByWorkers, 4), Some((vec![2], vec![3])));
        assert_eq!(seats(4, Weight::ByWorkers, 6), None);
        assert_eq!(seats(8, Weight::ByWorkers, 14), Some((vec![8, 9, 10, 11], vec![12, 13])));
    }
}

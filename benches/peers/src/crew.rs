//! The threads of load and upstream. None of them sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::{Builder, Handle};

/// Threads with a runtime each, on processors of their own.
pub struct Crew {
    /// Of the load: the calling thread first.
    pub load: Vec<Handle>,
    /// Of the upstream.
    pub upstream: Handle,
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
    /// The calling thread, which is in a runtime and pinned already, for everything.
    pub fn alone() -> Self {
        let here = Handle::current();
        Self { load: vec![here.clone()], upstream: here, others: Vec::new() }
    }

    /// The calling thread and one on each of these processors: the first is the upstream's, the others share the load.
    /// Without any, the calling thread does all.
    pub fn on(processors: &[usize]) -> Result<Self> {
        let mut crew = Self::alone();
        for (number, processor) in processors.iter().enumerate() {
            let other = Other::start(*processor)?;
            match number {
                0 => crew.upstream = other.handle.clone(),
                _ => crew.load.push(other.handle.clone()),
            }
            crew.others.push(other);
        }
        Ok(crew)
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

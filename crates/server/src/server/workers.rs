//! The threads that requests are served on. Each has a runtime of its own, and a connection stays on its thread from the
//! first byte to the last, with the connections to upstreams that its requests use: no thread waits for a lock of
//! another's, and none is woken for what another one did.
//!
//! A connection goes to the thread that has the fewest. Many small ones even out; one client whose single connection
//! keeps a whole processor busy does not, because its requests share a thread.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::lane::Lane;

/// See the module. Dropped, they end with all that runs on them.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    /// Where to begin to look for the thread with the fewest, so that the first is not always the one.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Counted by references.
    connections: Arc<()>,
    /// Gone when it is to end.
    goes_on: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts as many.
    ///
    /// # Errors
    /// The system gives no thread, or no poll.
    pub(super) fn start(number: NonZeroUsize) -> io::Result<Self> {
        let workers = Lane::all(number).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers, turn: AtomicUsize::new(0) })
    }

    /// Has a connection served.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        let (before, from) = self.workers.split_at_checked(turn).unwrap_or_default();
        // The first of those with the fewest.
        let Some(worker) = from.iter().chain(before).min_by_key(|worker| Arc::strong_count(&worker.connections)) else {
            return;
        };
        let counted = Arc::clone(&worker.connections);
        worker.runtime.spawn(async move {
            connection.await;
            drop(counted);
        });
    }
}

impl Worker {
    fn start(lane: Lane) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().thread_name("rotogate-blocking").build()?;
        let handle = runtime.handle().clone();
        let (goes_on, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(format!("rotogate-{lane}")).spawn(move || {
            lane.take();
            // It never says anything, but goes.
            let _ = runtime.block_on(ended);
            // What blocks, such as a password check, ends by itself, and nobody waits for it any more.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), goes_on: Some(goes_on), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.goes_on.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic: whatever runs on it is guarded by its task.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn workers(number: usize) -> Workers {
        Workers::start(NonZeroUsize::new(number).unwrap()).unwrap()
    }

    /// Connections that last until they are told, and the names of their threads.
    fn open(workers: &Workers, number: usize) -> Vec<(String, oneshot::Sender<()>)> {
        let mut open = Vec::new();
        for _ in 0..number {
            let (end, ended) = oneshot::channel();
            let (here, there) = mpsc::channel();
            workers.spawn(async move {
                here.send(std::thread::current().name().unwrap_or_default().to_owned()).unwrap();
                let _ = ended.await;
            });
            open.push((there.recv().unwrap(), end));
        }
        open
    }

    fn on(open: &[(String, oneshot::Sender<()>)], thread: &str) -> usize {
        open.iter().filter(|(name, _)| name == thread).count()
    }

    #[test]
    fn a_connection_goes_to_the_thread_that_has_the_fewest() {
        let workers = workers(3);
        let mut all = open(&workers, 9);
        for thread in ["rotogate-1", "rotogate-2", "rotogate-3"] {
            assert_eq!(on(&all, thread), 3, "{thread}");
        }
        // All those of one thread end.
        all.retain(|(name, _)| name != "rotogate-2");
        let worker = &workers.workers[1];
        while Arc::strong_count(&worker.connections) > 1 {
            std::thread::yield_now();
        }
        let next = open(&workers, 3);
        assert_eq!(on(&next, "rotogate-2"), 3);
    }

    #[test]
    fn when_they_are_dropped_what_runs_on_them_ends() {
        let workers = workers(2);
        let all = open(&workers, 4);
        drop(workers);
        for (name, end) in all {
            assert!(end.is_closed(), "{name}");
        }
    }
}

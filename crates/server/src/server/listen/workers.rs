//! The worker threads and their runtimes. A connection and its upstream connections stay on one thread, so threads do
//! not share locks or wakeups.
//!
//! A connection goes to the thread with the fewest connections.
//!
//! tokio-util's `LocalPoolHandle` is not used: its threads cannot be joined, and the store must close after the last
//! worker.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use rotogate_kit::worker_id::WorkerId;

/// Dropping this value ends all tasks on the threads.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    /// The index at which the next search for the least-loaded thread begins. It advances, so that ties do not always
    /// select the first thread.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// Dropping this sender ends the thread.
    goes_on: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// # Errors
    /// The operating system cannot start a thread or an I/O driver.
    pub(crate) fn start(number: NonZeroUsize) -> io::Result<Self> {
        let workers = WorkerId::ids(number).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers, turn: AtomicUsize::new(0) })
    }

    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        let (before, from) = self.workers.split_at_checked(turn).unwrap_or_default();
        let Some(worker) = from.iter().chain(before).min_by_key(|worker| worker.connections.load(Ordering::Relaxed))
        else {
            return;
        };
        let counted = CountedConnection::new(&worker.connections);
        worker.runtime.spawn(async move {
            connection.await;
            drop(counted);
        });
    }

    /// Returns a probe for the watchdog. The probe does not keep a thread alive.
    pub(crate) fn pulse(&self) -> Pulse {
        Pulse(self.workers.iter().map(|worker| worker.runtime.clone()).collect())
    }
}

struct CountedConnection(Arc<AtomicUsize>);

impl CountedConnection {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Pulse(Vec<Handle>);

impl Pulse {
    pub(crate) async fn answered(&self) {
        let answers: Vec<_> = self.0.iter().map(|runtime| runtime.spawn(async {})).collect();
        for answer in answers {
            // Fails only if the thread has ended.
            let _ = answer.await;
        }
    }
}

impl Worker {
    fn start(worker: WorkerId) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().thread_name("rotogate-blocking").build()?;
        let handle = runtime.handle().clone();
        let (goes_on, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(format!("rotogate-{worker}")).spawn(move || {
            worker.enter();
            // The sender never sends. It is only dropped.
            let _ = runtime.block_on(ended);
            // Blocking work, such as a password check, ends by itself, and its result is no longer needed.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), goes_on: Some(goes_on), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.goes_on.take());
        if let Some(thread) = self.thread.take() {
            // tokio catches panics of tasks, so the thread does not panic.
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

    /// Opens connections that last until their sender is dropped. Returns the names of their threads.
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
        all.retain(|(name, _)| name != "rotogate-2");
        let worker = &workers.workers[1];
        while worker.connections.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        let next = open(&workers, 3);
        assert_eq!(on(&next, "rotogate-2"), 3);
    }

    /// A blocked thread does not answer the watchdog's probe (requirement P60).
    #[tokio::test]
    async fn p60_a_thread_that_stands_still_does_not_answer() {
        let workers = workers(2);
        let (release, released) = mpsc::channel::<()>();
        let (stands, standing) = oneshot::channel();
        workers.workers[0].runtime.spawn(async move {
            stands.send(()).unwrap();
            // Blocks the thread, like a task that never yields.
            let _ = released.recv();
        });
        standing.await.unwrap();
        let pulse = workers.pulse();
        let asked = tokio::spawn(async move { pulse.answered().await });
        tokio::task::yield_now().await;
        // The other thread answers the probe before it runs this task.
        workers.workers[1].runtime.spawn(async {}).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!asked.is_finished());
        release.send(()).unwrap();
        asked.await.unwrap();
        let pulse = workers.pulse();
        drop(workers);
        pulse.answered().await;
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

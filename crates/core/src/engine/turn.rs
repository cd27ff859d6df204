//! Allows only one refresh of a session at a time at this gate. This is not necessary for safety, because every change
//! is a compare-and-swap. Waiting saves work if a client presents the same token many times at once.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::session::SessionId;

/// The queues of sessions with current or waiting requests.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    queues: DashMap<SessionId, TurnQueue>,
}

#[derive(Debug, Default)]
struct TurnQueue {
    lock: Arc<Mutex<()>>,
    /// The number of running and waiting requests.
    requests: usize,
}

pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    session: SessionId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    pub(crate) async fn take(&self, session: SessionId) -> Turn<'_> {
        let lock = {
            let mut queue = self.queues.entry(session).or_default();
            queue.requests += 1;
            Arc::clone(&queue.lock)
        };
        // Create the `Turn` before the wait, so that a cancelled request also leaves the queue.
        let mut turn = Turn { turns: self, session, guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guard = None;
        self.turns.queues.remove_if_mut(&self.session, |_, queue| {
            queue.requests -= 1;
            queue.requests == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn turns_exclude_each_other_and_leave_nothing_behind() {
        let turns = Arc::new(Turns::default());
        let inside = Arc::new(AtomicUsize::new(0));
        let session = SessionId::new(Timestamp::from_secs(1), [0; 10]);
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (turns, inside) = (Arc::clone(&turns), Arc::clone(&inside));
                tokio::spawn(async move {
                    let _turn = turns.take(session).await;
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(turns.queues.is_empty());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_nothing_behind() {
        let turns = Turns::default();
        let session = SessionId::new(Timestamp::from_secs(1), [0; 10]);
        let held = turns.take(session).await;
        {
            let mut waiting = Box::pin(turns.take(session));
            assert!(futures_util::poll!(&mut waiting).is_pending());
        }
        drop(held);
        assert!(turns.queues.is_empty());
    }
}

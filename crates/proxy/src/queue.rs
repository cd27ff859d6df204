//! The queue of requests that wait for a slot at an upstream. It is fair between callers and client addresses
//! (requirement A18). The next slot goes to the request whose holders use the smallest part of their shares; if several
//! use equally little, it goes to the request that has waited longest.
//!
//! The queue does not need its own limit, because a waiting request counts toward the `max_requests` of `[server]` and
//! toward the shares of its holders. The time to find the next request is proportional to the number of waiting
//! holders.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::pool::RequestHolders;

/// The waiting requests. `T` is the type of a slot.
pub(super) struct Queue<T> {
    /// The number of requests that wait or are about to wait. If it is zero, the other fields are not read.
    waiting: AtomicUsize,
    waiters: Mutex<Waiters<T>>,
}

struct Waiters<T> {
    /// The waiting requests of each group of holders, in the order of arrival.
    by_holders: HashMap<RequestHolders, VecDeque<(u64, oneshot::Sender<T>)>, foldhash::fast::RandomState>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: AtomicUsize::new(0), waiters: Mutex::new(Waiters { by_holders: HashMap::default(), next: 0 }) }
    }
}

/// A request that waits for a slot. Dropping it removes the request from the queue.
pub(super) struct Waiting<'a, T> {
    queue: &'a Queue<T>,
    holders: RequestHolders,
    number: u64,
    pub(super) place: oneshot::Receiver<T>,
}

impl<T> Queue<T> {
    /// Whether the queue is empty. Wake-ups cannot be lost, because a waiter counts itself before it looks for a slot,
    /// a leaving request checks this count after it has freed its slot, and all four operations are sequentially
    /// consistent.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters<T>> {
        self.waiters.lock()
    }

    /// Returns a slot if `take` finds one now; otherwise, adds the request to the queue. Taking a slot at once is fair,
    /// because requests that arrived earlier still wait only if their holders must not get a slot now.
    pub(super) fn enter(&self, holders: RequestHolders, take: impl FnOnce() -> Option<T>) -> Result<T, Waiting<'_, T>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut waiters = self.waiters();
        if let Some(place) = take() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Ok(place);
        }
        let (sender, place) = oneshot::channel();
        let number = waiters.next;
        waiters.next = waiters.next.wrapping_add(1);
        waiters.by_holders.entry(holders).or_default().push_back((number, sender));
        Err(Waiting { queue: self, holders, number, place })
    }

    /// Gives the next slot to a waiter. Returns false if there is no free slot or no waiter that may get it. `rank`
    /// returns how much of their shares the holders use, or `None` if they must not get a slot now. The lowest rank is
    /// served first. `take` takes a slot for the holders.
    pub(super) fn serve(
        &self,
        rank: impl Fn(RequestHolders) -> Option<u64>,
        take: impl FnOnce(RequestHolders) -> Option<T>,
    ) -> bool {
        let mut waiters = self.waiters();
        let ranked = waiters.by_holders.iter().filter_map(|(holders, of_them)| {
            let (number, _) = of_them.front()?;
            Some(((rank(*holders)?, *number), *holders))
        });
        let Some((_, first)) = ranked.min_by_key(|(order, _)| *order) else { return false };
        let Some(place) = take(first) else { return false };
        let Entry::Occupied(mut of_them) = waiters.by_holders.entry(first) else { return false };
        let waiter = of_them.get_mut().pop_front();
        if of_them.get().is_empty() {
            of_them.remove();
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        // If the waiter has just stopped waiting, the slot is dropped, which serves the queue again.
        drop(waiters);
        drop(waiter.map(|(_, waiter)| waiter.send(place)));
        true
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let mut waiters = self.queue.waiters();
        let Entry::Occupied(mut of_them) = waiters.by_holders.entry(self.holders) else { return };
        if let Ok(at) = of_them.get().binary_search_by_key(&self.number, |(number, _)| *number) {
            of_them.get_mut().remove(at);
            self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if of_them.get().is_empty() {
            of_them.remove();
        }
    }
}

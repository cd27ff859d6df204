//! The queue for slots at an upstream (requirement A18). The next slot goes to the request whose holders use the
//! smallest part of their shares. Among equals, the oldest request gets the slot.
//!
//! Waiting requests count toward `max_requests` of `[server]`, so the queue needs no limit.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::pool::RequestHolders;

/// `T` is the type of a slot.
pub(super) struct Queue<T> {
    /// The number of requests that wait or are about to wait.
    waiting: AtomicUsize,
    waiters: Mutex<Waiters<T>>,
}

struct Waiters<T> {
    /// The requests of the same holders, in order of arrival.
    by_holders: HashMap<RequestHolders, VecDeque<(u64, oneshot::Sender<T>)>, foldhash::fast::RandomState>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: AtomicUsize::new(0), waiters: Mutex::new(Waiters { by_holders: HashMap::default(), next: 0 }) }
    }
}

/// Dropping this value removes the request from the queue.
pub(super) struct Waiting<'a, T> {
    queue: &'a Queue<T>,
    holders: RequestHolders,
    number: u64,
    pub(super) place: oneshot::Receiver<T>,
}

impl<T> Queue<T> {
    /// A waiter counts itself before it looks for a slot. A finished request frees its slot before it reads this count.
    /// The sequentially consistent order ensures that no wake-up is lost.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters<T>> {
        self.waiters.lock()
    }

    /// Returns a slot if `take` finds one, otherwise queues the request.
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

    /// Gives the next slot to the waiter with the lowest `rank`. `rank` returns `None` for holders that must not get a
    /// slot. Returns whether a slot was given.
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
        // If the waiter no longer exists, `send` fails. Dropping the slot then serves the next waiter.
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

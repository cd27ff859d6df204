//! Requests that wait for a place at an upstream, fair between their holders (requirement A18): the next place goes to the
//! request whose holders have the least of their shares, and among equals to the one that waits longest.
//!
//! A request that waits holds its place among the `max_requests` of `[server]`, and so does each holder's part of them: the
//! queue needs no bound of its own. A look through it takes as long as there are holders that wait.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::pool::RequestHolders;

/// See the module. A place is a `T`.
pub(super) struct Queue<T> {
    /// How many wait, or are about to. Where none does, nothing else is looked at.
    waiting: AtomicUsize,
    waiters: Mutex<Waiters<T>>,
}

struct Waiters<T> {
    /// In the order of their numbers.
    by_holders: HashMap<RequestHolders, VecDeque<(u64, oneshot::Sender<T>)>, foldhash::fast::RandomState>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: AtomicUsize::new(0), waiters: Mutex::new(Waiters { by_holders: HashMap::default(), next: 0 }) }
    }
}

/// A request that waits, until it is dropped.
pub(super) struct Waiting<'a, T> {
    queue: &'a Queue<T>,
    holders: RequestHolders,
    number: u64,
    pub(super) place: oneshot::Receiver<T>,
}

impl<T> Queue<T> {
    /// No wake-up is lost: a waiter counts itself before it looks for a place, who leaves one looks here afterwards, and all
    /// four are sequentially consistent.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters<T>> {
        self.waiters.lock()
    }

    /// A place, if `take` finds one now. Those that wait already do so because none is for them.
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

    /// Gives the next place away; false if there is none, or nobody for it. `rank` is what holders have, least first, or
    /// `None` if no place is for them. `take` takes one for them.
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
        // Who has gone just now leaves the place when it is dropped, and that looks here.
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

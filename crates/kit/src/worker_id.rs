//! Ids of worker threads. Each worker has its own connections, counters and log buffers, to avoid locks.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroUsize;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The id of a worker thread.
#[derive(Clone, Copy, Debug)]
pub struct WorkerId(usize);

impl WorkerId {
    /// The ids of `number` workers.
    pub fn ids(number: NonZeroUsize) -> impl Iterator<Item = Self> {
        (1..=number.get()).map(Self)
    }

    /// Creates one item for each worker, and a first item for all other threads.
    pub fn per_worker<T>(workers: usize, mut one: impl FnMut() -> T) -> Box<[T]> {
        (0..=workers).map(|_| one()).collect()
    }

    /// Assigns this id to the current thread.
    pub fn enter(self) {
        CURRENT.set(self.0);
    }

    /// Returns the current thread's item in a list from [`Self::per_worker`].
    pub fn current<T>(each: &[T]) -> Option<&T> {
        each.get(CURRENT.get()).or_else(|| each.first())
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_its_own_and_whoever_took_none_the_first() {
        let mut names = ["others", "a", "b"].into_iter();
        let each: &'static [_] = Box::leak(WorkerId::per_worker(2, || names.next().unwrap()));
        let seen: Vec<_> = WorkerId::ids(NonZeroUsize::new(3).unwrap())
            .map(|worker| {
                let there = move || {
                    worker.enter();
                    WorkerId::current(each).copied()
                };
                std::thread::spawn(there).join().unwrap()
            })
            .collect();
        assert_eq!(seen, [Some("a"), Some("b"), Some("others")]);
        assert_eq!(WorkerId::current(each), Some(&"others"));
        assert_eq!(WorkerId::current::<u8>(&[]), None);
    }
}

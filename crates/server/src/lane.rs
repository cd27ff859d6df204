//! Connections to upstreams that are kept apart, so that no thread waits for another's lock, or is woken for what comes in
//! on a connection that another one uses.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroUsize;

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// One of several threads with connections of their own. All others share some, too.
#[derive(Clone, Copy, Debug)]
pub struct Lane(usize);

impl Lane {
    /// As many as [`Settings::lanes`](crate::proxy::Settings::lanes).
    pub fn all(number: NonZeroUsize) -> impl Iterator<Item = Self> {
        (1..=number.get()).map(Self)
    }

    /// One of something for each lane, and before them the one of all other threads.
    pub(crate) fn each<T>(lanes: usize, mut one: impl FnMut() -> T) -> Box<[T]> {
        (0..=lanes).map(|_| one()).collect()
    }

    /// From now on this thread uses connections of this lane.
    pub fn take(self) {
        LANE.set(self.0);
    }

    /// This thread's of [`Self::each`]. A lane too many is nobody's own.
    pub(crate) fn of<T>(each: &[T]) -> Option<&T> {
        each.get(LANE.get()).or_else(|| each.first())
    }
}

impl fmt::Display for Lane {
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
        let each: &'static [_] = Box::leak(Lane::each(2, || names.next().unwrap()));
        let seen: Vec<_> = Lane::all(NonZeroUsize::new(3).unwrap())
            .map(|lane| {
                let there = move || {
                    lane.take();
                    Lane::of(each).copied()
                };
                std::thread::spawn(there).join().unwrap()
            })
            .collect();
        assert_eq!(seen, [Some("a"), Some("b"), Some("others")]);
        assert_eq!(Lane::of(each), Some(&"others"));
        assert_eq!(Lane::of::<u8>(&[]), None);
    }
}

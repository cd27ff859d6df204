//! Connections to upstreams that are kept apart, so that no thread waits for another's lock, or is woken for what comes in
//! on a connection that another one uses.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroUsize;

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// One of several threads with connections of their own. All others share the first one's.
#[derive(Clone, Copy, Debug)]
pub struct Lane(usize);

impl Lane {
    /// As many as [`Settings::lanes`](super::Settings::lanes).
    pub fn all(number: NonZeroUsize) -> impl Iterator<Item = Self> {
        (0..number.get()).map(Self)
    }

    /// From now on this thread uses connections of this lane.
    pub fn take(self) {
        LANE.set(self.0);
    }

    /// What is this thread's of one for each lane. One too many is the first, too.
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
        let each = ["a", "b", "c"];
        let seen: Vec<_> = Lane::all(NonZeroUsize::new(4).unwrap())
            .map(|lane| {
                let there = move || {
                    lane.take();
                    Lane::of(&each).copied()
                };
                std::thread::spawn(there).join().unwrap()
            })
            .collect();
        assert_eq!(seen, [Some("a"), Some("b"), Some("c"), Some("a")]);
        assert_eq!(Lane::of(&each), Some(&"a"));
        assert_eq!(Lane::of::<u8>(&[]), None);
    }
}

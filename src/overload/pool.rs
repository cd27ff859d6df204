//! A pool: a bound in total, and one for each holder.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Holder;

/// The number of counters that holders share. A holder at its bound exhausts the counter of one in this many others.
const COUNTERS: usize = 4096;

/// The bounds of a pool.
///
/// ```
/// use rotogate::gate::{Bound, Bounds};
///
/// let mut bounds = Bounds::default();
/// bounds.tunnels = Bound { all: 10_000, each: 32 };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// In total.
    pub all: usize,
    /// For one holder.
    pub each: usize,
}

impl Bound {
    /// No bound.
    pub const NONE: Self = Self { all: usize::MAX, each: usize::MAX };
}

/// Which of the two bounds is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The total.
    All,
    /// That of this holder.
    Holder,
}

/// The amounts of each holder.
#[derive(Debug)]
pub struct Shares {
    each: AtomicUsize,
    held: Box<[AtomicUsize]>,
}

impl Shares {
    pub fn new(each: usize) -> Self {
        Self { each: AtomicUsize::new(each), held: (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect() }
    }

    pub fn set(&self, each: usize) {
        self.each.store(each, Ordering::Relaxed);
    }

    fn counter(&self, holder: Holder) -> Option<&AtomicUsize> {
        self.held.get(holder.index(COUNTERS))
    }

    /// Adds an amount for the holder, if its share allows it. Return it with [`Self::leave`].
    pub(crate) fn enter(&self, holder: Holder, amount: usize) -> bool {
        self.enter_within(holder, amount, self.each.load(Ordering::Relaxed))
    }

    /// The same, with another bound.
    pub fn enter_within(&self, holder: Holder, amount: usize, each: usize) -> bool {
        let Some(counter) = self.counter(holder) else { return true };
        let before = counter.fetch_add(amount, Ordering::Relaxed);
        let fits = before.saturating_add(amount) <= each;
        if !fits {
            counter.fetch_sub(amount, Ordering::Relaxed);
        }
        fits
    }

    pub fn leave(&self, holder: Holder, amount: usize) {
        if let Some(counter) = self.counter(holder) {
            counter.fetch_sub(amount, Ordering::Relaxed);
        }
    }
}

/// One bounded kind of resource. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Kind>);

#[derive(Debug)]
struct Kind {
    most: AtomicUsize,
    all: AtomicUsize,
    shares: Shares,
}

impl Kind {
    fn enter(&self, holder: Option<Holder>, amount: usize) -> Result<(), Full> {
        let before = self.all.fetch_add(amount, Ordering::Relaxed);
        let full = if before.saturating_add(amount) > self.most.load(Ordering::Relaxed) {
            Full::All
        } else if holder.is_some_and(|holder| !self.shares.enter(holder, amount)) {
            Full::Holder
        } else {
            return Ok(());
        };
        self.leave(None, amount);
        Err(full)
    }

    fn leave(&self, holder: Option<Holder>, amount: usize) {
        self.all.fetch_sub(amount, Ordering::Relaxed);
        if let Some(holder) = holder {
            self.shares.leave(holder, amount);
        }
    }
}

impl Pool {
    pub(crate) fn new(bound: Bound) -> Self {
        Self(Arc::new(Kind {
            most: AtomicUsize::new(bound.all),
            all: AtomicUsize::new(0),
            shares: Shares::new(bound.each),
        }))
    }

    /// Changes the bounds. What exceeds them stays.
    pub fn set(&self, bound: Bound) {
        self.0.most.store(bound.all, Ordering::Relaxed);
        self.0.shares.set(bound.each);
    }

    /// A permit for this holder; `None` counts towards the total only. Of several that compete for the last permit at
    /// the same moment, none may get it.
    pub(crate) fn enter(&self, holder: Option<Holder>) -> Result<PoolPermit, Full> {
        self.take(holder, 1)
    }

    /// The same for this amount.
    pub(crate) fn take(&self, holder: Option<Holder>, amount: usize) -> Result<PoolPermit, Full> {
        self.0.enter(holder, amount)?;
        Ok(PoolPermit { kind: Arc::clone(&self.0), holder, amount })
    }

    /// The bound in total.
    pub fn bound(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }

    /// The amount taken.
    pub fn now(&self) -> usize {
        self.0.all.load(Ordering::Relaxed)
    }
}

/// What a holder has taken of a pool, until it is dropped.
#[derive(Debug)]
pub struct PoolPermit {
    kind: Arc<Kind>,
    holder: Option<Holder>,
    amount: usize,
}

impl PoolPermit {
    /// Takes this much more.
    pub(crate) fn grow(&mut self, amount: usize) -> Result<(), Full> {
        self.kind.enter(self.holder, amount)?;
        self.amount += amount;
        Ok(())
    }
}

impl Drop for PoolPermit {
    fn drop(&mut self) {
        self.kind.leave(self.holder, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: [u8; 4]) -> Option<Holder> {
        Some(Holder::address(address.into()))
    }

    #[test]
    fn a9_a_holder_has_its_share_and_the_rest_is_left_to_others() {
        let pool = Pool::new(Bound { all: 3, each: 2 });
        let (one, other) = (from([192, 0, 2, 1]), from([192, 0, 2, 2]));
        let held = [pool.enter(one).unwrap(), pool.enter(one).unwrap()];
        assert_eq!(pool.enter(one).unwrap_err(), Full::Holder);
        assert_eq!(pool.now(), 2, "a refused holder holds nothing");
        let third = pool.enter(other).unwrap();
        assert_eq!(pool.enter(other).unwrap_err(), Full::All);
        assert_eq!(pool.enter(None).unwrap_err(), Full::All);
        drop(held);
        // A refusal leaves nothing behind, at either bound.
        let _held = [pool.enter(one).unwrap(), pool.enter(one).unwrap()];
        drop(third);
        let _whoever = pool.enter(None).unwrap();
        // Fewer than there are: the present ones stay, and no other gets in.
        pool.set(Bound { all: 1, each: 1 });
        assert!(pool.enter(None).is_err());
    }

    #[test]
    fn a11_bytes_are_given_back_to_the_last() {
        let pool = Pool::new(Bound { all: 100, each: 60 });
        let one = from([192, 0, 2, 1]);
        let mut place = pool.take(one, 40).unwrap();
        place.grow(20).unwrap();
        assert_eq!(place.grow(1), Err(Full::Holder));
        let other = pool.take(from([192, 0, 2, 2]), 40).unwrap();
        assert_eq!(pool.take(None, 1).unwrap_err(), Full::All);
        drop((place, other));
        assert_eq!(pool.now(), 0);
        assert!(pool.take(one, usize::MAX).is_err(), "no sum overflows");
        let _all = pool.take(one, 60).unwrap();
    }

    #[test]
    fn a9_never_more_than_the_bound_hold_a_place_whatever_happens_at_once() {
        let (pool, held) = (Pool::new(Bound { all: 3, each: 2 }), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for last in 0..8 {
                let (pool, held) = (&pool, &held);
                scope.spawn(move || {
                    for _ in 0..2000 {
                        if let Ok(place) = pool.enter(from([192, 0, 2, last % 3])) {
                            assert!(held.fetch_add(1, Ordering::SeqCst) < 3);
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert_eq!(pool.now(), 0);
        assert!(pool.0.shares.held.iter().all(|counter| counter.load(Ordering::SeqCst) == 0));
    }
}

//! A pool: a bound in total, and a share of it for each holder.
//!
//! Shares bind only under contention (requirement A17). While more than an eighth of a pool is free, every request for
//! it succeeds. Of the last eighth a holder gets at most its share, scaled by the free fraction. So a single holder
//! gets at most seven eighths, and each further greedy holder leaves a part of the rest. A pool is full only when as
//! many greedy holders as there are shares have taken theirs; until then a holder of few permits is admitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Holder;

/// The number of counters that holders share. A holder at its bound also blocks one in this many other holders, which
/// share its counter.
const COUNTERS: usize = 4096;
/// The reserve for holders of few permits: one part in this many.
const RESERVE: usize = 8;

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
    /// The share of one holder under contention. While the pool has room, a single holder may have more, up to seven
    /// eighths of the total. If the total has no bound, this is the maximum.
    pub each: usize,
}

impl Bound {
    /// No bound.
    pub const NONE: Self = Self { all: usize::MAX, each: usize::MAX };
}

/// The bound that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The total.
    All,
    /// The bound of this holder.
    Holder,
}

/// How much of a pool is taken.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    most: usize,
    free: usize,
}

impl Usage {
    /// The usage of a pool of `most`.
    #[inline]
    pub const fn new(most: usize, used: usize) -> Self {
        Self { most, free: most.saturating_sub(used) }
    }

    /// Is nothing free?
    pub const fn is_full(self) -> bool {
        self.free == 0
    }

    /// May a holder of `held`, whose share is `each`, take `amount` more? The caller checks whether this amount is
    /// free.
    #[inline]
    pub const fn admits(self, held: usize, amount: usize, each: usize) -> bool {
        if self.most == usize::MAX {
            // An unbounded pool shows no contention.
            return held.saturating_add(amount) <= each;
        }
        let reserve = self.most.div_ceil(RESERVE);
        if self.free.saturating_sub(amount) >= reserve || each >= self.most {
            return true;
        }
        if held == 0 || amount == 0 {
            return amount <= each;
        }
        let free = if self.free < reserve { self.free } else { reserve };
        match each.saturating_mul(free).checked_div(reserve) {
            Some(bound) => held.saturating_add(amount) <= bound,
            None => true,
        }
    }
}

/// The amounts of each holder.
#[derive(Debug)]
pub struct Shares {
    each: AtomicUsize,
    held: Box<[AtomicUsize]>,
}

impl Shares {
    /// Shares of this size.
    pub fn new(each: usize) -> Self {
        Self { each: AtomicUsize::new(each), held: (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect() }
    }

    /// Changes the share of each holder.
    pub fn set(&self, each: usize) {
        self.each.store(each, Ordering::Relaxed);
    }

    /// The share of each holder.
    pub fn each(&self) -> usize {
        self.each.load(Ordering::Relaxed)
    }

    fn counter(&self, holder: Holder) -> Option<&AtomicUsize> {
        self.held.get(holder.index(COUNTERS))
    }

    /// The amount of a holder.
    pub fn held(&self, holder: Holder) -> usize {
        self.counter(holder).map_or(0, |counter| positive(counter.load(Ordering::Relaxed)))
    }

    /// Adds an amount for the holder, if the free part of the pool allows it. Returns the holder's amount before.
    /// Return the amount with [`Self::leave`].
    pub fn enter(&self, holder: Holder, amount: usize, each: usize, usage: Usage) -> Option<usize> {
        let Some(counter) = self.counter(holder) else { return Some(0) };
        let before = positive(counter.fetch_add(amount, Ordering::Relaxed));
        let fits = usage.admits(before, amount, each);
        if !fits {
            counter.fetch_sub(amount, Ordering::Relaxed);
        }
        fits.then_some(before)
    }

    fn add(&self, holder: Holder, amount: usize) {
        if let Some(counter) = self.counter(holder) {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// Returns an amount of the holder.
    pub fn leave(&self, holder: Holder, amount: usize) {
        if let Some(counter) = self.counter(holder) {
            counter.fetch_sub(amount, Ordering::Relaxed);
        }
    }
}

/// A count, at least zero. The raw count is briefly below zero if a holder leaves before its lent permit is returned.
const fn positive(count: usize) -> usize {
    if count > usize::MAX / 2 { 0 } else { count }
}

/// One bounded kind of resource. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Pool(Arc<PoolInner>);

#[derive(Debug)]
struct PoolInner {
    most: AtomicUsize,
    all: AtomicUsize,
    shares: Shares,
}

impl PoolInner {
    fn enter(&self, holder: Option<Holder>, amount: usize) -> Result<(), Full> {
        let before = self.all.fetch_add(amount, Ordering::Relaxed);
        let most = self.most.load(Ordering::Relaxed);
        let fits = |holder| self.shares.enter(holder, amount, self.shares.each(), Usage::new(most, before)).is_some();
        let full = if before.saturating_add(amount) > most {
            Full::All
        } else if holder.is_some_and(|holder| !fits(holder)) {
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
    /// An empty pool.
    pub fn new(bound: Bound) -> Self {
        Self(Arc::new(PoolInner {
            most: AtomicUsize::new(bound.all),
            all: AtomicUsize::new(0),
            shares: Shares::new(bound.each),
        }))
    }

    /// Changes the bounds. Permits beyond them stay.
    pub fn set(&self, bound: Bound) {
        self.0.most.store(bound.all, Ordering::Relaxed);
        self.0.shares.set(bound.each);
    }

    /// A permit for this holder; `None` counts towards the total only. If several callers compete for the last permit
    /// at the same moment, all may fail.
    pub fn enter(&self, holder: Option<Holder>) -> Result<PoolPermit, Full> {
        self.take(holder, 1)
    }

    /// Permits of this amount for this holder: see [`Self::enter`].
    pub fn take(&self, holder: Option<Holder>, amount: usize) -> Result<PoolPermit, Full> {
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

    /// The usage without the amount of the calling holder.
    pub fn usage_by_others(&self) -> Usage {
        Usage::new(self.bound(), self.now().saturating_sub(1))
    }

    /// Takes one permit off this holder until the returned value is dropped. The permit still counts in the total.
    pub fn lend(&self, holder: Holder) -> Lent {
        self.0.shares.leave(holder, 1);
        Lent { kind: Arc::clone(&self.0), holder }
    }
}

/// A permit that does not count for its holder until this is dropped.
#[derive(Debug)]
pub struct Lent {
    kind: Arc<PoolInner>,
    holder: Holder,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.kind.shares.add(self.holder, 1);
    }
}

/// The amount that a holder has taken from a pool, until this is dropped.
#[derive(Debug)]
pub struct PoolPermit {
    kind: Arc<PoolInner>,
    holder: Option<Holder>,
    amount: usize,
}

impl PoolPermit {
    /// Takes this much more.
    pub fn grow(&mut self, amount: usize) -> Result<(), Full> {
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
    use std::net::IpAddr;
    use std::sync::LazyLock;

    use super::*;

    /// Holders that share no counter.
    static HOLDERS: LazyLock<Vec<Holder>> = LazyLock::new(|| {
        let shares = Shares::new(0);
        let apart = (0..=u8::MAX).map(|last| Holder::address(IpAddr::from([198, 51, 100, last])));
        let apart = apart.filter(|holder| shares.enter(*holder, 1, 1, Usage::new(usize::MAX, 0)).is_some());
        apart.take(16).collect()
    });

    fn from([.., last]: [u8; 4]) -> Option<Holder> {
        HOLDERS.get(usize::from(last)).copied()
    }

    fn taken(pool: &Pool, holder: Option<Holder>) -> Vec<PoolPermit> {
        std::iter::from_fn(|| pool.enter(holder).ok()).take(5000).collect()
    }

    #[test]
    fn a9_a17_a_holder_alone_has_all_but_the_reserve_and_others_share_that() {
        let pool = Pool::new(Bound { all: 800, each: 80 });
        let mut held = vec![taken(&pool, from([192, 0, 2, 1]))];
        assert_eq!(held[0].len(), 700, "alone");
        assert_eq!(pool.enter(from([192, 0, 2, 1])).unwrap_err(), Full::Holder);
        assert_eq!(pool.now(), 700, "a refused holder holds nothing");
        // Further holders, each as greedy as possible.
        for last in 2..=7 {
            held.push(taken(&pool, from([192, 0, 2, last])));
            let has = held.last().unwrap().len();
            assert!(has >= 1 && has <= held[usize::from(last) - 2].len(), "{last}: {has}");
        }
        // A late holder is admitted although no holder has left.
        let late = pool.enter(from([192, 0, 2, 11])).expect("a place for a holder of nothing");
        drop(late);
        // Freed permits go to the holders with the fewest permits: the first holder has far more than its share.
        held[0].truncate(650);
        assert_eq!(pool.enter(from([192, 0, 2, 1])).unwrap_err(), Full::Holder);
        assert!(taken(&pool, from([192, 0, 2, 11])).len() > 20);
        drop(held);
        assert_eq!((pool.now(), taken(&pool, from([192, 0, 2, 3])).len()), (0, 700));
    }

    #[test]
    fn a9_the_bounds_of_small_pools_and_of_pools_without_a_total() {
        for all in 1..20 {
            let pool = Pool::new(Bound { all, each: 1 });
            let first = taken(&pool, from([192, 0, 2, 1]));
            assert!(first.len() >= 1.max(all - all.div_ceil(8)), "{all}");
            assert!(all == 1 || pool.enter(from([192, 0, 2, 2])).is_ok(), "{all}");
        }
        let whole = Pool::new(Bound { all: 40, each: 40 });
        assert_eq!(taken(&whole, from([192, 0, 2, 1])).len(), 40, "a share of all is no bound");
        let endless = Pool::new(Bound { all: usize::MAX, each: 3 });
        assert_eq!(taken(&endless, from([192, 0, 2, 1])).len(), 3, "without a total the share is the most");
        // A bound below the present number: present holders keep their permits, and no other holder is admitted.
        let held = taken(&whole, from([192, 0, 2, 1]));
        whole.set(Bound { all: 1, each: 1 });
        assert!(whole.enter(None).is_err());
        drop(held);
    }

    #[test]
    fn a17_what_is_lent_does_not_count_for_its_holder() {
        let pool = Pool::new(Bound { all: 80, each: 8 });
        let one = from([192, 0, 2, 1]).unwrap();
        let held = taken(&pool, Some(one));
        let lent: Vec<Lent> = held.iter().map(|_| pool.lend(one)).collect();
        assert_eq!((pool.now(), pool.0.shares.held(one)), (70, 0));
        let more = taken(&pool, Some(one));
        assert!(!more.is_empty() && more.len() < 10, "{}", more.len());
        drop((lent, more));
        assert_eq!(pool.enter(Some(one)).unwrap_err(), Full::Holder, "it counts again");
        let early = pool.lend(one);
        drop(held);
        assert_eq!(pool.0.shares.held(one), 0, "never below nothing");
        drop(early);
        assert_eq!(pool.0.shares.held(one), 0);
    }

    #[test]
    fn a11_bytes_are_given_back_to_the_last() {
        let pool = Pool::new(Bound { all: 160, each: 60 });
        let (one, two) = (from([192, 0, 2, 1]), from([192, 0, 2, 2]));
        let mut place = pool.take(one, 100).unwrap();
        place.grow(40).unwrap();
        assert_eq!(place.grow(1), Err(Full::Holder));
        assert_eq!(pool.take(two, 21).unwrap_err(), Full::All);
        let other = pool.take(two, 20).unwrap();
        assert_eq!(pool.take(None, 1).unwrap_err(), Full::All);
        drop((place, other));
        assert_eq!(pool.now(), 0);
        assert!(pool.take(one, usize::MAX).is_err(), "no sum overflows");
        let _all = pool.take(one, 140).unwrap();
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

//! A pool has a total bound, and a share of the total for each holder. Shares apply only under contention (requirement
//! A17). An eighth of each pool is its reserve.
//!
//! While more than the reserve is free, every request for a permit succeeds. A single holder therefore gets at most
//! seven eighths of the pool. As the first half of the reserve is used up, the limit of each holder falls from its
//! share to zero. The second half is for holders without a permit, and each of them gets one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Holder;

/// The number of counters in each of two rows. A holder's amount is the lower of its two counters, so sharing one
/// counter with a greedy holder is harmless.
const COUNTERS: usize = 2048;
/// The reserve is the size of the pool divided by this number.
const RESERVE: usize = 8;
/// The reserve divided by this number is for holders without a permit.
const FIRST: usize = 2;

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
    /// The total bound.
    pub all: usize,
    /// The share of one holder under contention. A single holder may have up to seven eighths of an idle pool. If the
    /// pool has no total bound, the share is the maximum for each holder.
    pub each: usize,
}

impl Bound {
    /// A pool without bounds.
    pub const NONE: Self = Self { all: usize::MAX, each: usize::MAX };
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The total bound.
    All,
    /// The bound of this holder.
    Holder,
}

/// How much of a pool is in use.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    most: usize,
    free: usize,
}

impl Usage {
    /// The usage of a pool with the total bound `most`.
    #[inline]
    pub const fn new(most: usize, used: usize) -> Self {
        Self { most, free: most.saturating_sub(used) }
    }

    /// Returns whether the whole pool is in use.
    pub const fn is_full(self) -> bool {
        self.free == 0
    }

    /// Returns whether a holder may take `amount` in addition to `held`. `each` is the holder's share. The caller must
    /// check whether `amount` is free.
    #[inline]
    pub const fn admits(self, held: usize, amount: usize, each: usize) -> bool {
        if self.most == usize::MAX {
            // A pool without a total bound cannot detect contention.
            return held.saturating_add(amount) <= each;
        }
        let reserve = self.most.div_ceil(RESERVE);
        if self.free.saturating_sub(amount) >= reserve || each >= self.most {
            return true;
        }
        if held == 0 || amount == 0 {
            return amount <= each;
        }
        let first = reserve / FIRST;
        let (shared, free) = (reserve - first, self.free.saturating_sub(first));
        let scaled = if free < shared { free } else { shared };
        match each.saturating_mul(scaled).checked_div(shared) {
            Some(bound) => amount <= free && held.saturating_add(amount) <= bound,
            None => true,
        }
    }
}

/// The amount that each holder has taken.
#[derive(Debug)]
pub struct Shares {
    each: AtomicUsize,
    held: [Box<[AtomicUsize]>; 2],
}

impl Shares {
    /// Creates the counters. `each` is the share of every holder.
    pub fn new(each: usize) -> Self {
        let row = || (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect();
        Self { each: AtomicUsize::new(each), held: [row(), row()] }
    }

    /// Changes the share of each holder.
    pub fn set(&self, each: usize) {
        self.each.store(each, Ordering::Relaxed);
    }

    /// The share of each holder.
    pub fn each(&self) -> usize {
        self.each.load(Ordering::Relaxed)
    }

    fn counters(&self, holder: Holder) -> Option<[&AtomicUsize; 2]> {
        let ([first, second], [one, two]) = (&self.held, holder.indices(COUNTERS));
        Some([first.get(one)?, second.get(two)?])
    }

    /// The amount that a holder has taken.
    pub fn held(&self, holder: Holder) -> usize {
        let Some([one, two]) = self.counters(holder) else { return 0 };
        positive(one.load(Ordering::Relaxed)).min(positive(two.load(Ordering::Relaxed)))
    }

    /// Adds an amount for the holder, if possible. Returns the holder's previous amount. Give the amount back with
    /// [`Self::leave`].
    pub fn enter(&self, holder: Holder, amount: usize, each: usize, usage: Usage) -> Option<usize> {
        let before = self.add(holder, amount);
        let fits = usage.admits(before, amount, each);
        if !fits {
            self.leave(holder, amount);
        }
        fits.then_some(before)
    }

    fn add(&self, holder: Holder, amount: usize) -> usize {
        let Some(counters) = self.counters(holder) else { return 0 };
        let [one, two] = counters.map(|counter| positive(counter.fetch_add(amount, Ordering::Relaxed)));
        one.min(two)
    }

    /// Subtracts an amount from the holder's counters.
    pub fn leave(&self, holder: Holder, amount: usize) {
        for counter in self.counters(holder).into_iter().flatten() {
            counter.fetch_sub(amount, Ordering::Relaxed);
        }
    }
}

/// Returns 0 for a negative counter. A counter is briefly negative if a permit is released while it is lent.
const fn positive(count: usize) -> usize {
    if count > usize::MAX / 2 { 0 } else { count }
}

/// A bounded resource. Clones share the counters.
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
    /// Creates an empty pool.
    pub fn new(bound: Bound) -> Self {
        Self(Arc::new(PoolInner {
            most: AtomicUsize::new(bound.all),
            all: AtomicUsize::new(0),
            shares: Shares::new(bound.each),
        }))
    }

    /// Changes the bounds. Existing permits remain valid.
    pub fn set(&self, bound: Bound) {
        self.0.most.store(bound.all, Ordering::Relaxed);
        self.0.shares.set(bound.each);
    }

    /// Takes a permit for this holder. Without a holder, the permit counts only toward the total. If several threads
    /// compete for the last permit, all may fail.
    pub fn enter(&self, holder: Option<Holder>) -> Result<PoolPermit, Full> {
        self.take(holder, 1)
    }

    /// Takes an amount for the holder, like [`Self::enter`].
    pub fn take(&self, holder: Option<Holder>, amount: usize) -> Result<PoolPermit, Full> {
        self.0.enter(holder, amount)?;
        Ok(PoolPermit { kind: Arc::clone(&self.0), holder, amount })
    }

    /// The total bound.
    pub fn bound(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }

    /// The amount in use.
    pub fn now(&self) -> usize {
        self.0.all.load(Ordering::Relaxed)
    }

    /// The usage without the caller's permit.
    pub fn usage_by_others(&self) -> Usage {
        Usage::new(self.bound(), self.now().saturating_sub(1))
    }

    /// Excludes one permit from the holder's amount while the returned guard exists. The permit still counts toward the
    /// total.
    pub fn lend(&self, holder: Holder) -> Lent {
        self.0.shares.leave(holder, 1);
        Lent { kind: Arc::clone(&self.0), holder }
    }
}

/// Excludes one permit from its holder's amount.
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

/// An amount that a holder took from a pool. Dropping the permit returns the amount to the pool.
#[derive(Debug)]
pub struct PoolPermit {
    kind: Arc<PoolInner>,
    holder: Option<Holder>,
    amount: usize,
}

impl PoolPermit {
    /// Takes an additional amount.
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
    use std::collections::HashSet;
    use std::net::IpAddr;
    use std::sync::LazyLock;

    use super::*;

    static HOLDERS: LazyLock<Vec<Holder>> = LazyLock::new(|| {
        let mut seen = HashSet::new();
        let all = (0..=u8::MAX).map(|last| Holder::address(IpAddr::from([198, 51, 100, last])));
        all.filter(|holder| seen.insert(holder.index(COUNTERS))).take(64).collect()
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
        assert_eq!(pool.now(), 700, "a refused holder must not get a permit");
        for last in 2..=7 {
            held.push(taken(&pool, from([192, 0, 2, last])));
            let has = held.last().unwrap().len();
            assert!(has >= 1 && has <= held[usize::from(last) - 2].len(), "{last}: {has}");
        }
        // A new holder gets a permit while the other holders keep theirs.
        let late = pool.enter(from([192, 0, 2, 11])).expect("a holder without permits must be admitted");
        drop(late);
        // Freed permits go to the holders with the fewest permits.
        held[0].truncate(650);
        assert_eq!(pool.enter(from([192, 0, 2, 1])).unwrap_err(), Full::Holder);
        assert!(taken(&pool, from([192, 0, 2, 11])).len() > 20);
        drop(held);
        assert_eq!((pool.now(), taken(&pool, from([192, 0, 2, 3])).len()), (0, 700));
    }

    #[test]
    fn a9_greedy_holders_in_any_number_leave_room_for_holders_of_nothing() {
        let pool = Pool::new(Bound { all: 800, each: 80 });
        for is_in_turns in [true, false] {
            let (greedy, mut held) = (0..8, Vec::new());
            if is_in_turns {
                held.extend(
                    (0..800).flat_map(|_| greedy.clone().filter_map(|last| pool.enter(from([192, 0, 2, last])).ok())),
                );
            }
            held.extend(greedy.flat_map(|last| taken(&pool, from([192, 0, 2, last]))));
            assert!(pool.now() >= 700, "{}", pool.now());
            // Other holders still get their first permit.
            let others: Vec<_> = (8..50).map(|last| pool.enter(from([192, 0, 2, last]))).collect();
            assert!(others.iter().all(Result::is_ok), "in turns: {is_in_turns}; {} are taken", pool.now());
            drop((held, others));
        }
        assert_eq!(pool.now(), 0);
    }

    #[test]
    fn a9_who_shares_one_counter_with_a_greedy_holder_is_not_taken_for_it() {
        let all = || (0..=u16::MAX).map(|last| Holder::address(IpAddr::from(u32::from(last).to_be_bytes())));
        let pool = Pool::new(Bound { all: 800, each: 80 });
        let greedy = all().next();
        let _held = taken(&pool, greedy);
        let [one, two] = greedy.unwrap().indices(COUNTERS);
        for row in 0..2 {
            let shares = |holder: &Holder| {
                let (same, other) = ([one, two][row], [one, two][1 - row]);
                holder.indices(COUNTERS)[row] == same && holder.indices(COUNTERS)[1 - row] != other
            };
            let other = all().find(shares).expect("one of 65536");
            let held = taken(&pool, Some(other));
            assert!(held.len() > 20, "{}", held.len());
        }
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
        assert_eq!(taken(&whole, from([192, 0, 2, 1])).len(), 40, "a share as large as the pool");
        let endless = Pool::new(Bound { all: usize::MAX, each: 3 });
        assert_eq!(taken(&endless, from([192, 0, 2, 1])).len(), 3, "with no total bound, the share always applies");
        // A lower bound does not revoke existing permits, but refuses new ones.
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
        assert!(pool.0.shares.held.iter().flatten().all(|counter| counter.load(Ordering::SeqCst) == 0));
    }
}

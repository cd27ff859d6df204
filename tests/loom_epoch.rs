//! The revocation counter under every interleaving that the memory model allows: the promises of a cached token's hit
//! check after a revocation has returned. The file under test is included as a whole, with loom's atomics instead of
//! std's; the list behind it is a lock around a number here, since loom does not see into a dashmap.
//!
//! Each promise depends on the file: with one planted fault, loom finds a history that breaks the promise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use rotogate::clock::Timestamp;

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

mod clock {
    pub(crate) use rotogate::clock::Timestamp;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../crates/core/src/revocation/epoch.rs"]
mod epoch;

#[path = "loom_epoch/bucket.rs"]
mod bucket;

use epoch::{Epochs, RevocationEpoch};

const NEVER: Timestamp = Timestamp::MAX;

const fn ms(n: u64) -> Timestamp {
    Timestamp::from_millis(n)
}

/// The fault to simulate.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The counter rises before the entry is in the list.
    BumpBeforeInsert,
    /// The checker remembers the counter as it is after its check.
    CounterAfterCheck,
    /// The checker overwrites the result of another checker.
    PlainStore,
    /// The checker publishes that it has checked before it publishes the result.
    SeenFirst,
    /// A writer that finds its entry in the list returns, although the batch with the entry has not yet raised the
    /// counter.
    TrustBatch,
}

/// [`RevocationEpoch`], or a faulty version with separate cells.
enum Cached {
    Sound(RevocationEpoch),
    Faulty { seen: atomic::AtomicU64, refuse_from: atomic::AtomicU64, fault: Fault },
}

impl Cached {
    fn new(epoch: u64, refuse_from: Timestamp, fault: Fault) -> Self {
        match fault {
            Fault::None | Fault::BumpBeforeInsert | Fault::CounterAfterCheck | Fault::TrustBatch => {
                Self::Sound(RevocationEpoch::new(epoch, refuse_from))
            }
            Fault::PlainStore | Fault::SeenFirst => Self::Faulty {
                seen: atomic::AtomicU64::new(epoch),
                refuse_from: atomic::AtomicU64::new(refuse_from.as_millis()),
                fault,
            },
        }
    }

    fn is_current(&self, epoch: u64) -> bool {
        match self {
            Self::Sound(watch) => watch.is_current(epoch),
            Self::Faulty { seen, .. } => seen.load(Ordering::Acquire) == epoch,
        }
    }

    fn refuse_from(&self) -> Timestamp {
        match self {
            Self::Sound(watch) => watch.refuse_from(),
            Self::Faulty { refuse_from, .. } => ms(refuse_from.load(Ordering::Relaxed)),
        }
    }

    fn update(&self, epoch: u64, found: Timestamp) {
        match self {
            Self::Sound(watch) => watch.update(epoch, found),
            Self::Faulty { seen, refuse_from, fault: Fault::PlainStore } => {
                refuse_from.store(found.as_millis(), Ordering::Relaxed);
                seen.store(epoch, Ordering::Release);
            }
            Self::Faulty { seen, refuse_from, .. } => {
                seen.store(epoch, Ordering::Release);
                refuse_from.fetch_min(found.as_millis(), Ordering::Relaxed);
            }
        }
    }
}

/// The list: the moment from which the only token is refused.
struct Gate {
    list: Mutex<Timestamp>,
    epochs: Epochs<1>,
    cached: Cached,
    fault: Fault,
}

impl Gate {
    /// A gate whose cache holds a good token that was checked just now.
    fn new(fault: Fault) -> Arc<Self> {
        let epochs = Epochs::new();
        let cached = Cached::new(epochs.read(0), NEVER, fault);
        Arc::new(Self { list: Mutex::new(NEVER), epochs, cached, fault })
    }

    /// Is the entry new?
    fn insert(&self, from: Timestamp) -> bool {
        let mut list = self.list.lock().unwrap();
        let is_news = from < *list;
        *list = (*list).min(from);
        is_news
    }

    /// An entry of a batch: the counter rises once all entries are in the list.
    fn revoke_among_many(&self, from: Timestamp) {
        let mut batch = self.epochs.batch();
        if self.insert(from) || (self.fault != Fault::TrustBatch && batch.is_another_open()) {
            batch.concerns(0);
        }
    }

    /// Like the list: the counter rises while the entry is locked, and for a known entry only while a batch is open.
    fn revoke_unless_known(&self, from: Timestamp) {
        let mut list = self.list.lock().unwrap();
        if from < *list {
            *list = from;
            self.epochs.bump(0);
            return;
        }
        drop(list);
        if self.fault != Fault::TrustBatch && self.epochs.is_batch_open() {
            self.epochs.bump(0);
        }
    }

    fn revoke(&self, from: Timestamp) {
        if self.fault == Fault::BumpBeforeInsert {
            self.epochs.bump(0);
            self.insert(from);
        } else {
            self.insert(from);
            self.epochs.bump_all();
        }
    }

    fn check(&self) -> Timestamp {
        *self.list.lock().unwrap()
    }

    /// A hit at this time: does the token pass?
    fn hit(&self, now: Timestamp) -> bool {
        let epoch = self.epochs.read(0);
        if !self.cached.is_current(epoch) {
            let found = self.check();
            let epoch = if self.fault == Fault::CounterAfterCheck { self.epochs.read(0) } else { epoch };
            self.cached.update(epoch, found);
        }
        now < self.cached.refuse_from()
    }
}

/// One revocation while another thread has hits; then a hit after the revocation has returned.
fn one_writer_one_checker(fault: Fault) {
    loom::model(move || {
        let gate = Gate::new(fault);
        let done = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let (gate, done) = (gate.clone(), done.clone());
            move || {
                gate.revoke(ms(0));
                done.store(true, Ordering::Release);
            }
        });
        let checker = thread::spawn({
            let (gate, done) = (gate.clone(), done.clone());
            move || {
                for _ in 0..2 {
                    let returned = done.load(Ordering::Acquire);
                    assert!(!(gate.hit(ms(1)) && returned), "a hit passed after the revocation had returned");
                }
            }
        });
        writer.join().unwrap();
        checker.join().unwrap();
        assert!(!gate.hit(ms(1)), "a hit passed after the revocation had returned");
    });
}

/// Two revocations, the second with an earlier effect, while two threads check again.
fn two_writers_two_checkers(fault: Fault) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let gate = Gate::new(fault);
        gate.revoke(ms(9));
        let writer = thread::spawn({
            let gate = gate.clone();
            move || gate.revoke(ms(0))
        });
        let checker = thread::spawn({
            let gate = gate.clone();
            move || {
                gate.hit(ms(1));
            }
        });
        gate.hit(ms(1));
        writer.join().unwrap();
        assert!(!gate.hit(ms(1)), "a stale check hid a later entry");
        checker.join().unwrap();
        assert!(!gate.hit(ms(1)), "a stale check hid a later entry");
    });
}

/// A repeated entry, first in a batch. After either writer has returned, no hit passes.
fn a_batch_and_another(other: fn(&Gate, Timestamp), fault: Fault) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let gate = Gate::new(fault);
        let batch = thread::spawn({
            let gate = gate.clone();
            move || {
                gate.revoke_among_many(ms(0));
                assert!(!gate.hit(ms(1)), "a hit passed after the revocation had returned");
            }
        });
        other(&gate, ms(0));
        assert!(!gate.hit(ms(1)), "a hit passed after the revocation had returned");
        batch.join().unwrap();
    });
}

fn finds(what: &str, model: impl FnOnce() + std::panic::UnwindSafe) {
    let found = std::panic::catch_unwind(model).expect_err("loom found no bad history");
    let text = found.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| found.downcast_ref::<String>().cloned()).unwrap_or_default();
    assert!(text.contains(what), "loom stumbled over something else: {text}");
}

#[test]
fn j15_once_a_revocation_has_returned_no_hit_passes() {
    one_writer_one_checker(Fault::None);
}

#[test]
fn j15_a_stale_check_cannot_hide_a_later_entry() {
    two_writers_two_checkers(Fault::None);
}

#[test]
fn j15_an_entry_that_comes_alone_and_among_many_holds_once_either_has_returned() {
    a_batch_and_another(Gate::revoke_unless_known, Fault::None);
}

#[test]
fn j15_an_entry_that_comes_twice_among_many_holds_once_either_has_returned() {
    a_batch_and_another(Gate::revoke_among_many, Fault::None);
}

#[test]
fn trusting_a_batch_that_is_still_open_is_found() {
    for other in [Gate::revoke_unless_known, Gate::revoke_among_many] {
        finds("after the revocation had returned", || a_batch_and_another(other, Fault::TrustBatch));
    }
}

#[test]
fn raising_the_counter_before_the_entry_is_there_is_found() {
    finds("after the revocation had returned", || one_writer_one_checker(Fault::BumpBeforeInsert));
}

#[test]
fn remembering_the_counter_as_it_is_after_the_check_is_found() {
    finds("a stale check hid a later entry", || two_writers_two_checkers(Fault::CounterAfterCheck));
}

#[test]
fn storing_what_was_found_over_what_another_has_found_is_found() {
    finds("a stale check hid a later entry", || two_writers_two_checkers(Fault::PlainStore));
}

#[test]
fn saying_checked_before_saying_what_was_found_is_found() {
    finds("a stale check hid a later entry", || two_writers_two_checkers(Fault::SeenFirst));
}

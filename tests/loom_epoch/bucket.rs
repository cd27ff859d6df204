//! A token bucket under every interleaving: threads take no more than the content, and returned tokens are available
//! again.

use loom::sync::Arc;
use loom::thread;
use rotogate::gate::Rate;

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/core/src/limit/bucket.rs"]
mod gcra;

use gcra::Bucket;

const PRICE: u64 = 10;
const NOW: u64 = 1_000;

/// A bucket, or one that forgets what another thread took meanwhile.
enum Counter {
    Sound(Bucket),
    Faulty(atomic::AtomicU64),
}

impl Counter {
    fn take(&self, burst: u64) -> bool {
        match self {
            Self::Sound(bucket) => bucket.take_of(NOW, PRICE, PRICE * burst).is_ok(),
            Self::Faulty(full_at) => {
                let next = full_at.load(atomic::Ordering::Relaxed).max(NOW) + PRICE;
                let is_there = next - NOW <= PRICE * burst;
                if is_there {
                    full_at.store(next, atomic::Ordering::Relaxed);
                }
                is_there
            }
        }
    }
}

fn three_take_two(counter: fn() -> Counter) {
    loom::model(move || {
        let counter = Arc::new(counter());
        let takers = [(); 2].map(|()| {
            let counter = Arc::clone(&counter);
            thread::spawn(move || counter.take(2))
        });
        let own = counter.take(2);
        let taken = takers.into_iter().map(|taker| taker.join().unwrap()).chain([own]);
        assert_eq!(taken.filter(|taken| *taken).count(), 2, "as many as there are");
    });
}

#[test]
fn k15_threads_take_as_many_as_there_are() {
    three_take_two(|| Counter::Sound(Bucket::default()));
}

#[test]
fn a_bucket_that_forgets_what_another_thread_took_is_found() {
    super::finds("as many as there are", || three_take_two(|| Counter::Faulty(atomic::AtomicU64::new(0))));
}

/// K18: two threads want a token of each bucket. One thread gets both tokens, and the other consumes no token.
#[test]
fn k15_k18_what_is_given_back_is_there_for_another() {
    loom::model(|| {
        let both = Arc::new((Bucket::default(), Bucket::default()));
        let take = |(wide, narrow): &(Bucket, Bucket)| {
            if wide.take_of(NOW, PRICE, PRICE * 2).is_err() {
                return false;
            }
            let is_taken = narrow.take_of(NOW, PRICE, PRICE).is_ok();
            if !is_taken {
                wide.give_back(PRICE);
            }
            is_taken
        };
        let other = {
            let both = Arc::clone(&both);
            thread::spawn(move || take(&both))
        };
        let taken = [take(&both), other.join().unwrap()];
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
        let left = (0..2).filter(|_| both.0.take_of(NOW, PRICE, PRICE * 2).is_ok()).count();
        assert_eq!(left, 1, "one is used");
    });
}

/// The rate of [`Bucket::take`] is that of a limit.
#[test]
fn k15_a_rate_is_a_burst_and_what_time_earns() {
    loom::model(|| {
        let bucket = Bucket::default();
        let rate = Rate::new(2, std::time::Duration::from_nanos(PRICE));
        let at = std::time::Duration::from_nanos;
        assert!(bucket.take(rate, at(NOW)).is_ok() && bucket.take(rate, at(NOW)).is_ok());
        assert_eq!(bucket.take(rate, at(NOW + 4)), Err(at(6)));
        assert!(bucket.take(rate, at(NOW + PRICE)).is_ok());
    });
}

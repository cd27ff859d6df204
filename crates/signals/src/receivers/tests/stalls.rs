//! Gates that stand still while they read, or between the parts of a write, and tasks that panic.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::super::super::streams::tests::Hook;
use super::*;

/// The result of a future that waits for nothing: the store of these tests answers at once.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

impl World {
    /// A gate with this hook, and its outbox.
    fn hooked(&self, run: u8, hook: Hook) -> (Arc<FakeGate>, Outbox) {
        let fake = gate(&self.store, &self.time, self.is_shared);
        *fake.hook.lock() = Some(hook);
        let gate: Arc<dyn ReceiverGate> = Arc::clone(&fake) as _;
        let record = record(&gate, &self.plan, [run; 16]);
        (fake, Outbox::new(gate, record, (self.plan.clone(), Arc::default())))
    }
}

#[tokio::test]
async fn s25_s18_reading_for_longer_than_the_lease_loses_neither_the_place_nor_the_lease() {
    for page in [Duration::from_secs(5), LEASE + RENEW] {
        let mut world = World::new(true);
        let mut other = world.begin(2);
        let time = Arc::clone(&world.time);
        let mut pages = 0;
        let (_, mut outbox) = world.hooked(
            1,
            Box::new(move |operation| {
                if operation == "next_ends" {
                    pages += 1;
                    time.advance(page);
                    // A page for which the lease suffices leaves the other gate no moment to take over.
                    if page < LEASE {
                        assert_eq!(at_once(other.step()).unwrap(), RENEW, "page {pages}");
                    }
                }
            }),
        );
        outbox.step().await.unwrap();
        world.end(200).await;
        for _ in 0..10 {
            outbox.step().await.unwrap();
        }
        assert_eq!(world.taken(), world.ids(), "each once, with pages of {page:?}");
        // The position was kept.
        world.time.advance(LEASE);
        world.begin(3).step().await.unwrap();
        assert_eq!(world.taken().len(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn s18_one_read_that_takes_longer_than_the_lease_renews_it_meanwhile() {
    let world = World::new(true);
    let mut other = world.begin(2);
    let mut seconds = 0;
    let hook = move |operation: &str| {
        if operation == "ended_since" {
            seconds += 1;
            if seconds > 1 {
                assert_eq!(at_once(other.step()).unwrap(), RENEW, "second {seconds}");
            }
        }
    };
    let (gate, mut outbox) = world.hooked(1, Box::new(hook));
    gate.reads_for.store(60, Ordering::Relaxed);
    outbox.step().await.unwrap();
    assert!(outbox.counted.is_sender.load(Ordering::Relaxed));
}

#[tokio::test]
async fn s18_moving_events_to_rows_for_longer_than_the_lease_renews_it() {
    let mut world = World::new(true);
    world.plan.settings.url = "of no host".into();
    let (mut other, time) = (world.begin(2), Arc::clone(&world.time));
    let (gate, mut outbox) = world.hooked(1, Box::new(|_| {}));
    outbox.step().await.unwrap();
    world.end(4000).await;
    let steps = usize::try_from(SAVE_EVERY.as_secs() / RENEW.as_secs()).unwrap();
    world.steps(&mut outbox, steps, RENEW).await;
    assert_eq!(world.store.relay_ids().await.unwrap().len(), 1, "no row yet");
    *gate.hook.lock() = Some(Box::new(move |operation| {
        time.advance(Duration::from_secs(u64::from(operation == "records")));
        assert_eq!(at_once(other.step()).unwrap(), RENEW);
    }));
    let began = world.time.wall();
    outbox.step().await.unwrap();
    assert!(world.store.relay_ids().await.unwrap().len() > 10);
    assert!(world.time.wall() > began.plus(LEASE * 2), "it takes long");
}

/// A gate stands still before its operation `number` on the records, for so long that another gate takes over and moves
/// the events and a new one to rows. Returns whether there is such an operation.
async fn stall_before(number: usize) -> bool {
    let mut world = World::new(true);
    let good = std::mem::replace(&mut world.plan.settings.url, "of no host".into());
    let (mut other, time, store) = (world.begin(2), Arc::clone(&world.time), Arc::clone(&world.store));
    let late = session("ada", 1000, time.wall());
    let (late_id, was_stalled) = (late.id.to_string(), Arc::new(AtomicU64::new(0)));
    let (stalled, mut left) = (Arc::clone(&was_stalled), None);
    let (gate, mut outbox) = world.hooked(1, Box::new(|_| {}));
    outbox.step().await.unwrap();
    world.end(3).await;
    outbox.step().await.unwrap();
    world.time.advance(SAVE_EVERY);
    *gate.hook.lock() = Some(Box::new(move |operation| {
        let left = left.get_or_insert(number);
        if operation != "records" || stalled.load(Ordering::Relaxed) > 0 {
            return;
        }
        if *left > 0 {
            *left -= 1;
            return;
        }
        stalled.store(1, Ordering::Relaxed);
        time.advance(LEASE);
        at_once(insert(&*store, &late));
        at_once(store.revoke(gone(late.id), RevokedBecause::Reuse)).unwrap();
        at_once(other.step()).unwrap();
        time.advance(SAVE_EVERY);
        at_once(other.step()).unwrap();
    }));
    // Its write conflicts with the other gate's, or the gate notices itself that it has lost the lease.
    let _ = outbox.step().await;
    let stalls = was_stalled.load(Ordering::Relaxed) > 0;
    if stalls {
        assert_eq!(outbox.step().await.unwrap(), RENEW, "stalled before {number}: it knows that another gate sends");
    }
    world.plan.settings.url = good;
    world.time.advance(LEASE);
    let mut third = world.begin(3);
    third.step().await.unwrap();
    let expected = [world.ids(), if stalls { vec![late_id] } else { Vec::new() }].concat();
    assert_eq!(world.taken(), expected, "stalled before {number}: each once");
    assert_eq!(world.store.relay_ids().await.unwrap().len(), 1, "stalled before {number}: no row is left");
    stalls
}

#[tokio::test]
async fn s25_a_gate_that_stands_still_within_a_write_changes_nothing_of_the_gate_that_took_over() {
    let mut number = 0;
    while stall_before(number).await {
        number += 1;
    }
    assert!(number > 6, "a row and a position are written: {number}");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_whose_task_panics_begins_anew() {
    let world = World::new(false);
    let mut calls = 0;
    let hook = move |_: &str| {
        calls += 1;
        assert!(calls > 1, "a bug");
    };
    let (gate, _) = world.hooked(1, Box::new(hook));
    let receivers = Receivers::new(gate).unwrap();
    receivers.replace(vec![world.plan.clone()]);
    for _ in 0..60 {
        if receivers.figures()[0].lag.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it did not begin anew");
}

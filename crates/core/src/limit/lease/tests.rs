//! Gates on one clock, which tokio stops and moves: the same run each time.

use std::collections::HashMap;
use std::num::NonZeroU32;

use async_trait::async_trait;

use super::*;
use crate::clock::{TimeSource, Timestamp};
use crate::limit::callers::{CallerLimits, LimitedCaller, LimitedRequest, RunningLimit, Unmet};
use crate::limit::shared::{Admission, Away, RateCounters, Step};
use crate::limit::{Bucket, Limits, Rates};
use crate::route::{LimitPer, RateLimit};

const SECOND: Duration = Duration::from_secs(1);

/// The clock of all gates and of the store.
struct Stopped(tokio::time::Instant);

impl TimeSource for Stopped {
    fn wall(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000).plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A store: buckets by name, an answer after some milliseconds, and no answer while it is away.
#[derive(Default)]
struct Store {
    buckets: parking_lot::Mutex<HashMap<Vec<u8>, Arc<Bucket>>>,
    asked: AtomicU64,
    gates: AtomicU32,
    is_away: AtomicBool,
}

/// A gate's connection to it.
struct Connection {
    store: Arc<Store>,
    time: Arc<Stopped>,
}

crate::debug_with!(Connection);

#[async_trait]
impl RateCounters for Connection {
    async fn admit(&self, _: Option<(&[u8], Rate)>, steps: &[Step]) -> Result<Admission, Away> {
        let [(name, rate, Use::Take)] = steps else { panic!("one lease at a time") };
        let number = self.store.asked.fetch_add(1, Ordering::Relaxed);
        // The question, and then the answer, are on their way.
        tokio::time::sleep(Duration::from_millis(1 + number % 3)).await;
        if self.store.is_away.load(Ordering::Relaxed) {
            return Err(Away);
        }
        let bucket = Arc::clone(self.store.buckets.lock().entry(name.clone()).or_default());
        let taken = bucket.take(*rate, self.time.monotonic());
        tokio::time::sleep(Duration::from_millis(1 + number % 5)).await;
        Ok(Admission { is_known: false, refused: taken.err().map(|wait| (0, wait)) })
    }

    async fn remember(&self, _: &[u8]) -> Result<(), Away> {
        Err(Away)
    }

    async fn remembers(&self, _: &[u8]) -> Result<bool, Away> {
        Err(Away)
    }

    fn nodes(&self) -> u32 {
        self.store.gates.load(Ordering::Relaxed)
    }
}

struct World {
    time: Arc<Stopped>,
    store: Arc<Store>,
    limit: RateLimit,
    gates: Vec<Arc<RunningLimit>>,
}

impl World {
    fn new(limit: RateLimit, gates: u32) -> Self {
        let time = Arc::new(Stopped(tokio::time::Instant::now()));
        let store = Arc::new(Store { gates: gates.into(), ..Store::default() });
        let mut world = Self { time, store, limit: limit.over_gates(), gates: Vec::new() };
        world.gates = (0..gates).map(|_| world.gate()).collect();
        world
    }

    /// A gate that has just started.
    fn gate(&self) -> Arc<RunningLimit> {
        let connection = Connection { store: Arc::clone(&self.store), time: Arc::clone(&self.time) };
        let time = || Arc::clone(&self.time) as Arc<dyn TimeSource>;
        let limits = Limits::new(Rates::default(), time()).shared_by(Arc::new(connection), time());
        CallerLimits::new(&limits, time()).running_limit("limit", &self.limit)
    }

    fn rate(&self) -> Rate {
        Rate::new(self.limit.burst.unwrap_or(self.limit.requests).get(), self.limit.window / self.limit.requests.get())
    }
}

fn take(limits: &mut dyn Iterator<Item = &RunningLimit>) -> Result<(), Unmet> {
    let caller = LimitedCaller { issuer: "i", subject: "ada", client: None, account: None, claim: &|_| None };
    let sent = LimitedRequest { caller: Some(caller), address: &|| None };
    CallerLimits::take_request(limits, &sent, &mut |_, _| ())
}

/// A request of the one caller, and whether it asked the store itself.
async fn request(gate: &RunningLimit) -> (Result<(), Duration>, bool) {
    let mut has_asked = false;
    for _ in 0..32 {
        match take(&mut std::iter::once(gate)) {
            Ok(()) => return (Ok(()), has_asked),
            Err(Unmet::Refused(_, wait)) => return (Err(wait), has_asked),
            Err(Unmet::Pending(pending)) => {
                has_asked = true;
                pending.answered().await;
            }
        }
    }
    (Err(SECOND), has_asked)
}

/// Numbers that look random, the same each time.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Would one bucket with `more` at once have admitted all of these, in their order?
fn within(rate: Rate, more: u32, admitted: &[Duration]) -> bool {
    let bucket = Bucket::default();
    admitted.iter().all(|at| bucket.take(Rate::new(rate.burst.get() + more, rate.every), *at).is_ok())
}

/// The requests that may be admitted beyond one bucket's.
fn bound(rate: Rate, gates: u32) -> u32 {
    let half_a_second = u32::try_from(HELD.as_nanos() / rate.every.as_nanos()).unwrap();
    half_a_second.max(gates)
}

/// Six seconds of more requests than the limit has, most of them at some gates, while gates are killed and started if
/// they hold a few requests at most.
async fn flood(limit: RateLimit, gates: u32, seed: u64) {
    let mut world = World::new(limit, gates);
    let rate = world.rate();
    let size = Size::new(rate, NonZeroU32::new(gates).unwrap());
    let admitted: Arc<parking_lot::Mutex<Vec<Duration>>> = Arc::default();
    let asking = Arc::new(AtomicU64::new(0));
    let mut state = seed;
    let mut sent = Vec::new();
    let mut place = 0;
    while world.time.monotonic() < 6 * SECOND {
        let pick = random(&mut state);
        // The load stays at a gate for a while, and moves on.
        if pick.is_multiple_of(50) {
            place = usize::try_from(pick >> 8).unwrap() % world.gates.len();
        }
        if size.most == 1 && pick.is_multiple_of(211) {
            let killed = usize::try_from(pick >> 16).unwrap() % world.gates.len();
            world.gates[killed] = world.gate();
        }
        let (gate, time) = (Arc::clone(&world.gates[place]), Arc::clone(&world.time));
        let (admitted, asking) = (Arc::clone(&admitted), Arc::clone(&asking));
        sent.push(tokio::spawn(async move {
            let (answer, has_asked) = request(&gate).await;
            if answer.is_ok() {
                admitted.lock().push(time.monotonic());
                asking.fetch_add(has_asked.into(), Ordering::Relaxed);
            }
        }));
        tokio::time::sleep(rate.every / 3 + Duration::from_micros(pick % 500)).await;
    }
    for sent in sent {
        sent.await.unwrap();
    }
    let admitted = admitted.lock().clone();
    let most = bound(rate, gates);
    assert!(within(rate, most, &admitted), "{gates} gates, seed {seed}, {rate:?}: beyond {most} more");
    // A limit that refuses too much is no limit of this number.
    let earned = usize::try_from((6 * SECOND).as_nanos() / rate.every.as_nanos()).unwrap();
    assert!(admitted.len() * 10 >= earned * 9, "{gates} gates, seed {seed}, {rate:?}: {} of {earned}", admitted.len());
    let asked = world.store.asked.load(Ordering::Relaxed);
    if size.most > 8 {
        assert!(
            asked * u64::from(size.most / 2) <= 2 * admitted.len() as u64,
            "{asked} questions for {}",
            admitted.len()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn k16_gates_admit_together_at_most_the_limit_and_what_they_hold() {
    for gates in 1..=8 {
        for seed in 1..=3 {
            flood(RateLimit::new(LimitPer::Subject, 400, SECOND), gates, seed).await;
            flood(
                RateLimit { burst: NonZeroU32::new(20), ..RateLimit::new(LimitPer::Subject, 100, SECOND) },
                gates,
                seed,
            )
            .await;
            flood(RateLimit::new(LimitPer::Subject, 5, SECOND), gates, seed).await;
            // Enough for gates that hold requests.
            flood(
                RateLimit { burst: NonZeroU32::new(1000), ..RateLimit::new(LimitPer::Subject, 400, SECOND) },
                gates,
                seed,
            )
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn k16_only_the_first_request_of_a_key_waits_for_the_store() {
    let world = World::new(RateLimit::new(LimitPer::Subject, 1000, 10 * SECOND), 4);
    let mut waited = 0;
    for n in 0..400 {
        let (answer, has_asked) = request(&world.gates[0]).await;
        assert_eq!(answer, Ok(()), "{n}");
        waited += u32::from(has_asked);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(waited, 1);
}

#[tokio::test(start_paused = true)]
async fn k16_gates_hold_nothing_of_a_small_burst() {
    let world = World::new(RateLimit::new(LimitPer::Subject, 5, 3600 * SECOND), 8);
    let mut admitted = 0;
    for n in 0..40 {
        admitted += u32::from(request(&world.gates[n % 8]).await.0.is_ok());
    }
    assert_eq!(admitted, 5, "each of them is used, wherever it comes");
}

#[tokio::test(start_paused = true)]
async fn k17_while_the_store_is_away_each_gate_has_its_share() {
    let world = World::new(RateLimit::new(LimitPer::Subject, 100, SECOND), 4);
    let rate = world.rate();
    // Used up: a cut brings no further burst.
    while request(&world.gates[0]).await.0.is_ok() {}
    world.store.is_away.store(true, Ordering::Relaxed);
    tokio::time::sleep(2 * SECOND).await;
    for gate in &world.gates {
        let mut admitted = Vec::new();
        for _ in 0..2000 {
            if request(gate).await.0.is_ok() {
                admitted.push(world.time.monotonic());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let share = Rate::new(rate.burst.get() / 4, rate.every * 4);
        assert!(within(share, bound(rate, 4), &admitted), "not open");
        assert!(admitted.len() >= 50, "not closed: {}", admitted.len());
    }
    world.store.is_away.store(false, Ordering::Relaxed);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(request(&world.gates[1]).await.0, Ok(()));
    assert!(world.store.asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn k18_a_request_that_another_limit_refuses_uses_no_lease_up() {
    let world = World::new(RateLimit::new(LimitPer::Route, 1000, 10 * SECOND), 2);
    let time = || Arc::clone(&world.time) as Arc<dyn TimeSource>;
    let alone = CallerLimits::new(&Limits::new(Rates::default(), time()), time());
    let one = RateLimit::new(LimitPer::Subject, 1, 3600 * SECOND);
    let (gates, own) = (&world.gates[0], alone.running_limit("own", &one));
    assert_eq!(request(gates).await.0, Ok(()));
    let both = || take(&mut [&**gates, &*own].into_iter());
    assert!(both().is_ok());
    let asked = world.store.asked.load(Ordering::Relaxed);
    for _ in 0..1000 {
        assert!(matches!(both(), Err(Unmet::Refused("own", _))));
    }
    tokio::time::sleep(SECOND).await;
    assert!(world.store.asked.load(Ordering::Relaxed) <= asked + 1, "none was used");
    assert_eq!(request(gates).await, (Ok(()), false));
}

#[test]
fn more_gates_drop_what_one_held_beyond_its_part() {
    let lease = KeyLease {
        name: Vec::new(),
        left: AtomicU32::new(10),
        refused_until: AtomicU64::new(0),
        asking: Mutex::new(()),
        is_asked_ahead: AtomicBool::new(false),
    };
    assert_eq!(lease.take(4), Some(3));
    assert_eq!(lease.take(4), Some(2));
}

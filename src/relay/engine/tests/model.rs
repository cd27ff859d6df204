//! Schedules: two clients present one token, the program is killed, a reply is lost, in many orders. Each operation of
//! the store and each step of the provider waits for its turn, which the schedule gives.

use tokio::sync::oneshot;

use super::*;

const GRACE: Duration = Duration::from_secs(60);

/// The tasks that wait for their turn in the running program.
#[derive(Default)]
struct Turns {
    waiting: Mutex<Vec<(Run, oneshot::Sender<bool>)>>,
    /// Of killed programs: they never have a turn again.
    buried: Mutex<Vec<oneshot::Sender<bool>>>,
}

/// A waiting task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Store,
    Send,
    Reply,
}

impl Turns {
    /// Waits for a turn; true if the schedule lets it fail.
    async fn take(&self, what: Run) -> bool {
        let (turn, taken) = oneshot::channel();
        self.waiting.lock().unwrap().push((what, turn));
        match taken.await {
            Ok(fails) => fails,
            Err(_) => std::future::pending().await,
        }
    }

    fn kill(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        self.buried.lock().unwrap().extend(waiting.into_iter().map(|(_, turn)| turn));
    }
}

#[derive(Clone)]
struct InTurn {
    turns: Arc<Turns>,
    store: Arc<MemoryStore>,
    /// How often the provider got the token.
    sent: Arc<AtomicUsize>,
}

rotogate_core::debug_with!(InTurn);

#[async_trait]
impl RowStore for InTurn {
    async fn load_row(&self, space: Space, key: RowKey) -> Result<Option<Row>, StoreError> {
        self.turns.take(Run::Store).await;
        self.store.load_row(space, key).await
    }

    async fn insert_row(&self, space: Space, key: RowKey, row: Row, now: Timestamp) -> Result<RowInserted, StoreError> {
        self.turns.take(Run::Store).await;
        let inserted = self.store.insert_row(space, key, row, now).await;
        // The write is durable and not yet acknowledged. The program may be killed here, too.
        self.turns.take(Run::Store).await;
        inserted
    }

    async fn swap_row(
        &self,
        space: Space,
        key: RowKey,
        expected: RowVersion,
        row: Row,
        now: Timestamp,
    ) -> Result<RowSwapped, StoreError> {
        self.turns.take(Run::Store).await;
        let swapped = self.store.swap_row(space, key, expected, row, now).await;
        self.turns.take(Run::Store).await;
        swapped
    }

    async fn remove_row(&self, space: Space, key: RowKey, expected: Option<RowVersion>) -> Result<bool, StoreError> {
        self.turns.take(Run::Store).await;
        self.store.remove_row(space, key, expected).await
    }

    async fn row_keys(&self, space: Space, after: Option<RowKey>, limit: usize) -> Result<Vec<RowKey>, StoreError> {
        self.store.row_keys(space, after, limit).await
    }

    async fn sweep_rows(&self, space: Space, now: Timestamp) -> Result<u64, StoreError> {
        self.store.sweep_rows(space, now).await
    }
}

/// A strict provider: it exchanges a token once.
#[async_trait]
impl Provider for InTurn {
    async fn send(&self, _request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        self.turns.take(Run::Send).await;
        let n = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        if self.turns.take(Run::Reply).await {
            return Err(SendError::Lost("closed".to_owned()));
        }
        Ok(if n == 1 { granted(1) } else { dead() })
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        oauth::read(token, reply)
    }

    fn aged(&self, reply: ProviderReply, _passed: Duration) -> ProviderReply {
        reply
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        oauth::access_token(reply)
    }

    async fn revoke(&self, _request: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        Err(SendError::NotSent("no schedule revokes".to_owned()))
    }
}

/// The steps of a schedule, and its end.
#[derive(Debug, Default)]
struct History {
    sent: usize,
    killed: bool,
    lost: bool,
    granted: usize,
    dead: usize,
    refused: usize,
    unavailable: usize,
    presented: usize,
}

/// Large tables, so all schedules share them. No sender has an address.
pub(super) static LIMITS: std::sync::LazyLock<Arc<Limits>> = std::sync::LazyLock::new(|| {
    Arc::new(Limits::new(Rates::default(), Arc::new(rotogate_core::clock::SystemTime::new())))
});

/// Runs one schedule. `choose(n)` is below n.
async fn run(
    keyring: &Keyring,
    first: usize,
    after_unknown: AfterUnknown,
    faults: bool,
    mut choose: impl FnMut(usize) -> usize,
) -> History {
    let time = ManualTime::at(conformance::START);
    let world = InTurn {
        turns: Arc::default(),
        store: Arc::new(MemoryStore::for_a_trial(conformance::ISSUER, conformance::LEEWAY)),
        sent: Arc::default(),
    };
    let clock = Arc::new(EngineClock::start(time.clone(), Timestamp::ZERO, conformance::LEEWAY));
    let begin = || {
        let parts = RelayParts {
            endpoint: "model".to_owned(),
            settings: RelaySettings {
                sealer: Sealer::new(keyring, "model", "https://id.example/token"),
                rules: RelayRules {
                    grace: GRACE,
                    after_unknown,
                    lost_response_window: Duration::ZERO,
                    ..RelayRules::default()
                },
                provider: Arc::new(world.clone()),
            },
            store: Arc::new(world.clone()),
            is_alone: false,
            counts_proofs: None,
            end_tokens: Arc::new(Ended::default()),
            clock: clock.clone(),
            limits: Arc::clone(&LIMITS),
            time: time.clone(),
        };
        Arc::new(Relay::new(parts).unwrap())
    };
    let mut history = History::default();
    let mut relay = begin();
    let mut clients: Vec<_> = (0..first).map(|_| start(&relay, presented("T"))).collect();
    let mut retries = 2;
    history.presented = first;
    loop {
        // Every task runs until it waits for its turn.
        for _ in 0..40 {
            tokio::task::yield_now().await;
        }
        let mut running = Vec::new();
        for client in clients.drain(..) {
            if !client.is_finished() {
                running.push(client);
                continue;
            }
            match client.await.unwrap() {
                RelayAnswer::Reply(reply, _) if reply == granted(1) => history.granted += 1,
                RelayAnswer::Reply(reply, _) if reply == dead() => history.dead += 1,
                RelayAnswer::InvalidGrant(_) => history.refused += 1,
                RelayAnswer::Unavailable { .. } if retries > 0 => {
                    // The client tries again, perhaps after the lease.
                    retries -= 1;
                    if history.killed && choose(2) == 1 {
                        time.advance(Duration::from_secs(10));
                    }
                    history.presented += 1;
                    running.push(start(&relay, presented("T")));
                }
                RelayAnswer::Unavailable { .. } => history.unavailable += 1,
                other => panic!("{other:?}"),
            }
        }
        clients = running;
        let mut waiting = world.turns.waiting.lock().unwrap();
        if waiting.is_empty() {
            drop(waiting);
            if clients.is_empty() {
                break;
            }
            continue;
        }
        let turns = waiting.len();
        let chosen = choose(if faults && !history.killed { turns + 1 } else { turns });
        if chosen == turns {
            drop(waiting);
            history.killed = true;
            world.turns.kill();
            clients.iter().for_each(tokio::task::JoinHandle::abort);
            relay = begin();
            time.advance(Duration::from_secs([0, 36][choose(2)]));
            clients = (0..2).map(|_| start(&relay, presented("T"))).collect();
            history.presented += 2;
            continue;
        }
        let (what, turn) = waiting.remove(chosen);
        drop(waiting);
        let fails = faults && what == Run::Reply && !history.lost && choose(3) == 0;
        history.lost |= fails;
        turn.send(fails).unwrap();
    }
    history.sent = world.sent.load(Ordering::SeqCst);
    history
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn i33_in_every_order_of_three_presentations_the_token_is_sent_once() {
    const CLIENTS: usize = 3;
    let keyring = Keyring::ephemeral().unwrap();
    // Each choice, and how many there were: the next schedule raises the last that can be raised.
    let mut prefix: Vec<(usize, usize)> = Vec::new();
    let mut schedules = 0;
    loop {
        let mut at = 0;
        let history = runtime().block_on(run(&keyring, CLIENTS, AfterUnknown::TryOnce, false, |n| {
            if at == prefix.len() {
                prefix.push((0, n));
            }
            at += 1;
            assert_eq!(prefix[at - 1].1, n, "a schedule can be repeated");
            prefix[at - 1].0
        }));
        assert_eq!((history.sent, history.granted, history.presented), (1, CLIENTS, CLIENTS), "{prefix:?}");
        schedules += 1;
        while prefix.last().is_some_and(|(chosen, of)| chosen + 1 == *of) {
            prefix.pop();
        }
        match prefix.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => break,
        }
    }
    assert!(schedules > 50, "{schedules}");
}

#[test]
fn i35_in_no_schedule_with_a_kill_and_a_lost_reply_does_the_gate_send_a_token_again_by_itself() {
    const SCHEDULES: u64 = 3000;
    let keyring = Keyring::ephemeral().unwrap();
    let (mut twice, mut killed, mut lost) = (0, 0, 0);
    for seed in 0..SCHEDULES {
        let after_unknown = [AfterUnknown::TryOnce, AfterUnknown::Refuse][(seed % 2) as usize];
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let history = runtime().block_on(run(&keyring, 2, after_unknown, true, |n| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % n
        }));
        let shown = || format!("seed {seed}: {history:?}");
        match after_unknown {
            // Within grace the provider never sees it twice: no alarm, whatever happens.
            AfterUnknown::Refuse => assert!(history.sent <= 1 && history.dead == 0, "{}", shown()),
            AfterUnknown::Every(_) => unreachable!("clients present the tokens of the model"),
            AfterUnknown::TryOnce => assert!(history.sent <= 2, "{}", shown()),
        }
        // A second time needs a reason and a client that tried again.
        if history.sent == 2 {
            assert!((history.lost || history.killed) && history.presented > 2, "{}", shown());
        }
        if !history.lost && !history.killed {
            assert_eq!((history.sent, history.granted), (1, 2), "{}", shown());
        }
        twice += u64::from(history.sent == 2);
        killed += u64::from(history.killed);
        lost += u64::from(history.lost);
    }
    // The schedules reach the cases that this test is about.
    assert!(twice > 20 && killed > SCHEDULES / 4 && lost > SCHEDULES / 10, "{twice} {killed} {lost}");
}

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::*;
use crate::relay::oauth;
use crate::relay::provider::Provider;
use crate::relay::record::{KEPT_REPLIES, RelayRecord, RelayState, TOKEN_USES};
use crate::relay::seal::{Params, Presenter, Sealer};
use rotogate_core::clock::{ManualTime, Timestamp};
use rotogate_core::limit::Rates;
use rotogate_core::store::rows::{Row, Space};
use rotogate_core::store::{MemoryStore, conformance};
use rotogate_core::token::Keyring;

mod devices;
#[cfg(feature = "redb")]
mod durable;
mod faults;
mod kept;
mod model;
mod presenters;
mod steps;

/// The provider's treatment of a request.
#[derive(Clone)]
enum Step {
    Reply(ProviderReply),
    NotSent,
    Lost,
    /// The provider never replies.
    Silent,
}

/// A provider that follows its script, and then grants every request.
#[derive(Default)]
struct Scripted {
    script: Mutex<VecDeque<Step>>,
    sent: AtomicUsize,
    revoked: AtomicUsize,
    /// Holds its replies back, unless open.
    held: Mutex<Option<Arc<Semaphore>>>,
    events: Events,
    revocation: Mutex<Option<Step>>,
}

/// The events, in order.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn add(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

rotogate_core::debug_with!(Scripted);

fn reply(status: u16, body: &str) -> ProviderReply {
    ProviderReply { status, body: Zeroizing::new(body.as_bytes().to_vec()), ..ProviderReply::default() }
}

fn granted(n: usize) -> ProviderReply {
    reply(200, &format!(r#"{{"access_token":"access-{n}","expires_in":300,"refresh_token":"refresh-{n}"}}"#))
}

fn dead() -> ProviderReply {
    reply(400, r#"{"error":"invalid_grant","error_description":"reused"}"#)
}

impl Scripted {
    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    fn next(&self, step: Step) {
        self.script.lock().unwrap().push_back(step);
    }

    /// Holds replies back until permits are added.
    fn hold(&self) -> Arc<Semaphore> {
        let held = Arc::new(Semaphore::new(0));
        *self.held.lock().unwrap() = Some(Arc::clone(&held));
        held
    }

    /// Lets other tasks run until it was sent so many requests.
    async fn was_sent(&self, n: usize) {
        while self.sent() < n {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Provider for Scripted {
    async fn send(&self, _request: &ProviderRequest) -> Result<ProviderReply, SendError> {
        let n = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        self.events.add("sent");
        let step = self.script.lock().unwrap().pop_front().unwrap_or_else(|| Step::Reply(granted(n)));
        let held = self.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.acquire().await.unwrap().forget();
        }
        match step {
            Step::Reply(reply) => Ok(reply),
            Step::NotSent => Err(SendError::NotSent("no connection".to_owned())),
            Step::Lost => Err(SendError::Lost("closed".to_owned())),
            Step::Silent => std::future::pending().await,
        }
    }

    fn proof_url(&self) -> Option<String> {
        Some(PROOF_URL.to_owned())
    }

    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning {
        oauth::read(token, reply)
    }

    fn aged(&self, reply: ProviderReply, passed: Duration) -> ProviderReply {
        oauth::aged(reply, passed)
    }

    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        oauth::access_token(reply)
    }

    async fn revoke(&self, _request: &ProviderRequest) -> Result<(bool, ProviderReply), SendError> {
        self.revoked.fetch_add(1, Ordering::SeqCst);
        self.events.add("revoked at the provider");
        match self.revocation.lock().unwrap().take().unwrap_or_else(|| Step::Reply(reply(200, ""))) {
            Step::Reply(reply) => Ok((reply.status == 200, reply)),
            Step::NotSent => Err(SendError::NotSent("no connection".to_owned())),
            Step::Lost | Step::Silent => Err(SendError::Lost("closed".to_owned())),
        }
    }
}

/// The access tokens that were ended.
#[derive(Default)]
struct Ended(Mutex<Vec<String>>, Events, Gate);

/// What the gate sees of the provider's access tokens.
#[derive(Default)]
struct Gate {
    /// Whether it accepts them.
    accepts: AtomicBool,
    /// Whether it accepts those that the issuer was asked about.
    learns: AtomicBool,
    /// Holds the issuer's responses back, unless open.
    held: Mutex<Option<Arc<Semaphore>>>,
    /// Whether they were ended since.
    has_ended: AtomicBool,
}

rotogate_core::debug_with!(Ended);

#[async_trait]
impl EndTokens for Ended {
    fn claims(&self, access_token: &str) -> Option<Vec<u8>> {
        self.2.accepts.load(Ordering::SeqCst).then(|| access_token.as_bytes().to_vec())
    }

    async fn learn(&self, _: &str) {
        self.1.add("issuer asked");
        let held = self.2.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.acquire().await.unwrap().forget();
        }
        self.2.accepts.fetch_or(self.2.learns.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn is_ended(&self, _: &[u8]) -> bool {
        self.2.has_ended.load(Ordering::SeqCst)
    }

    async fn end(&self, access_token: &str, _: bool) -> Result<(), StoreError> {
        self.0.lock().unwrap().push(access_token.to_owned());
        self.1.add("tokens ended");
        Ok(())
    }
}

/// A store that notes what it made durable, and fails if a test wants it to.
#[derive(Debug)]
struct Watched {
    inner: MemoryStore,
    events: Events,
    fails: Mutex<Option<&'static str>>,
}

rotogate_core::debug_with!(Events);

impl Watched {
    fn fails(&self, operation: &'static str) -> Result<(), StoreError> {
        match *self.fails.lock().unwrap() {
            Some(failing) if failing == operation => Err(StoreError::new("the disk is full")),
            _ => Ok(()),
        }
    }
}

/// What the store was given: the state of a record, or a reply that is kept.
fn event(space: Space, row: &Row) -> String {
    let state = if space == EXCHANGES { RelayRecord::read(row).unwrap().state } else { RelayState::Done };
    format!("stored {state:?}")
}

#[async_trait]
impl RowStore for Watched {
    async fn load_row(&self, space: Space, key: RowKey) -> Result<Option<Row>, StoreError> {
        self.fails("load")?;
        self.inner.load_row(space, key).await
    }

    async fn insert_row(&self, space: Space, key: RowKey, row: Row, now: Timestamp) -> Result<RowInserted, StoreError> {
        self.fails("insert")?;
        let event = event(space, &row);
        let inserted = self.inner.insert_row(space, key, row, now).await;
        self.events.add(event);
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
        self.fails("swap")?;
        let event = event(space, &row);
        let swapped = self.inner.swap_row(space, key, expected, row, now).await;
        self.events.add(event);
        swapped
    }

    async fn remove_row(&self, space: Space, key: RowKey, expected: Option<RowVersion>) -> Result<bool, StoreError> {
        self.fails("remove")?;
        let removed = self.inner.remove_row(space, key, expected).await;
        self.events.add("removed");
        removed
    }

    async fn row_keys(&self, space: Space, after: Option<RowKey>, limit: usize) -> Result<Vec<RowKey>, StoreError> {
        self.inner.row_keys(space, after, limit).await
    }

    async fn sweep_rows(&self, space: Space, now: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep_rows(space, now).await
    }
}

/// A provider, a store and a clock. Any number of programs run on them, one after the other.
struct World {
    time: Arc<ManualTime>,
    clock: Arc<EngineClock>,
    store: Arc<Watched>,
    provider: Arc<Scripted>,
    ended: Arc<Ended>,
    keyring: Keyring,
    events: Events,
}

impl World {
    fn new() -> Self {
        let events = Events::default();
        let time = ManualTime::at(conformance::START);
        Self {
            clock: Arc::new(EngineClock::start(time.clone(), Timestamp::ZERO, conformance::LEEWAY)),
            time,
            store: Arc::new(Watched {
                inner: MemoryStore::for_a_trial(conformance::ISSUER, conformance::LEEWAY),
                events: events.clone(),
                fails: Mutex::default(),
            }),
            provider: Arc::new(Scripted { events: events.clone(), ..Scripted::default() }),
            ended: Arc::new(Ended(Mutex::default(), events.clone(), Gate::default())),
            keyring: Keyring::ephemeral().unwrap(),
            events,
        }
    }

    fn relay(&self) -> Relay {
        self.relay_with(RelayRules::default())
    }

    fn relay_with(&self, rules: RelayRules) -> Relay {
        self.begun(rules, false, None)
    }

    /// A relay whose store no other process writes to.
    fn alone_with(&self, rules: RelayRules) -> Relay {
        self.begun(rules, true, None)
    }

    fn begun(&self, rules: RelayRules, is_alone: bool, counts_proofs: Option<Arc<dyn Store>>) -> Relay {
        Relay::new(RelayParts {
            endpoint: "/auth/token".to_owned(),
            settings: RelaySettings {
                sealer: Sealer::new(&self.keyring, "/auth/token", "https://id.example/token"),
                rules,
                provider: self.provider.clone(),
            },
            store: self.store.clone(),
            is_alone,
            counts_proofs,
            end_tokens: self.ended.clone(),
            clock: self.clock.clone(),
            limits: Arc::new(Limits::new(Rates::default(), self.time.clone())),
            time: self.time.clone(),
        })
        .unwrap()
    }

    fn pass(&self, secs: u64) {
        self.time.advance(Duration::from_secs(secs));
    }

    /// The one record.
    async fn record(&self, token: &str) -> Option<RelayRecord> {
        let sealer = Sealer::new(&self.keyring, "/auth/token", "https://id.example/token");
        let keys = sealer.keys(&token.into(), &Presenter::default()).unwrap();
        let row = self.store.inner.load_row(EXCHANGES, keys[0].id()).await.unwrap()?;
        Some(RelayRecord::read(&row).unwrap())
    }
}

/// The URL of the provider, which proofs are for.
const PROOF_URL: &str = "https://id.example/token";

fn presented(token: &str) -> Presented {
    Presented {
        token: token.into(),
        presenter: Presenter { client: "spa".into(), ..Presenter::default() },
        params: Params::default(),
        request: ProviderRequest::default(),
        proof: None,
        address: None,
        keep_until: None,
    }
}

impl Relay {
    /// Lets other tasks run until no exchange is in flight. A leftover exchange makes this hang.
    async fn finished(&self) {
        while !self.core.flights.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

/// An exchange in a task of its own.
fn start(relay: &Arc<Relay>, presented: Presented) -> tokio::task::JoinHandle<RelayAnswer> {
    let relay = Arc::clone(relay);
    tokio::spawn(async move { relay.exchange(presented).await })
}

/// The body of a reply, and where it came from.
#[track_caller]
fn body(answer: RelayAnswer) -> (String, Source) {
    match answer {
        RelayAnswer::Reply(reply, source) => (String::from_utf8(reply.body.to_vec()).unwrap(), source),
        other => panic!("{other:?}"),
    }
}

/// Why there is no answer, and for how many seconds.
#[track_caller]
fn unavailable(answer: RelayAnswer) -> (&'static str, u64) {
    match answer {
        RelayAnswer::Unavailable { retry_after, reason } => (reason, retry_after.as_secs()),
        other => panic!("{other:?}"),
    }
}

fn text(reply: &ProviderReply) -> String {
    String::from_utf8(reply.body.to_vec()).unwrap()
}

//! Builds gates, and new rules for running gates.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::rules::RunningParts;
use super::{BuildError, DEFAULT_MAX_STREAM, GateBuilder, sound};
use crate::gate::browser::BrowserLogins;
use crate::gate::browser::device::BrowserDevices;
use crate::gate::endpoint::Endpoints;
use crate::gate::fault_log::FaultLog;
use crate::gate::notice::Notices;
use crate::gate::relay::{EndpointRelay, NextRelay, Shared};
use crate::gate::replace::PreparedRules;
use crate::gate::running::Running;
use crate::gate::{Gate, maintain, nodes, system_time};
use rotogate_core::clock::{EngineClock, TimeSource, Timestamp};
use rotogate_core::dpop::Dpop;
use rotogate_core::engine::{Engine, EngineConfig, StoreCounters};
use rotogate_core::lease::LeaseContext;
use rotogate_core::limit::Limits;
use rotogate_core::overload::Overload;
use rotogate_core::password::Passwords;
use rotogate_core::policy::GateId;
use rotogate_core::random::random;
use rotogate_core::store::{Cursor, Feed, Follow, LiveRow, MemoryStore, Staleness, Store, StoreError, round_trip};
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::verify::{IssuerRules, RulesError, Verifier};
use rotogate_core::verify_cache::{DEFAULT_CACHE, TokenChecker};

/// A resource server does not need a warning, because a restart does not end sessions.
fn in_memory(issuer: &Arc<str>, leeway: Duration, is_issuer: bool) -> MemoryStore {
    let issuer = Arc::clone(issuer);
    if is_issuer { MemoryStore::new(issuer, leeway) } else { MemoryStore::for_a_trial(issuer, leeway) }
}

impl GateBuilder {
    /// Builds the gate. Call it in a tokio runtime, where background tasks run until the gate is dropped.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(mut self) -> Result<Gate, BuildError> {
        let is_issuer = !self.is_resource_server();
        let (issuer, keyring) = self.own()?;
        let leeway = self.leeway.unwrap_or(Gate::DEFAULT_LEEWAY);
        if leeway > Gate::DEFAULT_LEEWAY {
            return Err(BuildError::Leeway);
        }
        if self.audience.is_empty() {
            self.audience.push((*issuer).into());
        }
        let has_records = self.row_store.is_some();
        self.rules.check(is_issuer, &self.trusted, &self.audience, (&keyring, has_records))?;
        let has_users = self.directory.as_ref().is_some_and(|directory| !directory.is_empty());
        self.rules.check_sources(&mut self.trusted, has_users)?;
        self.limits_per_node.then(|| self.rules.check_gates_alone()).transpose()?;
        if !is_issuer && self.store.as_ref().is_some_and(|store| store.shared().is_some()) {
            return Err(BuildError::NoKeys);
        }
        let store = self.store.take().unwrap_or_else(|| Arc::new(in_memory(&issuer, leeway, is_issuer)));
        let place = Arc::as_ptr(&store).cast::<()>().addr();
        let time = self.time.take().map_or_else(system_time, |time| time.0);
        if !self.staleness.is_sound() {
            return Err(BuildError::Staleness);
        }
        let clock = Arc::new(start_clock(&*store, &time, self.staleness, leeway).await?);
        // The revocations are loaded before the gate serves anything (requirement R10).
        let (revocations, loaded_to) = store.revocations().await?;
        let revocations = Arc::new(revocations);
        let row = nodes::row(self.node_name.take(), u64::from_be_bytes(*random()?));
        nodes::keys::say(&row, &keyring, clock.now());
        check_other_nodes(&*store, &row).await?;
        let feed = begin_feed(&*store, loaded_to, &time, self.staleness, &row).await?;
        if feed.is_some() {
            revocations.use_until(Timestamp::ZERO);
        }
        let passwords = self.passwords.take().unwrap_or_else(|| Arc::new(Passwords::default()));
        let (limits, counters) = self.limits(&store, &keyring, &time, &passwords);
        let engine = Engine::new(EngineConfig {
            issuer,
            audience: std::mem::take(&mut self.audience),
            leeway,
            styles: Endpoints::styles(&self.rules.endpoints),
            keyring: Arc::clone(&keyring),
            store,
            directory: self.directory.clone(),
            clock: Arc::clone(&clock),
            revocations: Arc::clone(&revocations),
            limits: Arc::new(limits),
            counters,
            keep_login_origin: !self.forget_login_origin,
            staleness: feed.is_some().then_some(self.staleness),
        });
        // Fetched keys and tokens expire by the same clock.
        self.trusted.iter().filter_map(|rules| rules.keys.live()).for_each(|keys| keys.set_clock(&clock));
        self.rules.set_clock(&clock);
        let identity = self.rules.identity(&self.trusted);
        let own = is_issuer.then(|| own_rules(&engine, &keyring, leeway));
        let verifier = verifier(own, std::mem::take(&mut self.trusted))?;
        engine.set_sources(Arc::clone(verifier.sources()));
        let capacity = self.capacity.unwrap_or(DEFAULT_CACHE);
        let requests_per_caller = self.bounds.requests_per_caller;
        let checker = TokenChecker::new(verifier, clock, revocations, identity.clone(), capacity, requests_per_caller);
        let checker = checker.with_key_prefix(self.api_keys.as_ref().map(|keys| keys.prefix.clone()));
        let (engine, checker) = (Arc::new(engine), Arc::new(checker));
        report_second_gate(&engine, place);
        let max_stream = self.max_stream.unwrap_or(DEFAULT_MAX_STREAM);
        let leases = Arc::new(LeaseContext::new(Arc::clone(&engine), Arc::clone(&checker), max_stream));
        let running = Arc::new(self.running(&engine, &checker, row, (is_issuer, passwords))?);
        let kept = RunningParts { id: GateId::next(), running: Arc::clone(&running), engine, checker, leases, leeway };
        let gate = Gate(Arc::new(self.rules.into_inner(kept, &identity, None)?));
        running.clients.store(Arc::new(gate.0.clients.ids()));
        gate.0.limits.put_in_force();
        running.put_in_force(&gate.0);
        maintain::begin(&running, feed).await?;
        Ok(gate)
    }

    /// A resource server does not have an issuer, keys, a directory or other rules for its own tokens.
    fn is_resource_server(&self) -> bool {
        let says_none = self.issuer.is_none() && self.keyring.is_none() && self.directory.is_none();
        says_none && !self.trusted.is_empty() && !self.rules.need_an_issuer()
    }

    /// For a resource server, returns the first trusted issuer, and temporary keys that do not sign anything.
    /// Revocations by subject apply to that issuer.
    fn own(&mut self) -> Result<(Arc<str>, Arc<Keyring>), BuildError> {
        if self.is_resource_server()
            && let Some(first) = self.trusted.first()
        {
            return Ok((Arc::clone(&first.issuer), Arc::new(Keyring::ephemeral().map_err(RulesError::from)?)));
        }
        let issuer = self.issuer.take().ok_or(BuildError::NoIssuer)?;
        sound::issuer(&issuer, self.plain_issuer)?;
        Ok((issuer, self.keyring.take().ok_or(BuildError::NoKeys)?))
    }

    fn limits(
        &self,
        store: &Arc<dyn Store>,
        keyring: &Arc<Keyring>,
        time: &Arc<dyn TimeSource>,
        passwords: &Passwords,
    ) -> (Limits, Option<Arc<StoreCounters>>) {
        let limits = Limits::new(self.rates, Arc::clone(time)).with_password_places(passwords.places());
        let is_shared = store.shared().is_some() && !self.limits_per_node;
        if !is_shared {
            return (limits, None);
        }
        let counters = Arc::new(StoreCounters::new(Arc::clone(store), Arc::clone(keyring)));
        (limits.shared_by(Arc::clone(&counters) as _, Arc::clone(time)), Some(counters))
    }

    fn begin_relays(
        &mut self,
        engine: &Arc<Engine>,
        checker: &Arc<TokenChecker>,
    ) -> Result<Vec<Arc<EndpointRelay>>, BuildError> {
        let shared = Shared {
            store: self.row_store.clone(),
            engine: Arc::clone(engine),
            checker: Arc::clone(checker),
            time: engine.clock().source(),
            proofs_in_store: self.rules.dpop.as_ref().is_none_or(|dpop| dpop.counted_in_store),
        };
        let begun = self.rules.endpoints.iter_mut().map(|endpoint| endpoint.begin_relay(&shared));
        let begun = begun.filter_map(Result::transpose);
        #[cfg(feature = "browser-oidc")]
        let of_browsers = self.rules.browser.as_ref().and_then(|browser| browser.relay());
        #[cfg(feature = "browser-oidc")]
        let begun = begun.chain(of_browsers.map(|(path, config)| shared.relay(path, config).map(Arc::new)));
        begun.collect()
    }

    fn running(
        &mut self,
        engine: &Arc<Engine>,
        checker: &Arc<TokenChecker>,
        row: Arc<LiveRow>,
        (is_issuer, passwords): (bool, Arc<Passwords>),
    ) -> Result<Running, BuildError> {
        let leeway = self.leeway.unwrap_or(Gate::DEFAULT_LEEWAY);
        let dpop = Dpop::new(self.rules.dpop.clone().unwrap_or_default(), leeway, engine.clock().now());
        Ok(Running {
            exchanges: super::super::exchange::Exchanges::default(),
            grants: Default::default(),
            browser_logins: BrowserLogins::default(),
            given_cookies: Default::default(),
            browser_devices: BrowserDevices::default(),
            #[cfg(feature = "browser-oidc")]
            spent_logins: Default::default(),
            engine: Arc::clone(engine),
            notices: Notices::default(),
            faults: FaultLog::default(),
            #[cfg(feature = "kuzzle")]
            seldom: rotogate_core::counters::SeldomByKind::default(),
            asks_audience: AtomicBool::new(false),
            row,
            overload: Overload::new(&self.bounds),
            unfit_store: ArcSwapOption::empty(),
            passwords,
            has_directory: self.directory.is_some(),
            is_issuer,
            dpop: Arc::new(dpop),
            clients: ArcSwap::default(),
            relays: self.begin_relays(engine, checker)?,
            api_keys: match self.api_keys.take() {
                Some(settings) if is_issuer => {
                    let store = self.row_store.clone().ok_or(BuildError::NoRowStore)?;
                    Some(Arc::new(rotogate_core::engine::api_keys::ApiKeys::new(settings, store)))
                }
                Some(_) => return Err(BuildError::NoIssuer),
                None => None,
            },
            rows: self.row_store.take(),
            in_force: Mutex::default(),
        })
    }

    fn next_relays(&mut self, running: &[Arc<EndpointRelay>]) -> Result<Vec<NextRelay>, BuildError> {
        let endpoints = self.rules.endpoints.iter_mut().map(|endpoint| endpoint.go_on_with(running));
        let relays = endpoints.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
        #[cfg(feature = "browser-oidc")]
        let relays = match self.rules.browser.as_ref().and_then(|browser| browser.relay()) {
            Some((path, config)) => {
                let found = running.iter().find(|relay| relay.path() == path);
                let relay = found.ok_or_else(|| BuildError::NewRelay(path.to_owned()))?;
                relays.into_iter().chain([(Arc::clone(relay), config)]).collect()
            }
            None => relays,
        };
        Ok(relays)
    }

    pub(in crate::gate) fn prepare_rules(mut self, running: &Gate) -> Result<PreparedRules, BuildError> {
        let old = &running.0;
        if !old.running.is_issuer && self.rules.need_an_issuer() {
            return Err(BuildError::NoIssuer);
        }
        let has_records = old.running.rows.is_some();
        self.rules.set_clock(old.engine.clock());
        let keyring = (&*old.engine.keyring(), has_records);
        self.rules.check(old.running.is_issuer, &self.trusted, old.engine.audience(), keyring)?;
        self.rules.check_sources(&mut self.trusted, old.engine.has_users())?;
        let relays = self.next_relays(&old.running.relays)?;
        let kept = RunningParts {
            id: old.id,
            running: Arc::clone(&old.running),
            engine: Arc::clone(&old.engine),
            checker: Arc::clone(&old.checker),
            leases: Arc::clone(&old.leases),
            leeway: old.leeway,
        };
        let (styles, identity) = (Endpoints::styles(&self.rules.endpoints), self.rules.identity(&self.trusted));
        Ok(PreparedRules {
            gate: Gate(Arc::new(self.rules.into_inner(kept, &identity, Some(old))?)),
            styles,
            identity,
            relays,
            rates: self.rates,
            keep_login_origin: !self.forget_login_origin,
            max_stream: self.max_stream.unwrap_or(DEFAULT_MAX_STREAM),
        })
    }
}

/// Starts the clock, which never shows a time before the latest time in the store.
async fn start_clock(
    store: &dyn Store,
    time: &Arc<dyn TimeSource>,
    staleness: Staleness,
    leeway: Duration,
) -> Result<EngineClock, StoreError> {
    if store.shared().is_none() {
        return Ok(EngineClock::start(Arc::clone(time), store.last_known_time().await?, leeway));
    }
    warn_of_distance(store, staleness).await?;
    let asked = time.monotonic();
    let store_time = store.last_known_time().await?;
    Ok(EngineClock::start_with_store(Arc::clone(time), (asked, time.monotonic()), store_time, leeway))
}

/// Compares this gate's keys with those of other gates that share the store. The check precedes the first heartbeat,
/// because other gates must not rely on this gate yet.
async fn check_other_nodes(store: &dyn Store, row: &LiveRow) -> Result<(), BuildError> {
    let Some(shared) = store.shared() else { return Ok(()) };
    let (others, now) = (shared.nodes().await?, store.last_known_time().await?);
    nodes::keys::check(&row.get(), &others, now).map_err(BuildError::OtherKeys)
}

/// Warns if a round trip to the store is too slow for the configured staleness. The gate would then refuse valid tokens
/// (requirement C43).
async fn warn_of_distance(store: &dyn Store, staleness: Staleness) -> Result<(), StoreError> {
    let round_trip = round_trip(|| store.last_known_time()).await?;
    let needed = Staleness::needed_for(round_trip);
    if staleness.limit < needed {
        tracing::warn!(
            ?round_trip,
            staleness = ?staleness.limit,
            ?needed,
            "the configured staleness is too short for the round trip to the store, so the gate will refuse valid \
             tokens. Raise the staleness"
        );
    }
    Ok(())
}

/// Reports a second live gate in this process with the same store, because the two gates would miss each other's
/// revocations. Shared stores are exempt. `store` is the store's memory address.
fn report_second_gate(engine: &Arc<Engine>, store: usize) {
    static GATES: Mutex<Vec<(usize, Weak<Engine>)>> = Mutex::new(Vec::new());
    let mut gates = GATES.lock();
    gates.retain(|(_, gate)| gate.strong_count() > 0);
    if engine.store().shared().is_none() && gates.iter().any(|(other, _)| *other == store) {
        tracing::error!(
            "another gate in this process uses the same store, so neither gate sees the other's revocations"
        );
    }
    gates.push((store, Arc::downgrade(engine)));
}

async fn begin_feed(
    store: &dyn Store,
    from: Cursor,
    time: &Arc<dyn TimeSource>,
    staleness: Staleness,
    row: &Arc<LiveRow>,
) -> Result<Option<Box<dyn Feed>>, StoreError> {
    match store.shared() {
        None => Ok(None),
        Some(shared) => {
            let follow = Follow { time: Arc::clone(time), every: staleness.every(), row: Arc::clone(row) };
            shared.follow(from, follow).await.map(Some)
        }
    }
}

pub(in crate::gate) fn verifier(own: Option<IssuerRules>, trusted: Vec<IssuerRules>) -> Result<Verifier, RulesError> {
    Verifier::new(own.into_iter().chain(trusted).collect())
}

pub(in crate::gate) fn own_rules(engine: &Engine, keyring: &Keyring, leeway: Duration) -> IssuerRules {
    IssuerRules::own(Arc::clone(engine.issuer()), engine.audience().to_vec(), keyring, leeway)
}

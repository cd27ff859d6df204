//! Limits on guesses at passwords and secrets. Gates with a shared store count guesses together, so that an attacker
//! gains nothing from several gates. If the store does not respond, each gate counts alone, at the rate divided by the
//! number of gates.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::by_network::wider;
use super::{Attempt, CheckPermit, LimitName, Limits, OWN_FAILURES, Rate, place};
use crate::clock::TimeSource;
use crate::denial::Denial;
use crate::fault::Error;
use crate::network::networks;

const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_secs(1);

/// The error if the shared counters do not respond.
#[derive(Clone, Copy, Debug)]
pub struct Away;

/// An operation on a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Takes one attempt.
    Take,
    /// Counts an attempt that has already happened.
    Charge,
    /// Checks the limit without counting.
    Look,
}

pub(crate) type Step = (Vec<u8>, Rate, Use);

/// The result of [`RateCounters::admit`].
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// Whether the caller is remembered, so that only its own counter was used.
    pub(crate) is_known: bool,
    /// The index of the step that refused, and the wait.
    pub(crate) refused: Option<(usize, Duration)>,
}

/// Counters that several gates share.
#[async_trait]
pub trait RateCounters: fmt::Debug + Send + Sync {
    /// Executes all steps in order, or none of them. For a remembered caller, uses the caller's own counter instead.
    /// All steps are a single operation, because each round trip to a remote store delays the login.
    async fn admit(&self, caller: Option<(&[u8], Rate)>, steps: &[Step]) -> Result<Admission, Away>;

    /// Remembers this name.
    async fn remember(&self, name: &[u8]) -> Result<(), Away>;

    /// Returns whether this name is remembered.
    async fn remembers(&self, name: &[u8]) -> Result<bool, Away>;

    /// The number of gates with a recent heartbeat, including this one.
    fn nodes(&self) -> u32;
}

/// The shared counters, with a pause after each failure.
pub(super) struct SharedLimits {
    pub(super) counters: Arc<dyn RateCounters>,
    time: Arc<dyn TimeSource>,
    /// The monotonic time, in ms, until which the counters are not queried.
    paused: AtomicU64,
    pub(super) runtime: Option<Handle>,
}

impl SharedLimits {
    pub(super) fn new(counters: Arc<dyn RateCounters>, time: Arc<dyn TimeSource>) -> Self {
        Self { counters, time, paused: AtomicU64::new(0), runtime: Handle::try_current().ok() }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.now() < self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn gates(&self) -> NonZeroU32 {
        NonZeroU32::new(self.counters.nodes()).unwrap_or(NonZeroU32::MIN)
    }

    pub(super) fn monotonic(&self) -> Duration {
        self.time.monotonic()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.time.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns `None` if the result is late or missing.
    pub(super) async fn within<T>(&self, asking: impl Future<Output = Result<T, Away>>) -> Option<T> {
        if self.is_paused() {
            return None;
        }
        if let Ok(Ok(said)) = tokio::time::timeout(PATIENCE, asking).await {
            return Some(said);
        }
        let until = self.now().saturating_add(u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX));
        self.paused.store(until, Ordering::Relaxed);
        None
    }

    fn networks(kind: &str, address: Option<IpAddr>, more: &[&[u8]], rate: Rate, how: Use) -> Vec<Step> {
        let around = address.into_iter().flat_map(|address| around(kind, address, more, rate));
        around.map(|(name, rate)| (name, rate, how)).collect()
    }

    async fn own_debt(&self, kind: &str, address: IpAddr, client: &str) -> Result<Option<Duration>, Away> {
        let steps = Self::networks(kind, Some(address), &[client.as_bytes()], OWN_FAILURES, Use::Look);
        // Query each network separately, because a joint query would return only the first wait.
        let mut longest = None;
        for step in &steps {
            let debt = self.counters.admit(None, std::slice::from_ref(step)).await?;
            longest = longest.max(debt.refused.map(|(_, wait)| wait));
        }
        Ok(longest)
    }

    async fn charge(&self, kind: Guess, address: Option<IpAddr>, client: &str, rate: Rate) -> Result<(), Away> {
        let mut steps = vec![(name(kind.failures(), &[client.as_bytes()]), rate, Use::Charge)];
        steps.extend(Self::networks(kind.own(), address, &[client.as_bytes()], OWN_FAILURES, Use::Charge));
        self.counters.admit(None, &steps).await.map(drop)
    }
}

#[derive(Clone, Copy)]
pub(super) enum Guess {
    Login,
    Secret,
}

impl Guess {
    const fn failures(self) -> &'static str {
        match self {
            Self::Login => "login failures",
            Self::Secret => "secret failures",
        }
    }

    const fn own(self) -> &'static str {
        match self {
            Self::Login => "own login failures",
            Self::Secret => "own secret failures",
        }
    }
}

/// Returns the name of a counter. Different parts result in different names.
pub(super) fn name(kind: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut name = Vec::new();
    for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    name
}

fn around<'a>(
    kind: &'a str,
    address: IpAddr,
    more: &'a [&'a [u8]],
    rate: Rate,
) -> impl Iterator<Item = (Vec<u8>, Rate)> + use<'a> {
    networks(address).map(move |(network, times)| {
        let network = network.to_bytes();
        let parts: Vec<_> = std::iter::once(network.as_slice()).chain(more.iter().copied()).collect();
        (name(kind, &parts), wider(rate, times))
    })
}

fn caller(address: IpAddr) -> Vec<u8> {
    networks(address).next().map(|(network, _)| network.to_bytes().to_vec()).unwrap_or_default()
}

fn user(attempt: Attempt<'_>) -> Option<Vec<u8>> {
    let account = attempt.account.map(|account| name("account", &[account.as_bytes()])).unwrap_or_default();
    Some(name("known user", &[&caller(attempt.address?), &account, attempt.username.as_bytes()]))
}

fn client(address: IpAddr, client: &str) -> Vec<u8> {
    name("known client", &[&caller(address), client.as_bytes()])
}

impl Limits {
    /// Counts guesses together with other gates.
    #[must_use]
    pub fn shared_by(mut self, counters: Arc<dyn RateCounters>, time: Arc<dyn TimeSource>) -> Self {
        self.shared = Some(Arc::new(SharedLimits::new(counters, time)));
        self
    }

    /// The number of gates. While this gate counts alone, it divides the rates by this number.
    pub(super) fn share(&self) -> NonZeroU32 {
        self.shared.as_ref().map_or(NonZeroU32::MIN, |shared| shared.gates())
    }

    /// Like [`login`](Self::login), but with counters that all gates share.
    ///
    /// # Errors
    /// The errors of [`login`](Self::login).
    pub async fn admit_login(&self, attempt: Attempt<'_>) -> Result<CheckPermit, Error> {
        if let Some(shared) = &self.shared
            && let Some(decided) = shared.within(self.shared_login(shared, attempt)).await
        {
            return decided;
        }
        self.login(attempt)
    }

    async fn shared_login(
        &self,
        shared: &SharedLimits,
        attempt: Attempt<'_>,
    ) -> Result<Result<CheckPermit, Error>, Away> {
        let rates = self.rates.load();
        let known = user(attempt);
        let refused = |limit, wait| Err(self.too_many(limit, wait).into());
        if let Some(known) = &known
            && self.is_known(attempt.address, self.user_key(attempt))
        {
            self.known.insert(self.user_key(attempt), ());
            let own = [(known.clone(), rates.login_per_address, Use::Take)];
            let said = shared.counters.admit(None, &own).await?;
            return Ok(said
                .refused
                .map_or(Ok(CheckPermit(None)), |(_, wait)| refused(LimitName::LoginPerAddress, wait)));
        }
        let caller = known.as_deref().map(|known| (known, rates.login_per_address));
        let networks =
            SharedLimits::networks("login address", attempt.address, &[], rates.login_per_address, Use::Take);
        let account = attempt.account.map(|account| name("account", &[account.as_bytes()])).unwrap_or_default();
        let account = name("login account", &[&account, attempt.username.as_bytes()]);
        let own = (account, rates.login_per_account, Use::Take);
        let takes = [networks.as_slice(), std::slice::from_ref(&own)].concat();
        let (is_known, refusing) =
            match self.attempted(shared, Guess::Login, (attempt.address, attempt.client), caller, takes).await? {
                Ok(admitted) => admitted,
                Err(denial) => return Ok(Err(denial.into())),
            };
        if is_known {
            self.known.insert(self.user_key(attempt), ());
        }
        Ok(match refusing {
            Some((place, wait)) if is_known || place < networks.len() => refused(LimitName::LoginPerAddress, wait),
            Some((_, wait)) => refused(LimitName::LoginPerAccount, wait),
            None if is_known => Ok(CheckPermit(None)),
            None => place(self.strangers.as_ref()),
        })
    }

    /// Executes the steps, unless the caller's attempts failed too often. Returns whether the caller is known, and the
    /// refusing step with its wait.
    async fn attempted(
        &self,
        shared: &SharedLimits,
        guess: Guess,
        (address, of): (Option<IpAddr>, &str),
        caller: Option<(&[u8], Rate)>,
        takes: Vec<Step>,
    ) -> Result<Result<(bool, Option<(usize, Duration)>), Denial>, Away> {
        let look = (name(guess.failures(), &[of.as_bytes()]), self.rates.load().login_per_client, Use::Look);
        let steps = [std::slice::from_ref(&look), takes.as_slice()].concat();
        let Admission { is_known, refused } = shared.counters.admit(caller, &steps).await?;
        let debt = match refused {
            Some((0, wait)) if !is_known => wait,
            refused if is_known => return Ok(Ok((true, refused))),
            refused => return Ok(Ok((false, refused.map(|(place, wait)| (place.saturating_sub(1), wait))))),
        };
        let too_many = |wait| self.too_many(LimitName::LoginPerClient, wait);
        let Some(address) = address else { return Ok(Err(too_many(debt))) };
        if !self.is_known(Some(address), self.client_key(address, of))
            && !shared.counters.remembers(&client(address, of)).await?
            && let Some(own) = shared.own_debt(guess.own(), address, of).await?
        {
            return Ok(Err(too_many(debt.min(own))));
        }
        let said = shared.counters.admit(None, &takes).await?;
        Ok(Ok((false, said.refused)))
    }

    /// Like [`logged_in`](Self::logged_in), but for all gates.
    pub async fn record_login(&self, attempt: Attempt<'_>) {
        self.logged_in(attempt);
        let (Some(shared), Some(address), Some(known)) = (&self.shared, attempt.address, user(attempt)) else {
            return;
        };
        // If this fails, other gates do not recognise the address until the next login.
        let _ = shared
            .within(async {
                let client = client(address, attempt.client);
                tokio::try_join!(shared.counters.remember(&known), shared.counters.remember(&client))
            })
            .await;
    }

    /// Like [`login_failed`](Self::login_failed), but with counters that all gates share.
    pub async fn record_failed_login(&self, attempt: Attempt<'_>) {
        if !self.charge_shared(Guess::Login, attempt.address, attempt.client).await {
            self.login_failed(attempt);
        }
    }

    /// Like [`secret`](Self::secret), but with counters that all gates share.
    ///
    /// # Errors
    /// The errors of [`secret`](Self::secret).
    pub async fn admit_secret(&self, address: Option<IpAddr>, client: &str) -> Result<CheckPermit, Error> {
        if let Some(shared) = &self.shared
            && let Some(decided) = shared.within(self.shared_secret(shared, address, client)).await
        {
            return decided;
        }
        self.secret(address, client)
    }

    async fn shared_secret(
        &self,
        shared: &SharedLimits,
        address: Option<IpAddr>,
        client: &str,
    ) -> Result<Result<CheckPermit, Error>, Away> {
        let rate = self.rates.load().login_per_address;
        let takes = SharedLimits::networks("secret address", address, &[], rate, Use::Take);
        Ok(match self.attempted(shared, Guess::Secret, (address, client), None, takes).await? {
            Err(denial) => Err(denial.into()),
            Ok((_, Some((_, wait)))) => Err(self.too_many(LimitName::LoginPerAddress, wait).into()),
            Ok((_, None)) => place(self.unproved_clients.as_ref()),
        })
    }

    /// Like [`secret_failed`](Self::secret_failed), but with counters that all gates share.
    pub async fn record_failed_secret(&self, address: Option<IpAddr>, client: &str) {
        if !self.charge_shared(Guess::Secret, address, client).await {
            self.secret_failed(address, client);
        }
    }

    async fn charge_shared(&self, guess: Guess, address: Option<IpAddr>, client: &str) -> bool {
        let Some(shared) = &self.shared else { return false };
        shared.within(shared.charge(guess, address, client, self.rates.load().login_per_client)).await.is_some()
    }
}

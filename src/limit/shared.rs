//! Limits of guesses at passwords and secrets that all nodes of a shared store count together: an attacker who spreads
//! guesses over N nodes gets no more of them.
//!
//! While the store does not answer, each node counts for itself, at the rate divided by the number of nodes.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::by_network::wider;
use super::{Attempt, CheckPermit, LimitName, Limits, OWN_FAILURES, Rate, place};
use crate::clock::TimeSource;
use crate::denial::Denial;
use crate::fault::Error;
use crate::network::networks;

/// How long an attempt waits for the shared counters.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long they are not asked after they did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The shared counters do not answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Away;

/// What is done with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Takes one attempt.
    Take,
    /// Counts one that has happened.
    Charge,
    /// Asks for the debt.
    Look,
    /// Gives back what was taken.
    GiveBack,
}

/// Counters of several nodes.
#[async_trait]
pub(crate) trait Counters: fmt::Debug + Send + Sync {
    /// How long to wait, if the counter of this name refuses.
    async fn count(&self, name: &[u8], rate: Rate, how: Use) -> Result<Option<Duration>, Away>;

    /// Remembers this name.
    async fn remember(&self, name: &[u8]) -> Result<(), Away>;

    /// Is this name remembered?
    async fn remembers(&self, name: &[u8]) -> Result<bool, Away>;

    /// The number of nodes that were heard of lately, this one included.
    fn nodes(&self) -> u32;
}

/// Counters of several nodes, and when they did not answer.
pub(super) struct Shared {
    pub(super) counters: Arc<dyn Counters>,
    time: Arc<dyn TimeSource>,
    /// The monotonic time, in ms, until which they are not asked.
    paused: AtomicU64,
}

impl Shared {
    pub(super) fn new(counters: Arc<dyn Counters>, time: Arc<dyn TimeSource>) -> Self {
        Self { counters, time, paused: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.time.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// What the counters say, unless they do not answer in time.
    async fn within<T>(&self, asking: impl Future<Output = Result<T, Away>>) -> Option<T> {
        if self.now() < self.paused.load(Ordering::Relaxed) {
            return None;
        }
        if let Ok(Ok(said)) = tokio::time::timeout(PATIENCE, asking).await {
            return Some(said);
        }
        let until = self.now().saturating_add(u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX));
        self.paused.store(until, Ordering::Relaxed);
        None
    }

    /// Takes one attempt from the networks around an address, or from none. A refusal is the inner error.
    async fn take(&self, kind: &str, address: IpAddr, rate: Rate) -> Result<Result<(), Duration>, Away> {
        let mut taken: Vec<(Vec<u8>, Rate)> = Vec::new();
        for (name, rate) in around(kind, address, &[], rate) {
            if let Some(wait) = self.counters.count(&name, rate, Use::Take).await? {
                for (name, rate) in taken {
                    self.counters.count(&name, rate, Use::GiveBack).await?;
                }
                return Ok(Err(wait));
            }
            taken.push((name, rate));
        }
        Ok(Ok(()))
    }

    /// The longest debt of the networks around an address.
    async fn own_debt(&self, kind: &str, address: IpAddr, client: &str) -> Result<Option<Duration>, Away> {
        let mut longest = None;
        for (name, rate) in around(kind, address, &[client.as_bytes()], OWN_FAILURES) {
            longest = longest.max(self.counters.count(&name, rate, Use::Look).await?);
        }
        Ok(longest)
    }

    async fn charge(&self, kind: Guess, address: Option<IpAddr>, client: &str, rate: Rate) -> Result<(), Away> {
        self.counters.count(&name(kind.failures(), &[client.as_bytes()]), rate, Use::Charge).await?;
        let Some(address) = address else { return Ok(()) };
        for (name, rate) in around(kind.own(), address, &[client.as_bytes()], OWN_FAILURES) {
            self.counters.count(&name, rate, Use::Charge).await?;
        }
        Ok(())
    }
}

/// What is guessed.
#[derive(Clone, Copy)]
pub(super) enum Guess {
    /// The password of a user.
    Login,
    /// The secret of a client.
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

/// Distinct parts have distinct names.
fn name(kind: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut name = Vec::new();
    for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    name
}

/// The names and rates of the networks that contain an address, narrowest first.
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

/// The network that counts as the caller.
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
    /// Counts guesses together with other nodes.
    #[must_use]
    pub(crate) fn shared_by(mut self, counters: Arc<dyn Counters>, time: Arc<dyn TimeSource>) -> Self {
        self.shared = Some(Shared::new(counters, time));
        self
    }

    /// By how many nodes a rate is divided that this node counts for itself, though all share it.
    pub(super) fn share(&self) -> NonZeroU32 {
        let nodes = self.shared.as_ref().and_then(|shared| NonZeroU32::new(shared.counters.nodes()));
        nodes.unwrap_or(NonZeroU32::MIN)
    }

    /// As [`login`](Self::login), among all nodes.
    ///
    /// # Errors
    /// The same.
    pub async fn admit_login(&self, attempt: Attempt<'_>) -> Result<CheckPermit, Error> {
        if let Some(shared) = &self.shared
            && let Some(decided) = shared.within(self.shared_login(shared, attempt)).await
        {
            return decided;
        }
        self.login(attempt)
    }

    async fn shared_login(&self, shared: &Shared, attempt: Attempt<'_>) -> Result<Result<CheckPermit, Error>, Away> {
        let counters = &*shared.counters;
        let known = user(attempt);
        if let Some(known) = &known
            && (self.is_known(attempt.address, self.user_key(attempt)) || counters.remembers(known).await?)
        {
            self.known.insert(self.user_key(attempt), ());
            let wait = counters.count(known, self.rates.load().login_per_address, Use::Take).await?;
            let refused = |wait| Err(self.too_many(LimitName::LoginPerAddress, wait).into());
            return Ok(wait.map_or(Ok(CheckPermit(None)), refused));
        }
        if let Err(denial) = self.shared_failures(shared, Guess::Login, attempt.address, attempt.client).await? {
            return Ok(Err(denial.into()));
        }
        if let Some(address) = attempt.address
            && let Err(wait) = shared.take("login address", address, self.rates.load().login_per_address).await?
        {
            return Ok(Err(self.too_many(LimitName::LoginPerAddress, wait).into()));
        }
        let account = attempt.account.map(|account| name("account", &[account.as_bytes()])).unwrap_or_default();
        let account = name("login account", &[&account, attempt.username.as_bytes()]);
        if let Some(wait) = counters.count(&account, self.rates.load().login_per_account, Use::Take).await? {
            return Ok(Err(self.too_many(LimitName::LoginPerAccount, wait).into()));
        }
        Ok(place(self.strangers.as_ref()))
    }

    /// Holds a caller up if too many attempts with a client failed, and some of them were the caller's.
    async fn shared_failures(
        &self,
        shared: &Shared,
        guess: Guess,
        address: Option<IpAddr>,
        of: &str,
    ) -> Result<Result<(), Denial>, Away> {
        let failures = name(guess.failures(), &[of.as_bytes()]);
        let debt = shared.counters.count(&failures, self.rates.load().login_per_client, Use::Look).await?;
        let Some(wait) = debt else { return Ok(Ok(())) };
        let too_many = |wait| self.too_many(LimitName::LoginPerClient, wait);
        let Some(address) = address else { return Ok(Err(too_many(wait))) };
        if self.is_known(Some(address), self.client_key(address, of))
            || shared.counters.remembers(&client(address, of)).await?
        {
            return Ok(Ok(()));
        }
        let own = shared.own_debt(guess.own(), address, of).await?;
        Ok(own.map_or(Ok(()), |own| Err(too_many(wait.min(own)))))
    }

    /// As [`logged_in`](Self::logged_in), for all nodes.
    pub async fn record_login(&self, attempt: Attempt<'_>) {
        self.logged_in(attempt);
        let (Some(shared), Some(address), Some(known)) = (&self.shared, attempt.address, user(attempt)) else {
            return;
        };
        // Where this is lost, the address is a stranger's at other nodes until the next login.
        let _ = shared
            .within(async {
                shared.counters.remember(&known).await?;
                shared.counters.remember(&client(address, attempt.client)).await
            })
            .await;
    }

    /// As [`login_failed`](Self::login_failed), among all nodes.
    pub async fn record_failed_login(&self, attempt: Attempt<'_>) {
        if !self.charge_shared(Guess::Login, attempt.address, attempt.client).await {
            self.login_failed(attempt);
        }
    }

    /// As [`secret`](Self::secret), among all nodes.
    ///
    /// # Errors
    /// The same.
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
        shared: &Shared,
        address: Option<IpAddr>,
        client: &str,
    ) -> Result<Result<CheckPermit, Error>, Away> {
        if let Err(denial) = self.shared_failures(shared, Guess::Secret, address, client).await? {
            return Ok(Err(denial.into()));
        }
        if let Some(address) = address
            && let Err(wait) = shared.take("secret address", address, self.rates.load().login_per_address).await?
        {
            return Ok(Err(self.too_many(LimitName::LoginPerAddress, wait).into()));
        }
        Ok(place(self.unproved_clients.as_ref()))
    }

    /// As [`secret_failed`](Self::secret_failed), among all nodes.
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

//! Rate limits for attempts (requirements A1, A13, A14).
//!
//! | limit | key | default |
//! |---|---|---|
//! | login | network | 20, then one every 3 s |
//! | login | account and user, from networks where that user never logged in | 10, then one every 30 s |
//! | login (instead of the above) | user and network from which the user has logged in | 20, then one every 3 s |
//! | failed login | client, but refuses only networks from which that client failed | 200, then 20 a second |
//! | secret of a client | network | 20, then one every 3 s |
//! | wrong secret | client, but refuses only networks from which that client failed | 200, then 20 a second |
//! | token for a client's own account | client | 200, then 20 a second |
//! | refresh | network | 200, then 20 a second |
//! | refresh | session, rotations only | 10, then one every 2 s |
//! | own sessions | subject | 20, then one every 3 s |
//! | forged token | network | 50, then 10 a second; beyond that, new tokens from there are not verified |
//! | refused token | network | 200, then 20 a second; beyond that, new tokens from there are not verified |
//! | forged or refused token | all networks | 5000, then 5000 a second; beyond that, strangers (below) are refused |
//! | introspection of a forged or refused token | client | 5000, then 5000 a second |
//!
//! A network is an IPv4 address or an IPv6 /64. A /56 has four times the rate of one of its /64 networks, and a /48 has
//! 32 times the rate.
//!
//! Signature verification is the one expensive step that a forged token can cause. Because forged tokens may come from
//! any number of addresses, all addresses together get a bounded share of the processor. A stranger is an address that
//! has not recently presented a valid token. The limits can refuse a stranger's valid token, but a retry succeeds.
//! Tokens that were verified before are never limited. Revoked tokens and tokens for another audience have a higher
//! limit. An expired token does not cost a signature check and is not counted. A token counts once for each 8 KiB and
//! for each verification key that was tried. Tokens over 8 KiB count even without a signature check. Other callers
//! cannot lock a user out. Logins from an address where the user logged in before have their own limit. Wrong secrets
//! of a client limit only the networks that sent them.
//!
//! An introspecting client is limited only by its own requests. Some password checks are reserved for introspecting
//! clients, see [`CheckPermit`].
//!
//! Gates that share a store count logins, secrets and their failures together. The counted values are hashed with a
//! random seed into a fixed number of buckets, so the memory is bounded.
//!
//! Values in the same bucket share the rate of the bucket.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use crate::clock::TimeSource;
use crate::counters::Counters;
use crate::denial::Denial;
use crate::fault::{Error, Fault};
use crate::network::network;
pub use crate::network::{SITE_48, SITE_56};
use crate::session::SessionId;
pub use attempt::{Attempt, CheckPermit, Source};
pub use bucket::Bucket;
pub use buckets::{Buckets, Left};
use by_network::ByNetwork;
pub use failures::Failures;
pub use name::LimitName;
pub use rates::{Rate, Rates};
use shared::SharedLimits;
pub(crate) use vain::Vain;

mod attempt;
mod bucket;
mod buckets;
mod by_network;
pub mod callers;
mod failures;
mod lease;
mod name;
mod rates;
pub(crate) mod shared;
#[cfg(test)]
mod tests;
mod vain;

/// A test replaces these types.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

/// The binary logarithm of the number of buckets.
const BUCKET_BITS: u32 = 18;
/// The binary logarithm of the number of buckets for clients.
const CLIENT_BUCKET_BITS: u32 = 12;
const MAX_REMEMBERED_KEYS: u64 = 100_000;
/// The rate of failures for each network, once the client has exceeded its limit.
const OWN_FAILURES: Rate = Rate::new(3, Duration::from_secs(300));
const OWN_SESSIONS: Rate = Rate::new(20, Duration::from_secs(3));

/// The store keeps a row for each assertion until the assertion expires.
const ASSERTIONS: Rate = Rate::new(1000, Duration::from_millis(50));

/// The rate of messages that the gate cannot verify, because it does not have the issuer's key. Messages beyond this
/// rate count as forged.
const UNDECIDED: Rate = Rate::new(1000, Duration::from_millis(10));

const TOLD: Rate = Rate::new(1, Duration::from_secs(60));
const TOLD_OVERALL: Rate = Rate::new(100, Duration::from_secs(1));

type RememberedKeys<V = ()> = moka::sync::Cache<u64, V, foldhash::quality::RandomState>;

fn remembered<V: Clone + Send + Sync + 'static>() -> RememberedKeys<V> {
    moka::sync::Cache::builder().max_capacity(MAX_REMEMBERED_KEYS).build_with_hasher(Default::default())
}

/// The limits, with their counters.
pub struct Limits {
    refused_attempts: Counters<{ LimitName::ALL.len() }>,
    login_address: ByNetwork,
    login_account: Buckets,
    login_known: Buckets,
    login_failures: Buckets,
    secret_address: ByNetwork,
    secret_failures: Buckets,
    own_failures: ByNetwork,
    client_tokens: Buckets,
    refresh_address: ByNetwork,
    refresh_session: Buckets,
    own_sessions: Buckets,
    assertions: Buckets,
    told: Buckets,
    told_overall: Buckets,
    forged: ByNetwork,
    refused: ByNetwork,
    undecided: ByNetwork,
    vain_overall: Buckets,
    vain_introspected: Buckets,
    familiar: RememberedKeys,
    known: RememberedKeys,
    known_hasher: RandomState,
    strangers: Option<Arc<Semaphore>>,
    unproved_clients: Option<Arc<Semaphore>>,
    rates: ArcSwap<Rates>,
    shared: Option<Arc<SharedLimits>>,
}

crate::debug_with!(Limits);

impl Limits {
    /// Creates limits that use the clock `time`.
    pub fn new(rates: Rates, time: Arc<dyn TimeSource>) -> Self {
        let by_network = |rate| ByNetwork::new(rate, &time);
        let keyed = |rate| Buckets::new(BUCKET_BITS, rate, Arc::clone(&time));
        let by_client = |rate| Buckets::new(CLIENT_BUCKET_BITS, rate, Arc::clone(&time));
        Self {
            refused_attempts: Counters::default(),
            login_address: by_network(rates.login_per_address),
            login_account: keyed(rates.login_per_account),
            login_known: keyed(rates.login_per_address),
            login_failures: by_client(rates.login_per_client),
            secret_address: by_network(rates.login_per_address),
            secret_failures: by_client(rates.login_per_client),
            own_failures: by_network(OWN_FAILURES),
            client_tokens: by_client(rates.login_per_client),
            refresh_address: by_network(rates.refresh_per_address),
            refresh_session: keyed(rates.refresh_per_session),
            own_sessions: keyed(OWN_SESSIONS),
            assertions: by_client(ASSERTIONS),
            told: by_client(TOLD),
            told_overall: Buckets::new(0, TOLD_OVERALL, Arc::clone(&time)),
            forged: by_network(rates.forged_per_address),
            refused: by_network(rates.refused_per_address),
            undecided: by_network(UNDECIDED),
            vain_introspected: by_client(rates.forged_overall),
            vain_overall: Buckets::new(0, rates.forged_overall, time),
            familiar: remembered(),
            known: remembered(),
            known_hasher: RandomState::new(),
            strangers: None,
            unproved_clients: None,
            rates: ArcSwap::from_pointee(rates),
            shared: None,
        }
    }

    /// Changes the rates without resetting the counters.
    pub fn set_rates(&self, rates: Rates) {
        let Rates {
            login_per_address,
            login_per_account,
            login_per_client,
            refresh_per_address,
            refresh_per_session,
            forged_per_address,
            refused_per_address,
            forged_overall,
        } = rates;
        self.login_address.set_rate(login_per_address);
        self.login_account.set_rate(login_per_account);
        self.login_known.set_rate(login_per_address);
        self.login_failures.set_rate(login_per_client);
        self.secret_address.set_rate(login_per_address);
        self.secret_failures.set_rate(login_per_client);
        self.client_tokens.set_rate(login_per_client);
        self.refresh_address.set_rate(refresh_per_address);
        self.refresh_session.set_rate(refresh_per_session);
        self.forged.set_rate(forged_per_address);
        self.refused.set_rate(refused_per_address);
        self.vain_introspected.set_rate(forged_overall);
        self.vain_overall.set_rate(forged_overall);
        self.rates.store(Arc::new(rates));
    }

    /// Reserves password checks for known callers. Strangers get at most three quarters of the `places`, and
    /// unauthenticated clients at most an eighth.
    #[must_use]
    pub fn with_password_places(mut self, places: usize) -> Self {
        self.strangers = Some(Arc::new(Semaphore::new((places - places / 4).max(1))));
        self.unproved_clients = Some(Arc::new(Semaphore::new((places / 8).max(1))));
        self
    }

    /// Admits a login attempt before its password is hashed. Call [`logged_in`](Self::logged_in) or
    /// [`login_failed`](Self::login_failed) afterwards.
    ///
    /// # Errors
    /// [`Denial::RateLimited`], or [`Fault::Busy`] while too many strangers' passwords are being checked.
    pub fn login(&self, attempt: Attempt<'_>) -> Result<CheckPermit, Error> {
        if self.is_known(attempt.address, self.user_key(attempt)) {
            let taken = self.login_known.take_share(self.user_key(attempt), self.share());
            taken.map_err(|wait| self.too_many(LimitName::LoginPerAddress, wait))?;
            return Ok(CheckPermit(None));
        }
        self.failed_too_often(attempt.address, &self.login_failures, ("login", attempt.client))?;
        if let Some(address) = attempt.address {
            let taken = self.login_address.take_share(address, (), self.share());
            taken.map_err(|wait| self.too_many(LimitName::LoginPerAddress, wait))?;
        }
        let taken = self.login_account.take_share((attempt.account, attempt.username), self.share());
        taken.map_err(|wait| self.too_many(LimitName::LoginPerAccount, wait))?;
        place(self.strangers.as_ref())
    }

    /// Records a successful login from this address.
    pub fn logged_in(&self, attempt: Attempt<'_>) {
        if let Some(address) = attempt.address {
            self.known.insert(self.user_key(attempt), ());
            self.known.insert(self.client_key(address, attempt.client), ());
        }
    }

    /// Counts a failed login.
    pub fn login_failed(&self, attempt: Attempt<'_>) {
        self.login_failures.charge_share(attempt.client, self.share());
        if let Some(address) = attempt.address {
            self.own_failures.charge(address, ("login", attempt.client), NonZeroU32::MIN);
        }
    }

    /// Admits the check of a client's secret. Call [`secret_failed`](Self::secret_failed) if the secret is wrong.
    ///
    /// # Errors
    /// The errors of [`login`](Self::login).
    pub fn secret(&self, address: Option<IpAddr>, client: &str) -> Result<CheckPermit, Error> {
        self.failed_too_often(address, &self.secret_failures, ("secret", client))?;
        if let Some(address) = address {
            let taken = self.secret_address.take_share(address, (), self.share());
            taken.map_err(|wait| self.too_many(LimitName::LoginPerAddress, wait))?;
        }
        place(self.unproved_clients.as_ref())
    }

    /// Counts a wrong secret of a client.
    pub fn secret_failed(&self, address: Option<IpAddr>, client: &str) {
        self.secret_failures.charge_share(client, self.share());
        if let Some(address) = address {
            self.own_failures.charge(address, ("secret", client), NonZeroU32::MIN);
        }
    }

    /// Counts a token for a client's own account.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub fn client_token(&self, client: &str) -> Result<(), Denial> {
        self.client_tokens.take(client).map_err(|wait| self.too_many(LimitName::LoginPerClient, wait))
    }

    /// Refuses a caller whose own attempts with this client failed too often.
    fn failed_too_often(
        &self,
        address: Option<IpAddr>,
        all: &Buckets,
        (kind, client): (&'static str, &str),
    ) -> Result<(), Denial> {
        let Some(wait) = all.debt(client) else { return Ok(()) };
        let Some(address) = address else { return Err(self.too_many(LimitName::LoginPerClient, wait)) };
        if self.is_known(Some(address), self.client_key(address, client)) {
            return Ok(());
        }
        match self.own_failures.debt(address, (kind, client)) {
            Some(own) => Err(self.too_many(LimitName::LoginPerClient, wait.min(own))),
            None => Ok(()),
        }
    }

    /// Counts a refresh from an address.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub fn refresh(&self, address: Option<IpAddr>) -> Result<(), Denial> {
        let Some(address) = address else { return Ok(()) };
        let taken = self.refresh_address.take(address, ());
        taken.map_err(|wait| self.too_many(LimitName::RefreshPerAddress, wait))
    }

    /// Counts a rotation of a session.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub fn rotation(&self, session: SessionId) -> Result<(), Denial> {
        self.refresh_session.take(session).map_err(|wait| self.too_many(LimitName::RefreshPerSession, wait))
    }

    /// Counts a request of a user about their own sessions.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub fn own_sessions(&self, subject: &str) -> Result<(), Denial> {
        self.own_sessions.take(subject).map_err(|wait| refusal("own_sessions", wait))
    }

    pub(crate) fn foresee_own_sessions(&self, subject: &str) -> Result<(), Denial> {
        self.own_sessions.look(subject).map_err(|wait| refusal("own_sessions", wait))
    }

    /// Counts a client's assertion, before the assertion is recorded as used.
    ///
    /// # Errors
    /// [`Denial::RateLimited`].
    pub fn assertion(&self, client: &str) -> Result<(), Denial> {
        self.assertions.take(client).map_err(|wait| refusal("assertions_per_client", wait))
    }

    /// Admits the signature check of a new token.
    ///
    /// # Errors
    /// [`Denial::RateLimited`] while the sender or all senders together exceed the rate of forged or refused tokens.
    pub fn admit_unverified<'a>(&self, source: impl Into<Source<'a>>) -> Result<(), Denial> {
        let wait = self.unverified_wait(source.into());
        wait.map_or(Ok(()), |(limit, wait)| Err(self.too_many(limit, wait)))
    }

    pub(crate) fn foresee_unverified<'a>(&self, source: impl Into<Source<'a>>) -> Result<(), Denial> {
        let wait = self.unverified_wait(source.into());
        wait.map_or(Ok(()), |(limit, wait)| Err(limited(limit, wait)))
    }

    fn unverified_wait(&self, source: Source<'_>) -> Option<(LimitName, Duration)> {
        let overall = |wait| (LimitName::ForgedOverall, wait);
        match source {
            Source::Client(client) => self.vain_introspected.debt(client).map(overall),
            Source::Address(address) => {
                let forged = address.and_then(|from| self.forged.debt(from, ()));
                let refused = address.and_then(|from| self.refused.debt(from, ()));
                let own = match forged.max(refused) {
                    Some(wait) if refused == Some(wait) => Some((LimitName::RefusedPerAddress, wait)),
                    Some(wait) => Some((LimitName::ForgedPerAddress, wait)),
                    None => None,
                };
                own.or_else(|| self.vain_overall.debt(()).filter(|_| !self.knows(source)).map(overall))
            }
        }
    }

    /// The number of refused attempts for each of [`LimitName::ALL`].
    pub fn refused_attempts(&self) -> [u64; LimitName::ALL.len()] {
        self.refused_attempts.sums()
    }

    /// Limits the audit trail, so that an attacker cannot fill it.
    pub(crate) fn may_tell(&self, who: impl Hash) -> bool {
        self.told.take(who).is_ok() && self.told_overall.take(()).is_ok()
    }

    /// Checks whether the limits would refuse the next refresh, without counting it.
    // Requirement O37.
    pub fn foresee_refresh(&self, address: Option<IpAddr>, session: Option<SessionId>) -> Result<(), Denial> {
        if let Some(address) = address {
            let looked = self.refresh_address.look(address, ());
            looked.map_err(|wait| limited(LimitName::RefreshPerAddress, wait))?;
        }
        let looked = session.map_or(Ok(()), |session| self.refresh_session.look(session));
        looked.map_err(|wait| limited(LimitName::RefreshPerSession, wait))
    }

    fn too_many(&self, limit: LimitName, wait: Duration) -> Denial {
        self.refused_attempts.add(limit as usize, 1);
        limited(limit, wait)
    }

    /// Records that this source presented a valid token.
    pub fn record_valid<'a>(&self, source: impl Into<Source<'a>>) {
        if let Source::Address(Some(address)) = source.into()
            && !self.is_familiar(address)
        {
            self.familiar.insert(network(address), ());
        }
    }

    /// Returns whether this source recently presented valid tokens.
    pub fn knows(&self, source: Source<'_>) -> bool {
        match source {
            Source::Client(_) => true,
            Source::Address(address) => address.is_some_and(|address| self.is_familiar(address)),
        }
    }

    fn is_familiar(&self, address: IpAddr) -> bool {
        self.familiar.get(&network(address)).is_some()
    }

    /// Counts a token with an invalid signature.
    pub fn record_forged<'a>(&self, source: impl Into<Source<'a>>) {
        self.record(Vain::Forged, source, NonZeroU32::MIN);
    }

    /// Counts a refused token with a valid signature.
    pub fn record_refused<'a>(&self, source: impl Into<Source<'a>>) {
        self.record(Vain::Refused, source, NonZeroU32::MIN);
    }

    /// Counts a failed credential.
    // Requirement A34.
    pub(crate) fn record<'a>(&self, vain: Vain, source: impl Into<Source<'a>>, cost: NonZeroU32) {
        let by_network = match (vain, source.into()) {
            (_, Source::Client(client)) => return self.vain_introspected.charge_share(client, cost),
            (Vain::Undecided, Source::Address(Some(from))) if self.undecided.take_share(from, (), cost).is_ok() => None,
            (Vain::Forged | Vain::Undecided, Source::Address(from)) => from.zip(Some(&self.forged)),
            (Vain::Refused, Source::Address(from)) => from.zip(Some(&self.refused)),
        };
        self.vain_overall.charge_share((), cost);
        if let Some((address, failures)) = by_network {
            failures.charge(address, (), cost);
        }
    }

    fn is_known(&self, address: Option<IpAddr>, key: u64) -> bool {
        address.is_some() && self.known.get(&key).is_some()
    }

    fn user_key(&self, attempt: Attempt<'_>) -> u64 {
        self.known_hasher.hash_one(("user", attempt.address.map(network), attempt.account, attempt.username))
    }

    fn client_key(&self, address: IpAddr, client: &str) -> u64 {
        self.known_hasher.hash_one(("client", network(address), client))
    }
}

fn place(of: Option<&Arc<Semaphore>>) -> Result<CheckPermit, Error> {
    let permit = of.map(|places| Arc::clone(places).try_acquire_owned()).transpose();
    Ok(CheckPermit(permit.map_err(|_| Fault::Busy)?))
}

fn limited(limit: LimitName, wait: Duration) -> Denial {
    refusal(limit.name(), wait)
}

/// `Retry-After` is at least one second.
fn refusal(limit: &'static str, wait: Duration) -> Denial {
    Denial::RateLimited(limit, wait.max(Duration::from_secs(1)))
}

//! Who may try how often (requirements A1, A13, A14). Rates are token buckets.
//!
//! | limit | key | default |
//! |---|---|---|
//! | login | network | 20, then one every 3 s |
//! | login | account and user, from networks that never logged that user in | 10, then one every 30 s |
//! | login | user and network, once that user has logged in from there; in place of the two above | 20, then one every 3 s |
//! | failed login | client; only networks that failed with that client themselves are held up | 200, then 20 a second |
//! | secret of a client | network | 20, then one every 3 s |
//! | wrong secret | client; only networks that failed with that client themselves are held up | 200, then 20 a second |
//! | token of a client's own | client | 200, then 20 a second |
//! | refresh | network | 200, then 20 a second |
//! | refresh | session, rotations only | 10, then one every 2 s |
//! | forged token | network | 50, then 10 a second; while more come, tokens from there that were never seen are not verified |
//! | refused token | network | 200, then 20 a second; as with forged ones |
//! | forged or refused token | all together | 5000, then 5000 a second; while more come, the same for strangers, see below |
//! | forged or refused token, introspected | client | 5000, then 5000 a second |
//!
//! A network is an IPv4 address, or a /64 of IPv6; a /56 may do four times as much as one of its /64, a /48 32 times.
//!
//! What counts is what it costs. Verifying is the one thing that a forged token can make a gate do at any length, and it
//! may come from ever so many addresses: so all of them together have a share of the processor, and no more. A stranger is
//! an address that showed no good token lately. A good token of a stranger has to take its turn among the forged ones, and
//! passes when it is tried again; tokens that were verified before are never held up. A token whose signature holds and that
//! is refused all the same (it was revoked, or is for another audience) costs as much, but is no attack: it has a wider
//! rate of its own, and is remembered, so that a client that goes on showing it costs nothing. One that expired costs no
//! signature check, and counts nowhere.
//!
//! Nobody is locked out by what others do. An address that once logged a user in is not held up by what strangers try on
//! that user, or from that address on others. A client that many guess at lets everybody else in: only who failed with it
//! himself waits. A client's own secret is remembered once it was good, and counted no more. An introspecting client is
//! held up by its own questions alone. For such callers there is room among the password checks, too: see [`CheckPermit`].
//!
//! Keys are hashed into a fixed number of buckets under a random key, so memory is bounded whatever arrives; two keys that
//! share a bucket share its rate.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::TimeSource;
use crate::denial::Denial;
use crate::fault::{Error, Fault};
use crate::network::network;
pub use crate::network::{SITE_48, SITE_56};
use crate::session::SessionId;
use buckets::Buckets;
use by_network::ByNetwork;

mod buckets;
mod by_network;
#[cfg(test)]
mod tests;

/// 2^this many buckets of one limit.
const BITS: u32 = 18;
/// The same for clients: there are few.
const CLIENT_BITS: u32 = 12;
/// How many pairs of address and user are remembered as having logged in, and how many addresses as no strangers.
const KNOWN: u64 = 100_000;
/// How often somebody may fail with a client that too many fail with.
const OWN_FAILURES: Rate = Rate::new(3, Duration::from_secs(300));

/// Remembers keys that are as good as random, and forgets those that were not asked for in a long time.
type Remembered = moka::sync::Cache<u64, (), foldhash::quality::RandomState>;

fn remembered() -> Remembered {
    moka::sync::Cache::builder().max_capacity(KNOWN).build_with_hasher(Default::default())
}

/// A burst, and how long one further try takes to earn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many tries at once.
    pub burst: NonZeroU32,
    /// How long until one more is earned.
    pub every: Duration,
}

impl Rate {
    /// `burst` tries at once, then one more every `every`. A zero of either reads as the least that there is.
    pub const fn new(burst: u32, every: Duration) -> Self {
        let burst = match NonZeroU32::new(burst) {
            Some(burst) => burst,
            None => NonZeroU32::MIN,
        };
        Self { burst, every }
    }
}

/// The limits of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Logins from one address; and of a user from an address that logged that user in before, which counts apart.
    pub login_per_address: Rate,
    /// Logins of one user from addresses that never logged that user in.
    pub login_per_account: Rate,
    /// Logins that failed with one client, and wrong secrets of it; and tokens that a client gets for itself.
    pub login_per_client: Rate,
    /// Refreshes from one address.
    pub refresh_per_address: Rate,
    /// Rotations of one session; a replay does not count.
    pub refresh_per_session: Rate,
    /// Access tokens from one address whose signature does not hold.
    pub forged_per_address: Rate,
    /// Access tokens from one address whose signature holds, and which are refused all the same.
    pub refused_per_address: Rate,
    /// Access tokens from all addresses together that were verified in vain; and those that one client introspects.
    pub forged_overall: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            login_per_address: Rate::new(20, Duration::from_secs(3)),
            login_per_account: Rate::new(10, Duration::from_secs(30)),
            login_per_client: Rate::new(200, Duration::from_millis(50)),
            refresh_per_address: Rate::new(200, Duration::from_millis(50)),
            refresh_per_session: Rate::new(10, Duration::from_secs(2)),
            forged_per_address: Rate::new(50, Duration::from_millis(100)),
            refused_per_address: Rate::new(200, Duration::from_millis(50)),
            // A twentieth of one processor's time with RS256 of 2048 bits, a fifth with ES256.
            forged_overall: Rate::new(5000, Duration::from_micros(200)),
        }
    }
}

/// The limits, and what they have counted.
pub struct Limits {
    login_address: ByNetwork,
    login_account: Buckets,
    login_known: Buckets,
    login_failures: Buckets,
    secret_address: ByNetwork,
    secret_failures: Buckets,
    /// What each network has failed with a client.
    own_failures: ByNetwork,
    client_tokens: Buckets,
    refresh_address: ByNetwork,
    refresh_session: Buckets,
    forged: ByNetwork,
    refused: ByNetwork,
    vain_overall: Buckets,
    vain_introspected: Buckets,
    /// Addresses that showed good tokens.
    familiar: Remembered,
    /// Users, and clients, with addresses that they logged in from.
    known: Remembered,
    known_hasher: RandomState,
    strangers: Option<Arc<Semaphore>>,
    unproved_clients: Option<Arc<Semaphore>>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

/// Who tries to log in.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// From where, if that is known.
    pub address: Option<IpAddr>,
    /// In which account.
    pub account: Option<&'a str>,
    /// As whom.
    pub username: &'a str,
    /// With which client.
    pub client: &'a str,
}

/// Who shows a token that was never seen.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Somebody there, if that is known.
    Address(Option<IpAddr>),
    /// A client that proved itself, and asks about the tokens of others.
    Client(&'a str),
}

impl From<Option<IpAddr>> for Source<'_> {
    fn from(address: Option<IpAddr>) -> Self {
        Self::Address(address)
    }
}

/// A place among the password checks of strangers, until it is dropped: they never have all places.
#[derive(Debug)]
pub struct CheckPermit(#[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>);

impl Limits {
    /// Limits that count in the time of `time`.
    pub fn new(rates: Rates, time: Arc<dyn TimeSource>) -> Self {
        let by_network = |rate| ByNetwork::new(rate, &time);
        let keyed = |rate| Buckets::new(BITS, rate, Arc::clone(&time));
        let by_client = |rate| Buckets::new(CLIENT_BITS, rate, Arc::clone(&time));
        Self {
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
            forged: by_network(rates.forged_per_address),
            refused: by_network(rates.refused_per_address),
            vain_introspected: by_client(rates.forged_overall),
            vain_overall: Buckets::new(0, rates.forged_overall, time),
            familiar: remembered(),
            known: remembered(),
            known_hasher: RandomState::new(),
            strangers: None,
            unproved_clients: None,
        }
    }

    /// Keeps room for callers who are known, where so many password checks run and wait at most: strangers have three
    /// quarters of the places, and clients that did not prove themselves yet an eighth.
    #[must_use]
    pub fn with_password_places(mut self, places: usize) -> Self {
        self.strangers = Some(Arc::new(Semaphore::new((places - places / 4).max(1))));
        self.unproved_clients = Some(Arc::new(Semaphore::new((places / 8).max(1))));
        self
    }

    /// Admits a try to log in, before any password is hashed. What comes of it is to be told:
    /// [`logged_in`](Self::logged_in) or [`login_failed`](Self::login_failed).
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`]; [`Fault::Busy`] where too many strangers' passwords are checked at the moment.
    pub fn login(&self, attempt: Attempt<'_>) -> Result<CheckPermit, Error> {
        if self.is_known(attempt.address, self.user_key(attempt)) {
            self.login_known.take(self.user_key(attempt)).map_err(too_many)?;
            return Ok(CheckPermit(None));
        }
        let failed = Failed { all: &self.login_failures, kind: "login", client: attempt.client };
        self.failed_too_often(attempt.address, failed)?;
        if let Some(address) = attempt.address {
            self.login_address.take(address, ()).map_err(too_many)?;
        }
        self.login_account.take((attempt.account, attempt.username)).map_err(too_many)?;
        place(self.strangers.as_ref())
    }

    /// Remembers that this user, and this client, logged in from this address.
    pub fn logged_in(&self, attempt: Attempt<'_>) {
        if let Some(address) = attempt.address {
            self.known.insert(self.user_key(attempt), ());
            self.known.insert(self.client_key(address, attempt.client), ());
        }
    }

    /// Counts a login that failed.
    pub fn login_failed(&self, attempt: Attempt<'_>) {
        self.login_failures.charge(attempt.client);
        if let Some(address) = attempt.address {
            self.own_failures.charge(address, ("login", attempt.client));
        }
    }

    /// Admits the secret of a client, before it is hashed. A wrong one is to be told: [`secret_failed`](Self::secret_failed).
    ///
    /// # Errors
    /// As [`login`](Self::login).
    pub fn secret(&self, address: Option<IpAddr>, client: &str) -> Result<CheckPermit, Error> {
        let failed = Failed { all: &self.secret_failures, kind: "secret", client };
        self.failed_too_often(address, failed)?;
        if let Some(address) = address {
            self.secret_address.take(address, ()).map_err(too_many)?;
        }
        place(self.unproved_clients.as_ref())
    }

    /// Counts a wrong secret of a client.
    pub fn secret_failed(&self, address: Option<IpAddr>, client: &str) {
        self.secret_failures.charge(client);
        if let Some(address) = address {
            self.own_failures.charge(address, ("secret", client));
        }
    }

    /// Counts a token that a client gets for itself, once it has proved itself.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`].
    pub fn client_token(&self, client: &str) -> Result<(), Denial> {
        self.client_tokens.take(client).map_err(too_many)
    }

    /// Is this caller to wait because too much failed with a client? Only if he has had a part in it.
    fn failed_too_often(&self, address: Option<IpAddr>, failed: Failed<'_>) -> Result<(), Denial> {
        let Failed { all, kind, client } = failed;
        let Some(wait) = all.debt(client) else { return Ok(()) };
        let Some(address) = address else { return Err(too_many(wait)) };
        if self.is_known(Some(address), self.client_key(address, client)) {
            return Ok(());
        }
        match self.own_failures.debt(address, (kind, client)) {
            Some(own) => Err(too_many(wait.min(own))),
            None => Ok(()),
        }
    }

    /// Counts a refresh from an address.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`].
    pub fn refresh(&self, address: Option<IpAddr>) -> Result<(), Denial> {
        address.map_or(Ok(()), |address| self.refresh_address.take(address, ()).map_err(too_many))
    }

    /// Counts a rotation of a session.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`].
    pub fn rotation(&self, session: SessionId) -> Result<(), Denial> {
        self.refresh_session.take(session).map_err(too_many)
    }

    /// May a token from there be verified that was never seen? Verifying costs a signature check.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`] while more were verified in vain than may.
    pub fn admit_unverified<'a>(&self, source: impl Into<Source<'a>>) -> Result<(), Denial> {
        let wait = match source.into() {
            Source::Client(client) => self.vain_introspected.debt(client),
            Source::Address(address) => {
                let own = address.and_then(|from| self.forged.debt(from, ()).max(self.refused.debt(from, ())));
                let is_stranger = || !address.is_some_and(|address| self.is_familiar(address));
                own.or_else(|| self.vain_overall.debt(()).filter(|_| is_stranger()))
            }
        };
        wait.map_or(Ok(()), |wait| Err(too_many(wait)))
    }

    /// Remembers that a good token came from there.
    pub fn record_valid<'a>(&self, source: impl Into<Source<'a>>) {
        if let Source::Address(Some(address)) = source.into()
            && !self.is_familiar(address)
        {
            self.familiar.insert(network(address), ());
        }
    }

    fn is_familiar(&self, address: IpAddr) -> bool {
        self.familiar.get(&network(address)).is_some()
    }

    /// Counts a token from there whose signature did not hold.
    pub fn record_forged<'a>(&self, source: impl Into<Source<'a>>) {
        self.in_vain(source.into(), &self.forged);
    }

    /// Counts a token from there whose signature holds, which was refused all the same.
    pub fn record_refused<'a>(&self, source: impl Into<Source<'a>>) {
        self.in_vain(source.into(), &self.refused);
    }

    fn in_vain(&self, source: Source<'_>, by_network: &ByNetwork) {
        match source {
            Source::Client(client) => self.vain_introspected.charge(client),
            Source::Address(address) => {
                self.vain_overall.charge(());
                if let Some(address) = address {
                    by_network.charge(address, ());
                }
            }
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

/// What failed with a client.
#[derive(Clone, Copy)]
struct Failed<'a> {
    all: &'a Buckets,
    kind: &'static str,
    client: &'a str,
}

fn place(of: Option<&Arc<Semaphore>>) -> Result<CheckPermit, Error> {
    let permit = of.map(|places| Arc::clone(places).try_acquire_owned()).transpose();
    Ok(CheckPermit(permit.map_err(|_| Fault::Busy)?))
}

/// Nobody is told to come again before a second has passed.
fn too_many(wait: Duration) -> Denial {
    Denial::TooManyRequests(wait.max(Duration::from_secs(1)))
}

//! Who may try how often (requirement A1). Rates are token buckets (GCRA, by `governor`).
//!
//! | limit | key | default |
//! |---|---|---|
//! | login | address (IPv6 by /64) | 20, then one every 3 s |
//! | login | account and user, from addresses that never logged that user in | 10, then one every 30 s |
//! | login | client | 200, then 20 a second |
//! | refresh | address | 200, then 20 a second |
//! | refresh | session, rotations only | 10, then one every 2 s |
//! | forged token | address | 50, then 10 a second; while more come, tokens from there that were never seen are not verified |
//! | forged token | all together | 5000, then 5000 a second; while more come, the same for strangers, see below |
//!
//! Verifying is the one thing that a forged token can make a gate do at any length, and it may come from ever so many
//! addresses: so all of them together have a share of the processor, and no more. A stranger is an address that showed no
//! good token lately. A good token of a stranger has to take its turn among the forged ones, and passes when it is tried
//! again; tokens that were verified before are never held up.
//!
//! An address that once logged a user in is not held up by what strangers try on that user, so nobody is locked out by
//! somebody else. Keys are hashed into a fixed number of buckets under a random key, so memory is bounded whatever
//! arrives; two keys that share a bucket share its rate.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::clock::TimeSource;
use crate::denial::Denial;
use crate::session::SessionId;

/// The buckets of one limit.
const BUCKETS: u64 = 1 << 18;
/// How many pairs of address and user are remembered as having logged in, and how many addresses as no strangers.
const KNOWN: u64 = 100_000;

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
    /// Logins from one address.
    pub login_per_address: Rate,
    /// Logins of one user from addresses that never logged that user in.
    pub login_per_account: Rate,
    /// Logins and tokens for one client.
    pub login_per_client: Rate,
    /// Refreshes from one address.
    pub refresh_per_address: Rate,
    /// Rotations of one session; a replay does not count.
    pub refresh_per_session: Rate,
    /// Access tokens from one address whose signature does not hold.
    pub forged_per_address: Rate,
    /// Access tokens from all addresses together whose signature does not hold.
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
            // A twentieth of one processor's time with RS256 of 2048 bits, a fifth with ES256.
            forged_overall: Rate::new(5000, Duration::from_micros(200)),
        }
    }
}

#[derive(Clone)]
struct MonotonicClock(Arc<dyn TimeSource>);

impl Clock for MonotonicClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

type Keyed = RateLimiter<u32, DashMapStateStore<u32>, MonotonicClock, NoOpMiddleware<Duration>>;

struct Limiter {
    rate: Keyed,
    clock: MonotonicClock,
    hasher: RandomState,
}

impl Limiter {
    fn new(rate: Rate, clock: &MonotonicClock) -> Self {
        // A period of zero has no quota: one nanosecond is as good as no limit.
        let quota = Quota::with_period(rate.every.max(Duration::from_nanos(1)))
            .unwrap_or_else(|| Quota::per_second(rate.burst))
            .allow_burst(rate.burst);
        Self {
            rate: RateLimiter::new(quota, DashMapStateStore::default(), clock.clone()),
            clock: clock.clone(),
            hasher: RandomState::new(),
        }
    }

    fn bucket(&self, key: impl Hash) -> u32 {
        u32::try_from(self.hasher.hash_one(key) % BUCKETS).unwrap_or_default()
    }

    fn check(&self, key: impl Hash) -> Result<(), Denial> {
        self.count(self.bucket(key)).map_err(|wait| Denial::TooManyRequests(wait.max(Duration::from_secs(1))))
    }

    /// Counts one; beyond the rate, how long it takes until one more may come.
    fn count(&self, bucket: u32) -> Result<(), Duration> {
        self.rate.check_key(&bucket).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// The limits, and what they have counted.
pub struct Limits {
    login_address: Limiter,
    login_account: Limiter,
    login_client: Limiter,
    refresh_address: Limiter,
    refresh_session: Limiter,
    forged: Limiter,
    forged_overall: Limiter,
    /// Until when no first sight from there is verified, by bucket of `forged`.
    waiting: DashMap<u32, Duration, foldhash::fast::RandomState>,
    /// The last of these times: nearly always gone by, and then the map need not be asked.
    all_waited: Moment,
    /// Until when no stranger's first sight is verified.
    strangers_wait: Moment,
    /// Addresses that showed good tokens.
    familiar: Remembered,
    known: Remembered,
    known_hasher: RandomState,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

/// A point of monotonic time that only moves forward; at first, one that has gone by.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    fn no_sooner_than(&self, at: Duration) {
        self.0.fetch_max(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long it is until then. The clock is not asked where the moment never came.
    fn left(&self, now: impl FnOnce() -> Duration) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            at => Duration::from_nanos(at).checked_sub(now()).filter(|left| !left.is_zero()),
        }
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

impl Limits {
    /// Limits that count in the time of `source`.
    pub fn new(rates: Rates, source: Arc<dyn TimeSource>) -> Self {
        let clock = MonotonicClock(source);
        Self {
            login_address: Limiter::new(rates.login_per_address, &clock),
            login_account: Limiter::new(rates.login_per_account, &clock),
            login_client: Limiter::new(rates.login_per_client, &clock),
            refresh_address: Limiter::new(rates.refresh_per_address, &clock),
            refresh_session: Limiter::new(rates.refresh_per_session, &clock),
            forged: Limiter::new(rates.forged_per_address, &clock),
            forged_overall: Limiter::new(rates.forged_overall, &clock),
            waiting: DashMap::default(),
            all_waited: Moment::default(),
            strangers_wait: Moment::default(),
            familiar: remembered(),
            known: remembered(),
            known_hasher: RandomState::new(),
        }
    }

    /// Counts a try to log in, before any password is hashed.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`].
    pub fn login(&self, attempt: Attempt<'_>) -> Result<(), Denial> {
        if let Some(address) = attempt.address {
            self.login_address.check(network(address))?;
        }
        if self.known.get(&self.known_key(attempt)).is_none() {
            self.login_account.check((attempt.account, attempt.username))?;
        }
        self.login_client.check(attempt.client)
    }

    /// Remembers that this user logged in from this address.
    pub fn logged_in(&self, attempt: Attempt<'_>) {
        if attempt.address.is_some() {
            self.known.insert(self.known_key(attempt), ());
        }
    }

    /// Counts a client's try to authenticate.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`].
    pub fn client(&self, address: Option<IpAddr>, client: &str) -> Result<(), Denial> {
        if let Some(address) = address {
            self.login_address.check(network(address))?;
        }
        self.login_client.check(client)
    }

    /// Counts a refresh from an address.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`].
    pub fn refresh(&self, address: Option<IpAddr>) -> Result<(), Denial> {
        address.map_or(Ok(()), |address| self.refresh_address.check(network(address)))
    }

    /// Counts a rotation of a session.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`].
    pub fn rotation(&self, session: SessionId) -> Result<(), Denial> {
        self.refresh_session.check(session)
    }

    /// May a token from there be verified that was never seen? Verifying costs a signature check.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`] while more forged ones came than may.
    pub fn first_sight(&self, address: Option<IpAddr>) -> Result<(), Denial> {
        let now = || self.forged.clock.now();
        if let Some(address) = address
            && self.all_waited.left(now).is_some()
            && let Some(until) = self.waiting.get(&self.forged.bucket(network(address)))
            && let Some(wait) = until.checked_sub(now()).filter(|wait| !wait.is_zero())
        {
            return Err(Denial::TooManyRequests(wait.max(Duration::from_secs(1))));
        }
        match self.strangers_wait.left(now) {
            Some(wait) if !address.is_some_and(|address| self.is_familiar(address)) => {
                Err(Denial::TooManyRequests(wait.max(Duration::from_secs(1))))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Remembers that a good token came from there.
    pub fn verified(&self, address: Option<IpAddr>) {
        if let Some(address) = address
            && !self.is_familiar(address)
        {
            self.familiar.insert(network(address), ());
        }
    }

    fn is_familiar(&self, address: IpAddr) -> bool {
        self.familiar.get(&network(address)).is_some()
    }

    /// Counts a token from there whose signature did not hold.
    pub fn forged(&self, address: Option<IpAddr>) {
        let now = self.forged.clock.now();
        if let Err(wait) = self.forged_overall.count(0) {
            self.strangers_wait.no_sooner_than(now.saturating_add(wait));
        }
        let Some(address) = address else { return };
        let bucket = self.forged.bucket(network(address));
        if let Err(wait) = self.forged.count(bucket) {
            let until = now.saturating_add(wait);
            self.waiting.insert(bucket, until);
            self.all_waited.no_sooner_than(until);
        }
    }

    /// Forgets keys that are back at their full burst.
    pub fn tidy(&self) {
        for limiter in [
            &self.login_address,
            &self.login_account,
            &self.login_client,
            &self.refresh_address,
            &self.refresh_session,
            &self.forged,
            &self.forged_overall,
        ] {
            limiter.rate.retain_recent();
            limiter.rate.shrink_to_fit();
        }
        let now = self.forged.clock.now();
        self.waiting.retain(|_, until| *until > now);
    }

    fn known_key(&self, attempt: Attempt<'_>) -> u64 {
        self.known_hasher.hash_one((attempt.address.map(network), attempt.account, attempt.username))
    }
}

/// The network that counts as one caller: a single IPv4 address, a /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        // Setting the lowest bit of the first half keeps it apart from every IPv4 address.
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or_default() | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualTime, Timestamp};

    fn limits() -> (Arc<ManualTime>, Limits) {
        let time = ManualTime::at(Timestamp::from_secs(1_700_000_000));
        (time.clone(), Limits::new(Rates::default(), time))
    }

    fn from<'a>(address: &str, username: &'a str) -> Attempt<'a> {
        Attempt { address: Some(address.parse().unwrap()), account: None, username, client: "web" }
    }

    #[test]
    fn a1_an_address_is_limited_and_earns_tries_back() {
        let (time, limits) = limits();
        for i in 0..20 {
            limits.login(from("192.0.2.1", &format!("user{i}"))).unwrap();
        }
        let Err(Denial::TooManyRequests(wait)) = limits.login(from("192.0.2.1", "another")) else {
            panic!("not limited")
        };
        assert_eq!(wait, Duration::from_secs(3));
        limits.login(from("192.0.2.2", "another")).unwrap();
        time.advance(wait);
        limits.login(from("192.0.2.1", "another")).unwrap();
    }

    #[test]
    fn a1_ipv6_counts_by_64() {
        let (_, limits) = limits();
        for i in 0..20 {
            limits.login(from(&format!("2001:db8::{i:x}"), &format!("user{i}"))).unwrap();
        }
        assert!(limits.login(from("2001:db8::ffff", "x")).is_err());
        limits.login(from("2001:db8:0:1::1", "x")).unwrap();
    }

    #[test]
    fn a1_strangers_do_not_lock_a_user_out() {
        let (_, limits) = limits();
        let victim = from("192.0.2.1", "ada");
        limits.login(victim).unwrap();
        limits.logged_in(victim);
        let refused = (0..40).filter(|i| limits.login(from(&format!("198.51.100.{i}"), "ada")).is_err()).count();
        assert!(refused > 20, "strangers are limited: {refused}");
        limits.login(victim).unwrap();
    }

    #[test]
    fn a1_who_shows_forged_tokens_waits_and_nobody_else() {
        let (time, limits) = limits();
        let [forger, other] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse().unwrap()));
        for _ in 0..50 {
            limits.forged(forger);
            limits.first_sight(forger).unwrap();
        }
        limits.forged(forger);
        assert_eq!(limits.first_sight(forger), Err(Denial::TooManyRequests(Duration::from_secs(1))));
        limits.first_sight(other).unwrap();
        limits.first_sight(None).unwrap();
        time.advance(Duration::from_millis(100));
        limits.first_sight(forger).unwrap();
        limits.forged(forger);
        limits.forged(forger);
        limits.first_sight(forger).unwrap_err();
        time.advance(Duration::from_secs(60));
        limits.tidy();
        assert!(limits.waiting.is_empty());
    }

    #[test]
    fn a1_forged_tokens_from_everywhere_are_bounded_together_and_familiar_addresses_pass() {
        let (time, limits) = limits();
        let [friend, stranger] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse().unwrap()));
        limits.verified(friend);
        for from in 0..5000_u32 {
            limits.first_sight(stranger).unwrap();
            limits.forged(Some(IpAddr::from((from << 8).to_be_bytes())));
        }
        limits.first_sight(stranger).unwrap();
        limits.forged(None);
        for nobody_known in [stranger, None] {
            assert_eq!(limits.first_sight(nobody_known), Err(Denial::TooManyRequests(Duration::from_secs(1))));
        }
        limits.first_sight(friend).unwrap();
        // Five turns are earned, and whoever comes next has them.
        time.advance(Duration::from_millis(1));
        limits.first_sight(stranger).unwrap();
        limits.verified(stranger);
        for _ in 0..5 {
            limits.first_sight(None).unwrap();
            limits.forged(None);
        }
        limits.forged(None);
        limits.first_sight(None).unwrap_err();
        limits.first_sight(stranger).unwrap();
        // Who is familiar is still held to what one address may do.
        for _ in 0..=50 {
            limits.forged(friend);
        }
        limits.first_sight(friend).unwrap_err();
        time.advance(Duration::from_secs(2));
        limits.first_sight(None).unwrap();
    }

    #[test]
    fn a1_memory_is_bounded_and_given_back() {
        let (time, limits) = limits();
        for i in 0..20_000_u32 {
            let _ = limits.refresh(Some(IpAddr::from(i.to_be_bytes())));
        }
        let full = limits.refresh_address.rate.len();
        assert!(full > 10_000 && full as u64 <= BUCKETS);
        time.advance(Duration::from_secs(60));
        limits.tidy();
        assert_eq!(limits.refresh_address.rate.len(), 0);
    }
}

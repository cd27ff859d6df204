//! Request limits of routes for each caller. A reload of the configuration changes the rates but keeps the counts.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::bucket::nanos;
use super::buckets::{Buckets, Left};
use super::by_network::wider;
use super::lease::{Ask, Leases};
use super::shared::{self, SharedLimits};
use super::{BUCKET_BITS, Limits, Rate};
use crate::claim::ClaimPath;
use crate::clock::TimeSource;
use crate::network::{Network, SITE_48, SITE_56, networks};
use crate::route::{LimitOver, LimitPer, RateLimit};

const KEY: &str = "key:";

/// The limits in force, with their counters.
pub struct CallerLimits {
    in_force: Mutex<Vec<Arc<RunningLimit>>>,
    time: Arc<dyn TimeSource>,
    shared: Option<Arc<SharedLimits>>,
}

crate::debug_with!(CallerLimits);

/// A limit with its counters.
pub struct RunningLimit {
    name: &'static str,
    per: LimitPer,
    over: LimitOver,
    /// A limit on addresses has three sets of counters: one for the address, and two for larger networks.
    counters: Box<[RequestCounters]>,
    refused: AtomicU64,
    requests: AtomicU32,
    window: AtomicU64,
}

struct RequestCounters {
    /// These counters allow this multiple of a single caller's rate.
    times: u32,
    buckets: Buckets,
    leases: Option<Leases>,
}

/// The facts about a caller that the limits need.
pub struct LimitedCaller<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The client.
    pub client: Option<&'a str>,
    /// The account.
    pub account: Option<&'a str>,
    /// Reads a claim of the caller.
    pub claim: &'a dyn Fn(&ClaimPath) -> Option<String>,
}

/// The facts about a request that the limits need.
pub struct LimitedRequest<'a> {
    /// The caller, if known.
    pub caller: Option<LimitedCaller<'a>>,
    /// Returns the client's address, if known.
    pub address: &'a dyn Fn() -> Option<IpAddr>,
}

#[derive(Debug, Hash)]
pub(super) enum LimitKey<'a> {
    Common,
    Said(&'a str, Cow<'a, str>),
    Address(IpAddr),
    Network(Network),
}

impl LimitKey<'_> {
    pub(super) fn name(&self, limit: &str) -> Vec<u8> {
        let limit = limit.as_bytes();
        match self {
            Self::Common => shared::name("limit", &[limit]),
            Self::Said(issuer, value) => shared::name("limit", &[limit, issuer.as_bytes(), value.as_bytes()]),
            Self::Address(address) => shared::name("limit", &[limit, address.to_string().as_bytes()]),
            Self::Network(network) => shared::name("limit", &[limit, &network.to_bytes()]),
        }
    }
}

#[derive(Default)]
struct Taken {
    left: Option<Left>,
    /// The counters whose local lease the request used, one bit each.
    held: u8,
}

pub(super) enum Untaken {
    Refused(Duration),
    Pending(Ask),
}

/// Why a request was neither admitted nor counted.
pub enum Unmet {
    /// The name of the limit, and the time to wait.
    Refused(&'static str, Duration),
    /// The shared store must be queried first.
    Pending(PendingLease),
}

/// A query to the shared store.
pub struct PendingLease {
    limit: &'static str,
    ask: Ask,
}

impl PendingLease {
    /// Waits a limited time for the response of the store. The caller must then try again.
    pub async fn answered(self) {
        self.ask.answered().await;
    }

    /// The name of the limit.
    pub fn limit(&self) -> &'static str {
        self.limit
    }
}

crate::debug_with!(RunningLimit { name });

impl RunningLimit {
    /// The name of the limit.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn key<'a>(&self, request: &LimitedRequest<'a>) -> LimitKey<'a> {
        let said = |value: fn(&LimitedCaller<'a>) -> Option<&'a str>| {
            let caller = request.caller.as_ref()?;
            Some(LimitKey::Said(caller.issuer, value(caller)?.into()))
        };
        let key = match &self.per {
            LimitPer::Subject => said(|caller| Some(caller.subject)),
            LimitPer::Client => said(|caller| caller.client),
            LimitPer::Key => said(|caller| caller.client?.strip_prefix(KEY)),
            LimitPer::Account => said(|caller| caller.account),
            LimitPer::Address => (request.address)().map(LimitKey::Address),
            LimitPer::Route => None,
            LimitPer::Claim(path) => request
                .caller
                .as_ref()
                .and_then(|caller| Some(LimitKey::Said(caller.issuer, (caller.claim)(path)?.into()))),
        };
        key.unwrap_or(LimitKey::Common)
    }

    fn take(&self, key: &LimitKey<'_>) -> Result<Taken, Untaken> {
        match (key, self.counters.first()) {
            (LimitKey::Address(address), _) => take_networks(&mut networks(*address).zip(&self.counters)),
            (key, Some(counters)) => counters.take(key),
            (_, None) => Ok(Taken::default()),
        }
    }

    fn each(&self, key: &LimitKey<'_>, mut each: impl FnMut(&RequestCounters, &LimitKey<'_>)) {
        match key {
            LimitKey::Address(address) => {
                let all = networks(*address).zip(&self.counters);
                all.for_each(|((network, _), counters)| each(counters, &LimitKey::Network(network)));
            }
            key => self.counters.iter().take(1).for_each(|counters| each(counters, key)),
        }
    }

    fn give_back(&self, key: &LimitKey<'_>, taken: &Taken) {
        let mut held = taken.held;
        self.each(key, |counters, key| {
            counters.give_back(key, held & 1 == 1);
            held >>= 1;
        });
    }

    fn look(&self, key: &LimitKey<'_>) -> Result<(), Duration> {
        let mut longest = None;
        self.each(key, |counters, key| longest = longest.max(counters.look(key).err()));
        longest.map_or(Ok(()), Err)
    }

    /// The number of requests, and the length of the window.
    pub fn quota(&self) -> (u32, Duration) {
        let window = Duration::from_nanos(self.window.load(Ordering::Relaxed));
        (self.requests.load(Ordering::Relaxed), window)
    }

    fn set_rate(&self, limit: &RateLimit) {
        self.requests.store(limit.requests.get(), Ordering::Relaxed);
        self.window.store(nanos(limit.window), Ordering::Relaxed);
        let rate = limit.rate();
        self.counters.iter().for_each(|counters| counters.buckets.set_rate(wider(rate, counters.times)));
    }
}

/// Counts the request for all networks or for none.
fn take_networks<'c>(rest: &mut impl Iterator<Item = ((Network, u32), &'c RequestCounters)>) -> Result<Taken, Untaken> {
    let Some(((network, _), counters)) = rest.next() else { return Ok(Taken::default()) };
    let key = LimitKey::Network(network);
    let taken = counters.take(&key)?;
    match take_networks(rest) {
        Ok(wider) => Ok(Taken { held: taken.held | wider.held << 1, ..taken }),
        Err(untaken) => {
            counters.give_back(&key, taken.held == 1);
            Err(untaken)
        }
    }
}

impl RequestCounters {
    fn take(&self, key: &LimitKey<'_>) -> Result<Taken, Untaken> {
        let (left, is_held) = match &self.leases {
            None => (self.buckets.take_left(key).map_err(Untaken::Refused)?, false),
            Some(leases) => leases.take(key, &self.buckets)?,
        };
        Ok(Taken { left: Some(left), held: is_held.into() })
    }

    fn give_back(&self, key: &LimitKey<'_>, was_held: bool) {
        match &self.leases {
            None => self.buckets.give_back(key, NonZeroU32::MIN),
            Some(leases) => leases.give_back(key, &self.buckets, was_held),
        }
    }

    fn look(&self, key: &LimitKey<'_>) -> Result<(), Duration> {
        match &self.leases {
            None => self.buckets.look(key),
            Some(leases) => leases.look(key),
        }
    }
}

impl RateLimit {
    fn rate(&self) -> Rate {
        Rate::new(self.burst.unwrap_or(self.requests).get(), self.window / self.requests.get())
    }
}

/// Leaks each name once. All names come from the configuration, so there are few.
fn kept(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock();
    match names.get(name) {
        Some(known) => known,
        None => {
            let name: &'static str = Box::leak(name.into());
            names.insert(name);
            name
        }
    }
}

impl CallerLimits {
    /// Makes limits that use the clock `time`, none of which is in force. They count together with other gates if the
    /// limits for attempts do.
    pub fn new(attempts: &Limits, time: Arc<dyn TimeSource>) -> Self {
        Self { in_force: Mutex::default(), time, shared: attempts.shared.clone() }
    }

    /// Returns the current limit with this name and property, and its counts. Otherwise returns a new limit.
    // Requirement K21.
    pub fn running_limit(&self, name: &str, limit: &RateLimit) -> Arc<RunningLimit> {
        let counts_the_same =
            |known: &&Arc<RunningLimit>| known.name == name && known.per == limit.per && known.over == limit.over;
        let in_force = self.in_force.lock();
        in_force.iter().find(counts_the_same).map(Arc::clone).unwrap_or_else(|| self.new_limit(kept(name), limit))
    }

    fn new_limit(&self, name: &'static str, limit: &RateLimit) -> Arc<RunningLimit> {
        let RateLimit { per, over, .. } = limit;
        let times: &[u32] = if *per == LimitPer::Address { &[1, SITE_56, SITE_48] } else { &[1] };
        let leases = || match (over, &self.shared) {
            (LimitOver::Gates, Some(shared)) => Some(Leases::new(name, Arc::clone(shared))),
            // Without other gates, the local counts are exact.
            (LimitOver::Gates, None) | (LimitOver::Gate, _) => None,
        };
        let counters = times.iter().map(|times| RequestCounters {
            times: *times,
            buckets: Buckets::new(BUCKET_BITS, wider(limit.rate(), *times), Arc::clone(&self.time)),
            leases: leases(),
        });
        let (counters, per, over) = (counters.collect(), per.clone(), *over);
        let (requests, window) = (AtomicU32::new(limit.requests.get()), AtomicU64::new(nanos(limit.window)));
        Arc::new(RunningLimit { name, per, over, counters, refused: AtomicU64::new(0), requests, window })
    }

    /// Replaces the limits in force.
    pub fn use_limits<'a>(&self, limits: impl Iterator<Item = (&'a Arc<RunningLimit>, &'a RateLimit)>) {
        *self.in_force.lock() = limits
            .map(|(running, limit)| {
                running.set_rate(limit);
                Arc::clone(running)
            })
            .collect();
    }

    /// Counts a request against all limits, or against none. Calls `told` with each limit and its remaining requests.
    ///
    /// # Errors
    /// The limit that refuses the request, or the limit for which the store must be queried first.
    // Requirement K18.
    pub fn take_request<'l>(
        limits: &mut dyn Iterator<Item = &'l RunningLimit>,
        request: &LimitedRequest<'_>,
        told: &mut dyn FnMut(&'l RunningLimit, Left),
    ) -> Result<(), Unmet> {
        let Some(first) = limits.next() else { return Ok(()) };
        let key = first.key(request);
        let taken = match first.take(&key) {
            Ok(taken) => taken,
            Err(Untaken::Pending(ask)) => return Err(Unmet::Pending(PendingLease { limit: first.name, ask })),
            Err(Untaken::Refused(wait)) => {
                first.refused.fetch_add(1, Ordering::Relaxed);
                return Err(Unmet::Refused(first.name, wait));
            }
        };
        if let Some(left) = taken.left {
            told(first, left);
        }
        Self::take_request(limits, request, told).inspect_err(|_| first.give_back(&key, &taken))
    }

    /// Checks whether a limit would refuse a request, without counting the request.
    // Requirement K24.
    pub fn look_request<'l>(
        limits: impl Iterator<Item = &'l RunningLimit>,
        request: &LimitedRequest<'_>,
    ) -> Result<(), Unmet> {
        let refusal = |limit: &RunningLimit| limit.look(&limit.key(request)).err().map(|wait| (limit.name, wait));
        let refused = { limits }.find_map(refusal);
        refused.map_or(Ok(()), |(name, wait)| Err(Unmet::Refused(name, wait)))
    }

    /// The number of requests and the window of a limit in force.
    pub fn quota(&self, name: &str) -> Option<(u32, Duration)> {
        self.in_force.lock().iter().find(|limit| limit.name == name).map(|limit| limit.quota())
    }

    /// The number of requests that each limit refused.
    pub fn refused_requests(&self) -> Vec<(&'static str, u64)> {
        let in_force = self.in_force.lock();
        in_force.iter().map(|limit| (limit.name, limit.refused.load(Ordering::Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests;

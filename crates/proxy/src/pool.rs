//! The addresses of one upstream. Of two random addresses, the one with fewer requests in flight is used.
//!
//! Callers and client addresses have shares of an upstream's slots, which apply only under contention (requirement A17,
//! see [`Usage`]).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::address::{Address, Connector};
use super::counts::UpstreamCounts;
use super::error::ProxyError;
use super::queue::Queue;
use super::upstream::Upstream;
use super::url::{HttpUrl, UpstreamUrl};
use super::{UpstreamAddress, UpstreamReport};
use http::HeaderValue;
use rotogate_core::counters::SeldomByKind;
use rotogate_core::overload::{Holder, Shares, Usage};

mod slot;

pub(super) use slot::InFlightSlot;

const MAX_ADDRESSES_PER_NAME: usize = 64;

pub(super) type Resolver = Arc<dyn Fn(&HttpUrl) -> Resolving + Send + Sync>;
pub(super) type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's resolver, which does not report how long a result is valid.
pub(super) fn system_resolver() -> Resolver {
    Arc::new(|url| {
        let host = (url.name().to_owned(), url.port());
        Box::pin(async move { Ok(tokio::net::lookup_host(host).await?.take(MAX_ADDRESSES_PER_NAME).collect()) })
    })
}

pub(super) struct Pool {
    pub(super) upstream: Upstream,
    pub(super) counts: Arc<UpstreamCounts>,
    connecting: Connector,
    /// Replaces the caller's `Authorization`.
    pub(super) authorization: Option<HeaderValue>,
    resolver: Resolver,
    addresses: ArcSwap<Vec<Arc<Address>>>,
    callers: Shares,
    clients: Shares,
    queue: Queue<InFlightSlot>,
    all_ejected: AtomicBool,
    /// Allows one DNS lookup at a time. Waiting tasks use the result of the running lookup.
    looking: Mutex<()>,
    lookups: AtomicU64,
    is_name_failing: AtomicBool,
    /// Limits each kind of message to one per minute, so that an outage does not flood the log.
    seldom: SeldomByKind,
    began: Instant,
}

impl Pool {
    pub(super) fn new(
        upstream: Upstream,
        connecting: Connector,
        counts: Arc<UpstreamCounts>,
        authorization: Option<HeaderValue>,
        resolver: Resolver,
    ) -> Self {
        let pool = Self {
            upstream,
            counts,
            connecting,
            authorization,
            resolver,
            addresses: ArcSwap::default(),
            callers: Shares::new(0),
            clients: Shares::new(0),
            queue: Queue::default(),
            all_ejected: AtomicBool::new(false),
            looking: Mutex::new(()),
            lookups: AtomicU64::new(0),
            is_name_failing: AtomicBool::new(false),
            seldom: SeldomByKind::default(),
            began: Instant::now(),
        };
        // The first lookup adds the addresses of host names.
        let found = pool.upstream.urls.iter().map(|url| Ok(fixed(url).unwrap_or_default())).collect();
        pool.settle(found);
        pool
    }

    pub(super) fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let urls = &self.upstream.urls;
        if urls.iter().any(|url| fixed(url).is_none()) {
            let pool = Arc::clone(self);
            tasks.spawn(async move {
                loop {
                    pool.look_up().await;
                    tokio::time::sleep(pool.upstream.dns_refresh).await;
                }
            });
        }
        if urls.iter().all(|url| *url == UpstreamUrl::Echo) {
            return;
        }
        let pool = Arc::clone(self);
        tasks.spawn(async move {
            for turn in 0_usize.. {
                let number = pool.all().len().max(1);
                // Addresses are renewed one after the other, so that connections do not all open at once.
                let share = pool.upstream.max_connection_age / u32::try_from(number).unwrap_or(u32::MAX);
                tokio::time::sleep(share).await;
                if let Some(address) = pool.all().get(turn % number) {
                    address.renew(&pool.connecting);
                }
            }
        });
        if let Some(check) = self.upstream.health.clone() {
            let pool = Arc::clone(self);
            tasks.spawn(async move { pool.keep_checking(&check).await });
        }
    }

    pub(super) fn all(&self) -> Arc<Vec<Arc<Address>>> {
        self.addresses.load_full()
    }

    pub(super) fn report(&self) -> UpstreamReport {
        let all = self.addresses.load();
        let unhealthy_after = self.upstream.health.as_ref().map(|check| check.unhealthy_after);
        let state = |address: &Address| match address.is_ejected() {
            false if address.is_failing(&self.upstream) => "failing",
            false => "up",
            true if unhealthy_after.is_some_and(|bound| address.bad_checks() >= bound) => "unhealthy",
            true => "ejected",
        };
        let addresses: Vec<_> = all
            .iter()
            .map(|address| UpstreamAddress {
                name: address.name().to_owned(),
                state: state(address),
                in_flight: address.load(),
            })
            .collect();
        let number = |state: &str| addresses.iter().filter(|address| address.state == state).count();
        UpstreamReport {
            name: self.upstream.name.clone(),
            counted: self.counts.total(),
            in_flight: addresses.iter().map(|address| address.in_flight).sum(),
            connections: self.counts.connections(),
            up: number("up"),
            failing: number("failing"),
            ejected: number("ejected"),
            unhealthy: number("unhealthy"),
            addresses,
        }
    }

    /// Returns `None` if `tried` contains all addresses.
    ///
    /// # Errors
    /// Fails if all slots are full or reserved, or if no address is known.
    pub(super) async fn enter(
        self: &Arc<Self>,
        tried: &[Arc<Address>],
        holders: RequestHolders,
    ) -> Result<Option<InFlightSlot>, ProxyError> {
        let is_retry = !tried.is_empty();
        if is_retry || self.queue.is_empty() {
            let taken = match self.take(tried, holders) {
                Err(NoPlace::Unknown) => {
                    self.first_look_up().await?;
                    self.take(tried, holders)
                }
                taken => taken,
            };
            match taken {
                Ok(slot) => return Ok(Some(slot)),
                Err(NoPlace::NoOther) => return Ok(None),
                Err(NoPlace::Unknown) => return Err(ProxyError::Unreachable),
                // A retry does not wait in the queue.
                Err(NoPlace::Full) if is_retry => return Err(ProxyError::Overloaded),
                Err(NoPlace::Share) if is_retry => return Err(ProxyError::ShareTaken),
                Err(NoPlace::Full | NoPlace::Share) => {}
            }
        }
        Box::pin(self.wait(holders)).await.map(Some)
    }

    async fn wait(self: &Arc<Self>, holders: RequestHolders) -> Result<InFlightSlot, ProxyError> {
        let mut waiting = match self.queue.enter(holders, || self.take(&[], holders).ok()) {
            Ok(slot) => return Ok(slot),
            Err(waiting) => waiting,
        };
        let given = tokio::time::timeout(self.upstream.queue_timeout, &mut waiting.place).await;
        let is_full = self.places(&self.addresses.load()).usage.is_full();
        let why = if is_full { ProxyError::Overloaded } else { ProxyError::ShareTaken };
        given.map_err(|_| why)?.map_err(|_| ProxyError::Overloaded)
    }

    fn serve_waiting(self: &Arc<Self>) {
        while !self.queue.is_empty() {
            let places = self.places(&self.addresses.load());
            let rank = |holders| self.rank(&places, holders);
            if places.usage.is_full() || !self.queue.serve(rank, |holders| self.take(&[], holders).ok()) {
                return;
            }
        }
    }

    /// Returns the largest used fraction of the holders' shares, or `None` if the holders must not get another slot.
    fn rank(&self, places: &Places, holders: RequestHolders) -> Option<u64> {
        let mut rank = 0;
        let (caller, client) = (holders.caller.map(|it| self.callers.held(it)), holders.client);
        let is_beyond = caller.is_some_and(|held| held >= places.each_caller);
        let client = client.filter(|_| !is_beyond).map(|client| self.clients.held(client));
        for (held, each) in [(caller, places.each_caller), (client, places.each_client)] {
            let Some(held) = held else { continue };
            if !places.usage.admits(held, 1, each) {
                return None;
            }
            rank = rank.max((held as u64).saturating_mul(1 << 20) / (each as u64).max(1));
        }
        Some(rank)
    }

    fn places(&self, all: &[Arc<Address>]) -> Places {
        let Upstream { max_requests, max_requests_per_caller, max_requests_per_address, .. } = self.upstream;
        let (number, used) = match all {
            [only] => (1, only.load()),
            several => {
                let counted = |all: &mut dyn Iterator<Item = &Arc<Address>>| {
                    all.fold((0, 0), |(number, used), address| (number + 1, used + address.load()))
                };
                match counted(&mut several.iter().filter(|address| !address.is_ejected())) {
                    // If all addresses are ejected, all are used.
                    (0, _) => counted(&mut several.iter()),
                    in_service => in_service,
                }
            }
        };
        Places {
            usage: Usage::new(max_requests.saturating_mul(number), used),
            each_caller: max_requests_per_caller.saturating_mul(number),
            each_client: max_requests_per_address.saturating_mul(number),
        }
    }

    fn take(self: &Arc<Self>, tried: &[Arc<Address>], holders: RequestHolders) -> Result<InFlightSlot, NoPlace> {
        let all = self.addresses.load();
        if all.is_empty() {
            return Err(NoPlace::Unknown);
        }
        let Places { usage, each_caller, each_client } = self.places(&all);
        let RequestHolders { caller, mut client } = holders;
        if let Some(caller) = caller {
            let before = self.callers.enter(caller, 1, each_caller, usage).ok_or(NoPlace::Share)?;
            // Only slots within the caller's share count for the client address. Other callers at the address keep
            // their share.
            client = client.filter(|_| before < each_caller);
        }
        let mut counted = RequestHolders { caller, client: None };
        let taken = match client {
            Some(client) if self.clients.enter(client, 1, each_client, usage).is_none() => Err(NoPlace::Share),
            client => {
                counted.client = client;
                self.choose(&all, tried)
            }
        };
        match taken {
            Ok(address) => Ok(InFlightSlot { pool: Arc::clone(self), holders: counted, address }),
            Err(why) => {
                self.leave(counted);
                Err(why)
            }
        }
    }

    fn leave(&self, holders: RequestHolders) {
        if let Some(caller) = holders.caller {
            self.callers.leave(caller, 1);
        }
        if let Some(client) = holders.client {
            self.clients.leave(client, 1);
        }
    }

    fn choose(&self, all: &[Arc<Address>], tried: &[Arc<Address>]) -> Result<Arc<Address>, NoPlace> {
        let enter = |address: &Arc<Address>| {
            let entered = address.enter(self.upstream.max_requests);
            entered.then(|| Arc::clone(address))
        };
        if let ([only], []) = (all, tried) {
            return enter(only).ok_or(NoPlace::Full);
        }
        // If all addresses are ejected, all are used, because otherwise every request would fail.
        let none_in_service = all.iter().all(|address| address.is_ejected());
        let fits = |address: &&Arc<Address>| {
            (none_in_service || !address.is_ejected()) && !tried.iter().any(|other| Arc::ptr_eq(other, address))
        };
        let candidates: Vec<&Arc<Address>> = all.iter().filter(fits).collect();
        let taken = match candidates.as_slice() {
            [] => return Err(NoPlace::NoOther),
            [only] => enter(only),
            several => {
                let first = fastrand::usize(..several.len());
                let second = (first + 1 + fastrand::usize(..several.len() - 1)) % several.len();
                let pair = [several.get(first), several.get(second)];
                let lesser = pair.into_iter().flatten().min_by_key(|address| address.load());
                lesser.and_then(|address| enter(address)).or_else(|| several.iter().find_map(|address| enter(address)))
            }
        };
        taken.ok_or(NoPlace::Full)
    }

    async fn first_look_up(self: &Arc<Self>) -> Result<(), ProxyError> {
        Box::pin(self.look_up()).await;
        if self.addresses.load().is_empty() { Err(ProxyError::Unreachable) } else { Ok(()) }
    }

    async fn look_up(self: &Arc<Self>) {
        let before = self.lookups.load(Ordering::Acquire);
        let _one = self.looking.lock().await;
        if self.lookups.load(Ordering::Acquire) != before {
            return;
        }
        let limit = self.connecting.timeout();
        let found = join_all(self.upstream.urls.iter().map(async |url| match (fixed(url), url.address()) {
            (None, Some(address)) => {
                let found = tokio::time::timeout(limit, (self.resolver)(address)).await;
                let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
                // An empty result counts as a failed lookup.
                if found.is_empty() {
                    Err(io::ErrorKind::NotFound.into())
                } else {
                    Ok(found.into_iter().map(Some).collect())
                }
            }
            (fixed, _) => Ok(fixed.unwrap_or_default()),
        }));
        let found: Vec<io::Result<Vec<_>>> = found.await;
        let name = self.upstream.name.as_str();
        match found.iter().find_map(|found| found.as_ref().err()) {
            Some(error) if !self.is_name_failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(upstream = name, %error, "host name lookup failed; known addresses stay in use");
            }
            Some(_) => {}
            None if self.is_name_failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(upstream = name, "host name lookup works again");
            }
            None => {}
        }
        self.settle(found);
        self.lookups.fetch_add(1, Ordering::Release);
        // New addresses may have free slots for waiting requests.
        self.serve_waiting();
    }

    /// A failed lookup keeps the known addresses.
    fn settle(&self, found: Vec<io::Result<Vec<Option<SocketAddr>>>>) {
        let known = self.all();
        let mut now: Vec<Arc<Address>> = Vec::new();
        for (url, found) in self.upstream.urls.iter().zip(found) {
            let of_url = |address: &&Arc<Address>| address.url == *url;
            let found = found.unwrap_or_else(|_| known.iter().filter(of_url).map(|address| address.to).collect());
            for to in found {
                let is_it = |address: &&Arc<Address>| address.url == *url && address.to == to;
                if now.iter().any(|address| is_it(&address)) {
                    continue;
                }
                let address = known.iter().find(is_it).map(Arc::clone);
                now.push(address.unwrap_or_else(|| Arc::new(Address::new(url.clone(), to, &self.connecting))));
            }
        }
        let same = known.len() == now.len() && known.iter().zip(&now).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            let shown: Vec<_> = now.iter().map(|address| address.to_string()).collect();
            tracing::debug!(upstream = self.upstream.name, addresses = shown.join(", "), "upstream addresses changed");
            self.addresses.store(Arc::new(now));
        }
    }

    pub(super) fn eject(self: &Arc<Self>, address: &Arc<Address>, reason: &str, time: Option<Duration>) {
        let name = self.upstream.name.as_str();
        tracing::warn!(
            upstream = name,
            %address,
            reason,
            seconds = time.map(|time| time.as_secs()),
            "address ejected"
        );
        if self.all().iter().all(|address| address.is_ejected()) && !self.all_ejected.swap(true, Ordering::Relaxed) {
            tracing::warn!(upstream = name, "all addresses of the upstream are ejected; the gate still uses them all");
        }
        if let Some(time) = time {
            let (pool, address) = (Arc::downgrade(self), Arc::downgrade(address));
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                if let (Some(pool), Some(address)) = (Weak::upgrade(&pool), Weak::upgrade(&address))
                    && address.readmit(&pool.upstream)
                {
                    pool.readmitted(&address);
                }
            });
        }
    }

    /// Returns the number of suppressed messages, or `None` if a message of this kind must not be logged yet.
    // Requirement O31.
    pub(super) fn is_due(&self, kind: &'static str) -> Option<u64> {
        self.seldom.is_due(kind, self.began.elapsed())
    }

    pub(super) fn log_recovery(&self, address: &Address) {
        if let Some(others) = self.is_due("answers_again") {
            tracing::info!(upstream = self.upstream.name, %address, others, "address responds again");
        }
    }

    pub(super) fn readmitted(self: &Arc<Self>, address: &Address) {
        self.all_ejected.store(false, Ordering::Relaxed);
        tracing::info!(upstream = self.upstream.name, %address, "address readmitted");
        self.serve_waiting();
    }
}

rotogate_core::debug_with!(Pool { upstream, all() });

/// The IP address in a URL, or `None` for a host name. For `echo:`, the list has one entry without an address.
fn fixed(url: &UpstreamUrl) -> Option<Vec<Option<SocketAddr>>> {
    match url.address() {
        None => Some(vec![None]),
        Some(address) => address.ip().map(|ip| vec![Some((ip, address.port()).into())]),
    }
}

enum NoPlace {
    Unknown,
    Full,
    /// The free slots are reserved for holders that are below their shares.
    Share,
    NoOther,
}

/// The usage of an upstream's slots, and the share of each caller and each client address.
struct Places {
    usage: Usage,
    each_caller: usize,
    each_client: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RequestHolders {
    pub(super) caller: Option<Holder>,
    pub(super) client: Option<Holder>,
}

//! The addresses of one upstream, and the choice among them: of two random addresses, the one with fewer requests in
//! flight (power of two choices). A host name has as many addresses as it resolves to; it is looked up again regularly.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

use super::address::{Address, Connector};
use super::counts::UpstreamCounts;
use super::error::ProxyError;
use super::upstream::Upstream;
use super::url::{HttpUrl, UpstreamUrl};
use super::{UpstreamAddress, UpstreamReport};
use http::HeaderValue;
use rotogate::overload::{Holder, Shares};

/// The most addresses of one name.
const MAX_ADDRESSES_PER_NAME: usize = 64;

/// Finds the addresses of a host.
pub(super) type Resolver = Arc<dyn Fn(&HttpUrl) -> Resolving + Send + Sync>;
pub(super) type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's resolver, which does not report how long an answer is valid.
pub(super) fn system_resolver() -> Resolver {
    Arc::new(|url| {
        let host = (url.name().to_owned(), url.port());
        Box::pin(async move { Ok(tokio::net::lookup_host(host).await?.take(MAX_ADDRESSES_PER_NAME).collect()) })
    })
}

/// An upstream in service.
pub(super) struct Pool {
    pub(super) upstream: Upstream,
    pub(super) counts: Arc<UpstreamCounts>,
    connecting: Connector,
    /// Replaces the caller's.
    pub(super) authorization: Option<HeaderValue>,
    resolver: Resolver,
    addresses: ArcSwap<Vec<Arc<Address>>>,
    callers: Shares,
    clients: Shares,
    /// Notified when a request leaves an address while others wait.
    freed: Notify,
    waiting: AtomicUsize,
    all_ejected: AtomicBool,
    /// One lookup at a time; tasks that waited use its result.
    looking: Mutex<()>,
    lookups: AtomicU64,
    is_name_failing: AtomicBool,
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
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            all_ejected: AtomicBool::new(false),
            looking: Mutex::new(()),
            lookups: AtomicU64::new(0),
            is_name_failing: AtomicBool::new(false),
        };
        // Names wait for their first lookup.
        let found = pool.upstream.urls.iter().map(|url| Ok(fixed(url).unwrap_or_default())).collect();
        pool.settle(found);
        pool
    }

    /// Spawns the background tasks: lookups, connection renewal and health checks.
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
                // One address after the other, so that not all connections are opened at once.
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

    /// Its figures.
    pub(super) fn report(&self) -> UpstreamReport {
        let all = self.addresses.load();
        let unhealthy_after = self.upstream.health.as_ref().map(|check| check.unhealthy_after);
        let state = |address: &Address| match address.is_ejected() {
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
            ejected: number("ejected"),
            unhealthy: number("unhealthy"),
            addresses,
        }
    }

    /// An address for a request that was already tried at `tried`. `None`: there is no other.
    ///
    /// # Errors
    /// All addresses stay full, a holder is at its share, or no address is known.
    pub(super) async fn enter(
        self: &Arc<Self>,
        tried: &[Arc<Address>],
        holders: RequestHolders,
    ) -> Result<Option<InFlightSlot>, ProxyError> {
        self.ready().await?;
        let share = SharePermit::take(self, holders).ok_or(ProxyError::ShareTaken)?;
        let in_flight = |address| InFlightSlot { share, address };
        match self.choose(tried) {
            Choice::Taken(taken) => return Ok(Some(in_flight(taken))),
            Choice::NoOther => return Ok(None),
            // A retry does not queue.
            Choice::Full if !tried.is_empty() => return Err(ProxyError::Overloaded),
            Choice::Full => {}
        }
        let waiting = async {
            let _waiter = Waiter::new(&self.waiting);
            loop {
                let mut freed = pin!(self.freed.notified());
                freed.as_mut().enable();
                match self.choose(tried) {
                    Choice::Taken(taken) => return Some(taken),
                    Choice::NoOther => return None,
                    Choice::Full => freed.await,
                }
            }
        };
        let taken = Box::pin(tokio::time::timeout(self.upstream.queue_timeout, waiting)).await;
        taken.map(|taken| taken.map(in_flight)).map_err(|_| ProxyError::Overloaded)
    }

    fn choose(&self, tried: &[Arc<Address>]) -> Choice {
        let all = self.addresses.load();
        let enter = |address: &Arc<Address>| {
            let entered = address.enter(self.upstream.max_requests);
            entered.then(|| Arc::clone(address))
        };
        if let ([only], []) = (all.as_slice(), tried) {
            return enter(only).map_or(Choice::Full, Choice::Taken);
        }
        // If all are ejected, all are used: that is better than none.
        let none_in_service = all.iter().all(|address| address.is_ejected());
        let fits = |address: &&Arc<Address>| {
            (none_in_service || !address.is_ejected()) && !tried.iter().any(|other| Arc::ptr_eq(other, address))
        };
        let candidates: Vec<&Arc<Address>> = all.iter().filter(fits).collect();
        let taken = match candidates.as_slice() {
            [] => return Choice::NoOther,
            [only] => enter(only),
            several => {
                let first = fastrand::usize(..several.len());
                let second = (first + 1 + fastrand::usize(..several.len() - 1)) % several.len();
                let pair = [several.get(first), several.get(second)];
                let lesser = pair.into_iter().flatten().min_by_key(|address| address.load());
                lesser.and_then(|address| enter(address)).or_else(|| several.iter().find_map(|address| enter(address)))
            }
        };
        taken.map_or(Choice::Full, Choice::Taken)
    }

    /// Waits for the first lookup if no address is known.
    async fn ready(&self) -> Result<(), ProxyError> {
        if !self.addresses.load().is_empty() {
            return Ok(());
        }
        Box::pin(self.look_up()).await;
        if self.addresses.load().is_empty() { Err(ProxyError::Unreachable) } else { Ok(()) }
    }

    async fn look_up(&self) {
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
                // An empty answer counts as a failed lookup.
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
                tracing::info!(upstream = name, "host name lookup recovered");
            }
            None => {}
        }
        self.settle(found);
        self.lookups.fetch_add(1, Ordering::Release);
    }

    /// Applies the addresses found for each URL. A URL whose lookup failed keeps its addresses.
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

    /// Logs the ejection of an address, and schedules its readmission after `time`.
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
            tracing::warn!(upstream = name, "all addresses ejected; all stay in use");
        }
        if let Some(time) = time {
            let (pool, address) = (Arc::downgrade(self), Arc::downgrade(address));
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                if let (Some(pool), Some(address)) = (Weak::upgrade(&pool), Weak::upgrade(&address))
                    && address.readmit(&pool.upstream)
                {
                    pool.log_readmission(&address);
                }
            });
        }
    }

    /// Logs that an address is in service again.
    pub(super) fn log_readmission(&self, address: &Address) {
        self.all_ejected.store(false, Ordering::Relaxed);
        tracing::info!(upstream = self.upstream.name, %address, "address readmitted");
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("upstream", &self.upstream).field("addresses", &self.all()).finish_non_exhaustive()
    }
}

/// The addresses in a URL itself; `None` for a name.
fn fixed(url: &UpstreamUrl) -> Option<Vec<Option<SocketAddr>>> {
    match url.address() {
        None => Some(vec![None]),
        Some(address) => address.ip().map(|ip| vec![Some((ip, address.port()).into())]),
    }
}

enum Choice {
    Taken(Arc<Address>),
    Full,
    NoOther,
}

/// The holders of a request: the requests of one caller, and of one client address, are bounded at each upstream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestHolders {
    pub(super) caller: Option<Holder>,
    pub(super) client: Option<Holder>,
}

/// What a request takes of its holders' shares, until dropped.
struct SharePermit {
    pool: Arc<Pool>,
    holders: RequestHolders,
}

impl SharePermit {
    fn take(pool: &Arc<Pool>, holders: RequestHolders) -> Option<Self> {
        let Upstream { max_requests_per_caller, max_requests_per_address, .. } = pool.upstream;
        let addresses = pool.addresses.load().len();
        let enter = |shares: &Shares, holder: Option<Holder>, each: usize| {
            holder.is_none_or(|holder| shares.enter_within(holder, 1, each.saturating_mul(addresses)))
        };
        if !enter(&pool.callers, holders.caller, max_requests_per_caller) {
            return None;
        }
        // From here on, dropping `share` returns what was taken.
        let mut share = Self { pool: Arc::clone(pool), holders: RequestHolders { client: None, ..holders } };
        if !enter(&pool.clients, holders.client, max_requests_per_address) {
            return None;
        }
        share.holders = holders;
        Some(share)
    }
}

impl Drop for SharePermit {
    fn drop(&mut self) {
        let leave = |shares: &Shares, holder: Option<Holder>| {
            if let Some(holder) = holder {
                shares.leave(holder, 1);
            }
        };
        leave(&self.pool.callers, self.holders.caller);
        leave(&self.pool.clients, self.holders.client);
    }
}

/// A request at an address, counted there until dropped.
pub(super) struct InFlightSlot {
    share: SharePermit,
    pub(super) address: Arc<Address>,
}

impl InFlightSlot {
    /// Counts a failure of the address.
    pub(super) fn record_failure(&self, reason: &str) {
        // A single address is never ejected: there would be no other.
        let pool = &self.share.pool;
        if pool.all().len() < 2 {
            return;
        }
        if let Some(time) = self.address.record_failure(&pool.upstream) {
            let time = pool.upstream.health.is_none().then_some(time);
            pool.eject(&self.address, reason, time);
        }
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        self.address.leave();
        let pool = &self.share.pool;
        // Where none waits, nothing is written that all workers would share. No wake-up is lost: a waiter counts itself
        // before it looks for a place, this looks for waiters after it left one, and all four are sequentially consistent.
        if pool.waiting.load(Ordering::SeqCst) > 0 {
            pool.freed.notify_one();
        }
    }
}

/// A request that waits for a place at an address, counted until dropped.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for InFlightSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlightSlot({})", self.address)
    }
}

//! The addresses of one upstream, and the choice among them: of two that are picked at random the one with fewer
//! requests on their way. A host name is as many addresses as it stands for, looked up again and again.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

use super::address::{Address, Connecting};
use super::error::ProxyError;
use super::upstream::Upstream;
use super::url::{HttpUrl, UpstreamUrl};
use rotogate::overload::{Holder, Shares};

/// More addresses than this of one name are not taken.
const MOST_OF_A_NAME: usize = 64;

/// Finds the addresses of a host.
pub(super) type Resolver = Arc<dyn Fn(&HttpUrl) -> Resolving + Send + Sync>;
pub(super) type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Asks the system, which says nothing about how long its answer holds.
pub(super) fn system_resolver() -> Resolver {
    Arc::new(|url| {
        let host = (url.name().to_owned(), url.port());
        Box::pin(async move { Ok(tokio::net::lookup_host(host).await?.take(MOST_OF_A_NAME).collect()) })
    })
}

/// An upstream in use.
pub(super) struct Pool {
    pub(super) upstream: Upstream,
    connecting: Connecting,
    resolver: Resolver,
    addresses: ArcSwap<Vec<Arc<Address>>>,
    callers: Shares,
    clients: Shares,
    /// Somebody left an address.
    freed: Notify,
    all_aside: AtomicBool,
    /// One looks up at a time; whoever waited for it takes what was found.
    looking: Mutex<()>,
    lookups: AtomicU64,
    name_fails: AtomicBool,
}

impl Pool {
    pub(super) fn new(upstream: Upstream, connecting: Connecting, resolver: Resolver) -> Self {
        let pool = Self {
            upstream,
            connecting,
            resolver,
            addresses: ArcSwap::default(),
            callers: Shares::new(0),
            clients: Shares::new(0),
            freed: Notify::new(),
            all_aside: AtomicBool::new(false),
            looking: Mutex::new(()),
            lookups: AtomicU64::new(0),
            name_fails: AtomicBool::new(false),
        };
        // Names wait for their first look-up.
        let found = pool.upstream.urls.iter().map(|url| Ok(fixed(url).unwrap_or_default())).collect();
        pool.settle(found);
        pool
    }

    /// Does what is to be done without a request, until the set is dropped.
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
                // One after the other, so that not all connections are opened anew at once.
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

    /// An address for a request that was at these already. `None`: there is no other.
    ///
    /// # Errors
    /// All addresses are full, and stayed so, or this holder has its share of them; or none is known.
    pub(super) async fn enter(
        self: &Arc<Self>,
        tried: &[Arc<Address>],
        whose: Whose,
    ) -> Result<Option<InFlight>, ProxyError> {
        self.ready().await?;
        let share = Share::take(self, whose).ok_or(ProxyError::ShareTaken)?;
        let in_flight = |address| InFlight { share, address };
        match self.choose(tried) {
            Choice::Taken(taken) => return Ok(Some(in_flight(taken))),
            Choice::Nobody => return Ok(None),
            // It had its time.
            Choice::Full if !tried.is_empty() => return Err(ProxyError::Overloaded),
            Choice::Full => {}
        }
        let waiting = async {
            loop {
                let mut freed = pin!(self.freed.notified());
                freed.as_mut().enable();
                match self.choose(tried) {
                    Choice::Taken(taken) => return Some(taken),
                    Choice::Nobody => return None,
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
        // Where all are aside, all are used: none at all would be worse.
        let none_in_service = all.iter().all(|address| address.is_aside());
        let fits = |address: &&Arc<Address>| {
            (none_in_service || !address.is_aside()) && !tried.iter().any(|other| Arc::ptr_eq(other, address))
        };
        let candidates: Vec<&Arc<Address>> = all.iter().filter(fits).collect();
        let taken = match candidates.as_slice() {
            [] => return Choice::Nobody,
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

    /// Waits for the first look-up of names, if there is nothing else.
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
                // Nowhere at all is no answer to go by.
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
            Some(error) if !self.name_fails.swap(true, Ordering::Relaxed) => {
                tracing::warn!(upstream = name, %error, "a host name is not found; its known addresses stay in use");
            }
            Some(_) => {}
            None if self.name_fails.swap(false, Ordering::Relaxed) => {
                tracing::info!(upstream = name, "the host name is found again");
            }
            None => {}
        }
        self.settle(found);
        self.lookups.fetch_add(1, Ordering::Release);
    }

    /// Takes what was found for each URL; one that was not found keeps what it had.
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
            tracing::debug!(
                upstream = self.upstream.name,
                addresses = shown.join(", "),
                "the addresses are others now"
            );
            self.addresses.store(Arc::new(now));
        }
    }

    /// An address is out of service from now on.
    pub(super) fn put_aside(self: &Arc<Self>, address: &Arc<Address>, reason: &str, time: Option<Duration>) {
        let name = self.upstream.name.as_str();
        tracing::warn!(
            upstream = name,
            %address,
            reason,
            seconds = time.map(|time| time.as_secs()),
            "an address is put aside"
        );
        if self.all().iter().all(|address| address.is_aside()) && !self.all_aside.swap(true, Ordering::Relaxed) {
            tracing::warn!(upstream = name, "all addresses are put aside, so all are used");
        }
        if let Some(time) = time {
            let (pool, address) = (Arc::downgrade(self), Arc::downgrade(address));
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                if let (Some(pool), Some(address)) = (Weak::upgrade(&pool), Weak::upgrade(&address))
                    && address.readmit(&pool.upstream)
                {
                    pool.is_back(&address);
                }
            });
        }
    }

    /// An address is in service again.
    pub(super) fn is_back(&self, address: &Address) {
        self.all_aside.store(false, Ordering::Relaxed);
        tracing::info!(upstream = self.upstream.name, %address, "an address is used again");
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("upstream", &self.upstream).field("addresses", &self.all()).finish_non_exhaustive()
    }
}

/// The addresses that a URL itself says; `None` for a name.
fn fixed(url: &UpstreamUrl) -> Option<Vec<Option<SocketAddr>>> {
    match url.address() {
        None => Some(vec![None]),
        Some(address) => address.ip().map(|ip| vec![Some((ip, address.port()).into())]),
    }
}

enum Choice {
    Taken(Arc<Address>),
    Full,
    Nobody,
}

/// Whose a request is: what one caller and one client address may have of an upstream is bounded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Whose {
    pub(super) caller: Option<Holder>,
    pub(super) client: Option<Holder>,
}

/// A request's part of the shares of its holders, until this is dropped.
struct Share {
    pool: Arc<Pool>,
    whose: Whose,
}

impl Share {
    fn take(pool: &Arc<Pool>, whose: Whose) -> Option<Self> {
        let Upstream { max_requests_per_caller, max_requests_per_address, .. } = pool.upstream;
        let addresses = pool.addresses.load().len();
        let enter = |shares: &Shares, holder: Option<Holder>, each: usize| {
            holder.is_none_or(|holder| shares.enter_within(holder, 1, each.saturating_mul(addresses)))
        };
        if !enter(&pool.callers, whose.caller, max_requests_per_caller) {
            return None;
        }
        // From here on it is given back.
        let mut share = Self { pool: Arc::clone(pool), whose: Whose { client: None, ..whose } };
        if !enter(&pool.clients, whose.client, max_requests_per_address) {
            return None;
        }
        share.whose = whose;
        Some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let leave = |shares: &Shares, holder: Option<Holder>| {
            if let Some(holder) = holder {
                shares.leave(holder, 1);
            }
        };
        leave(&self.pool.callers, self.whose.caller);
        leave(&self.pool.clients, self.whose.client);
    }
}

/// A request at an address, counted there until this is dropped.
pub(super) struct InFlight {
    share: Share,
    pub(super) address: Arc<Address>,
}

impl InFlight {
    /// The address did not do what it is there for.
    pub(super) fn failed(&self, reason: &str) {
        // Where there is no other, nothing is won by leaving it.
        let pool = &self.share.pool;
        if pool.all().len() < 2 {
            return;
        }
        if let Some(time) = self.address.failed(&pool.upstream) {
            let time = pool.upstream.health.is_none().then_some(time);
            pool.put_aside(&self.address, reason, time);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.address.leave();
        self.share.pool.freed.notify_one();
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlight({})", self.address)
    }
}

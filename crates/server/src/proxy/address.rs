//! One address of an upstream: its connections, its load, and whether it is in service.
//!
//! **Put aside** is an address that failed [`Upstream::max_failures`] times in a row: no connection, a handshake that
//! failed, a connection that broke or spoke no HTTP before the head of a response, or no head in time. What an upstream
//! answers, a 5xx too, is no failure: one bad page would take all its addresses away. It comes back after a time, and
//! then the first failure puts it aside again, for twice as long; or, where its health is checked, with good checks.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio_rustls::TlsConnector;

use super::Settings;
use super::body::Lent;
use super::dial::{Dial, Holding};
use super::error::Unanswered;
use super::http1::{Connections, InUse};
use super::tls::{BadTls, server_name};
use super::upstream::{LONGEST_ASIDE, Upstream};
use super::url::UpstreamUrl;
use crate::lane::Lane;

/// How often an HTTP/2 connection in use is asked whether it is alive, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of a reply over HTTP/1.1 is read before its client takes it; a head must fit into it, too.
const MAX_UNTAKEN: usize = 64 * 1024;
/// The same over HTTP/2. Of the connection, all replies together: never less than all of them may hold, or a few clients
/// that do not read would stop what everybody else waits for on the same connection.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// How much of one request's body waits in an HTTP/2 connection.
const MAX_UNSENT: usize = 64 * 1024;

/// Keeps connections.
type Requests = legacy::Client<Dial, Lent>;

/// See the module.
pub(super) struct Address {
    pub(super) url: UpstreamUrl,
    /// Nobody for `echo:`.
    pub(super) to: Option<SocketAddr>,
    /// As logs name it.
    name: Box<str>,
    clients: Option<ArcSwap<Clients>>,
    in_flight: AtomicUsize,
    aside: AtomicBool,
    /// In a row; and how often in a row it was put aside.
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Checks of its health, in a row.
    good_checks: AtomicU32,
    bad_checks: AtomicU32,
}

/// The connections to an address, of each lane.
pub(super) struct Clients(Box<[Client]>);

/// Those of one lane.
enum Client {
    /// Nothing is to be agreed on.
    Http1(Connections),
    /// The version of HTTP is agreed on with each connection, or is HTTP/2, which has one for all requests.
    Any(Box<Any>),
}

struct Any {
    requests: Requests,
    /// An upgrade is HTTP/1.1's (RFC 9113 §8.6), so it has connections on which nothing else was agreed.
    upgrades: Requests,
    /// A connection of HTTP/1.1 that carried so many requests is closed. `None` where all are HTTP/2.
    requests_each: Option<NonZeroU32>,
}

impl Any {
    async fn send(&self, mut request: Request<Lent>, upgrade: bool) -> Result<Response<Incoming>, legacy::Error> {
        let client = if upgrade { &self.upgrades } else { &self.requests };
        let Some(most) = self.requests_each else { return client.request(request).await };
        let connection = capture_connection(&mut request);
        let response = client.request(request).await?;
        if response.version() < Version::HTTP_2
            && let Some(holding) = response.extensions().get::<Holding>()
            && holding.count_response() >= most.get()
            && let Some(connected) = connection.connection_metadata().as_ref()
        {
            // The library does not use a poisoned connection again; the response is still read to its end.
            connected.poison();
        }
        Ok(response)
    }
}

impl Clients {
    /// Sends a request and brings back the head of the response, with what its body comes over where that is ours to
    /// keep.
    pub(super) async fn send(
        &self,
        request: Request<Lent>,
        upgrade: bool,
    ) -> Result<(Response<Incoming>, Option<InUse>), Unanswered> {
        match Lane::of(&self.0).ok_or_else(|| Unanswered::unconnected("there is no lane"))? {
            Client::Http1(connections) => {
                connections.send(request).await.map(|(response, in_use)| (response, Some(in_use)))
            }
            // Boxed: it is large, and everybody would carry its size about.
            Client::Any(any) => Ok((Box::pin(any.send(request, upgrade)).await?, None)),
        }
    }
}

/// How connections of an upstream are opened.
pub(super) struct Connecting {
    dial: Dial,
    tls: Option<TlsParts>,
    pool_idle: Duration,
    /// For each lane.
    pool_size: usize,
    lanes: usize,
    requests_each: NonZeroU32,
}

struct TlsParts {
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    name: Option<String>,
}

impl Connecting {
    pub(super) fn new(upstream: &Upstream, settings: &Settings) -> Result<Self, BadTls> {
        let tls = if upstream.urls.iter().any(|url| matches!(url, UpstreamUrl::Https(_))) {
            let mut http1 = upstream.tls.load()?;
            http1.alpn_protocols = vec![b"http/1.1".to_vec()];
            let mut any = http1.clone();
            // In HTTP/2 `:authority` would have to be the client's host, and connections are kept by it.
            if !upstream.preserve_host {
                any.alpn_protocols.insert(0, b"h2".to_vec());
            }
            Some(TlsParts { any: Arc::new(any), http1: Arc::new(http1), name: upstream.tls.server_name.clone() })
        } else {
            None
        };
        let dial = Dial {
            to: ([0, 0, 0, 0], 0).into(),
            timeout: upstream.connect_timeout.unwrap_or(settings.connect_timeout),
            socket_buffer: settings.socket_buffer,
            tls: None,
        };
        let lanes = settings.lanes;
        let pool_size = settings.pool_size.div_ceil(lanes.max(1));
        let requests_each = upstream.requests_per_connection();
        Ok(Self { dial, tls, pool_idle: settings.pool_idle, pool_size, lanes, requests_each })
    }

    /// For a connection, and for the look-up before it.
    pub(super) fn timeout(&self) -> Duration {
        self.dial.timeout
    }

    /// `None` for a name that no certificate could have.
    fn clients(&self, url: &UpstreamUrl, to: SocketAddr) -> Option<Clients> {
        Lane::each(self.lanes, || self.client(url, to)).into_iter().collect::<Option<_>>().map(Clients)
    }

    fn client(&self, url: &UpstreamUrl, to: SocketAddr) -> Option<Client> {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.pool_idle)
            .pool_max_idle_per_host(self.pool_size)
            .retry_canceled_requests(true)
            .timer(TokioTimer::new())
            .http1_max_buf_size(MAX_UNTAKEN)
            .http2_max_send_buf_size(MAX_UNSENT)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .set_host(false);
        let dial = Dial { to, ..self.dial.clone() };
        match url {
            UpstreamUrl::Echo => None,
            UpstreamUrl::Http(_) => {
                let mut http1 = http1::Builder::new();
                http1.max_buf_size(MAX_UNTAKEN);
                let (keep_for, most) = (self.pool_idle, self.pool_size);
                Some(Client::Http1(Connections::new(dial, http1, keep_for, most, self.requests_each)))
            }
            UpstreamUrl::H2c(_) => {
                let requests: Requests = builder.http2_only(true).build(dial);
                Some(Client::Any(Box::new(Any { upgrades: requests.clone(), requests, requests_each: None })))
            }
            UpstreamUrl::Https(url) => {
                let tls = self.tls.as_ref()?;
                let name = server_name(tls.name.as_deref().unwrap_or(url.name())).ok()?;
                let with = |config: &Arc<ClientConfig>| Some((TlsConnector::from(Arc::clone(config)), name.clone()));
                // The version is chosen with the connection, so `Host` is left to the client, which knows it then.
                builder.set_host(true);
                let requests = builder.build(Dial { tls: with(&tls.any), ..dial.clone() });
                let upgrades = builder.build(Dial { tls: with(&tls.http1), ..dial });
                Some(Client::Any(Box::new(Any { requests, upgrades, requests_each: Some(self.requests_each) })))
            }
        }
    }
}

impl Address {
    pub(super) fn new(url: UpstreamUrl, to: Option<SocketAddr>, connecting: &Connecting) -> Self {
        let clients = to.and_then(|to| connecting.clients(&url, to)).map(ArcSwap::from_pointee);
        let name = name(&url, to).into();
        Self {
            url,
            to,
            name,
            clients,
            in_flight: AtomicUsize::new(0),
            aside: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            good_checks: AtomicU32::new(0),
            bad_checks: AtomicU32::new(0),
        }
    }

    /// As logs name it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn clients(&self) -> Option<Arc<Clients>> {
        self.clients.as_ref().map(ArcSwap::load_full)
    }

    /// From now on requests go over new connections; each of the old ones ends with the request that it carries.
    pub(super) fn renew(&self, connecting: &Connecting) {
        if let (Some(clients), Some(to)) = (&self.clients, self.to)
            && let Some(new) = connecting.clients(&self.url, to)
        {
            clients.store(Arc::new(new));
        }
    }

    pub(super) fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more request, unless there are `most`.
    pub(super) fn enter(&self, most: usize) -> bool {
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1)).is_ok()
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_aside(&self) -> bool {
        self.aside.load(Ordering::Relaxed)
    }

    pub(super) fn succeeded(&self) {
        // Mostly there is nothing to write.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.ejections.load(Ordering::Relaxed) != 0 && !self.is_aside() {
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// Is it put aside by this? Then `Some`, with the time after which it comes back, unless checks bring it back.
    pub(super) fn failed(&self, upstream: &Upstream) -> Option<Duration> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < upstream.max_failures || self.aside.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.good_checks.store(0, Ordering::Relaxed);
        let before = self.ejections.fetch_add(1, Ordering::Relaxed).min(16);
        Some(upstream.eject_for.saturating_mul(1 << before).min(LONGEST_ASIDE.max(upstream.eject_for)))
    }

    /// Its time is over: one failure more puts it aside again.
    pub(super) fn readmit(&self, upstream: &Upstream) -> bool {
        self.failures.store(upstream.max_failures.saturating_sub(1), Ordering::Relaxed);
        self.aside.swap(false, Ordering::Relaxed)
    }

    /// A check went well. Is it back by this?
    pub(super) fn is_well(&self, healthy_after: u32) -> bool {
        self.bad_checks.store(0, Ordering::Relaxed);
        let good = self.good_checks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let is_back = good >= healthy_after && self.aside.swap(false, Ordering::Relaxed);
        if is_back {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
        }
        is_back
    }

    /// A check failed. Is it put aside by this?
    pub(super) fn is_unwell(&self, unhealthy_after: u32) -> bool {
        self.good_checks.store(0, Ordering::Relaxed);
        let bad = self.bad_checks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        bad >= unhealthy_after && !self.aside.swap(true, Ordering::Relaxed)
    }
}

/// How logs name an address.
fn name(url: &UpstreamUrl, to: Option<SocketAddr>) -> String {
    match (url.address(), to) {
        // A name stands for several.
        (Some(url), Some(to)) if url.ip().is_none() => format!("{} ({to})", url.authority()),
        (Some(url), Some(_)) => url.authority().to_string(),
        (None, _) | (_, None) => "echo:".to_owned(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
